"""ID accuracy of a frozen encoder: its own classifier, a linear probe, a nearest-neighbour probe."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

NEIGHBOURS = 20
ITERATIONS = 200  # of the linear probe, at most


class Linear(NamedTuple):
    """A linear classifier of penultimate features: logits = h @ weight.T + bias."""

    weight: Tensor  # (C, D) float32
    bias: Tensor  # (C,) float32

    def __call__(self, h: Tensor) -> Tensor:
        return h @ self.weight.T + self.bias


def linear(h: Tensor, y: Tensor, iterations: int = ITERATIONS) -> Linear:
    """Return multinomial logistic regression (C = 1) on standardised features h (N, D), as one linear map of h.

    Of two classes scikit-learn fits the difference of the logits alone; each class gets half of it.
    """
    scaler = StandardScaler().fit(h.double().numpy())
    model = LogisticRegression(C=1.0, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has settled long before the weights
        model.fit(scaler.transform(h.double().numpy()), y.numpy())
    coefficients, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients, bias = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    weight = np.ascontiguousarray(coefficients / scaler.scale_)
    bias = bias - weight @ scaler.mean_
    return Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())


def accuracies(
    probe: Linear, train: dict[str, Tensor], y: Tensor, test: dict[str, Tensor], y_test: Tensor
) -> dict[str, float | None]:
    """Return the shares of ID test items classified right, by what classified them; None where nothing can.

    train and test are layers by name, (N, D). `linear` is the probe, `knn` a vote of the 20 nearest unit-norm
    penultimate features.
    """
    h, h_test = train["penultimate"], test["penultimate"]
    logits = test.get("logits")
    return {
        "classifier": None if logits is None else _share(logits, y_test),
        "linear": _share(probe(h_test), y_test),
        "knn": _knn(h.numpy(), y.numpy(), h_test.numpy(), y_test.numpy()),
    }


def _share(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).double().mean())


def _knn(h: np.ndarray, y: np.ndarray, h_test: np.ndarray, y_test: np.ndarray) -> float:
    model = KNeighborsClassifier(min(NEIGHBOURS, len(y)), algorithm="brute").fit(normalize(h), y)
    return float(model.score(normalize(h_test), y_test))
