"""Answers what a view asks about texts, with the maps as they are now: scores, details, generations, places.

One question at a time, in the thread that computes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inspector.engine.decomposition import decompose
from inspector.errors import DataError, UsageError, nearest
from inspector.session import documents
from inspector.session.cards import Latent
from inspector.session.documents import NO_GUESSES, Document, Guesses, KeptDocuments
from inspector.session.fitting import PolicyFit, policy_fits, policy_set
from inspector.session.latents import link_to
from inspector.session.protocol import (
    AnalysePrompt,
    ContextScores,
    Find,
    Found,
    Generate,
    Generated,
    GetContext,
    GetDetail,
    GetPairs,
    Hit,
    LoadProgress,
    Pairs,
    Policy,
    PolicySet,
    SetPolicy,
    TokenDetail,
)
from inspector.sources.forward import loss_of

if TYPE_CHECKING:
    from inspector.sources.model import Step
    from inspector.sources.sae import LoadedSae
    from inspector.sources.target import Loaded

N_LATENTS = 64
MOST_HITS = 500
"""Of one search; more than can be stepped through."""
LONGEST_TOKEN = 128
"""Characters; the longest of the vocabularies in use are runs of 128 spaces."""
FEW_TOKENS = 32
"""An SAE takes a single token as it is but fills up anything more to 256: so few are quicker one by one."""
MOST_OWN = 256
"""Texts of the views' own whose tokens are remembered, a few kilobytes each."""
REPLACEMENTS = ("Sae", "Sae + linear", "Sae + nonlinear")


