"""The words a view and a session exchange over a private Unix-domain socket.

Each message is a msgpack array tagged with its type, behind a four-byte big-endian length. Numbers per token travel as
packed little-endian float32 (`Floats`), so that a view without numpy reads them with `array.array`. Never pickle.
Nothing here imports torch.

A request carries the `request` number the view chose; every answer to it repeats that number, and `Failed` or the
answer marked "last" below ends it. Messages with `request == 0` are told to every view unasked.
"""

from __future__ import annotations

import sys
from array import array

import msgspec

PROTOCOL_VERSION = 1
MAX_FRAME = 64 * 1024 * 1024
"""Bytes. A 1024-token context with 40 SAEs is under 1 MB; anything larger than this is not ours."""

Floats = bytes
"""Packed little-endian float32; NaN is missing. See `pack` and `unpack`."""


def pack(values: array[float]) -> Floats:
    """Pack an array('f') for the wire."""
    if sys.byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return values.tobytes()


def unpack(data: Floats) -> array[float]:
    """Array of float32 from the wire; ValueError if the length is not a multiple of four."""
    values = array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


class Message(msgspec.Struct, frozen=True, kw_only=True, array_like=False, tag=True):
    """Base of everything on the wire."""

    request: int = 0


# ---- what a view asks -------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First message of a view; answered by Welcome, or Failed if the versions differ."""

    version: int = PROTOCOL_VERSION


class GetContext(Message, frozen=True, kw_only=True):
    """Scores of every token of one context. Answered by ContextScores (last); again, unasked, when the map improves and
    it is still watched.
    """

    context: int


class GetDetail(Message, frozen=True, kw_only=True):
    """What one SAE does at one token. Answered by TokenDetail (last)."""

    source: str
    """'context' or 'prompt' or 'generated': which document the position is in."""
    context: int
    position: int
    sae_id: str


class Find(Message, frozen=True, kw_only=True):
    """Search all contexts for a text. Answered by Found (last)."""

    text: str
    case_sensitive: bool = False
    limit: int = 500


class GetPairs(Message, frozen=True, kw_only=True):
    """R-squared of each pair of SAEs' error norms (Eq. 13) over the tokens scored so far. Answered by Pairs (last)."""

    sae_ids: list[str]
    """Ordered by width."""


class AnalysePrompt(Message, frozen=True, kw_only=True):
    """Score typed text. Answered by ContextScores with source 'prompt' (last)."""

    text: str


class Generate(Message, frozen=True, kw_only=True):
    """Sample from the model after the prompt. Answered by Generated messages; the one with `finished` is last."""

    prompt: str
    """Empty: start from the beginning-of-sequence token alone."""
    prompt_ids: list[int] = []
    """If given, these exact tokens (a context's own) instead of the text."""
    max_tokens: int = 200
    temperature: float = 0.8
    seed: int = 0


class Cancel(Message, frozen=True, kw_only=True):
    """Stop an earlier request; it ends with Failed(exit_code=6) or its last answer, whichever comes first."""

    target: int


class Stop(Message, frozen=True, kw_only=True):
    """End the session process. Answered by closing the connection."""


# ---- what a session tells -----------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """Answer to Hello, at once, before anything is loaded."""

    version: int
    program_version: str
    pid: int
    log_path: str


class LoadProgress(Message, frozen=True, kw_only=True):
    """Told while the target loads. See events.Loading."""

    what: str
    detail: str = ""
    seconds: float | None = None
    done: int = 0
    total: int = 0


class SaeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded SAE. Its place in Ready.saes is its row everywhere else."""

    sae_id: str
    d_sae: int
    nominal_l0: float | None
    layer: int | None
    hook_name: str


class Ready(Message, frozen=True, kw_only=True):
    """The target is loaded; told once to every view (on attaching if already so)."""

    model: str
    hook_name: str
    layer: int | None
    device: str
    d_model: int
    n_contexts: int
    context_length: int
    positions: tuple[int, int]
    """Half-open range of positions that are fitted and scored."""
    saes: list[SaeInfo]
    """Ordered by d_sae, then nominal L0."""
    text: str
    warnings: list[str] = []


class SaeQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How well the affine map predicts one SAE's error so far, on held-out contexts. Unitless; None: not known yet."""

    r2: float | None
    """r2_pooled of sae_error on x."""
    r2_low: float | None
    r2_high: float | None
    """95% bootstrap over held-out contexts."""
    fvu: float | None
    fvu_nonlinear: float | None
    l0: float | None


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


class SaeScores(msgspec.Struct, frozen=True, kw_only=True):
    """Per-token scores of one SAE on one document, one value per token."""

    l0: Floats
    sae_error_norm: Floats
    linear_error_norm: Floats
    """All NaN until the first map."""
    nonlinear_error_norm: Floats
    """All NaN until the first map."""


class ContextScores(Message, frozen=True, kw_only=True):
    """One document's tokens and their scores for every SAE: what the strip is coloured from."""

    source: str
    """'context', 'prompt'."""
    context: int
    """Index among the contexts; 0 for a prompt."""
    epoch: int
    """MapImproved.epoch of the maps used; 0: no map yet."""
    name: str
    """Where the text is from, for the title."""
    token_ids: list[int]
    tokens: list[str]
    """Decoded text of each token alone; may hold any character at all."""
    split: str
    """One letter per token: 't' train, 'h' held out, 'x' excluded (special or outside the positions)."""
    loss: Floats
    """Nats to predict the NEXT token from this position; NaN at the last."""
    x_norm: Floats
    saes: list[SaeScores]


class Latent(msgspec.Struct, frozen=True, kw_only=True):
    """One active latent at a token."""

    index: int
    activation: float
    link: str = ""
    """Where to read about it, if a page is known."""


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """One likely next token."""

    token: str
    probability: float


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


class Generated(Message, frozen=True, kw_only=True):
    """The next token or tokens of a generation, with the scores of each. The first message holds the prompt's
    tokens.
    """

    start: int
    """Position of the first token here."""
    token_ids: list[int]
    tokens: list[str]
    split: str
    loss: Floats
    """Nats of the NEXT token, known one step later: a message may repeat the position before `start` in
    `loss_before`."""
    loss_before: float | None = None
    """The loss of position start - 1, which was not known when it was sent."""
    x_norm: Floats
    saes: list[SaeScores]
    epoch: int
    finished: bool = False


class Failed(Message, frozen=True, kw_only=True):
    """A request, or with request 0 the loading itself, ended in an error."""

    exit_code: int
    message: str


ViewMessage = Hello | GetContext | GetDetail | Find | GetPairs | AnalysePrompt | Generate | Cancel | Stop
SessionMessage = (
    Welcome | LoadProgress | Ready | MapImproved | ContextScores | TokenDetail | Found | Pairs | Generated | Failed
)
