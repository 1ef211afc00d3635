"""ID accuracy of a frozen encoder: its own classifier, a linear probe, a nearest-neighbour probe.

On the CPU both probes are scikit-learn's. On a CUDA device they are the same computations with products of the device:
scipy's L-BFGS-B of the same loss, with scikit-learn's limits, and votes of the same neighbours.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor
from torch.nn import functional as F

from oodbench.toolkit.vectors import unit

NEIGHBOURS = 20
ITERATIONS = 200  # of the linear probe, at most
BLOCK = 2**26  # numbers of a product's operand or result at a time, on a device
HOST = torch.device("cpu")


class Linear(NamedTuple):
    """A linear classifier of penultimate features: logits = h @ weight.T + bias."""

    weight: Tensor  # (C, D) float32
    bias: Tensor  # (C,) float32

    def __call__(self, h: Tensor) -> Tensor:
        return h @ self.weight.T + self.bias


def linear(h: Tensor, y: Tensor, iterations: int = ITERATIONS, device: torch.device = HOST) -> Linear:
    """Return multinomial logistic regression (C = 1) on standardised features h (N, D), as one linear map of h.

    Of two classes the difference of the logits alone is fitted; each class gets half of it. The result is on the CPU.
    """
    scaler = StandardScaler().fit(h.double().numpy())
    fit = by_scikit_learn if device.type == "cpu" else by_products
    coefficients, bias = fit(scaler, h, y, iterations, device)
    if len(coefficients) == 1:
        coefficients, bias = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    weight = np.ascontiguousarray(coefficients / scaler.scale_)
    bias = bias - weight @ scaler.mean_
    return Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())


Fit = tuple[np.ndarray, np.ndarray]  # coefficients (C, D) and intercepts (C,), of two classes (1, D) and (1,)


def by_scikit_learn(scaler: StandardScaler, h: Tensor, y: Tensor, iterations: int, device: torch.device) -> Fit:
    """Return the logistic regression of features h (N, D) as scikit-learn fits it, on the CPU."""
    model = LogisticRegression(C=1.0, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has settled long before the weights
        model.fit(scaler.transform(h.double().numpy()), y.numpy())
    return model.coef_, model.intercept_


def by_products(scaler: StandardScaler, h: Tensor, y: Tensor, iterations: int, device: torch.device) -> Fit:
    """Return what scikit-learn fits, by the solver that it takes; the features' products are a device's."""
    mean, scale = (torch.from_numpy(each).to(device) for each in (scaler.mean_, scaler.scale_))
    h, target = h.to(device), y.unique(return_inverse=True)[1].to(device)
    classes, items, rows = int(target.max()) + 1, len(h), max(1, BLOCK // h.shape[1])
    fitted, each = classes if classes > 2 else 1, torch.arange(classes, device=device)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean loss with its penalty, and its gradient, at weights and intercepts (fitted, D + 1)."""
        at = torch.from_numpy(flat).to(device).view(fitted, -1)
        value, gradient = 0.5 / items * at[:, :-1].square().sum(), torch.zeros_like(at)
        gradient[:, :-1] = at[:, :-1] / items
        for block, known in zip(h.split(rows), target.split(rows), strict=True):
            x = (block.double() - mean) / scale
            logits = F.pad(x @ at[:, :-1].T + at[:, -1], (classes - fitted, 0))  # of the first of two classes it is 0
            value = value + F.cross_entropy(logits, known, reduction="sum") / items
            residual = ((logits.softmax(1) - (known[:, None] == each).double()) / items)[:, classes - fitted :]
            gradient[:, :-1] += residual.T @ x
            gradient[:, -1] += residual.sum(0)
        return float(value), gradient.cpu().numpy().ravel()

    limits = {"maxiter": iterations, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    found = minimize(loss, np.zeros(fitted * (h.shape[1] + 1)), method="L-BFGS-B", jac=True, options=limits)
    best = found.x.reshape(fitted, -1)
    return best[:, :-1], best[:, -1]


def accuracies(
    probe: Linear,
    train: dict[str, Tensor],
    y: Tensor,
    test: dict[str, Tensor],
    y_test: Tensor,
    device: torch.device = HOST,
) -> dict[str, float | None]:
    """Return the shares of ID test items classified right, by what classified them; None where nothing can.

    train and test are layers by name, (N, D). `linear` is the probe, `knn` a vote of the 20 nearest unit-norm
    penultimate features.
    """
    h, h_test = train["penultimate"], test["penultimate"]
    logits, share = test.get("logits"), _knn if device.type == "cpu" else votes
    return {
        "classifier": None if logits is None else _share(logits, y_test),
        "linear": _share(probe(h_test), y_test),
        "knn": share(*(each.to(device) for each in (h, y, h_test, y_test))),
    }


def _share(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).double().mean())


def _knn(h: Tensor, y: Tensor, h_test: Tensor, y_test: Tensor) -> float:
    model = KNeighborsClassifier(min(NEIGHBOURS, len(y)), algorithm="brute").fit(normalize(h.numpy()), y.numpy())
    return float(model.score(normalize(h_test.numpy()), y_test.numpy()))


def votes(h: Tensor, y: Tensor, h_test: Tensor, y_test: Tensor) -> float:
    """Return the share of items that their 20 nearest unit-norm features tell right, all on one device."""
    bank, each, right = unit(h), torch.arange(int(y.max()) + 1, device=y.device), 0
    rows = max(1, BLOCK // len(h))
    for block, known in zip(unit(h_test).split(rows), y_test.split(rows), strict=True):
        near = (block @ bank.T).topk(min(NEIGHBOURS, len(y)), dim=1).indices
        right += int(((y[near][:, :, None] == each).sum(1).argmax(1) == known).sum())
    return right / len(y_test)
