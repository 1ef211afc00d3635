"""ID accuracy of a frozen encoder: its own classifier, a linear probe, a nearest-neighbour probe."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

NEIGHBOURS = 20


def accuracies(train: dict[str, Tensor], y: Tensor, test: dict[str, Tensor], y_test: Tensor) -> dict[str, float | None]:
    """Return the shares of ID test items classified right, by what classified them; None where nothing can.

    train and test are layers by name, (N, D). The probes see penultimate features: `linear` is multinomial
    logistic regression (C = 1) on standardised ones, `knn` a vote of the 20 nearest unit-norm ones.
    """
    if len(y.unique()) < 2:
        return {"classifier": None, "linear": None, "knn": None}
    h, h_test = train["penultimate"].numpy(), test["penultimate"].numpy()
    logits = test.get("logits")
    return {
        "classifier": None if logits is None else float((logits.argmax(1) == y_test).double().mean()),
        "linear": _linear(h, y.numpy(), h_test, y_test.numpy()),
        "knn": _knn(h, y.numpy(), h_test, y_test.numpy()),
    }


def _linear(h: np.ndarray, y: np.ndarray, h_test: np.ndarray, y_test: np.ndarray) -> float:
    scaler = StandardScaler().fit(h.astype(np.float64))
    model = LogisticRegression(C=1.0, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has settled long before the weights
        model.fit(scaler.transform(h), y)
    return float(model.score(scaler.transform(h_test), y_test))


def _knn(h: np.ndarray, y: np.ndarray, h_test: np.ndarray, y_test: np.ndarray) -> float:
    model = KNeighborsClassifier(min(NEIGHBOURS, len(y)), algorithm="brute").fit(normalize(h), y)
    return float(model.score(normalize(h_test), y_test))
