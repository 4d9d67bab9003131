"""Why an SAE fails on a token: what its nonlinear_error there looks like, what it does, and what would take it up.

Answered in short steps, as generations are, from the text and the maps that the view sees. Every number stands beside
what it would be if there were nothing to see: random vectors of the same norm, other tokens, other latents.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inspector.engine.directions import explained_by, greedy_fit, nearest_rows, random_like
from inspector.errors import UsageError, nearest
from inspector.session import documents
from inspector.session.cards import (
    AnatomyCard,
    Directions,
    Moved,
    Neighbour,
    Share,
    Splice,
    TakenUp,
    Wider,
    Width,
)
from inspector.session.latents import decoder_blocks, rows_of, told
from inspector.session.protocol import Anatomy, GetAnatomy
from inspector.session.similar import N_RANDOM, parts_of, split_at
from inspector.session.texts import REPLACEMENTS
from inspector.statistics.grouping import nearest_l0

if TYPE_CHECKING:
    from inspector.session.documents import Document
    from inspector.session.fitting import PolicyFit
    from inspector.session.texts import Texts
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

N_OTHERS = 20
"""Other tokens of the text, at most."""
N_DIRECTIONS = 10
FITS = (1, 5, 10)
N_MOVED = 8
LIKELY = 1e-4
"""A token that is less probable than this both with a splice and without it is not told of, however its logit moves."""
N_SPLICED = 4
"""Random directions that are spliced; each is a run of the model."""
N_TAKEN_UP = 24


def anatomy_of(texts: Texts, view: int, asked: GetAnatomy) -> Iterator[Anatomy | None]:
    """One item per step, the last one the answer; what is checked is checked at once, before the first item.

    Raises:
        UsageError: there is no such text, position or SAE, or `wider` is none.
        DataError: the SAE's map is not fitted yet.
    """
    document, sae, fit = split_at(texts, view, asked)
    saes = _per_width(texts.loaded.saes, sae)
    wider, why = _wider(texts.loaded, saes, sae, asked.wider)
    return _Anatomy(texts.loaded, document, sae, fit, asked.position).answer(asked, saes, wider, why)


def _per_width(saes: tuple[LoadedSae, ...], chosen: LoadedSae) -> list[LoadedSae]:
    """Per width the SAE of the nominal L0 nearest to the chosen one's; that itself for its own width."""
    near = nearest_l0(saes, chosen.ref.nominal_l0 or 0.0)
    return list(({sae.ref.d_sae: sae for sae in near} | {chosen.ref.d_sae: chosen}).values())


def _wider(loaded: Loaded, saes: list[LoadedSae], chosen: LoadedSae, asked: str) -> tuple[LoadedSae | None, str]:
    """The SAE to hold the chosen one's error against, or why there is none.

    Raises:
        UsageError: the one that was asked for is not loaded, or is not wider.
    """
    if asked:
        by_id = {sae.ref.sae_id: sae for sae in loaded.saes}
        if asked not in by_id:
            raise UsageError(f"The SAE {asked!r} is not loaded.{nearest(asked, by_id)}")
        wider = by_id[asked]
        if wider.ref.d_sae <= chosen.ref.d_sae:
            raise UsageError(
                f"SAE {asked} has {wider.ref.d_sae:,} latents, no more than the {chosen.ref.d_sae:,} of "
                f"{chosen.ref.sae_id}. Name a wider one."
            )
    else:
        wider = max(saes, key=lambda sae: sae.ref.d_sae)
        if wider.ref.d_sae <= chosen.ref.d_sae:
            return None, f"No SAE that is loaded is wider than {chosen.ref.sae_id}. Choose a narrower one."
    if not wider.is_plain:
        return None, (
            f"SAE {wider.ref.sae_id} decodes with means or scales of its own, so what each of its latents adds cannot "
            "be told apart. Name another wider one."
        )
    return wider, ""


