"""What is told of one SAE, of one token, of its error and of one latent, section by section.

Structs that travel as msgpack and are printed by `--json`; docs/anatomy.md says what each number means. Numbers are
unitless unless said. No torch, no numpy: what paints reads these.
"""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything here."""


class Neighbour(Part, frozen=True, kw_only=True):
    """A latent and the cosine of its decoder direction with something."""

    index: int
    cosine: float


# ---- one SAE ----------------------------------------------------------------------------------------------------


class SaeQuality(Part, frozen=True, kw_only=True):
    """How well the affine map predicts one SAE's error so far, on held-out contexts. Unitless; None: not known yet."""

    r2: float | None
    """r2_pooled of sae_error on x."""
    r2_low: float | None
    r2_high: float | None
    """95% bootstrap over held-out contexts."""
    fvu: float | None
    fvu_nonlinear: float | None
    l0: float | None
    ranges: dict[str, tuple[float, float]] = {}
    """What colours run over, by id of the measure per SAE (total, linear, nonlinear, fvu): the low and the high
    quantile of `levels` over ordinary held-out tokens. Empty: not known yet."""


class SaeScores(Part, frozen=True, kw_only=True):
    """Scores of one SAE, one value per token, packed as `protocol.Floats`; of the two parts of the error all NaN until
    the first map.
    """

    l0: bytes
    sae_error_norm: bytes
    linear_error_norm: bytes
    nonlinear_error_norm: bytes


# ---- one token --------------------------------------------------------------------------------------------------


class Latent(Part, frozen=True, kw_only=True):
    """One active latent at a token."""

    index: int
    activation: float
    link: str = ""
    """Where to read about it, if a page is known."""


class Guess(Part, frozen=True, kw_only=True):
    """One likely next token."""

    token: str
    probability: float


# ---- its error ---------------------------------------------------------------------------------------------------


class Share(Part, frozen=True, kw_only=True):
    """How much of a token's nonlinear_error some directions explain, and what that is held against."""

    n: int
    """Directions."""
    share: float
    """Of an orthogonal fit, 0 to 1."""
    random: float
    """The control: mean share of random vectors of equal norm, with the directions chosen anew for each."""
    random_most: float
    """The largest share of one of them."""
    others: float | None
    """Mean share of the nonlinear errors of other scored tokens of this text; None: there are none."""


class Directions(Part, frozen=True, kw_only=True):
    """Where a token's nonlinear_error lies among the decoder rows of one SAE."""

    sae_id: str
    nearest: list[Neighbour]
    """The largest cosines in magnitude, of either sign."""
    random_cosine: float
    """Mean over random vectors of the largest magnitude that each finds among the same rows."""
    chosen: list[int]
    """Latents in the order in which the greedy fit chose them."""
    shares: list[Share]
    """Of the first 1, 5 and 10 of `chosen`."""


class Moved(Part, frozen=True, kw_only=True):
    """What a splice does to one possible next token."""

    token: str
    change: float
    """Of its logit, less the mean change of all tokens' logits, which moves no probability."""
    before: float
    after: float
    """Probability, without the splice and with it."""


class Splice(Part, frozen=True, kw_only=True):
    """The next-token distribution with something else in x's place at this token alone."""

    arm: str
    """'Sae', 'Sae + linear', 'Sae + nonlinear', or 'x', which has to change nothing."""
    missing: str
    """The part of x that is left out: 'sae_error', 'nonlinear_error', 'linear_error', ''."""
    norm: float
    """Of it, in the units of x."""
    kl: float
    """KL(model || spliced), nats."""
    random_kl: float | None
    """Mean over random directions of the same norm taken from x; None of 'x'."""
    loss: float | None
    """Nats of the token that follows; None: there is none."""
    up: list[Moved]
    """Tokens whose logits rise most."""
    down: list[Moved]


class TakenUp(Part, frozen=True, kw_only=True):
    """A latent of the wider SAE that is active at the token."""

    index: int
    activation: float
    cosine: float
    """Of its decoder row with the narrower SAE's nonlinear_error."""
    share: float
    """activation <row, nonlinear_error> / |nonlinear_error|^2, signed."""
    share_of_error: float
    """The same of the whole sae_error."""
    known: Neighbour
    """The narrower SAE's latent whose decoder row points most the same way."""


