"""ID accuracy of frozen features: against loops, and where there is nothing to classify."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from oodbench.training import probes


def groups(count: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return 2 * torch.eye(3, 5)[y] + spread * torch.randn(count, 5, generator=rng), y


def by_votes(f: Tensor, y: Tensor, x: Tensor, k: int) -> list[int]:
    found = []
    for item in x:
        near = sorted(range(len(f)), key=lambda i: -float(torch.cosine_similarity(f[i], item, dim=0)))[:k]
        votes = [sum(int(y[i]) == c for i in near) for c in range(3)]
        found.append(votes.index(max(votes)))
    return found


def by_descent(f: Tensor, y: Tensor, x: Tensor) -> np.ndarray:
    """Multinomial logistic regression with C = 1 on standardised features, its penalty written out."""
    mean, std = f.double().mean(0), f.double().std(0, correction=0)
    a, b, classes = ((f - mean) / std).numpy(), ((x - mean) / std).numpy(), np.eye(3)[y]

    def loss(flat: np.ndarray) -> float:
        w, bias = flat[:15].reshape(5, 3), flat[15:]
        logits = a @ w + bias
        likelihood = (logits * classes).sum() - np.logaddexp.reduce(logits, axis=1).sum()
        return float(-likelihood + 0.5 * (w**2).sum())

    best = minimize(loss, np.zeros(18), method="BFGS").x
    return np.asarray((b @ best[:15].reshape(5, 3) + best[15:]).argmax(1))


def test_probes_against_their_slowest_form() -> None:
    (f, y), (x, y_test) = groups(90, 0, 1.5), groups(60, 1, 1.5)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    linear = probes.linear(f, y)
    found = probes.accuracies(linear, {"penultimate": f}, y, {"penultimate": x, "logits": logits}, y_test)
    assert found["classifier"] == pytest.approx(float((logits.argmax(1) == y_test).double().mean()))
    assert found["linear"] == pytest.approx(float((by_descent(f, y, x) == y_test.numpy()).mean()), abs=1 / 60)
    votes = torch.tensor(by_votes(f, y, x, probes.NEIGHBOURS))
    assert found["knn"] == pytest.approx(float((votes == y_test).double().mean()), abs=1 / 60)
    assert 0.5 < found["linear"] < 1  # neither chance nor all: a comparison of two ones would say nothing


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("block", [probes.BLOCK, 5 * 50])
def test_on_a_device_probes_are_scikit_learns(
    device: str, classes: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same solver on the same loss; a block is all of the items, or 50 of them."""
    monkeypatch.setattr(probes, "BLOCK", block)
    (f, y), (x, y_test) = groups(120, 0, 1.5), groups(90, 1, 1.5)
    f, y, x, y_test = f[y < classes], 7 * y[y < classes], x[y_test < classes], 7 * y_test[y_test < classes]
    scaler = StandardScaler().fit(f.double().numpy())
    wanted = probes.by_scikit_learn(scaler, f, y, 200, probes.HOST)
    found = probes.by_products(scaler, f, y, 200, torch.device(device))
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-6)
    linear, sets = probes.linear(f, y), ({"penultimate": f}, y, {"penultimate": x}, y_test)
    share = probes.votes(*(each.to(device) for each in (f, y, x, y_test)))
    assert share == probes.accuracies(linear, *sets)["knn"]
    assert 0.5 < share < 1


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_probe_is_scikit_learns_as_one_map(classes: int) -> None:
    f, y = groups(120, 0, 1.5)
    f, y = f[y < classes], y[y < classes]
    scaler = StandardScaler().fit(f.double().numpy())
    model = LogisticRegression(C=1.0, max_iter=200).fit(scaler.transform(f.double().numpy()), y.numpy())
    logits = probes.linear(f, y)(f)
    assert logits.shape == (len(f), classes)
    wanted = torch.from_numpy(model.predict_proba(scaler.transform(f.double().numpy())))
    assert torch.allclose(logits.double().softmax(1), wanted, atol=1e-5)
