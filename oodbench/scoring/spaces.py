"""Spaces: which features a detector sees, fitted on training features only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from oodbench.study.settings import Space
from oodbench.toolkit.linear_algebra import moments, principal_axes, standardizer
from oodbench.toolkit.vectors import unit

Transform = Callable[[Tensor], Tensor]  # (..., D) -> (..., D')


def fit(
    space: Space, train: Tensor, carry: Callable[[Transform, Tensor], Tensor] | None = None
) -> tuple[Transform, Tensor]:
    """Return the function that carries features into a space, and the training features there.

    train (N, D) are plain training features. `carry` takes them a step further, all at once unless told otherwise.
    """
    steps: list[Transform] = []
    pca = partial(_pca, space.pca or 0)
    for wanted, make in ((space.unit, lambda _: unit), (space.zscore, _zscore), (space.pca, pca)):
        if wanted:
            step = make(train)
            train = carry(step, train) if carry else step(train)
            steps.append(step)

    def transform(f: Tensor) -> Tensor:
        for step in steps:
            f = step(f)
        return f

    return transform, train


def _zscore(train: Tensor) -> Transform:
    standardize = standardizer(train)
    return lambda f: standardize(f).float()


def _pca(components: int, train: Tensor) -> Transform:
    if components > min(train.shape):
        raise ValueError(f"pca={components} of {train.shape[0]} training items with {train.shape[1]} dimensions")
    mean, covariance = moments(train)
    axes = principal_axes(covariance, components).float()
    return lambda f: (f.double() - mean).float() @ axes
