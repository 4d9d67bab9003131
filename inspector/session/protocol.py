"""The words a view and a session exchange over a private Unix-domain socket.

Each message is a msgpack map tagged with its type; `frames` says how it lies on a stream. Numbers per token travel as
packed little-endian float32 (`Floats`), so that a view without numpy reads them with `array.array`. Never pickle.
Nothing here imports torch.

A request carries the `request` number the view chose; every answer to it repeats that number, and `Failed` or the
answer marked "last" below ends it. Messages with `request == 0` are told to every view unasked.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from inspector.events import Cost, GateLine, JobInfo
from inspector.session.cards import (
    AnatomyCard,
    Guess,
    Latent,
    LatentCard,
    LatentExample,
    Neighbour,
    SaeQuality,
    SaeScores,
    SimilarCard,
)
from inspector.spec import SaeRef, TargetSpec

PROTOCOL_VERSION = 5

Floats = bytes
"""Packed little-endian float32; NaN is missing. See `frames.pack` and `frames.unpack`."""
Policy = Literal["excluded", "included"]
"""What becomes of special tokens and of the positions before `--positions`: left out of every fit and score, as always
unless a view asks otherwise; or counted like the others, to see how much they change."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of everything on the wire."""

    request: int = 0


# ---- what a view asks -------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First message of a view; answered by Welcome, or Failed if the versions differ."""

    version: int = PROTOCOL_VERSION


class GetContext(Message, frozen=True, kw_only=True):
    """Scores of every token of one context. Answered by ContextScores, the one without `waiting` last; again, unasked,
    when the map improves and it is still watched. Where SAEs come in slices, the view's next such question cancels it.
    """

    context: int
    first: str = ""
    """The SAE that is looked at: if it comes in slices it is brought before the others. Empty: any."""


class GetDetail(Message, frozen=True, kw_only=True):
    """What one SAE does at one token. Answered by TokenDetail (last)."""

    source: str
    """'context' or 'prompt' or 'generated': which document the position is in."""
    context: int
    """Of a text of the view's own its number."""
    position: int
    sae_id: str


class GetAnatomy(GetDetail, frozen=True, kw_only=True):
    """The SAE's nonlinear error at one token, beside a `wider` one, or the widest. Answered by Anatomy (last)."""

    wider: str = ""


class GetSimilar(GetDetail, frozen=True, kw_only=True):
    """Where in the contexts the nonlinear error is most like it. Answered by SimilarErrors (last), after a search."""


class Find(Message, frozen=True, kw_only=True):
    """Search all contexts for a text, capitals or not. Answered by Found (last)."""

    text: str


class GetPairs(Message, frozen=True, kw_only=True):
    """R-squared of each pair of SAEs' error norms (Eq. 13) over the tokens scored so far. Answered by Pairs (last)."""

    sae_ids: list[str]
    """Ordered by width."""


class AnalysePrompt(Message, frozen=True, kw_only=True):
    """Score a text of the view's own: what was typed, or what was generated before. Answered as GetContext is, with
    this source, and the number as its context.
    """

    text: str = ""
    token_ids: list[int] = []
    """Instead of a text: these very tokens."""
    source: str = "prompt"
    """'prompt' or 'generated'."""
    number: int = 0
    """The view's own; a text of the same source and number is replaced."""
    first: str = ""


class Generate(Message, frozen=True, kw_only=True):
    """Sample from the model after a text. Answered by Generated messages; the one with `finished` is last."""

    prompt_ids: list[int] = []
    """Tokens of that text; empty: start from the beginning-of-sequence token alone."""
    max_tokens: int = 200
    temperature: float = 0.8
    seed: int = 0
    number: int = 0
    """As of AnalysePrompt."""


class SetPolicy(Message, frozen=True, kw_only=True):
    """From now on this view's contexts are scored with the maps of this policy. Answered by PolicySet (last);
    MapImproved of that policy follow as it is fitted.
    """

    policy: Policy


class GetLatent(Message, frozen=True, kw_only=True):
    """What makes one latent active. Answered by LatentView (last), after the contexts were searched."""

    sae_id: str
    index: int


class GetCosts(Message, frozen=True, kw_only=True):
    """What experiments would cost on this target. Answered by Costs (last)."""

    experiments: list[str]
    params: dict[str, str] = {}