class Wider(Part, frozen=True, kw_only=True):
    """Which latents of a wider SAE take up a narrower one's nonlinear_error r.

    r = (sum of activation x row) + (b_dec - (x - r)) + (the wider SAE's own sae_error), so the shares along r of the
    latents, of `rest` and of `left` add up to 1.
    """

    sae_id: str
    n_active: int
    latents: list[TakenUp]
    """Largest share first, at most 24."""
    of_latents: float
    """Sum of the shares of all active latents."""
    rest: float
    """Share of the wider SAE's bias less what the narrower SAE and its map had already."""
    left: float
    """Share that is in the wider SAE's own error."""
    gap: float
    """1 less the three: rounding, or an SAE that decodes in another way than by rows."""
    explained: float
    """Share of |r|^2 in the span of the active latents' rows, 0 to 1: the best that any activations could do."""
    explained_random: float
    """The same of a random vector, on average; of k rows in d dimensions about k / d."""
    explained_others: float
    """The same of r with as many latents that are not active here, drawn at random, on average."""


class Width(Part, frozen=True, kw_only=True):
    """One SAE's error at the token. Norms are in the units of x."""

    sae_id: str
    d_sae: int
    nominal_l0: float | None
    sae_error: float
    linear_error: float
    nonlinear_error: float
    parts_cosine: float | None
    """Of linear_error and nonlinear_error: not 0 on one token, so their squares do not add up to sae_error's."""
    cosines: list[float | None]
    """Of its nonlinear_error with that of each SAE of the list."""
    elsewhere: float | None
    """The control: mean cosine of the chosen SAE's nonlinear_error here with this one's at the text's other scored
    tokens."""


class AnatomyCard(Part, frozen=True, kw_only=True):
    """Everything about one SAE's nonlinear_error at one token, but where else it occurs."""

    token: str
    following: str | None
    """The next token; None at the end."""
    split: str
    """As in ContextScores."""
    d: int
    """Dimensions of x."""
    x_norm: float
    n_train: int
    """Tokens behind the affine map."""
    widths: list[Width]
    """Per width the SAE of the nearest nominal L0, narrowest first; the chosen one among them."""
    directions: list[Directions]
    """Of the chosen SAE and of the widest."""
    splices: list[Splice]
    wider: Wider | None
    why_no_wider: str


class SimilarToken(Part, frozen=True, kw_only=True):
    """A token whose nonlinear_error points the same way."""

    context: int
    position: int
    cosine: float
    norm: float
    """Of its nonlinear_error, in the units of x."""
    before: str
    token: str
    after: str
    """The text around it."""


class SimilarCard(Part, frozen=True, kw_only=True):
    """Tokens of the contexts with the most similar nonlinear_error of one SAE."""

    found: list[SimilarToken]
    """Largest cosine first, at most one per context."""
    n_searched: int
    n_scored: int
    """All scored tokens; more than were searched where their errors do not fit into memory."""
    random_cosine: float
    """Mean over random vectors of the largest cosine that each finds among the searched tokens."""
    n_same: int
    """Of those found, how many are the same token."""
    share_same: float
    """Of those searched, what share is: what chance would give."""


# ---- one latent -------------------------------------------------------------------------------------------------


class LatentExample(Part, frozen=True, kw_only=True):
    """A window of text in which a latent is active."""

    context: int
    position: int
    """Of the strongest token, or of the one that was drawn."""
    start: int
    """Position of the window's first token."""
    tokens: list[str]
    activations: bytes
    """One per token of the window, packed as `protocol.Floats`."""
    quantile: float | None = None
    """Of the token's activation among those drawn at random; None: it is among the strongest."""


class Bin(Part, frozen=True, kw_only=True):
    """A bar of a histogram."""

    low: float
    high: float
    n: int
    """Tokens, of those searched."""


class Weight(Part, frozen=True, kw_only=True):
    """A possible next token and what a latent's direction does to its logit."""

    token: str
    logit: float


class Across(Part, frozen=True, kw_only=True):
    """The latents of another SAE whose decoder rows point most the same way."""

    sae_id: str
    d_sae: int
    nearest: list[Neighbour]
    random_cosine: float
    """Mean over random vectors of the largest cosine that each finds there."""


class LatentCard(Part, frozen=True, kw_only=True):
    """A latent beside its strongest examples."""

    histogram: list[Bin]
    """Of its activations above 0, in bins of equal ratio; empty: it was never active."""
    drawn: list[LatentExample]
    """Examples drawn at random among the tokens at which it is active, at most one per context; largest first."""
    n_drawn: int
    """Of how many the quantiles are."""
    top: list[Weight]
    bottom: list[Weight]
    why_no_logits: str
    error_share: float | None
    """Share of the SAE's squared sae_error that lies along its decoder row, over the searched tokens: the most that the
    latent could take of it, were its activations chosen anew and of either sign; None: there is no error."""
    error_share_others: float | None
    """The control: the mean of that over other latents of the SAE."""
    error_share_random: float
    """Of a random direction on average: 1 / d."""
    across: list[Across]
