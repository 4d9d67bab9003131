"""Three named protocols: what the paper says, what its code does, and what we think is right.

Everything the experiments here can differ in is a field, cited by its id in the specification. Experiments read these
fields to compute, and the sentences that define their numbers are made from the same fields, so that neither can say
something else than the other does.

Here too: what an experiment asks the passes to collect. Equal needs of several experiments are collected once. They are
plain strings, because building an enum costs more than listing an experiment may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inspector.spec import Profile, Split

Pursuits = Literal["careful", "paper-code", "refit"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How tokens are split, fitted and scored; the defaults are the careful ones."""

    profile: Profile
    split: Split | None = None
    """None: as the target says. A run's own protocol has the split that was made."""
    intercept: bool = True
    """Of the maps from x (D-05). A run's own protocol has what was fitted."""
    fvu_on: Literal["test", "all"] = "test"
    """Tokens on which fvu and fvu_nonlinear are measured: held out, or training tokens too (D-04)."""
    outliers: Literal["apart", "among"] = "apart"
    """Tokens that outweigh all others (`engine.plan`): left out of fit and scores and told apart, or counted."""
    norm_test_map_on: Literal["train", "all"] = "train"
    """Tokens on which the norm test's error map is fitted; its squared norms are always fitted and held out (5.1)."""
    norm_test_above: float | None = None
    """R-squared up to here is left out of the norm test's figure and medians (D-12); None: nothing is."""
    scaling: Literal["squared_origin", "unsquared_intercept"] = "squared_origin"
    """Headline of per-token-scaling: norms and fit (D-09)."""
    scaling_with: Literal["squared", "unsquared"] = "squared"
    """Headline of scaling-with-nonlinear (D-23)."""
    baselines_of: Literal["squared", "unsquared"] = "squared"
    """Headline of norm-baselines: the norm's square or the norm (D-18)."""
    token_means_on: Literal["train", "all"] = "train"
    """Tokens whose means per token id are the baseline: training ones, or all, and scored on the same (D-19)."""
    pursuit: Pursuits = "careful"
    """Which pursuit (D-17)."""
    breakdown_as_published: bool = False
    """Fig. 1's total and nonlinear FVU from positions from 1 on and SAEs by measured L0 (D-02, D-27), fitted by Adam
    from one random start (D-07)."""
    planted_as_published: bool = False
    """Planted noise of unit 1, fitted and scored on the same tokens, over the variance around one mean (D-21)."""
    smoothed_over: int = 10
    """Latents in the running mean of Fig. 14 (D-20)."""

    @property
    def summary(self) -> str:
        """One sentence for the result."""
        if self.split is None:
            return f"Profile {self.profile}: split as the target says."
        return f"Profile {self.profile}: split by {self.split}{' (D-25)' if self.split == 'token' else ''}."

    @property
    def affine(self) -> str:
        """The map from x as a formula."""
        return "W x + b" if self.intercept else "W x"

    @property
    def fitted(self) -> str:
        """What of it is fitted, and how."""
        how = "W, b fitted" if self.intercept else "W fitted, without an intercept (D-05),"
        return f"{how} by least squares on the training tokens"

    @property
    def a_map(self) -> str:
        """The map from x in words."""
        return "an affine map with intercept" if self.intercept else "a linear map without intercept (D-05)"

    @property
    def fvu_tokens(self) -> str:
        """The tokens that fvu and fvu_nonlinear are over."""
        return "held-out tokens" if self.fvu_on == "test" else "all tokens, training tokens included (D-04)"

    @property
    def held_out_contexts(self) -> str:
        """The contexts that hold held-out tokens."""
        return "contexts with held-out tokens" if self.split == "token" else "held-out contexts"

    @property
    def fvu_contexts(self) -> str:
        """The contexts that fvu and fvu_nonlinear are over."""
        return self.held_out_contexts if self.fvu_on == "test" else "all contexts"

    def bootstrap(self, resamples: int, over: str = "", *, fixed: str = "") -> str:
        """The sentence on a definition's interval; with no draws there is none.

        Args:
            resamples: draws.
            over: what is drawn; empty: the contexts that hold held-out tokens.
            fixed: what stays as it was fitted, e.g. 'the map'.
        """
        if not resamples:
            return "No interval: no draws were asked for."
        drawn = f"{resamples:,} draws over {over or self.held_out_contexts}"
        return f"Interval: 95% bootstrap of {drawn}{f', {fixed} held fixed' if fixed else ''}."


PROTOCOLS: dict[Profile, Protocol] = {
    "careful": Protocol(profile="careful"),
    "paper-text": Protocol(profile="paper-text", split="token", outliers="among", baselines_of="unsquared"),
    "paper-code": Protocol(
        profile="paper-code",
        split="token",
        intercept=False,
        fvu_on="all",
        outliers="among",
        norm_test_map_on="all",
        norm_test_above=0.5,
        scaling="unsquared_intercept",
        scaling_with="unsquared",
        token_means_on="all",
        pursuit="paper-code",
        breakdown_as_published=True,
        planted_as_published=True,
        smoothed_over=100,
    ),
}


Need = Literal["norm map", "error map", "error covariance"]
"""One thing the passes can collect for every SAE; what each is stands below."""

NORM_MAP: Need = "norm map"
"""The affine map from x to the squared norm of sae_error, and its held-out sums."""
ERROR_MAP: Need = "error map"
"""The affine map from x to sae_error, and its held-out sums per dimension."""
ERROR_COVARIANCE: Need = "error covariance"
"""The whole covariance of sae_error over the training tokens; one more product of d by d per batch and SAE."""
