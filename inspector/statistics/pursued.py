"""FVU, split and unsplit, of the encoder's codes and of pursued ones, on the same tokens and the same SAEs.

Shared by `pursuit` and `dark-matter-breakdown`. The public code compares series from different tokens, and SAEs chosen
by different rules (D-02, D-27); only its profile does so here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inspector.engine.plan import Plan, make_plan
from inspector.engine.pursuit import Codes, Pursuit, Variant
from inspector.errors import DataError
from inspector.events import Event
from inspector.sources.activations import ActivationBatch
from inspector.sources.sae import LoadedSae
from inspector.statistics.first_pass import Made, Reconstructed, Reconstruction
from inspector.statistics.grouping import nearest_l0, sample_plan, tokens_wanted
from inspector.statistics.passes import contexts_with
from inspector.statistics.pipeline import Measuring, Series, regress


@dataclass(frozen=True, kw_only=True)
class PursuedSae:
    """One SAE, with its encoder's codes and with pursued ones."""

    sae: str
    d_sae: int
    nominal_l0: float | None
    unit_norm: bool
    """Whether the decoder's rows have length 1; otherwise the careful pick is among rescaled ones."""
    encoder: Series
    pursuit: Series


@dataclass(frozen=True, kw_only=True)
class Pursued:
    """All SAEs that were pursued, by width."""

    variant: Variant
    seed: int
    """Of the run, for what is drawn from these numbers."""
    n_train: int
    n_test: int
    saes: tuple[PursuedSae, ...]
    published: tuple[tuple[str, int, Series], ...]
    """(sae, d_sae, encoder series) from positions 1 on, SAEs by measured L0: the public code's (D-02, D-27). Else
    empty."""


def measure_pursuit(
    measuring: Measuring, *, l0: float, tokens: int, variant: Variant | None
) -> Generator[Event, None, Pursued]:
    """Pursue codes for the SAEs nearest an L0, and regress both errors on x.

    Args:
        measuring: the target.
        l0: nominal L0 to be nearest to, per width; 0 takes all SAEs.
        tokens: about so many of the plan's; 0: see `tokens_wanted`.
        variant: of the pursuit; None: as the profile says.

    Raises:
        DataError: the published variant divided zero by zero.
    """
    loaded = measuring.loaded
    chosen: Variant = variant or measuring.protocol.pursuit
    d = loaded.model.check_hook(loaded.hook_name)
    plan = sample_plan(measuring.plan, tokens_wanted(tokens, d), measuring.seed)
    picks = nearest_l0(loaded.saes, l0)
    source = _Source(plan, picks, chosen)
    names = tuple(f"{way} {sae.ref.sae_id}" for sae in picks for way in ("encoder", "pursuit"))
    of = Reconstructed(names=names, made=source.made)
    on_all = measuring.protocol.fvu_on == "all"
    found = yield from regress(measuring, plan, of, name="pursuit", on_all=on_all)
    wide: tuple[tuple[str, int, Series], ...] = ()
    if measuring.protocol.breakdown_as_published:
        wide = yield from _as_published(measuring, l0, tokens_wanted(tokens, d))
    return Pursued(
        variant=chosen,
        seed=measuring.seed,
        n_train=plan.n_train,
        n_test=plan.n_test,
        saes=tuple(
            PursuedSae(
                sae=sae.ref.sae_id,
                d_sae=sae.ref.d_sae,
                nominal_l0=sae.ref.nominal_l0,
                unit_norm=source.pursuits[sae.ref.sae_id].unit_norm,
                encoder=found[f"encoder {sae.ref.sae_id}"],
                pursuit=found[f"pursuit {sae.ref.sae_id}"],
            )
            for sae in picks
        ),
        published=wide,
    )


class _Source:
    """Both reconstructions of every batch. Codes of contexts that are asked for twice are kept, which are small."""

    def __init__(self, plan: Plan, saes: Sequence[LoadedSae], variant: Variant) -> None:
        self._plan, self._saes = plan, saes
        self._both = frozenset(contexts_with(plan.train)).intersection(contexts_with(plan.test))
        self._kept: dict[tuple[str, tuple[int, ...]], Codes] = {}
        for sae in saes:
            if not sae.is_plain:
                raise DataError(
                    f"SAE {sae.ref.sae_id} normalises or centres each token before it encodes, so its x_hat is no sum "
                    "of its decoder's rows and codes cannot be pursued. Choose SAEs that read x as it is."
                )
        self.pursuits = {sae.ref.sae_id: Pursuit(sae.whole_decoder(), sae.bias, variant=variant) for sae in saes}

    def made(self, batch: ActivationBatch, rows: Tensor) -> Iterator[tuple[str, Reconstruction]]:
        """See `Reconstructed`. Whole contexts are pursued, so that what is kept of them serves both passes."""
        wanted = self._plan.included[batch.contexts, batch.positions].to(batch.x.device)
        chosen = rows.to(batch.x.device)
        for sae in self._saes:
            by_encoder = sae.reconstruct(batch.x)
            for way in ("encoder", "pursuit"):
                one = by_encoder if way == "encoder" else self._pursued(sae, batch, by_encoder.l0 * wanted)
                yield f"{way} {sae.ref.sae_id}", Made(x_hat=one.x_hat[chosen], l0=one.l0[chosen])

    def _pursued(self, sae: LoadedSae, batch: ActivationBatch, targets: Tensor) -> Made:
        group = tuple(torch.unique_consecutive(batch.contexts).tolist())
        key = sae.ref.sae_id, group
        codes = self._kept.get(key)
        if codes is None:
            codes = self.pursuits[sae.ref.sae_id].encode(batch.x, targets.long())
            if bool(codes.undefined.any()):
                raise DataError(
                    f"The published pursuit divides zero by zero at {int(codes.undefined.sum())} tokens of SAE "
                    f"{sae.ref.sae_id} (D-17). Use -p variant=careful."
                )
            assert bool((codes.l0 <= targets).all()), "a pursuit never uses more latents than it may (S-16)"
            if self._both.intersection(group):
                self._kept[key] = codes
        return Made(x_hat=self.pursuits[sae.ref.sae_id].decode(codes), l0=codes.l0)


def _as_published(
    measuring: Measuring, l0: float, tokens: int
) -> Generator[Event, None, tuple[tuple[str, int, Series], ...]]:
    """The encoder's series over positions from 1 on, per width of the SAE whose measured L0 is nearest."""
    loaded = measuring.loaded
    whole = make_plan(
        loaded.contexts.token_ids,
        loaded.model.special_ids,
        (1, None),
        loaded.target.train_tokens,
        measuring.protocol.split or loaded.target.split,
        measuring.seed,
        loaded.contexts.documents,
    )
    plan = sample_plan(whole, tokens, measuring.seed)

    found = yield from regress(
        measuring,
        plan,
        Reconstructed.by(loaded.saes),
        name="encoder, as published",
        on_all=measuring.protocol.fvu_on == "all",
    )
    picks = []
    for d_sae in sorted({sae.ref.d_sae for sae in loaded.saes}):
        same = [sae for sae in loaded.saes if sae.ref.d_sae == d_sae]
        for sae in same if l0 == 0 else [min(same, key=lambda each: abs(found[each.ref.sae_id].l0 - l0))]:
            picks.append((sae.ref.sae_id, d_sae, found[sae.ref.sae_id]))
    return tuple(picks)
