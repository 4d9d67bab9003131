"""A session without a model: the same messages, invented numbers, the same every time.

Widgets, the app and the terminal benchmarks run against it, in memory (`FakeClient`, the interface of `SessionClient`)
or over a socket (`python -m tests.fake_session --socket PATH`). Imports neither torch nor numpy, and no model is
needed. The program attaches to such a socket instead of finding or starting a session when DM_INSPECT_SESSION_SOCKET
names it. The token texts are hostile on purpose: control characters, escape sequences, wide, combining and half
characters.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec

from inspector import __version__
from inspector.events import GateLine
from inspector.session import frames
from inspector.session.cards import (
    Across,
    AnatomyCard,
    Bin,
    Directions,
    Guess,
    Latent,
    LatentCard,
    LatentExample,
    Moved,
    Neighbour,
    SaeQuality,
    SaeScores,
    Share,
    SimilarCard,
    SimilarToken,
    Splice,
    TakenUp,
    Weight,
    Wider,
    Width,
)
from inspector.session.frames import pack
from inspector.session.protocol import (
    PROTOCOL_VERSION,
    AnalysePrompt,
    Anatomy,
    Cancel,
    CancelJob,
    ContextScores,
    Failed,
    Find,
    Found,
    Generate,
    Generated,
    GetAnatomy,
    GetContext,
    GetCosts,
    GetDetail,
    GetJobLog,
    GetJobs,
    GetLatent,
    GetPairs,
    GetSimilar,
    Hello,
    Hit,
    LatentView,
    LoadProgress,
    MapImproved,
    Move,
    Pairs,
    Policy,
    PolicySet,
    Ready,
    ResumeJob,
    SessionMessage,
    SessionMoved,
    SetPolicy,
    SimilarErrors,
    StartJob,
    Stop,
    TokenDetail,
    ViewMessage,
    Welcome,
)
from inspector.spec import SaeRef
from tests.fake_jobs import FakeJobs

WIDTHS = (256, 512, 1024, 2048, 4096)
L0S = (8, 16, 32)
WORDS = (
    "def", " self", "(", ")", ":", "\n", "    ", "return", " the", " of", " a", "import", " os", ".", "path", " =",
    " 0", ",", " in", " for", " if", " not", " None", "\n\n", "        ", "class", " error", '"""', " value", "_name",
    " to", " is", "[", "]", " dark", " matter",
)  # fmt: skip
HOSTILE = (
    "\x1b[31m", "\x1b]0;pwned\x07", "\x9b2J", "\x00", "\x7f", "\t", "\r", "\r\n", "日本", "語", "é", "e\u0301",
    "\u0301",
    "\u200b", "\u202e", "�", "\u200d", "\U0001f469\u200d\U0001f52c", "", "[bold red]", "\\[", "ﷺ", "\xad", "x" * 90,
    "\u2028", "\u0600", "한", "\U0001f1e9\U0001f1ea", "\ue000",
)  # fmt: skip
VOCABULARY = (*WORDS, *HOSTILE)


def noise(*key: int) -> float:
    """A number in [0, 1) that depends on the key alone; the same on every machine and in every process."""
    state = 0x9E3779B9
    for part in key:
        state = ((state ^ (part & 0xFFFFFFFF)) * 0x85EBCA6B + 0xC2B2AE35) & 0xFFFFFFFF
        state ^= state >> 15
    return ((state * 0x27D4EB2F) & 0xFFFFFFFF) / 2**32


