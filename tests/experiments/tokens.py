"""Sizes of errors token by token, recomputed in float64 from the files of a toy or of the demo, without the program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from tests.experiments.own import Array, Toy, decoded, hidden

Mask = npt.NDArray[np.bool_]


@dataclass
class Split:
    """One SAE's error and its parts, [c, t, d]."""

    x_hat: Array
    error: Array
    linear: Array
    nonlinear: Array
    l0: Array
    """[c, t]"""


@dataclass
class Reference:
    """Everything about a target that numpy, scikit-learn and transformers say."""

    toy: Toy
    train: Mask
    test: Mask
    intercept: bool = True

    @property
    def x(self) -> Array:
        return self.toy.raw["resid"]

    @cached_property
    def splits(self) -> dict[int, Split]:
        """By width."""
        return self.split_by(self.train)

    def split_by(self, fitted_on: Mask) -> dict[int, Split]:
        """By width, with the map fitted on these tokens."""
        found = {}
        for width in self.toy.widths:
            folder = self.toy.folder(self.toy.layer, "resid", width)
            codes = hidden(folder, self.x)
            x_hat = decoded(folder, codes)
            error = self.x - x_hat
            fitted = LinearRegression(fit_intercept=self.intercept).fit(self.x[fitted_on], error[fitted_on])
            linear = fitted.predict(self.x.reshape(-1, self.x.shape[-1])).reshape(self.x.shape)
            found[width] = Split(x_hat, error, linear, error - linear, (codes > 0).sum(axis=-1).astype(np.float64))
        return found

    @cached_property
    def loss(self) -> Array:
        """[c, t]; 0 at the last position, which is never included."""
        tokens = self.toy.loaded.contexts.token_ids
        with torch.no_grad():
            chances = self.toy.model(tokens).logits.double().log_softmax(dim=-1)
        following = chances[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        return np.pad(-following.numpy(), ((0, 0), (0, 1)))

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self.toy.loaded.contexts.token_ids.numpy()
        return found

    def r2_on_x(self, y: Array, *, intercept: bool = True) -> float:
        """Held-out R-squared of y [c, t] on x."""
        fitted = LinearRegression(fit_intercept=intercept).fit(self.x[self.train], y[self.train])
        return float(r2_score(y[self.test], fitted.predict(self.x[self.test])))

    def on_x(self, y: Array) -> Array:
        """[c, t] prediction of y from x."""
        fitted = LinearRegression(fit_intercept=self.intercept).fit(self.x[self.train], y[self.train])
        predicted: Array = fitted.predict(self.x.reshape(-1, self.x.shape[-1])).reshape(y.shape)
        return predicted

    def rest(self, y: Array, *predictors: Array, intercept: bool = True) -> Array:
        """Squared residuals of y on the predictors at the held-out tokens."""
        table = np.stack(predictors, axis=-1)
        fitted = LinearRegression(fit_intercept=intercept).fit(table[self.train], y[self.train])
        left: Array = (y[self.test] - fitted.predict(table[self.test])) ** 2
        return left

    def r2(self, y: Array, *predictors: Array, intercept: bool = True) -> float:
        left = self.rest(y, *predictors, intercept=intercept).sum()
        return float(1 - left / ((y[self.test] - y[self.test].mean()) ** 2).sum())

    def class_means(self, y: Array, classes: npt.NDArray[np.int64]) -> Array:
        """[c, t, ...] training mean of y for every token's class; the mean of all where the class was never seen."""
        means = np.broadcast_to(y[self.train].mean(axis=0), y.shape).copy()
        for each in np.unique(classes[self.train]):
            means[classes == each] = y[self.train & (classes == each)].mean(axis=0)
        return means

    def frequent(self, least: int) -> npt.NDArray[np.int64]:
        """[c, t] the token's id where it has so many training tokens, else -1."""
        counts = np.bincount(self.ids[self.train], minlength=self.ids.max() + 1)
        return np.where(counts[self.ids] >= least, self.ids, -1)


def size(vectors: Array) -> Array:
    """Squared norms."""
    squared: Array = (vectors**2).sum(axis=-1)
    return squared