class StartJob(Message, frozen=True, kw_only=True):
    """Queue experiments on this session's target. Answered by JobTold (last), or Failed for a bad id or parameter."""

    experiments: list[str]
    params: dict[str, str] = {}
    profile: str = "careful"
    null: str | None = None
    ray: str | None = None


class CancelJob(Message, frozen=True, kw_only=True):
    """Stop a job after the step under way; what is finished stays. Answered by JobTold (last)."""

    job: str


class ResumeJob(Message, frozen=True, kw_only=True):
    """Queue an interrupted, failed or cancelled job again, from its checkpoints. Answered by JobTold (last)."""

    job: str


class GetJobs(Message, frozen=True, kw_only=True):
    """All jobs of this session, newest first. Answered by Jobs (last)."""


class GetJobLog(Message, frozen=True, kw_only=True):
    """The last lines of a job's log. Answered by JobLog (last)."""

    job: str
    lines: int = 200


class Cancel(Message, frozen=True, kw_only=True):
    """Stop an earlier request; it ends with Failed(exit_code=6) or its last answer, whichever comes first."""

    target: int


class Move(Message, frozen=True, kw_only=True):
    """Load other SAEs beside the model, which stays, under the new target's name. Answered by SessionMoved (last)."""

    target: TargetSpec


class Stop(Message, frozen=True, kw_only=True):
    """End the session process. Answered by closing the connection."""


# ---- what a session tells -----------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """Answer to Hello, at once, before anything is loaded."""

    version: int
    program_version: str
    pid: int
    log_path: str
    session: str = ""  # its id; '' in the view's own process


class LoadProgress(Message, frozen=True, kw_only=True):
    """Told while the target loads; see events.Loading. And to a view whose text waits for an SAE."""

    what: str
    detail: str = ""
    seconds: float | None = None
    done: int = 0
    total: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    """Of a download, or of its encoder; 0 of 0 if nothing is being fetched."""
    for_text: bool = False
    """`what` is an SAE in slices, from the host or the disk in `detail`, and the session stays ready."""
    bytes_per_second: float = 0.0


class Ready(Message, frozen=True, kw_only=True):
    """The target is loaded; told once to every view (on attaching if already so)."""

    model: str
    quantised: str = ""
    """How the weights were stored before they were made numbers again: Q4_1 and the like; empty: as numbers."""
    hook_name: str
    layer: int | None
    device: str
    n_contexts: int
    context_length: int
    positions: tuple[int, int]
    """Half-open range of positions that are fitted and scored."""
    saes: list[SaeRef]
    """Ordered by d_sae, then nominal L0. The place here is the SAE's row everywhere else."""
    text: str
    in_slices: bool = False
    """Whether some SAEs are brought for each text, so that it matters which is looked at first."""
    warnings: list[str] = []
    gate_failures: list[GateLine] = []
    """Not empty: the target failed its load gate and was opened with --accept-gate; no number is to be trusted."""
    median_norm: float | None = None
    """Median |x| at the hook, by which outliers are told; None: none is."""
    target: list[str] = []
    """Options of the command line that load the same: what a command shown in a view ends with."""


class MapImproved(Message, frozen=True, kw_only=True):
    """The linear maps were refitted from more tokens; contexts asked for from now on use them."""

    epoch: int
    """Counts the fits, from 1."""
    n_tokens: int
    """Training tokens behind the fit."""
    n_tokens_goal: int
    n_held_out: int
    qualities: list[SaeQuality]
    """One per SAE of Ready.saes."""
    finished: bool = False
    """True for the last fit, from all training tokens."""
    policy: Policy = "excluded"


class PolicySet(Message, frozen=True, kw_only=True):
    """Answer to SetPolicy."""

    policy: Policy
    n_special: int
    """Tokens of all contexts that are special and would be counted or left out."""
    n_before: int
    """Tokens, not special, outside `--positions`."""


class TokenScores(Message, frozen=True, kw_only=True):
    """Tokens in a row and their scores for every SAE: what the strip is coloured from."""

    token_ids: list[int]
    tokens: list[str]
    """Text of each token where it stands; may hold any character at all. A character that several tokens spell is whole
    on the first of them, and '' are the others."""
    split: str
    """One letter per token: 't' train, 'h' held out, 'x' excluded (special or outside the positions), 'o' outlier."""
    loss: Floats
    """Nats to predict the NEXT token from this position; NaN where that token is not known (yet)."""
    x_norm: Floats
    saes: list[SaeScores]
    epoch: int
    """MapImproved.epoch of the maps used; 0: no map yet."""
    policy: Policy = "excluded"
    """Whose maps; also decides `split`."""


