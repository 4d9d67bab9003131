"""What the numbers on the screens are: the formula, and what would mislead; said by hovering over a number and by `?`.

Each stands here once; a line of a pane names it by `about`, and the help of a pane lists those that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

NUMBERS: dict[str, tuple[str, str, str]] = {
    "l0": (
        "L0",
        "Latents of the SAE that are not 0 at a token. L0≈ is the one in the SAE's name, in brackets the mean here.",
        "Whoever trained the SAE measured the name's, on other text: two SAEs of one nominal L0 may differ here.",
    ),
    "r2": (
        "R² of the linear map",
        "1 - Σ‖sae_error - linear_error‖² / Σ‖sae_error - its mean‖², over dimensions and held-out tokens together.",
        "It is the SAE's error that is predicted from x, not the model's behaviour. With few training tokens per "
        "dimension it comes out too low; [ ] is a 95% interval from resampling held-out contexts.",
    ),
    "fvu": (
        "FVU",
        "Σ‖x - x_hat‖² / Σ‖x - mean x‖², held-out tokens: the share of the variance that the SAE leaves unexplained.",
        "0 is perfect and there is no upper bound. A few tokens with a huge norm would decide it: outliers are left "
        "out.",
    ),
    "fvu-nonlinear": (
        "nonlinear FVU",
        "Σ‖nonlinear_error‖² / Σ‖x - mean x‖²: what is left of the variance when the linear error is added back.",
        "It is 0 for any affine map in the SAE's place, even for none at all: a low value alone is no virtue.",
    ),
    "map": (
        "tokens behind the map",
        "Training tokens that the affine map from x to sae_error was fitted on so far.",
        "Below some 10 tokens per dimension of x the map also fits noise, and linear parts look too large.",
    ),
    "loss": (
        "loss",
        "-log p of the token that follows, in nats: 0 is certain, ln(vocabulary) is a guess.",
        "It is the whole model's, without an SAE; a large loss does not mean a large SAE error.",
    ),
    "x-norm": (
        "‖x‖",
        "The L2 norm of the activation at the hook.",
        "Errors grow with it: a long activation has a long error, well explained or not.",
    ),
    "sae-error": (
        "total",
        "‖sae_error‖, the L2 norm of x - x_hat.",
        "The norms of its two parts do not add up to it: on one token they are not orthogonal.",
    ),
    "linear": (
        "linear error",
        "‖linear_error‖, where linear_error = W x + b is the part of sae_error that an affine map of x predicts.",
        "Linear in x, not in the latents. Before the map has seen all tokens it still moves.",
    ),
    "nonlinear": (
        "nonlinear error",
        "‖nonlinear_error‖, where nonlinear_error = sae_error - linear_error: the paper's dark matter.",
        "By algebra it is minus the part of x_hat that is not affine in x: a property of the SAE as much as of the "
        "model.",
    ),
    "share": (
        "share",
        "‖nonlinear_error‖² / (‖linear_error‖² + ‖nonlinear_error‖²) of one token: 0 is all linear, 100% nonlinear.",
        "It says nothing of the size: a token that is explained well may have a share of 100%.",
    ),
    "cosine": (
        "cos",
        "The cosine of linear_error and nonlinear_error on this token.",
        "Over the training tokens the two are uncorrelated; on one token they need not be orthogonal, so their "
        "squared norms do not add up to the total's.",
    ),
    "token-fvu": (
        "FVU of a token",
        "‖nonlinear_error‖² / ‖x‖² of this token alone.",
        "Not centred and without the linear error: its mean is not the FVU of the SAE.",
    ),
    "kl": (
        "KL",
        "KL(model || spliced), in nats: how far the next token's distribution moves when the activation is replaced.",
        "A long error moves it more than a short one in any direction: compare it with random, the mean over random "
        "directions of the same norm.",
    ),
    "error-share": (
        "share of the error",
        "The part of Σ‖sae_error‖² that lies along the latent's decoder row, over the searched tokens.",
        "It is the most that the latent could take, were its activations chosen anew and of either sign; a random "
        "direction has 1 / d.",
    ),
    "activation": (
        "activation",
        "How far the latent is on at this token; its decoder direction times this is its part of x_hat.",
        "Comparable between tokens, not between latents of different SAEs.",
    ),
    "cost": (
        "cost here",
        "Seconds that the experiment alone would take on this target, all its passes over the tokens included.",
        "Experiments that run together share passes: their costs do not add up, the line below says what they take.",
    ),
}
"""By name: what it is called, the formula, what would mislead."""

TOUR = (
    "An SAE rewrites an activation x as x_hat; what it misses is sae_error = x - x_hat, and each token is coloured by "
    "its size and its kind.",
    "The linear error is the part of it that an affine map of x predicts; in the paper it shrinks as SAEs get wider.",
    "The nonlinear error is the rest, the paper's dark matter, which there hardly shrinks: w lists the tokens that "
    "have most of it, and a shows why one has.",
)
"""Three sentences for somebody who sees this for the first time."""


def about(number: str) -> str:
    """The word for a piece's look that says, where the mouse rests on it, what a number of `NUMBERS` is."""
    name, formula, misleading = NUMBERS[number]
    return hover(f"{name}: {formula}\n{misleading}")


def hover(text: str) -> str:
    """The word for a piece's look that shows this text where the mouse rests on it."""
    return f"tip={quote(text)}"


def click(action: str) -> str:
    """The word for a piece's look that runs an action, such as 'app.quit', where it is clicked."""
    return f"click={quote(action)}"


def does(action: str, text: str) -> str:
    """The words for a piece's look that runs an action where it is clicked, and says which one before."""
    return f"{click(action)} {hover(text)}"


def all_of(line: Iterable[tuple[str, str]], words: str) -> list[tuple[str, str]]:
    """A line with these words in the look of every piece."""
    return [(text, f"{look} {words}".strip()) for text, look in line]