class _Anatomy:
    """One answer under way."""

    def __init__(self, loaded: Loaded, document: Document, sae: LoadedSae, fit: PolicyFit, position: int) -> None:
        self._loaded, self._document, self._sae, self._fit, self._position = loaded, document, sae, fit, position
        self._seed = (loaded.target.seed, document.context, position)
        scored = document.spliced(fit.policy)
        scored[position] = False
        self._elsewhere = scored.nonzero()[:, 0]
        """Positions of the text's other scored tokens."""
        parts = parts_of(document, sae, fit, len(loaded.saes))
        self._nonlinear = parts.nonlinear_error[position]
        self._error = parts.sae_error[position]
        rng = np.random.default_rng(self._seed)
        drawn = np.sort(rng.permutation(len(self._elsewhere))[:N_OTHERS])
        self._others = parts.nonlinear_error[self._elsewhere[drawn].to(parts.x.device)]
        self._random = random_like(self._nonlinear, N_RANDOM, self._seed)

    def answer(
        self, asked: GetAnatomy, saes: list[LoadedSae], wider: LoadedSae | None, why: str
    ) -> Iterator[Anatomy | None]:
        """See `anatomy_of`."""
        document, position, sae = self._document, self._position, self._sae
        yield None
        widths = yield from self._widths(saes)
        directions = []
        for each in dict.fromkeys([sae, max(saes, key=lambda one: one.ref.d_sae)]):
            directions.append((yield from self._directions(each)))
        splices = yield from self._splices()
        taken = None if wider is None else (yield from self._taken_up(wider))
        tokens = document.tokens
        yield Anatomy(
            request=asked.request,
            asked=asked,
            card=AnatomyCard(
                token=tokens[position],
                following=tokens[position + 1] if position + 1 < len(tokens) else None,
                split=document.splits[self._fit.policy][position],
                d=document.x.shape[1],
                x_norm=float(_wide(document.x[position]).norm()),
                n_train=self._fit.maps[sae.ref.sae_id].n_train,
                widths=widths,
                directions=directions,
                splices=splices,
                wider=taken,
                why_no_wider=why,
            ),
        )

    # ---- between widths -----------------------------------------------------------------------------------------

    def _widths(self, saes: list[LoadedSae]) -> Generator[None, None, list[Width]]:
        """Norms, and the cosines of the nonlinear errors, here and elsewhere."""
        rows, made, own = [], [], _wide(self._nonlinear)
        for sae in saes:
            parts = parts_of(self._document, sae, self._fit, len(self._loaded.saes))
            named = (parts.sae_error, parts.linear_error, parts.nonlinear_error)
            rows.append([_wide(part[self._position]) for part in named])
            away = _wide(parts.nonlinear_error[self._elsewhere.to(parts.x.device)])
            cosines = torch.nn.functional.normalize(away, dim=1) @ torch.nn.functional.normalize(own, dim=0)
            made.append((sae.ref, float(cosines.mean()) if len(cosines) else None))
            yield None
        return [
            Width(
                sae_id=ref.sae_id,
                d_sae=ref.d_sae,
                nominal_l0=ref.nominal_l0,
                sae_error=float(error.norm()),
                linear_error=float(linear.norm()),
                nonlinear_error=float(nonlinear.norm()),
                parts_cosine=_cosine(linear, nonlinear),
                cosines=[_cosine(nonlinear, other) for _, _, other in rows],
                elsewhere=elsewhere,
            )
            for (ref, elsewhere), (error, linear, nonlinear) in zip(made, rows, strict=True)
        ]

    # ---- among the decoder's rows -------------------------------------------------------------------------------

    def _directions(self, sae: LoadedSae) -> Generator[None, None, Directions]:
        """The nearest rows, and how much a few explain, for the error and for its controls."""
        vectors = torch.cat([self._nonlinear[None], self._random, self._others])
        n_own = 1 + len(self._random)

        def blocks() -> Iterator[tuple[int, Tensor]]:
            return decoder_blocks(sae)

        indices, cosines = yield from nearest_rows(vectors[:n_own], blocks, N_DIRECTIONS, signed=False)
        fitted = yield from greedy_fit(vectors, blocks, N_DIRECTIONS)
        shares = []
        for n in FITS:
            each = fitted.explained[:, n - 1]
            random, others = each[1:n_own], each[n_own:]
            shares.append(
                Share(
                    n=n,
                    share=float(each[0]),
                    random=float(random.mean()),
                    random_most=float(random.max()),
                    others=float(others.mean()) if len(others) else None,
                )
            )
        return Directions(
            sae_id=sae.ref.sae_id,
            nearest=told(indices[0], cosines[0]),
            random_cosine=float(cosines[1:].abs().amax(dim=1).mean()),
            chosen=[index for index in fitted.indices[0].tolist() if index >= 0],
            shares=shares,
        )

    # ---- what the model makes of it -----------------------------------------------------------------------------

    def _splices(self) -> Generator[None, None, list[Splice]]:
        """The model's predictions with each replacement, and with random ones that are as far from x."""
        x = self._document.x[self._position]
        tokens = torch.tensor([self._document.token_ids])
        logits = self._loaded.model.forward(tokens).outputs[0].at(self._position)
        yield None
        linear = self._error - self._nonlinear
        missing = (
            (REPLACEMENTS[0], "sae_error", self._error),
            (REPLACEMENTS[1], "nonlinear_error", self._nonlinear),
            (REPLACEMENTS[2], "linear_error", linear),
            ("x", "", torch.zeros_like(x)),
        )
        made = []
        for arm, name, part in missing:
            spliced = self._spliced(x - part)
            yield None
            random = []
            for direction in random_like(part, N_SPLICED, self._seed) if name else ():
                random.append(_divergence(logits, self._spliced(x - direction)))
                yield None
            up, down = self._moved(logits, spliced)
            made.append(
                Splice(
                    arm=arm,
                    missing=name,
                    norm=float(_wide(part).norm()),
                    kl=_divergence(logits, spliced),
                    random_kl=sum(random) / len(random) if random else None,
                    loss=self._loss(spliced),
                    up=up,
                    down=down,
                )
            )
        return made

    def _spliced(self, replacement: Tensor) -> Tensor:
        """Logits [v] at the token with something else in x's place there."""
        row = self._document.x.clone()
        row[self._position] = replacement
        tokens = torch.tensor([self._document.token_ids])
        made = self._loaded.model.splice(tokens, self._loaded.hook_name, row[None])
        return made.outputs[0].at(self._position)

    def _loss(self, logits: Tensor) -> float | None:
        following = self._document.token_ids[self._position + 1 : self._position + 2]
        return -float(_wide(logits).log_softmax(dim=0)[following[0]]) if following else None

    def _moved(self, logits: Tensor, spliced: Tensor) -> tuple[list[Moved], list[Moved]]:
        """The likely tokens whose logits rise most, and those whose fall most."""
        n_known = min(len(logits), len(self._loaded.model.tokenizer))
        before, after = (_wide(each)[:n_known] for each in (logits, spliced))
        change = after - before - (after - before).mean()
        p, q = before.softmax(dim=0), after.softmax(dim=0)
        likely = (torch.maximum(p, q) >= LIKELY).nonzero()[:, 0]
        order = likely[change[likely].argsort(descending=True)].tolist()

        def named(ids: list[int]) -> list[Moved]:
            names = self._loaded.model.token_texts(ids)
            return [
                Moved(token=name, change=float(change[i]), before=float(p[i]), after=float(q[i]))
                for name, i in zip(names, ids, strict=True)
            ]

        up, down = [i for i in order if change[i] > 0], [i for i in reversed(order) if change[i] < 0]
        return named(up[:N_MOVED]), named(down[:N_MOVED])

    # ---- what a wider SAE knows ---------------------------------------------------------------------------------

    def _taken_up(self, wider: LoadedSae) -> Generator[None, None, Wider]:
        """Shares along the nonlinear error of everything that the wider SAE's reconstruction is made of."""
        x, r, e = _wide(self._document.x[self._position]), _wide(self._nonlinear), _wide(self._error)
        active = wider.active_latents(self._document.x[self._position])
        _, x_hat = documents.reconstruct(self._document, wider, len(self._loaded.saes))
        yield None
        places = [index for index, _ in active]
        near = rows_of(wider, places)
        rows, strength = _wide(near), torch.tensor([value for _, value in active], dtype=torch.float64)
        size = r @ r
        shares, of_error = strength * (rows @ r) / size, strength * (rows @ e) / (e @ e)
        rest = (_wide(wider.bias) - (x - r)) @ r / size
        left = (x - _wide(x_hat[self._position])) @ r / size
        known_at, known = yield from nearest_rows(near, lambda: decoder_blocks(self._sae), 1)
        inactive = np.setdiff1d(np.arange(wider.ref.d_sae), places)
        rng = np.random.default_rng(self._seed)
        drawn = []
        for _ in range(N_RANDOM if len(inactive) >= len(active) > 0 else 0):
            others = rng.choice(inactive, len(active), replace=False).tolist()
            drawn.append(float(explained_by(r[None], rows_of(wider, others))))
            yield None
        cosines = rows @ r / (rows.norm(dim=1) * r.norm()).clamp_min(1e-30)
        order = shares.argsort(descending=True)[:N_TAKEN_UP].tolist()
        return Wider(
            sae_id=wider.ref.sae_id,
            n_active=len(active),
            latents=[
                TakenUp(
                    index=active[i][0],
                    activation=active[i][1],
                    cosine=float(cosines[i]),
                    share=float(shares[i]),
                    share_of_error=float(of_error[i]),
                    known=Neighbour(index=int(known_at[i, 0]), cosine=float(known[i, 0])),
                )
                for i in order
            ],
            of_latents=float(shares.sum()),
            rest=float(rest),
            left=float(left),
            gap=float(1.0 - shares.sum() - rest - left),
            explained=float(explained_by(r[None], rows)) if active else 0.0,
            explained_random=float(explained_by(self._random, rows).mean()) if active else 0.0,
            explained_others=sum(drawn) / len(drawn) if drawn else 0.0,
        )


def _wide(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def _cosine(one: Tensor, other: Tensor) -> float | None:
    """None if one of them is zero."""
    a, b = _wide(one), _wide(other)
    sizes = float(a.norm() * b.norm())
    return float(a @ b) / sizes if sizes > 0.0 else None


def _divergence(original: Tensor, spliced: Tensor) -> float:
    """KL(original || spliced) of the next-token distributions of logits [v], nats."""
    p, q = _wide(original).log_softmax(dim=0), _wide(spliced).log_softmax(dim=0)
    return float((p.exp() * (p - q)).sum())
