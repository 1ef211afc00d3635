"""End to end against closed forms: Gaussian clusters, whose distances follow known distributions.

In units of its cluster's covariance an ID item's squared distance to its mean is chi-squared with DIM degrees of
freedom; that of an item of a Gaussian WIDER times as wide is WIDER^2 times such a variable, and that of one shifted
by SHIFT is noncentral chi-squared. Clusters lie so far apart that the nearest is always the item's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from oodbench.api import Clusters, Scores
from oodbench.scoring.metrics import auroc, curve
from oodbench.study.registry import Registry
from oodbench.toolkit.clusters import grouped

DIM, CLUSTERS, APART = 6, 3, 60.0
TRAIN, TEST = 30_000, 12_000
WIDER, SHIFT = 1.3, 2.0
RADIUS = {  # squared distances in units of the covariance
    "id": stats.chi2(DIM),
    "wider": stats.chi2(DIM, scale=WIDER**2),
    "shifted": stats.ncx2(DIM, SHIFT**2),
}

CASES: list[tuple[str, dict[str, Any], str]] = [  # distance, parameters, covariances under which the form holds
    ("euclidean", {}, "isotropic"),
    ("density", {}, "isotropic"),
    ("density", {}, "unequal isotropic"),
    ("mahalanobis", {"covariance": "shared"}, "tied"),
    ("mahalanobis", {"covariance": "diagonal"}, "diagonal"),
    ("mahalanobis", {"covariance": "per_cluster"}, "full"),
    ("gmm_likelihood", {}, "tied"),
    ("gmm_likelihood", {}, "diagonal"),
]


def factors(kind: str) -> Tensor:
    """Return L_k (CLUSTERS, DIM, DIM) with L_k L_k^T the covariance of cluster k."""
    rng = torch.Generator().manual_seed(1)
    mixing = torch.randn(CLUSTERS, DIM, DIM, generator=rng, dtype=torch.float64) + torch.eye(DIM)
    eye = torch.eye(DIM, dtype=torch.float64).expand(CLUSTERS, -1, -1)
    return {
        "isotropic": 2 * eye,
        "unequal isotropic": eye * torch.tensor([0.5, 1.0, 4.0])[:, None, None],
        "diagonal": eye * torch.linspace(0.3, 3.0, DIM, dtype=torch.float64),
        "tied": mixing[[0, 0, 0]],
        "full": mixing,
    }[kind]


def draw(kind: str, n: int, seed: int, what: str = "id") -> tuple[Tensor, Tensor]:
    """Return n items, float32, and the cluster that each is drawn about."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(CLUSTERS).repeat(n // CLUSTERS)
    z = torch.randn(len(y), DIM, generator=rng, dtype=torch.float64)
    if what == "wider":
        z = WIDER * z
    elif what == "shifted":
        z = z + SHIFT / math.sqrt(DIM)
    return (APART * torch.eye(DIM)[y] + (factors(kind)[y] @ z[:, :, None])[:, :, 0]).float(), y


def fitted(name: str, params: dict[str, Any], kind: str) -> Any:
    f, y = draw(kind, TRAIN, 2)
    c: Clusters = grouped(f, y)
    if name == "gmm_likelihood":
        covariance = "diag" if kind == "diagonal" else kind
        c = Registry().load("clustering", "gmm")(k=CLUSTERS, covariance=covariance).fit(f, None, 0)  # type: ignore
    return Registry().load("distance", name)(**params).fit(f, c)  # type: ignore[attr-defined]


def expected_auroc(what: str) -> tuple[float, float]:
    """Return P(OOD > ID), and the standard deviation of its estimate from TEST items of each (DeLong 1988)."""
    share = (np.arange(4000) + 0.5) / 4000
    above = RADIUS[what].sf(RADIUS["id"].ppf(share))  # of OOD above an ID item, over the quantiles of ID
    below = RADIUS["id"].cdf(RADIUS[what].ppf(share))  # of ID below an OOD item
    return float(above.mean()), math.sqrt((above.var() + below.var()) / TEST)


@pytest.mark.parametrize(("name", "params", "kind"), CASES)
def test_auroc_is_that_of_chi_squared_variables(name: str, params: dict[str, Any], kind: str) -> None:
    scorer = fitted(name, params, kind)
    id_ = scorer(draw(kind, TEST, 3)[0]).score.numpy()
    for seed, what in enumerate(("wider", "shifted"), start=4):
        ood = scorer(draw(kind, TEST, seed, what)[0]).score.numpy()
        area, deviation = expected_auroc(what)
        assert 0.6 < area < 0.9
        assert deviation < 0.005
        assert auroc(curve(id_, ood)) == pytest.approx(area, abs=4 * deviation)


@pytest.mark.parametrize(("name", "params", "kind"), CASES[:6])
def test_distances_themselves_are_chi_squared(name: str, params: dict[str, Any], kind: str) -> None:
    """Squared, and in units of the deviation 2 for euclidean; a spread is the square root of DIM deviations."""
    score = fitted(name, params, kind)(draw(kind, TEST, 3)[0]).score.numpy()
    squares = {"euclidean": (score / 2) ** 2, "density": DIM * score**2, "mahalanobis": score}[name]
    assert stats.kstest(squares, RADIUS["id"].cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["tied", "diagonal", "full"])
def test_mean_likelihood_is_the_entropy_of_the_mixture(kind: str) -> None:
    """Of components far apart and of equal weight: log K + D/2 log(2 pi e) + the mean of log |S_k| / 2 nats."""
    score = fitted("gmm_likelihood", {}, kind)(draw(kind, TEST, 3)[0]).score
    volume = float(torch.linalg.slogdet(factors(kind)).logabsdet.mean())  # of L_k
    entropy = math.log(CLUSTERS) + DIM / 2 * math.log(2 * math.pi * math.e) + volume
    assert float(score.mean()) == pytest.approx(entropy, abs=4 * math.sqrt(DIM / 2 / TEST))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place"), [("pooled", 86), ("conformal", 87)])
def test_recall_of_a_threshold_is_beta_binomial(name: str, place: int) -> None:
    """A cut at the r-th smallest of n reference scores accepts a Beta(r, n + 1 - r) share of ID.

    Of 90 reference scores 95 % are 85.5: pooled cuts at the 86th and accepts 86/91 = 94.5 % in the mean, conformal
    at the 87th and accepts 95.6 %, no less than its level.
    """
    n, m, repeats = 90, 100, 2000
    scores = fitted("mahalanobis", {}, "tied")(draw("tied", repeats * (n + m) // 3 * 3 + 3, 6)[0])
    threshold = Registry().load("threshold", name)()
    accepted = []
    for i in range(repeats):
        reference = slice(i * (n + m), i * (n + m) + n)
        new = slice(reference.stop, reference.stop + m)
        rule = threshold.fit(Scores(scores.score[reference], scores.cluster[reference]))  # type: ignore[attr-defined]
        calibrated = rule.calibrate(Scores(scores.score[new], scores.cluster[new]))
        accepted.append(float((calibrated <= rule.cut).double().mean()))
    law = stats.betabinom(m, place, n + 1 - place)
    deviation = law.std() / m
    assert np.mean(accepted) == pytest.approx(law.mean() / m, abs=4 * deviation / math.sqrt(repeats))
    assert np.std(accepted) == pytest.approx(deviation, rel=0.1)