class Texts:
    """Everything that is looked at, by each view under its own policy. Maps come from the background fit.

    Args:
        loaded: the target.
        tell: told, with the view that waits for it, how much of an SAE in slices has come.
    """

    def __init__(self, loaded: Loaded, tell: Callable[[int, LoadProgress], None] = lambda view, told: None) -> None:
        self.loaded = loaded
        self.in_slices = any(sae.comes_in_slices for sae in loaded.saes)
        """Whether some SAEs are brought for each text; then `scored` shows what is there before all of it is."""
        self._tell = tell
        self._looked_at: dict[int, str] = {}
        """By view, the SAE that it asked for first."""
        self.fits = policy_fits(loaded)
        self.kept = KeptDocuments()
        self._policies: dict[int, Policy] = {}
        """By view, of those that asked for one."""
        self._saes = {sae.ref.sae_id: sae for sae in loaded.saes}
        self._own: OrderedDict[tuple[str, int, int], list[int]] = OrderedDict()
        """Token ids of what views typed or let the model write, by source, view and number: read again when needed."""
        self._index: TextIndex | None = None

    def policy(self, view: int) -> Policy:
        """What the view asked for last."""
        return self._policies.get(view, "excluded")

    def set_policy(self, view: int, asked: SetPolicy) -> PolicySet:
        """From now on the view's texts are scored under another policy."""
        self._policies[view] = asked.policy
        return policy_set(self.loaded, asked.policy, asked.request)

    def forget(self, view: int) -> None:
        """The view has gone: its prompt, its generation and its policy go too."""
        self.kept.drop(lambda key: key[1] == view)
        for key in [key for key in self._own if key[1] == view]:
            del self._own[key]
        self._policies.pop(view, None)
        self._looked_at.pop(view, None)

    # ---- whole texts ------------------------------------------------------------------------------------------

    def context(self, view: int, asked: GetContext) -> ContextScores:
        """Scores of one context."""
        return self._scores(self._context(asked.context), asked.request, self._fit(view))

    def prompt(self, view: int, asked: AnalysePrompt) -> ContextScores:
        """Scores of a text of the view's own."""
        return self._scores(self._prompt(view, asked), asked.request, self._fit(view))

    def scored(self, view: int, asked: GetContext | AnalysePrompt) -> Iterator[ContextScores]:
        """Scores of a text as far as they are known without bringing an SAE, then again with each that was brought; the
        next is always the one that the view looks at by then.
        """
        self._looked_at[view] = asked.first or self._looked_at.get(view, "")
        document = self._context(asked.context) if isinstance(asked, GetContext) else self._prompt(view, asked)
        yield from self._in_turn(view, document, asked.request)

    def scored_again(self, view: int, source: str, number: int) -> Iterator[ContextScores]:
        """As `scored`, with the maps of now; of a text of the view's own nothing if it was dropped for room."""
        document = self._context(number) if source == "context" else self.kept.get((source, view, number))
        if document is not None:
            yield from self._in_turn(view, document, 0)

    def _in_turn(self, view: int, document: Document, request: int) -> Iterator[ContextScores]:
        def waiting() -> list[LoadedSae]:
            missing = [sae for sae in self.loaded.saes if sae.comes_in_slices and not documents.has(document, sae)]
            return sorted(missing, key=lambda sae: sae.ref.sae_id != self._looked_at.get(view))

        yield self._scores(document, request, self._fit(view), waiting())
        while missing := waiting():
            with self._told(view, missing[0]):
                documents.reconstruct(document, missing[0], len(self.loaded.saes))
            yield self._scores(document, request, self._fit(view), waiting())

    @contextmanager
    def _told(self, view: int, sae: LoadedSae) -> Iterator[None]:
        """The view is told how much of the SAE has come, twenty times at most."""
        sae_id, before = sae.ref.sae_id, -1
        place = "device" if self.loaded.memory is None else self.loaded.memory.place_of(sae_id)

        def telling(done: int, total: int) -> None:
            nonlocal before
            if before != (before := 20 * done // max(1, total)):
                told = LoadProgress(what=sae_id, detail=place, done_bytes=done, total_bytes=total, for_text=True)
                self._tell(view, told)

        sae.telling = telling
        try:
            yield
        finally:
            sae.telling = None

    def _prompt(self, view: int, asked: AnalysePrompt) -> Document:
        ids = asked.token_ids or self._encoded(asked.text)
        self._require_known(ids, "token_ids")
        self._require_length(len(ids))
        key = (asked.source, view, asked.number)
        document = self._run(asked.source, ids, _title(asked.text), asked.number)
        self._keep(key, ids)
        self.kept.put(key, document)
        return document

    def own_again(self, view: int, source: str, number: int) -> ContextScores | None:
        """A text of the view's own with the maps of now; None if there is none or it was dropped for room."""
        document = self.kept.get((source, view, number))
        return None if document is None else self._scores(document, 0, self._fit(view))

    def _keep(self, key: tuple[str, int, int], ids: list[int]) -> None:
        self._own[key] = ids
        self._own.move_to_end(key)
        while len(self._own) > MOST_OWN:
            self._own.popitem(last=False)

    def _require_known(self, ids: Sequence[int], field: str) -> None:
        size = self.loaded.model.vocab_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise UsageError(f"{field} holds {wrong}, but the model has {size} tokens. Send the ids of a context.")

    def generate(self, view: int, asked: Generate) -> Iterator[Generated | None]:
        """A generation, one item per sampled token; what is checked is checked at once, before the first item."""
        ids = list(asked.prompt_ids) or self.loaded.model.encode("")
        self._require_length(len(ids), room=1)
        self._require_known(ids, "prompt_ids")
        steps = self.loaded.model.generate(
            ids,
            self.loaded.hook_name,
            max_tokens=max(1, min(asked.max_tokens, self.loaded.model.n_ctx - len(ids))),
            temperature=asked.temperature,
            seed=asked.seed,
        )
        told: list[int] = []
        own = ("generated", view, asked.number)
        self._keep(own, told)
        self.kept.drop(lambda key: key == own)
        fit = replace(self._fit(view))  # the maps of now, whatever is fitted until it ends

        def message(new: list[Step], start: int, finished: bool) -> Generated:
            token_ids, x = [token for step in new for token in step.token_ids], torch.cat([step.x for step in new])
            documents.require_finite(x, self.loaded.hook_name, f"the generated text from position {start}")
            told.extend(token_ids)
            document = self._document("generated", token_ids, x, documents.losses_of(new), NO_GUESSES)
            return Generated(
                request=asked.request,
                start=start,
                loss_before=new[0].loss_before,
                finished=finished,
                **documents.token_scores(document, self.loaded.saes, fit, singly=len(token_ids) <= FEW_TOKENS),
            )

        spelled = self.loaded.model.spelled
        return documents.in_messages(steps, message, lambda waiting: documents.n_whole(waiting, spelled))

    # ---- one token --------------------------------------------------------------------------------------------

    def detail(self, view: int, asked: GetDetail) -> TokenDetail:
        """Latents and guesses at one token."""
        document, sae, fit = self.at(view, asked)
        with self._told(view, sae):
            replaced = self._with_sae(document, sae, fit)  # first: of one in slices it finds all tokens' latents
            latents = documents.active_latents(document, sae, asked.position)
        text_of = self.loaded.model.token_text
        guesses = {"model": document.guesses.at(asked.position, text_of)}
        guesses |= {name: made.at(asked.position, text_of) for name, made in replaced.items()}
        return TokenDetail(
            request=asked.request,
            source=asked.source,
            context=asked.context,
            position=asked.position,
            sae_id=asked.sae_id,
            latents=[
                Latent(index=index, activation=activation, link=link_to(sae.ref, index))
                for index, activation in latents[:N_LATENTS]
            ],
            n_active=len(latents),
            guesses=guesses,
        )

    def at(self, view: int, asked: GetDetail) -> tuple[Document, LoadedSae, PolicyFit]:
        """The text, the SAE and the maps that a question about a token means.

        Raises:
            UsageError: there is no such SAE, text or position.
        """
        sae = self._sae(asked.sae_id)
        document = self._named(view, asked)
        if not 0 <= asked.position < len(document.token_ids):
            raise UsageError(
                f"Position {asked.position} is not in a text of {len(document.token_ids)} tokens. "
                "Ask for one that was shown."
            )
        return document, sae, self._fit(view)

    # ---- all texts --------------------------------------------------------------------------------------------

    def find(self, _view: int, asked: Find) -> Found:
        """Search the contexts."""
        if self._index is None:
            self._index = TextIndex(self.loaded.contexts.token_ids.tolist(), self.loaded.model.spelled)
        return self._index.find(asked)

    def pairs(self, view: int, asked: GetPairs) -> Pairs:
        """R-squared between the SAEs' errors."""
        for sae_id in asked.sae_ids:
            self._sae(sae_id)
        return self._fit(view).norms.pairs(asked)

    # ---- how --------------------------------------------------------------------------------------------------

    def _fit(self, view: int) -> PolicyFit:
        return self.fits[self.policy(view)]

    def _scores(
        self, document: Document, request: int, fit: PolicyFit, waiting: Sequence[LoadedSae] = ()
    ) -> ContextScores:
        message = ContextScores(
            request=request,
            source=document.source,
            context=document.context,
            name=document.name,
            waiting=[sae.ref.sae_id for sae in waiting],
            **documents.token_scores(document, self.loaded.saes, fit, without=waiting),
        )
        self.kept.shrink()  # reconstructions have been added to it
        return message

    def _context(self, index: int) -> Document:
        contexts = self.loaded.contexts
        if not 0 <= index < len(contexts.token_ids):
            raise UsageError(f"There is no context {index}. The contexts are 0 to {len(contexts.token_ids) - 1}.")
        document = self.kept.get(("context", 0, index))
        if document is None:
            document = self._run("context", contexts.token_ids[index].tolist(), contexts.names[index], index)
            self.kept.put(("context", 0, index), document)
        return document

    def _run(self, source: str, ids: list[int], name: str, index: int = 0) -> Document:
        """A text as the model reads it: a context, or one that is not among them."""
        hook_name = self.loaded.hook_name
        tokens = torch.tensor([ids], dtype=torch.int64)
        with torch.inference_mode():
            done = self.loaded.model.forward(tokens, (hook_name,))
            x = done.activations[hook_name][0]
            where = f"context {index} ({name})" if source == "context" else f"the {source}"
            documents.require_finite(x, hook_name, where)
            outputs = done.outputs[0].kept()
            loss, guesses = loss_of(outputs, tokens[0]).cpu(), documents.guesses_of(outputs)
        return self._document(source, ids, x, loss, guesses, name=name, index=index)

    def _document(
        self, source: str, ids: list[int], x: Tensor, loss: Tensor, guesses: Guesses, *, name: str = "", index: int = 0
    ) -> Document:
        special, outliers = self.loaded.model.special_ids, self.loaded.outliers
        apart = [False] * len(ids) if outliers is None else outliers.among(x).tolist()
        splits: dict[Policy, str] = {}
        for policy, fit in self.fits.items():
            split = fit.split_of(index) if source == "context" else fit.split_of_ids(ids, special)
            splits[policy] = "".join(
                "o" if out and letter != "x" else letter for letter, out in zip(split, apart, strict=True)
            )
        return Document(
            source=source,
            context=index,
            name=name,
            token_ids=ids,
            tokens=self.loaded.model.spelled(ids),
            splits=splits,
            x=x,
            loss=loss,
            guesses=guesses,
        )

    def _named(self, view: int, asked: GetDetail) -> Document:
        """The document a view means; run again if it was dropped for room or has grown."""
        if asked.source == "context":
            return self._context(asked.context)
        key = (asked.source, view, asked.context)
        document, ids = self.kept.get(key), self._own.get(key)
        if ids and (document is None or len(document.token_ids) != len(ids)):
            document = self._run(asked.source, list(ids), asked.source, asked.context)
            self.kept.put(key, document)
        if document is None:
            raise UsageError(f"There is no text {asked.source!r} of this view. Send the prompt again.")
        return document

    @torch.inference_mode()
    def _with_sae(self, document: Document, sae: LoadedSae, fit: PolicyFit) -> dict[str, Guesses]:
        """Guesses with each replacement spliced in at the document's scored positions; kept per SAE, policy and fit."""
        sae_id = sae.ref.sae_id
        error_map = fit.maps.get(sae_id)
        known = document.with_sae.get((sae_id, fit.policy))
        if known is not None and known[0] == fit.epoch:
            return known[1]
        _, x_hat = documents.reconstruct(document, sae, len(self.loaded.saes))
        outputs = [x_hat]
        if error_map is not None:
            parts = decompose(document.x, x_hat, error_map)
            outputs += [x_hat + parts.linear_error, x_hat + parts.nonlinear_error]
        inside = document.spliced(fit.policy).to(document.x.device)[:, None]
        tokens = torch.tensor([document.token_ids], dtype=torch.int64)
        made: list[Guesses] = []
        for output in outputs:  # one by one, as the model runs them: three texts' logits may be gigabytes
            row = torch.where(inside, output, document.x)[None]
            made.append(documents.guesses_of(self.loaded.model.splice(tokens, self.loaded.hook_name, row).outputs[0]))
        guesses = dict(zip(REPLACEMENTS, made, strict=False))
        document.with_sae[(sae_id, fit.policy)] = (fit.epoch, guesses)
        return guesses

    def _sae(self, sae_id: str) -> LoadedSae:
        if sae_id not in self._saes:
            raise UsageError(f"The SAE {sae_id!r} is not loaded.{nearest(sae_id, self._saes)}")
        return self._saes[sae_id]

    def _encoded(self, text: str) -> list[int]:
        """Token ids of typed text; megabytes that no model reads are refused before they are tokenised."""
        most = self.loaded.model.n_ctx * LONGEST_TOKEN
        if len(text) > most:
            raise DataError(
                f"The text has {len(text):,} characters, more than the {self.loaded.model.n_ctx:,} tokens that the "
                "model reads can hold. Shorten it."
            )
        return self.loaded.model.encode(text)

    def _require_length(self, n_tokens: int, *, room: int = 0) -> None:
        limit = self.loaded.model.n_ctx - room
        if not n_tokens:
            raise DataError("The text has no tokens and the model no token to begin with. Type something.")
        if n_tokens > limit:
            what = " and needs room for at least one more" if room else ""
            raise DataError(
                f"The text has {n_tokens} tokens, but the model reads {self.loaded.model.n_ctx}{what}. Shorten it."
            )


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


class TextIndex:
    """The searchable text of all contexts, across token boundaries.

    Joined per context and searched as one string; what is found is counted back to the token it begins in. Built when
    first asked for: 300 contexts of 1024 tokens take a tenth of a second then, and a few milliseconds per search.

    Args:
        token_ids: ids of every context.
        texts_of: texts of the tokens of one context.
    """

    def __init__(self, token_ids: Sequence[Sequence[int]], texts_of: Callable[[Sequence[int]], Sequence[str]]) -> None:
        # Folded token by token, so that a letter that grows when lowered ('İ') does not shift what follows it.
        folded: dict[str, str] = {}
        self._texts = [[folded.setdefault(text, text.lower()) for text in texts_of(ids)] for ids in token_ids]
        self._joined = ["".join(texts) for texts in self._texts]

    def find(self, asked: Find) -> Found:
        """Where the text begins, in order; a token in which it begins twice counts once. An empty text is nowhere."""
        needle = asked.text.lower()
        hits: list[Hit] = []
        for context, text in enumerate(self._joined if needle else ()):
            for position in self._positions(text, needle, self._texts[context]):
                if len(hits) == MOST_HITS:
                    return Found(request=asked.request, hits=hits, truncated=True)
                hits.append(Hit(context=context, position=position))
        return Found(request=asked.request, hits=hits)

    def _positions(self, text: str, needle: str, texts: Sequence[str]) -> Iterable[int]:
        if needle not in text:
            return ()
        starts = list(accumulate(map(len, texts), initial=0))
        matches = re.finditer(f"(?={re.escape(needle)})", text)  # overlapping ones too
        # The last token that starts at or before the match: tokens without text share a start with their successor.
        return dict.fromkeys(bisect_right(starts, match.start(), hi=len(texts)) - 1 for match in matches)