class ContextScores(TokenScores, frozen=True, kw_only=True):
    """A whole context or prompt."""

    source: str
    """'context', 'prompt', 'generated'."""
    context: int
    """Index among the contexts, from 0; of a text of the view's own its number."""
    name: str
    """Where the text is from, for the title."""
    waiting: list[str] = []
    """SAEs whose scores come later and are all NaN here, in the order in which they will."""


class Generated(TokenScores, frozen=True, kw_only=True):
    """The next token or tokens of a generation. The first message holds the prompt's tokens."""

    start: int
    """Position of the first token here."""
    loss_before: float | None = None
    """The loss of position start - 1, which was not known when it was sent."""
    finished: bool = False


class TokenDetail(Message, frozen=True, kw_only=True):
    """The side pane's content for one token and one SAE."""

    source: str
    context: int
    position: int
    sae_id: str
    latents: list[Latent]
    """Strongest first, at most 64."""
    n_active: int
    guesses: dict[str, list[Guess]]
    """Next-token guesses, likeliest first, for 'model' and, with the SAE's output spliced in at every included
    position, 'Sae', 'Sae + linear', 'Sae + nonlinear'."""


class Anatomy(Message, frozen=True, kw_only=True):
    """Answer to GetAnatomy."""

    asked: GetAnatomy
    card: AnatomyCard


class SimilarErrors(Message, frozen=True, kw_only=True):
    """Answer to GetSimilar."""

    asked: GetSimilar
    card: SimilarCard


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the text was found."""

    context: int
    position: int
    """First token of the match."""


class Found(Message, frozen=True, kw_only=True):
    """Answer to Find, in order of context and position."""

    hits: list[Hit]
    truncated: bool = False


class Pairs(Message, frozen=True, kw_only=True):
    """Answer to GetPairs."""

    sae_ids: list[str]
    r2: list[list[float | None]]
    """r2[i][j]: squared norm of SAE j's error from SAE i's, through the origin, held-out tokens; None below the
    diagonal or if undefined."""
    n_tokens: int


class LatentView(Message, frozen=True, kw_only=True):
    """Answer to GetLatent; neighbours come with the largest cosine first."""

    sae_id: str
    index: int
    density: float
    """Share of the `n_tokens` searched at which it is active."""
    n_tokens: int
    max_activation: float
    examples: list[LatentExample]
    """Strongest first, at most one per context."""
    neighbours: list[Neighbour]
    explanation: str = ""
    """Of the newest scoring of this latent that is stored; empty: none."""
    score: float | None = None
    link: str = ""
    card: LatentCard


class Costs(Message, frozen=True, kw_only=True):
    """Answer to GetCosts."""

    costs: list[Cost]
    shared_seconds: float | None
    """For the passes that all of them share, counted once."""


class SessionMoved(Message, frozen=True, kw_only=True):
    """Answer to Move: the session has this id now and loads; a view connects to it anew."""

    session: str


class JobTold(Message, frozen=True, kw_only=True):
    """A job has changed; told to every view, at most twice a second, and at once when its state changes."""

    job: JobInfo


class Jobs(Message, frozen=True, kw_only=True):
    """Answer to GetJobs."""

    jobs: list[JobInfo]


class JobLog(Message, frozen=True, kw_only=True):
    """Answer to GetJobLog."""

    job: str
    lines: list[str]


class Failed(Message, frozen=True, kw_only=True):
    """A request, or with request 0 the loading itself, ended in an error."""

    exit_code: int
    message: str


TextQuestion = GetContext | GetDetail | Find | GetPairs | AnalysePrompt | SetPolicy
"""Answered at once from what is loaded."""
LongQuestion = Generate | GetLatent | GetAnatomy | GetSimilar
"""Answered step by step, beside others."""
JobQuestion = StartJob | CancelJob | ResumeJob | GetJobs | GetJobLog
"""Answered while the target loads, too."""
ViewMessage = Hello | TextQuestion | LongQuestion | JobQuestion | GetCosts | Move | Cancel | Stop

ToldToAll = LoadProgress | Ready | MapImproved | JobTold | Failed
Answer = ContextScores | TokenDetail | Found | Pairs | Generated | PolicySet | Costs | SessionMoved | Jobs | JobLog
SessionMessage = Welcome | ToldToAll | Answer | LatentView | Anatomy | SimilarErrors
