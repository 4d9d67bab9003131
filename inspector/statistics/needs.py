"""What an experiment asks the passes to collect; equal needs of several experiments are collected once.

Plain strings: building an enum costs more than listing an experiment may.
"""

from __future__ import annotations

from typing import Literal

Need = Literal["norm map", "error map", "error covariance"]
"""One thing the passes can collect for every SAE; what each is stands below."""

NORM_MAP: Need = "norm map"
"""The affine map from x to the squared norm of sae_error, and its held-out sums."""
ERROR_MAP: Need = "error map"
"""The affine map from x to sae_error, and its held-out sums per dimension."""
ERROR_COVARIANCE: Need = "error covariance"
"""The whole covariance of sae_error over the training tokens; one more product of d by d per batch and SAE."""