@dataclass
class FakeSession:
    """What the session is like. Every rate is a wish: the event loop's timers are the limit."""

    n_contexts: int = 300
    context_length: int = 256
    widths: tuple[int, ...] = WIDTHS
    l0s: tuple[int, ...] = L0S
    model: str = "demo"
    hostile_share: float = 0.05
    """Share of tokens from HOSTILE; 0 gives plain text."""
    load_seconds: float = 0.0
    """From Hello to Ready."""
    epochs: int = 8
    """Fits until the map is finished; each doubles the tokens."""
    epoch_seconds: float = 0.0
    """Between fits; 0: all fits follow Ready at once."""
    tokens_per_second: float = 0.0
    """While generating; 0: as fast as messages go."""
    messages_per_second: float = 8.0
    """At most this many Generated messages; tokens are gathered in between."""
    pause_at: int = 0
    """A generation waits there, at so many tokens with those it began with, until `goes_on` is set; 0: nowhere."""
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    job_running: float = 0.0
    """After the scripted fits, this many MapImproved per second without end, each from a few more tokens; no context is
    sent again for them."""
    answer_seconds: float = 0.0
    """Delay of every answer."""
    fail_loading: Failed | None = None
    """If given, told instead of Ready."""
    fail_fit: Failed | None = None
    """Told after the last epoch: the fit ends there."""
    failures: dict[type[ViewMessage], Failed] = field(default_factory=dict)
    """Requests of these types end so."""
    silent: set[type[ViewMessage]] = field(default_factory=set)
    """Requests of these types are never answered."""
    version: int = PROTOCOL_VERSION
    log_path: str = "/nowhere/session.log"
    jobs: FakeJobs = field(default_factory=FakeJobs)
    gate_failures: list[GateLine] = field(default_factory=list)
    download_bytes: int = 0
    """If not 0, loading begins with a download of that size, in ten reports."""
    target: tuple[str, ...] = ()
    """Options that a command for this session ends with."""

    def __post_init__(self) -> None:
        """Name the SAEs, ordered by width, then nominal L0."""
        self.layer = 3
        self.hook_name = "blocks.3.hook_resid_post"
        self.saes = [
            SaeRef(
                release="r",
                d_in=128,
                sae_id=f"layer_3/resid/width_{width}/l0_{l0}",
                d_sae=width,
                nominal_l0=float(l0),
                layer=self.layer,
                hook_name=self.hook_name,
            )
            for width in self.widths
            for l0 in self.l0s
        ]
        self.jobs.target = self.target
        self._tokens: dict[int, list[int]] = {}

    # ---- the invented corpus ----------------------------------------------------------------------------------

    def positions(self) -> tuple[int, int]:
        """As the real default: from an eighth of a context."""
        return (self.context_length // 8, self.context_length)

    def token_ids(self, context: int) -> list[int]:
        """Ids of one context; the first is the beginning-of-sequence token, 1000."""
        if context not in self._tokens:
            ids = [1000]
            for position in range(1, self.context_length):
                hostile = noise(1, context, position) < self.hostile_share
                pool, first = (HOSTILE, len(WORDS)) if hostile else (WORDS, 0)
                ids.append(first + int(noise(2, context, position) * len(pool)))
            self._tokens[context] = ids
        return self._tokens[context]

    def token_text(self, token_id: int) -> str:
        """Text of an id."""
        return "<bos>" if token_id == 1000 else VOCABULARY[token_id % len(VOCABULARY)]

    def split(self, context: int, policy: Policy = "excluded") -> str:
        """Four of five contexts train; excluded before the positions and at the last token; with the policy 'included'
        only the last."""
        letter = "h" if context % 5 == 4 else "t"
        start, stop = self.positions() if policy == "excluded" else (0, self.context_length)
        return "".join(
            letter if start <= p < min(stop, self.context_length - 1) else "x" for p in range(self.context_length)
        )

    # ---- the invented scores ----------------------------------------------------------------------------------

    def quality(self, row: int) -> tuple[float, float]:
        """(FVU, share of it that is linear) of one SAE in the end; wider and denser SAEs have less of both."""
        width, l0 = row // len(self.l0s), row % len(self.l0s)
        return 0.22 * 0.85**width * 0.75**l0, 0.5 * 0.8**width * 0.95**l0

    def scores(self, token_ids: list[int], first: int, epoch: int, salt: int) -> tuple[bytes, bytes, list[SaeScores]]:
        """Loss, x_norm and the scores per SAE for tokens from position `first` on."""
        n = len(token_ids)
        hard = [noise(3, t, salt, first + i) for i, t in enumerate(token_ids)]
        x_norm = array("f", [14.0 + 6.0 * h for h in hard])
        loss = array("f", [5.0 * h * noise(4, salt, first + i) for i, h in enumerate(hard)])
        rows = []
        for row in range(len(self.saes)):
            fvu, share = self.quality(row)
            total = array(
                "f",
                [x * math.sqrt(fvu) * (0.6 + 0.8 * noise(5, row, t)) for x, t in zip(x_norm, token_ids, strict=True)],
            )
            sharpness = 1.0 - 0.5**epoch
            shares = [min(0.98, share * (0.4 + 1.2 * h) * sharpness) for h in hard]
            missing = array("f", [math.nan] * n)
            rows.append(
                SaeScores(
                    l0=pack(array("f", [round(self.saes[row].nominal_l0 * (0.5 + h)) for h in hard])),  # type: ignore[operator]
                    sae_error_norm=pack(total),
                    linear_error_norm=pack(
                        array("f", [e * math.sqrt(s) for e, s in zip(total, shares, strict=True)]) if epoch else missing
                    ),
                    nonlinear_error_norm=pack(
                        array("f", [e * math.sqrt(1 - s) for e, s in zip(total, shares, strict=True)])
                        if epoch
                        else missing
                    ),
                )
            )
        return pack(loss), pack(x_norm), rows

    def document(
        self,
        source: str,
        context: int,
        token_ids: list[int],
        split: str,
        name: str,
        epoch: int,
        policy: Policy = "excluded",
    ) -> ContextScores:
        """A context or a prompt with all its scores; the last loss is NaN."""
        loss, x_norm, saes = self.scores(token_ids, 0, epoch, context if source == "context" else 7_000_000)
        losses = array("f")
        losses.frombytes(loss)
        losses[-1] = math.nan
        return ContextScores(
            source=source,
            context=context,
            epoch=epoch,
            policy=policy,
            name=name,
            token_ids=token_ids,
            tokens=[self.token_text(t) for t in token_ids],
            split=split,
            loss=pack(losses),
            x_norm=x_norm,
            saes=saes,
        )

    def context_scores(self, context: int, epoch: int, policy: Policy = "excluded") -> ContextScores:
        """One of the contexts."""
        start = context * (self.context_length - 1)
        name = f"fake/module_{context // 4}.py tokens {start}-{start + self.context_length - 1}"
        split = self.split(context, policy)
        return self.document("context", context, self.token_ids(context), split, name, epoch, policy)

    def prompt_ids(self, text: str) -> list[int]:
        """<bos>, then one token per word; words the vocabulary lacks become the nearest index of their length."""
        known = {word.strip(): i for i, word in enumerate(WORDS)}
        return [1000] + [known.get(word, len(word) % len(WORDS)) for word in text.split()]

    def own_scores(self, asked: AnalysePrompt, epoch: int, policy: Policy = "excluded") -> ContextScores:
        """A text of the view's own; every token but <bos> and the last is scored."""
        ids = asked.token_ids or self.prompt_ids(asked.text)
        left_out = {len(ids) - 1} | ({0} if policy == "excluded" else set())
        split = "".join("x" if i in left_out else "h" for i in range(len(ids)))
        return self.document(asked.source, asked.number, ids, split, asked.text[:40], epoch, policy)

    def policy_set(self, policy: Policy) -> PolicySet:
        """One special token at the start of each context, then those before the positions."""
        return PolicySet(policy=policy, n_special=self.n_contexts, n_before=self.n_contexts * (self.positions()[0] - 1))

    def map_improved(self, epoch: int, extra_tokens: int = 0, policy: Policy = "excluded") -> MapImproved:
        """The fit number `epoch`; r2 is withheld for the first. With special tokens everything looks better."""
        goal = 150_000
        n_tokens = min(goal, max(goal >> max(self.epochs - epoch, 0), 200) + extra_tokens)
        qualities = []
        for row in range(len(self.saes)):
            fvu, share = self.quality(row)
            r2 = share * (1 - 0.5**epoch)
            if policy == "included":
                fvu, r2 = 0.4 * fvu, 0.5 + 0.5 * r2
            half = 0.1 * 0.7**epoch
            known = epoch > 1 or self.epochs == 1
            qualities.append(
                SaeQuality(
                    r2=r2 if known else None,
                    r2_low=r2 - half if known else None,
                    r2_high=r2 + half if known else None,
                    fvu=fvu,
                    fvu_nonlinear=fvu * (1 - r2),
                    l0=self.saes[row].nominal_l0,
                    ranges=self.ranges(row, epoch),
                )
            )
        return MapImproved(
            epoch=epoch,
            n_tokens=n_tokens,
            n_tokens_goal=goal,
            n_held_out=10 * self.context_length,
            qualities=qualities,
            finished=epoch >= self.epochs and not self.job_running,
            policy=policy,
        )

    def ranges(self, row: int, epoch: int) -> dict[str, tuple[float, float]]:
        """About what the scores of an SAE run over."""
        fvu, share = self.quality(row)
        total = 17.0 * math.sqrt(fvu)
        linear, rest = math.sqrt(share * (1 - 0.5**epoch)), math.sqrt(1 - share * (1 - 0.5**epoch))
        ends = {"total": (0.7, 1.4), "linear": (0.7 * linear, 1.4 * linear), "nonlinear": (0.7 * rest, 1.4 * rest)}
        norms = {name: (low * total, high * total) for name, (low, high) in ends.items()}
        return norms | {"fvu": (fvu * (0.7 * rest) ** 2, fvu * (1.4 * rest) ** 2)}

    def detail(self, asked: GetDetail) -> TokenDetail:
        """Latents and guesses that depend on the token and the SAE."""
        row = self.row(asked.sae_id)
        n_active = int((self.saes[row].nominal_l0 or 8) * (0.5 + noise(6, row, asked.context, asked.position)))
        latents = [
            Latent(
                index=int(noise(7, row, asked.context, asked.position, k) * self.saes[row].d_sae),
                activation=12.0 * 0.9**k,
                link=f"https://example.org/latent/{k}" if k % 7 == 0 else "",
            )
            for k in range(min(n_active, 64))
        ]
        guesses = {}
        for which, name in enumerate(("model", "Sae", "Sae + linear", "Sae + nonlinear")):
            first = int(noise(8, asked.context, asked.position, which if which == 1 else 0) * len(VOCABULARY))
            guesses[name] = [
                Guess(token=VOCABULARY[(first + 5 * k) % len(VOCABULARY)], probability=(0.7 - 0.1 * which) * 0.4**k)
                for k in range(5)
            ]
        return TokenDetail(
            source=asked.source,
            context=asked.context,
            position=asked.position,
            sae_id=asked.sae_id,
            latents=latents,
            n_active=n_active,
            guesses=guesses,
        )

    def find(self, asked: Find) -> Found:
        """Searches the joined token texts of every context."""
        needle = asked.text.lower()
        hits: list[Hit] = []
        for context in range(self.n_contexts if needle else 0):
            starts, joined = [], ""
            for token in self.token_ids(context):
                starts.append(len(joined))
                joined += self.token_text(token).lower()
            at = joined.find(needle)
            while at >= 0:
                position = max(i for i, start in enumerate(starts) if start <= at)
                hits.append(Hit(context=context, position=position))
                if len(hits) >= 500:
                    return Found(hits=hits, truncated=True)
                at = joined.find(needle, at + 1)
        return Found(hits=hits)

    def latent(self, asked: GetLatent) -> LatentView:
        """Examples from the first contexts, ten neighbours, an explanation for even indices; latent 13 is dead."""
        row = self.row(asked.sae_id)
        examples = []
        for k in range(0 if asked.index == 13 else 12):
            context = (7 * k + asked.index) % self.n_contexts
            position = 40 + int(noise(20, row, asked.index, k) * (self.context_length - 60))
            start = position - 20
            ids = self.token_ids(context)[start : position + 12]
            top = 9.0 * 0.93**k
            activations = array(
                "f",
                [top if start + i == position else max(0.0, 4.0 * noise(21, row, asked.index, k, i) - 2.0)
                 for i in range(len(ids))],
            )  # fmt: skip
            examples.append(
                LatentExample(
                    context=context,
                    position=position,
                    start=start,
                    tokens=[self.token_text(t) for t in ids],
                    activations=pack(activations),
                )
            )
        d_sae = self.saes[row].d_sae
        return LatentView(
            sae_id=asked.sae_id,
            index=asked.index,
            density=0.0 if asked.index == 13 else 0.0025 if asked.index % 5 else 0.21,
            n_tokens=self.n_contexts * self.context_length,
            max_activation=9.0 if examples else 0.0,
            examples=examples,
            neighbours=[Neighbour(index=(asked.index + 31 * k) % d_sae, cosine=0.8 - 0.05 * k) for k in range(1, 11)],
            explanation=f"words about \x1b[31m{asked.index}" if asked.index % 2 == 0 else "",
            score=0.75 if asked.index % 4 == 0 else None,
            link=f"https://example.org/latent/{asked.index}" if asked.index % 3 == 0 else "",
            card=LatentCard(
                histogram=[Bin(low=2.0**k, high=2.0 ** (k + 1), n=40 >> k) for k in range(4)] if examples else [],
                drawn=[msgspec.structs.replace(each, quantile=0.9 - 0.4 * k) for k, each in enumerate(examples[9:])],
                n_drawn=24 if examples else 0,
                top=[Weight(token=self.token_text(k), logit=3.0 - 0.1 * k) for k in range(10)],
                bottom=[Weight(token=self.token_text(40 + k), logit=0.1 * k - 3.0) for k in range(10)],
                why_no_logits="",
                error_share=0.02,
                error_share_others=0.01,
                error_share_random=1 / 128,
                across=[
                    Across(
                        sae_id=sae.sae_id,
                        d_sae=sae.d_sae,
                        nearest=[Neighbour(index=(asked.index + k) % sae.d_sae, cosine=0.9 - k / 5) for k in range(3)],
                        random_cosine=0.3,
                    )
                    for sae in self.saes
                    if sae.d_sae != d_sae and sae.nominal_l0 == self.saes[row].nominal_l0
                ],
            ),
        )

    def anatomy(self, asked: GetAnatomy) -> Anatomy:
        """Twenty latents of the widest SAE take the error up; of the widest itself nothing is wider."""
        ids = self.token_ids(asked.context)
        row, at = self.row(asked.sae_id), asked.position
        same = [sae for sae in self.saes if sae.nominal_l0 == self.saes[row].nominal_l0]
        n = len(same)
        shares = [Share(n=n, share=n / 16, random=n / 20, random_most=n / 16, others=n / 20) for n in (1, 5, 10)]
        near = [Neighbour(index=10 + k, cosine=(0.4 - 0.02 * k) * (-1) ** k) for k in range(10)]
        moved = [Moved(token=self.token_text(k), change=2.0 - 0.2 * k, before=0.01, after=0.05) for k in range(8)]
        fallen = [msgspec.structs.replace(each, change=-each.change, before=0.05, after=0.01) for each in moved]
        arms = {"Sae": "sae_error", "Sae + linear": "nonlinear_error", "Sae + nonlinear": "linear_error", "x": ""}
        widest = same[-1]
        taken = [
            TakenUp(
                index=37 * k + at,
                activation=8.0 - 0.3 * k,
                cosine=0.4 - 0.02 * k,
                share=0.2 - 0.015 * k,
                share_of_error=0.25 - 0.015 * k,
                known=Neighbour(index=k, cosine=0.2 + 0.04 * k),
            )
            for k in range(16)
        ]
        return Anatomy(
            asked=asked,
            card=AnatomyCard(
                token=self.token_text(ids[at]),
                following=self.token_text(ids[at + 1]) if at + 1 < len(ids) else None,
                split="h",
                d=128,
                x_norm=38.3,
                n_train=8000,
                widths=[
                    Width(
                        sae_id=sae.sae_id,
                        d_sae=sae.d_sae,
                        nominal_l0=sae.nominal_l0,
                        sae_error=22.0 - 2 * k,
                        linear_error=13.0 - k,
                        nonlinear_error=19.0 - 2 * k,
                        parts_cosine=-0.1,
                        cosines=[0.9 ** abs(j - k) for j in range(n)],
                        elsewhere=0.02,
                    )
                    for k, sae in enumerate(same)
                ],
                directions=[
                    Directions(sae_id=sae_id, nearest=near, random_cosine=0.33, chosen=list(range(10)), shares=shares)
                    for sae_id in dict.fromkeys((asked.sae_id, widest.sae_id))
                ],
                splices=[
                    Splice(arm=arm, missing=missing, norm=22.0 if missing else 0.0, kl=0.06 if missing else 0.0,
                           random_kl=0.016 if missing else None, loss=1.25, up=moved, down=fallen)
                    for arm, missing in arms.items()
                ],
                wider=None
                if asked.sae_id == widest.sae_id
                else Wider(sae_id=widest.sae_id, n_active=16, latents=taken, of_latents=1.4, rest=-0.9, left=0.5,
                           gap=1e-7, explained=0.31, explained_random=0.125, explained_others=0.14),
                why_no_wider="No SAE that is loaded is wider." if asked.sae_id == widest.sae_id else "",
            ),
        )  # fmt: skip

    def similar(self, asked: GetSimilar) -> SimilarErrors:
        """Twelve tokens of the first contexts."""
        found = []
        for k in range(12):
            context, position = (5 * k + 1) % self.n_contexts, 40 + k
            ids = self.token_ids(context)
            around = [self.token_text(t) for t in ids[position - 8 : position + 9]]
            found.append(
                SimilarToken(context=context, position=position, cosine=0.8 - 0.03 * k, norm=9.0,
                             before="".join(around[:8]), token=around[8], after="".join(around[9:]))
            )  # fmt: skip
        return SimilarErrors(
            asked=asked,
            card=SimilarCard(
                found=found, n_searched=50_000, n_scored=60_000, random_cosine=0.36, n_same=9, share_same=0.01
            ),
        )

    def pairs(self, asked: GetPairs) -> Pairs:
        """1 on the diagonal, falling with distance; None below."""
        n = len(asked.sae_ids)
        r2: list[list[float | None]] = [
            [None if j < i else 1.0 if j == i else 0.9 * 0.93 ** (j - i) for j in range(n)] for i in range(n)
        ]
        return Pairs(sae_ids=asked.sae_ids, r2=r2, n_tokens=10 * self.context_length)

    def row(self, sae_id: str) -> int:
        """Index of an SAE; ValueError if there is none of that name."""
        return [sae.sae_id for sae in self.saes].index(sae_id)

    def ready(self) -> Ready:
        """What is loaded."""
        return Ready(
            model=self.model,
            hook_name=self.hook_name,
            layer=self.layer,
            device="cpu",
            n_contexts=self.n_contexts,
            context_length=self.context_length,
            positions=self.positions(),
            saes=self.saes,
            text="fake",
            gate_failures=self.gate_failures,
            target=list(self.target),
        )


class FakeView:
    """One attached view's side of a FakeSession: takes its messages, tells the answers through `tell`."""

    def __init__(self, session: FakeSession, tell: Callable[[SessionMessage], None]) -> None:
        self.session = session
        self.tell = tell
        self.epoch = 0
        self.policy: Policy = "excluded"
        self.loaded = asyncio.Event()
        self.received: list[ViewMessage] = []
        """Everything the view asked, in order; for assertions."""
        self.stopped = False
        self._watched: dict[int, None] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._background: asyncio.Task[None] | None = None

    def receive(self, message: ViewMessage) -> None:
        """Answer, now or in a task of the running event loop."""
        self.received.append(message)
        match message:
            case Hello():
                self._hello(message)
            case Stop():
                self.stopped = True
                self.close()
            case Cancel():
                task = self._tasks.get(message.target)
                if task is not None:
                    task.cancel()
            case _:
                task = asyncio.ensure_future(self._answer(message))
                self._tasks[message.request] = task
                task.add_done_callback(lambda _: self._tasks.pop(message.request, None))

    def close(self) -> None:
        """Stop everything under way."""
        if self.tell in self.session.jobs.tellers:
            self.session.jobs.tellers.remove(self.tell)
        for task in [*self._tasks.values(), *([self._background] if self._background else [])]:
            task.cancel()

    def improve(self, epoch: int, extra_tokens: int = 0) -> None:
        """Tell a new fit and send the watched contexts again."""
        self.epoch = epoch
        self.tell(self.session.map_improved(epoch, extra_tokens, self.policy))
        if not extra_tokens:
            for context in self._watched:
                self.tell(self.session.context_scores(context, epoch, self.policy))

    def _hello(self, hello: Hello) -> None:
        session = self.session
        if hello.version != session.version:
            self.tell(
                Failed(request=hello.request, exit_code=1, message="The session speaks another version. Stop it.")
            )
            return
        welcome = Welcome(
            request=hello.request,
            version=session.version,
            program_version=__version__,
            pid=os.getpid(),
            log_path=session.log_path,
        )
        self.tell(welcome)
        session.jobs.tellers.append(self.tell)
        self._background = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        session = self.session
        for tenth in range(11 if session.download_bytes else 0):
            if session.load_seconds:
                await asyncio.sleep(session.load_seconds / 11)
            self.tell(
                LoadProgress(
                    what=f"downloading model {session.model}",
                    seconds=9.0 if tenth == 10 else None,
                    done_bytes=session.download_bytes * tenth // 10,
                    total_bytes=session.download_bytes,
                    bytes_per_second=session.download_bytes / 9.0 if tenth else 0.0,
                )
            )
        steps = ["model", *(f"SAE {i + 1}/{len(session.saes)}" for i in range(len(session.saes))), "text"]
        for done, what in enumerate(steps):
            if session.load_seconds:
                await asyncio.sleep(session.load_seconds / len(steps))
            self.tell(LoadProgress(what=what, seconds=0.1, done=done + 1, total=len(steps)))
        if session.fail_loading is not None:
            self.tell(session.fail_loading)
            return
        self.tell(session.ready())
        self.loaded.set()
        for epoch in range(1, session.epochs + 1):
            await asyncio.sleep(session.epoch_seconds)
            self.improve(epoch)
        if session.fail_fit is not None:
            self.tell(session.fail_fit)
        extra = 0
        while session.job_running:
            await asyncio.sleep(1 / session.job_running)
            extra += 173
            self.improve(session.epochs, extra)

    async def _answer(self, message: ViewMessage) -> None:
        session, request = self.session, message.request
        try:
            await self.loaded.wait()
            if session.answer_seconds:
                await asyncio.sleep(session.answer_seconds)
            if type(message) in session.silent:
                await asyncio.Event().wait()
            if type(message) in session.failures:
                self.tell(msgspec.structs.replace(session.failures[type(message)], request=request))
                return
            answer: SessionMessage
            match message:
                case GetContext(context=context) if 0 <= context < session.n_contexts:
                    self._watched.pop(context, None)
                    self._watched[context] = None
                    while len(self._watched) > 3:
                        del self._watched[next(iter(self._watched))]
                    answer = session.context_scores(context, self.epoch, self.policy)
                case GetAnatomy():
                    answer = session.anatomy(message)
                case GetSimilar():
                    answer = session.similar(message)
                case GetDetail():
                    answer = session.detail(message)
                case Find():
                    answer = session.find(message)
                case GetLatent():
                    answer = session.latent(message)
                case GetPairs():
                    answer = session.pairs(message)
                case Move():
                    answer = SessionMoved(session="moved")
                case AnalysePrompt():
                    answer = session.own_scores(message, self.epoch, self.policy)
                case SetPolicy():
                    self.policy = message.policy
                    self.tell(msgspec.structs.replace(session.policy_set(message.policy), request=request))
                    if self.epoch:
                        self.improve(self.epoch)
                    return
                case StartJob() | CancelJob() | ResumeJob() | GetJobs() | GetJobLog() | GetCosts():
                    answer = session.jobs.answer(message)
                case Generate():
                    await self._generate(message)
                    return
                case _:
                    answer = Failed(
                        exit_code=2, message=f"{message!r} cannot be answered. Ask for something that exists."
                    )
            self.tell(msgspec.structs.replace(answer, request=request))
        except asyncio.CancelledError:
            self.tell(Failed(request=request, exit_code=6, message="Cancelled. Ask again to repeat it."))

    async def _generate(self, asked: Generate) -> None:
        session = self.session
        prompt = asked.prompt_ids or session.prompt_ids("")
        ids = [int(noise(9, asked.seed, k) * len(VOCABULARY)) for k in range(asked.max_tokens)]
        at_once = (
            max(1, round(session.tokens_per_second / session.messages_per_second)) if session.tokens_per_second else 4
        )
        chunks = [prompt, *(ids[i : i + at_once] for i in range(0, len(ids), at_once))]
        start = 0
        for number, chunk in enumerate(chunks):
            if number and session.tokens_per_second:
                await asyncio.sleep(len(chunk) / session.tokens_per_second)
            else:
                await asyncio.sleep(0)
            if start < session.pause_at <= start + len(chunk):
                await session.goes_on.wait()
            loss, x_norm, saes = session.scores(chunk, start, self.epoch, 9_000_000)
            losses = array("f")
            losses.frombytes(loss)
            losses[-1] = math.nan  # nats of a token not sampled yet
            self.tell(
                Generated(
                    request=asked.request,
                    start=start,
                    token_ids=chunk,
                    tokens=[session.token_text(t) for t in chunk],
                    split="".join("x" if t == 1000 else "h" for t in chunk),
                    loss=pack(losses),
                    loss_before=5.0 * noise(4, 9_000_000, start - 1) if number else None,
                    x_norm=x_norm,
                    saes=saes,
                    epoch=self.epoch,
                    finished=number == len(chunks) - 1,
                )
            )
            start += len(chunk)


class FakeClient:
    """The interface of `inspector.session.client.SessionClient`, in memory. Make it inside a running event loop."""

    def __init__(self, session: FakeSession | None = None) -> None:
        self.session = session or FakeSession()
        self.lost: str | None = None
        """Why the connection ended, when it was not closed by this side."""
        self._queue: asyncio.Queue[SessionMessage | None] = asyncio.Queue()
        self.view = FakeView(self.session, self._queue.put_nowait)
        self._requests = 0
        self.view.receive(Hello(request=self._next()))

    @classmethod
    async def open(cls, *_: object, **__: object) -> FakeClient:
        """Ignores the target."""
        return cls()

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    @property
    def received(self) -> list[ViewMessage]:
        """Everything sent so far, Hello included."""
        return self.view.received

    async def send(self, message: ViewMessage) -> int:
        """Fill in and return the request number."""
        request = self._next()
        self.view.receive(msgspec.structs.replace(message, request=request))
        if self.view.stopped:
            self._queue.put_nowait(None)
        return request

    def tell(self, message: SessionMessage) -> None:
        """Put any message before the view, as if the session had told it."""
        self._queue.put_nowait(message)

    def lose(self, why: str = "The session ended.") -> None:
        """As if the session had died."""
        self.lost = why
        self.view.close()
        self._queue.put_nowait(None)

    async def messages(self) -> AsyncIterator[SessionMessage]:
        """Ends when the connection closes."""
        while (message := await self._queue.get()) is not None:
            yield message

    async def close(self) -> None:
        """Leave the session."""
        self.view.close()
        self._queue.put_nowait(None)


async def serve(path: str, session: FakeSession) -> None:
    """A socket server that any view may attach to; each view has its own loading and its own fits. Ends when a view
    sends Stop."""
    stop = asyncio.Event()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        view = FakeView(session, lambda message: writer.write(frames.encode(message)))
        with contextlib.suppress(frames.BadFrame, ConnectionError):
            while not view.stopped and (body := await frames.read_frame(reader)) is not None:
                view.receive(frames.decode_view(body))
        view.close()
        writer.close()
        if view.stopped:
            stop.set()

    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = await asyncio.start_unix_server(attend, path)
    os.chmod(path, 0o600)
    print("listening", path, flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Command line of the stand-alone server."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_session")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--n-contexts", type=int, default=300)
    parser.add_argument("--context-length", type=int, default=256)
    parser.add_argument("--tokens-per-second", type=float, default=0.0)
    parser.add_argument("--messages-per-second", type=float, default=8.0)
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--epoch-seconds", type=float, default=0.0)
    parser.add_argument(
        "--job-running", type=float, default=0.0, metavar="HZ", help="MapImproved per second without end"
    )
    parser.add_argument("--hostile-share", type=float, default=0.05)
    parser.add_argument("--fail", metavar="MESSAGE", help="loading fails so")
    parser.add_argument("--gate", metavar="WHY", help="the load gate failed so, and was accepted")
    parser.add_argument("--download-bytes", type=int, default=0)
    parser.add_argument("--job-steps", type=int, default=10, help="steps of each experiment of a job")
    parser.add_argument("--job-step-seconds", type=float, default=0.5)
    arguments = vars(parser.parse_args())
    path, fail, gate = (arguments.pop(name) for name in ("socket", "fail", "gate"))
    failed = Failed(exit_code=3, message=fail) if fail else None
    lines = [GateLine(name="fvu", sae_id=None, measured="1.31", expected="below 1", why=gate)] if gate else []
    jobs = FakeJobs(steps=arguments.pop("job_steps"), step_seconds=arguments.pop("job_step_seconds"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(path, FakeSession(**arguments, fail_loading=failed, gate_failures=lines, jobs=jobs)))


if __name__ == "__main__":
    main()
