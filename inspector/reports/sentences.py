"""What ids such as (S-09) in definitions and notes stand for, a sentence each; added wherever the ids are read.

S: a statement that holds by algebra, or for a population, and that tests hold. D: where the paper's text, its published
code and this program differ. E: an error in the paper's text or formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SENTENCES: dict[str, str] = {
    "S-05": "One more regressor, or the intercept, never raises the squared error on the training tokens.",
    "S-06": "A target that has nothing to do with x scores an R² of about -p/n_train on held-out tokens, never above 0 "
    "systematically.",
    "S-08": "On the same tokens fvu_nonlinear = fvu (1 - R²), R² about 0; on training tokens the two shares sum to 1.",
    "S-09": "nonlinear_error is minus what is left of x_hat after regressing x_hat on x: a property of the SAE's map.",
    "S-10": "Any affine map in the SAE's place, the zero map and a PCA projection too, has an fvu_nonlinear of 0.",
    "S-11": "x_hat plus the nonlinear error is x less the linear error, and so affine in x.",
    "S-12": "Regressing an error on x and x_hat together gives an R² of 1 by construction.",
    "S-16": "A pursuit uses no more latents than it may, with coefficients of 0 and more.",
    "S-17": "Of isotropic random latents without noise, ablating a share a of the variance leaves an FVU of a (1 - a).",
    "S-18": "With orthogonal latents and independent weights w, the probe's weight of a latent is Cov(w, w²) / Var(w).",
    "S-19": "With two-valued weights the norm is predicted perfectly, whatever depends on what.",
    "S-20": "Of a Gaussian x the best probe of its norm is 2μ, and its R² is 0 where the mean μ is 0.",
    "S-24": "Splicing in all parts of x gives the loss without a splice; of x, 100% is recovered, of x_hat 0%.",
    "S-25": "Replacing x at later positions changes no loss at earlier ones.",
    "S-26": "Without noise, and with an SAE that changes nothing of its own outputs, both estimates are 0.",
    "S-27": "The decrease of the FVU is 0 or more on training tokens; on held-out ones it may be slightly below.",
    "D-02": "The paper's text takes positions after 200; its published code takes some series from 1 on.",
    "D-04": "The paper's code measures FVU on all tokens, those included that the maps were fitted on.",
    "D-05": "The paper's text fits with an intercept; its code leaves it out in some experiments and has it in others.",
    "D-07": "The paper's code fits the power law by Adam from one random start, with absolute values for signs.",
    "D-09": "The paper's text regresses squared norms through the origin, its code norms with an intercept.",
    "D-12": "The paper's text leaves out R² of 0 and below, its code of 0.5 and below; here nothing is left out.",
    "D-17": "The paper's code lets the pursuit end with fewer latents than the token's L0.",
    "D-18": "The paper's text predicts the norm, its code the squared norm.",
    "D-19": "The paper's code takes means per token on the tokens that it scores.",
    "D-21": "The paper's code fits and scores the split on the same tokens, from codes without noise.",
    "D-23": "The paper's text predicts squared norms here, its code norms.",
    "D-25": "The paper's code splits single tokens, so that both sides hold tokens of one context.",
    "D-27": "The paper's code chooses one SAE by nominal L0 and the others by measured L0.",
    "E-14": "The paper's value for Poisson weights has an arithmetic error; 3/sqrt(11) = 0.905 is right.",
    "E-15": "The paper's E w² / E w is not the least-squares weight.",
}
"""By id."""


def footnotes(*texts: str) -> list[tuple[str, str]]:
    """(id, its sentence) of every id that these texts hold, each once, in their order."""
    found: Iterable[str] = re.findall(r"\b[SDE]-\d{2}\b", " ".join(texts))
    return [(each, SENTENCES[each]) for each in dict.fromkeys(found) if each in SENTENCES]
