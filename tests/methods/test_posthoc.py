"""Baselines against the slowest loop from their paper, and where pytorch-ood's own answers are not the paper's."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pytorch_ood import detector
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import weibull_min
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.study.registry import Registry
from oodbench.toolkit import pytorch_ood as adapter

N, D, C = 90, 12, 4
OF_NETWORKS = ("multi_mahalanobis", "multi_vim", "odin")  # have their oracles in test_network_baselines.py
NAMES = [name for name in Registry().sources("posthoc") if name not in OF_NETWORKS]


def plugin(name: str, **params: Any) -> Posthoc:
    made = Registry().load("posthoc", name)(**params)
    assert isinstance(made, Posthoc)
    return made


def those_that_say(need: str) -> list[str]:
    return [name for name in NAMES if getattr(plugin(name), need)]


class Toy:
    """A linear head with a bias on rectified features of four classes, some of them classified wrong."""

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        rng = torch.Generator().manual_seed(seed)
        self.W = torch.randn(C, D, generator=rng).to(device)
        self.b = torch.randn(C, generator=rng).to(device)
        centers = 0.7 * self.W.cpu()
        self.head = ClassifierHead(lambda h: h @ self.W.T + self.b, self.W, self.b)

        def items(labelled: bool) -> Split:
            y = torch.randint(C, (N,), generator=rng)
            h = (centers[y] + torch.randn(N, D, generator=rng)).relu().to(device)
            return Split(h, self.head.apply(h), y.to(device) if labelled else None)

        self.train, self.val, self.x = items(True), items(True), items(False)

    def score(self, posthoc: Posthoc) -> np.ndarray:
        fitted = posthoc.fit(self.train, self.val if posthoc.val else None, self.head)
        return fitted(self.x).cpu().numpy()


@pytest.fixture(scope="module")
def toy() -> Toy:
    made = Toy()
    wrong = (made.train.logits.argmax(1) != made.train.y).double().mean()
    assert 0 < wrong < 0.5  # or the patterns of SHE and the temperature would not be tried
    return made


def rows(x: Tensor) -> list[np.ndarray]:
    return list(x.double().cpu().numpy())


def energy_of(logits: np.ndarray) -> float:
    return -math.log(sum(math.exp(each) for each in logits))


def through(toy: Toy, h: np.ndarray) -> np.ndarray:
    """Return the logits of one item's features."""
    return np.array([sum(w * x for w, x in zip(row, h, strict=True)) for row in rows(toy.W)]) + rows(toy.b[None])[0]


# ---- one item at a time, from the papers -------------------------------------------------------------------------


def msp(toy: Toy) -> list[float]:
    return [1 - max(softmax(z)) for z in rows(toy.x.logits)]


def temperature(toy: Toy) -> list[float]:
    z, y = toy.val.logits.double().numpy(), toy.val.y.numpy()

    def nll(t: float) -> float:
        return float(np.mean([-log_softmax(z[i] / t)[y[i]] for i in range(len(z))]))

    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}).x
    return [1 - max(softmax(each / best)) for each in rows(toy.x.logits)]


def max_logit(toy: Toy) -> list[float]:
    return [-max(z) for z in rows(toy.x.logits)]


def energy(toy: Toy, t: float = 1.0) -> list[float]:
    return [t * energy_of(z / t) for z in rows(toy.x.logits)]


def entropy(toy: Toy) -> list[float]:
    return [-sum(p * math.log(p) for p in softmax(z)) for z in rows(toy.x.logits)]


def gen(toy: Toy, gamma: float = 0.1, top: int = C) -> list[float]:
    found = []
    for z in rows(toy.x.logits):
        p = sorted(softmax(z))[::-1][:top]
        found.append(sum(each**gamma * (1 - each) ** gamma for each in p))
    return found


def react(toy: Toy, percentile: float = 0.9, of: str = "train") -> list[float]:
    c = np.quantile({"train": toy.train, "val": toy.val}[of].h.double().numpy(), percentile)
    return [energy_of(through(toy, np.array([min(a, c) for a in h]))) for h in rows(toy.x.h)]


def ash(toy: Toy, variant: str = "s", percentile: float = 0.9) -> list[float]:
    found = []
    kept = D - round(D * percentile)
    for h in rows(toy.x.h):
        largest = {int(i) for i in np.argsort(-h, kind="stable")[:kept] if h[i] > 0}
        pruned = np.array([a if i in largest else 0.0 for i, a in enumerate(h)])
        if variant == "s":
            shaped = pruned * math.exp(h.sum() / pruned.sum())
        elif variant == "b":
            shaped = np.array([h.sum() / len(largest) if i in largest else 0.0 for i in range(D)])
        else:
            shaped = pruned
        found.append(energy_of(through(toy, shaped)))
    return found


def scale(toy: Toy, percentile: float = 0.85) -> list[float]:
    found = []
    kept = D - round(D * percentile)
    for h in rows(toy.x.h):
        r = h.sum() / sum(sorted(h)[-kept:])
        found.append(energy_of(through(toy, h * math.exp(r))))
    return found


def she(toy: Toy) -> list[float]:
    pattern = []
    for k in range(C):
        right = [
            h
            for h, y, z in zip(rows(toy.train.h), toy.train.y.tolist(), rows(toy.train.logits), strict=True)
            if y == k == int(z.argmax())
        ]
        pattern.append(sum(right) / len(right))
    return [-float(h @ pattern[int(z.argmax())]) for h, z in zip(rows(toy.x.h), rows(toy.x.logits), strict=True)]


class Residual(NamedTuple):
    """What ViM takes from training features, in float64."""

    origin: np.ndarray
    rest: np.ndarray  # (D, D - dims)
    alpha: float
    turn: float  # the angle by which float32 covariances, as pytorch-ood has them, may turn `rest`: rounding by the gap


def residual(toy: Toy, dims: int) -> Residual:
    W, b = toy.W.double().numpy(), toy.b.double().numpy()
    origin = -np.linalg.pinv(W) @ b
    train = toy.train.h.double().numpy() - origin
    covariance = sum(np.outer(row, row) for row in train) / N
    values, vectors = np.linalg.eig(covariance)
    rest = vectors[:, np.argsort(-values)[dims:]]
    virtual = [np.linalg.norm(rest.T @ row) for row in train]
    alpha = np.mean([max(z) for z in rows(toy.train.logits)]) / np.mean(virtual)
    sizes = np.sort(values)[::-1]
    turn = np.finfo(np.float32).eps * sizes[0] / (sizes[dims - 1] - sizes[dims])
    return Residual(origin, rest, float(alpha), float(turn))


def vim(toy: Toy, dims: int = D // 2) -> list[float]:
    origin, rest, alpha, _ = residual(toy, dims)
    return [
        float(alpha * np.linalg.norm(rest.T @ (h - origin)) - logsumexp(z))
        for h, z in zip(rows(toy.x.h), rows(toy.x.logits), strict=True)
    ]


def vim_moves(toy: Toy, dims: int = D // 2) -> float:
    """Return by how much rounding may move a score: a turned space takes in so much of what lies outside it."""
    found = residual(toy, dims)
    longest = max(np.linalg.norm(h - found.origin) for h in rows(toy.x.h))
    return float(found.alpha * found.turn * longest)


def kl_matching(toy: Toy) -> list[float]:
    posteriors = [softmax(z) for z in rows(toy.val.logits)]
    typical = []
    for k in range(C):
        of_k = [p for p in posteriors if int(p.argmax()) == k]
        typical.append(sum(of_k) / len(of_k))
    found = []
    for p in (softmax(z) for z in rows(toy.x.logits)):
        found.append(min(sum(a * math.log(a / b) for a, b in zip(p, d, strict=True)) for d in typical))
    return found


def fdbd(toy: Toy, normalizer: str = "mean") -> list[float]:
    W, mean = rows(toy.W), toy.train.h.double().mean(0).numpy()
    found, origin = [], mean if normalizer == "mean" else 0
    for h in rows(toy.x.h):
        z = through(toy, h)
        k = int(z.argmax())
        distances = [(z[k] - z[c]) / np.linalg.norm(W[k] - W[c]) for c in range(C) if c != k]
        found.append(-sum(distances) / (C - 1) / np.linalg.norm(h - origin))
    return found


def pytorch_ood(toy: Toy) -> list[float]:
    """Its default, NCI (Liu & Qin 2025): minus the length of a centred feature's projection on its class's weights."""
    W, mean = rows(toy.W), toy.train.h.double().mean(0).numpy()
    return [-float((h - mean) @ W[through(toy, h).argmax()]) / np.linalg.norm(h - mean) for h in rows(toy.x.h)]


def rmds(toy: Toy) -> list[float]:
    h, y = toy.train.h.double().numpy(), toy.train.y.numpy()
    mean = h.mean(0)
    means = [h[y == k].mean(0) for k in range(C)]
    within, total = np.zeros((D, D)), np.zeros((D, D))
    for row, k in zip(h, y, strict=True):
        within += np.outer(row - means[k], row - means[k]) / N
        total += np.outer(row - mean, row - mean) / N
    inner, outer = np.linalg.inv(within), np.linalg.inv(total)
    return [min((x - m) @ inner @ (x - m) for m in means) - (x - mean) @ outer @ (x - mean) for x in rows(toy.x.h)]


def dice(toy: Toy, sparsity: float = 0.9) -> list[float]:
    mean = toy.train.h.double().mean(0).numpy()
    W = toy.W.double().numpy()
    contribution = np.array([[W[c, d] * mean[d] for d in range(D)] for c in range(C)])
    cut = np.quantile(contribution, sparsity)
    found = []
    for h in rows(toy.x.h):
        z = [sum(W[c, d] * h[d] for d in range(D) if contribution[c, d] > cut) + float(toy.b[c]) for c in range(C)]
        found.append(energy_of(np.array(z)))
    return found


def nnguide(toy: Toy, k: int = 10) -> list[float]:
    bank = [
        (h / np.linalg.norm(h), -energy_of(z)) for h, z in zip(rows(toy.train.h), rows(toy.train.logits), strict=True)
    ]
    found = []
    for h, z in zip(rows(toy.x.h), rows(toy.x.logits), strict=True):
        u = h / np.linalg.norm(h)
        guidance = np.mean(sorted(float(u @ v) * e for v, e in bank)[-k:])
        found.append(float(guidance * energy_of(z)))
    return found


def openmax(toy: Toy, tail: int = 20, alpha: int = 10) -> list[float]:
    """Return the log odds of pytorch-ood's unknown class, each item in a batch with one of every class."""
    right = toy.train.logits.argmax(1) == toy.train.y
    theirs = detector.OpenMax(None, tailsize=tail, alpha=alpha)
    theirs.fit_logits(toy.train.logits[right].double(), toy.train.y[right])
    every = torch.eye(C, dtype=torch.float64)
    p = [float(theirs.predict_logits(torch.cat([z[None], every]))[0]) for z in toy.x.logits.double()]
    return [math.log(each / (1 - each)) for each in p]


def gradnorm(t: Toy) -> list[float]:
    """The gradient of KL(uniform || softmax), of one item at a time, by the head's weights."""
    found = []
    for h in t.x.h.double():
        weight = t.W.double().clone().requires_grad_()
        log_p = (weight @ h + t.b.double()).log_softmax(0)
        (gradient,) = torch.autograd.grad(-(log_p + math.log(C)).mean(), weight)
        found.append(-float(gradient.abs().sum()))
    return found


CASES: list[tuple[Callable[..., list[float]], dict[str, Any]]] = [
    (msp, {}),
    (temperature, {}),
    (max_logit, {}),
    (energy, {}),
    (energy, {"temperature": 3.0}),
    (entropy, {}),
    (gen, {}),
    (gen, {"gamma": 0.5, "top": 2}),
    (react, {}),
    (react, {"percentile": 0.6}),
    (react, {"percentile": 0.6, "of": "val"}),
    (ash, {}),
    (ash, {"variant": "b"}),
    (ash, {"variant": "p", "percentile": 0.5}),
    (scale, {}),
    (scale, {"percentile": 0.5}),
    (she, {}),
    (vim, {}),
    (vim, {"dims": 9}),
    (kl_matching, {}),
    (pytorch_ood, {}),
    (fdbd, {}),
    (fdbd, {"normalizer": "norm"}),
    (rmds, {}),
    (dice, {}),
    (dice, {"sparsity": 0.3}),
    (nnguide, {}),
    (nnguide, {"k": 3}),
    (openmax, {}),
    (openmax, {"tail": 8, "alpha": 2}),
    (gradnorm, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("oracle", "params"), CASES, ids=lambda each: getattr(each, "__name__", str(each)))
def test_scores_are_those_of_the_paper(toy: Toy, oracle: Callable[..., list[float]], params: dict[str, Any]) -> None:
    expected = oracle(toy, *params.values())
    atol = 1e-5 if oracle is not vim else vim_moves(toy, **params)
    np.testing.assert_allclose(toy.score(plugin(oracle.__name__, **params)), expected, rtol=2e-5, atol=atol)


def test_every_baseline_has_an_oracle() -> None:
    assert {oracle.__name__ for oracle, _ in CASES} == set(NAMES)
    assert all(plugin(name).network for name in OF_NETWORKS)
    assert not any(plugin(name).network for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_rows_at_a_time_change_nothing(toy: Toy, name: str) -> None:
    """More items than one block holds, in another order: each keeps its score."""
    posthoc = plugin(name)
    score = posthoc.fit(toy.train, toy.val if posthoc.val else None, toy.head)
    times = adapter.ROWS // N + 2
    many = Split(toy.x.h.flip(0).repeat(times, 1), toy.x.logits.flip(0).repeat(times, 1))
    alone = score(toy.x).flip(0).repeat(times)
    torch.testing.assert_close(score(many), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_devices_agree(toy: Toy, name: str) -> None:
    np.testing.assert_allclose(Toy(device="cuda").score(plugin(name)), toy.score(plugin(name)), rtol=1e-3, atol=1e-3)


# ---- where float32, a clip or a bound would show ---------------------------------------------------------------------


def confident(*gaps: float) -> Split:
    """Return logits of three classes of which the first leads by a gap."""
    return Split(torch.zeros(len(gaps), D), torch.tensor([[gap, 0.0, -1.0] for gap in gaps]))


@pytest.mark.parametrize("gap", [10.0, 36.6, 36.8, 37.0, 60.0, 300.0])
def test_gen_of_two_classes_has_both_terms_at_any_gap(toy: Toy, gap: float) -> None:
    """p (1 - p) is of either class: with gamma 1 the score is 2 p (1 - p) = 2 / (e^gap + 2 + e^-gap)."""
    pair = Split(torch.zeros(1, D), torch.tensor([[gap, 0.0]], dtype=torch.float64))
    score = plugin("gen", gamma=1.0).fit(toy.train, None, toy.head)(pair)
    assert float(score) == pytest.approx(2 / (math.exp(gap) + 2 + math.exp(-gap)), rel=1e-9)


@pytest.mark.parametrize("scale", [1, 6, 20, 60])
def test_kl_matching_of_logits_far_apart_is_no_rounding(toy: Toy, scale: float) -> None:
    """Against 400 digits; a divergence is never negative, and tells items apart whose softmax is 1 in float64."""
    val, x = scale * toy.val.logits[:40], scale * toy.x.logits[:20]
    score = plugin("kl_matching").fit(toy.train, Split(toy.val.h[:40], val), toy.head)(Split(toy.x.h[:20], x))

    def posteriors(logits: Tensor) -> list[list[Decimal]]:
        powers = [[Decimal(z).exp() for z in row] for row in logits.double().tolist()]
        return [[each / sum(row) for each in row] for row in powers]

    with localcontext() as digits:
        digits.prec = 400
        of: dict[int, list[list[Decimal]]] = {}
        for row in posteriors(val):
            of.setdefault(row.index(max(row)), []).append(row)
        typical = [[sum(column) / len(members) for column in zip(*members, strict=True)] for members in of.values()]
        expected = [
            float(min(sum(a * (a / b).ln() for a, b in zip(p, d, strict=True)) for d in typical)) for p in posteriors(x)
        ]
    assert (score >= 0).all()
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-6)


def test_ash_leaves_zeros_where_they_are_and_does_not_depend_on_the_order_of_features(toy: Toy) -> None:
    h = toy.x.h.clone()
    h[:, 3:] = 0  # fewer activations than are kept
    order = torch.randperm(D, generator=torch.Generator().manual_seed(1))
    head = ClassifierHead(lambda z: z @ toy.W[:, order].T + toy.b, toy.W[:, order], toy.b)
    for variant in ("s", "b", "p"):
        ash = plugin("ash", variant=variant, percentile=0.5)
        there = ash.fit(toy.train, None, toy.head)(Split(h, toy.x.logits))
        moved = ash.fit(toy.train, None, head)(Split(h[:, order], toy.x.logits))
        torch.testing.assert_close(there, moved, rtol=1e-6, atol=0)  # sums of float32, in another order
    shared = h[0].sum() / (h[0] > 0).sum()
    expected = energy_of(through(toy, np.where(h[0] > 0, shared, 0)))
    assert float(plugin("ash", variant="b", percentile=0.5).fit(toy.train, None, toy.head)(Split(h[:1], h[:1]))) == (
        pytest.approx(expected, rel=1e-5)
    )


@pytest.mark.parametrize("name", ["msp", "entropy", "gen", "energy", "max_logit"])
def test_confident_items_are_told_apart(toy: Toy, name: str) -> None:
    scores = plugin(name).fit(toy.train, None, toy.head)(confident(10, 18, 30, 60, 90))
    assert (scores.diff() < 0).all()


def test_pytorch_ood_agrees_where_it_does_not_saturate(toy: Toy) -> None:
    """Ours against theirs for the four that are our own; on confident items theirs have ties that ours have not."""
    mild = Split(toy.x.h, toy.x.logits / 4)  # no probability below the 1e-7 of their clip
    names = ("msp", "entropy", "gen", "rmds")
    ours = {name: plugin(name).fit(toy.train, None, toy.head)(mild) for name in names}
    z = mild.logits.double()
    assert z.softmax(1).min() > 1e-7
    torch.testing.assert_close(ours["msp"], 1 + detector.MaxSoftmax.score(z))
    torch.testing.assert_close(ours["entropy"], detector.Entropy.score(z))
    torch.testing.assert_close(ours["gen"], C * detector.GEN.score(z))
    theirs = N * detector.RMD(None).fit_features(toy.train.h, toy.train.y).predict_features(mild.h).double()
    torch.testing.assert_close(ours["rmds"], theirs, rtol=1e-3, atol=1e-2)
    both = confident(30, 60).logits
    assert detector.MaxSoftmax.score(both).unique().numel() == 1
    assert detector.GEN.score(both).unique().numel() == 1


def test_a_reference_without_a_best_temperature_is_warned_of(toy: Toy) -> None:
    right = toy.val._replace(y=toy.val.logits.argmax(1))
    with pytest.warns(UserWarning, match=r"best at T = 0\.01"):
        scores = plugin("temperature").fit(toy.train, right, toy.head)(toy.x)
    assert scores.isfinite().all()
    assert scores.unique().numel() > N // 2
    wrong = toy.val._replace(y=toy.val.logits.argmin(1))
    with pytest.warns(UserWarning, match="best at T = 100"):
        plugin("temperature").fit(toy.train, wrong, toy.head)


@pytest.mark.parametrize("name", ["ash", "scale"])
def test_features_that_may_be_negative_are_refused(toy: Toy, name: str) -> None:
    shifted = toy.train._replace(h=toy.train.h - 0.5)
    with pytest.raises(ValueError, match="never negative"):
        plugin(name).fit(shifted, None, toy.head)


@pytest.mark.parametrize("variant", ["s", "b", "p"])
def test_an_item_without_activation_has_the_energy_of_the_bias(toy: Toy, variant: str) -> None:
    nothing = Split(torch.zeros(2, D), toy.b.expand(2, -1))
    expected = torch.full((2,), energy_of(rows(toy.b[None])[0]), dtype=torch.float64)
    for posthoc in (plugin("ash", variant=variant), plugin("scale")):
        torch.testing.assert_close(posthoc.fit(toy.train, None, toy.head)(nothing), expected, rtol=1e-6, atol=1e-6)


def test_vim_wants_a_residual_space(toy: Toy) -> None:
    with pytest.raises(ValueError, match="leaves nothing of 12 features"):
        plugin("vim", dims=D).fit(toy.train, None, toy.head)


@pytest.mark.parametrize(("features", "dims"), [(12, 6), (512, 256), (768, 512), (2048, 1000)])
def test_the_principal_space_of_vim_is_that_of_its_authors(features: int, dims: int) -> None:
    module = __import__("oodbench.methods.posthoc.vim", fromlist=["_dims"])
    assert module._dims(features) == dims


def test_covariances_of_less_than_full_rank_are_warned_of(toy: Toy) -> None:
    h = torch.cat([toy.train.h, torch.zeros(N, 1)], 1)
    with pytest.warns(UserWarning, match="rank 12 of 13"):
        score = plugin("rmds").fit(toy.train._replace(h=h), None, toy.head)
    x = torch.cat([toy.x.h, torch.zeros(N, 1)], 1)
    np.testing.assert_allclose(score(Split(x, toy.x.logits)), rmds(toy), rtol=1e-6)


@pytest.mark.parametrize("name", those_that_say("linear"))
def test_a_head_that_is_not_linear_is_refused(toy: Toy, name: str) -> None:
    with pytest.raises(ValueError, match="not linear"):
        plugin(name).fit(toy.train, None, ClassifierHead(toy.head.apply, None, None))


@pytest.mark.parametrize("name", those_that_say("applies"))
def test_a_head_that_is_said_to_be_applied_is(toy: Toy, name: str) -> None:
    """What is applied and does not say so is caught by the conformance suite."""
    applied = []
    head = toy.head._replace(apply=lambda h: applied.append(h) or toy.head.apply(h))
    plugin(name).fit(toy.train, None, head)(toy.x)
    assert applied


@pytest.mark.parametrize("name", those_that_say("val"))
def test_a_reference_is_asked_for(toy: Toy, name: str) -> None:
    with pytest.raises(ValueError, match="no ID reference"):
        plugin(name).fit(toy.train, None, toy.head)


@pytest.mark.parametrize("name", ["she", "openmax"])
def test_a_class_that_is_never_classified_right_is_refused(toy: Toy, name: str) -> None:
    predicted = toy.train.logits.argmax(1)
    y = torch.where(predicted == 2, 1, toy.train.y)
    y[(predicted == 0).nonzero()[0]] = 2
    with pytest.raises(ValueError, match="class 2"):
        plugin(name).fit(toy.train._replace(y=y), None, toy.head)


def test_openmax_revises_by_the_formulas_of_the_paper(toy: Toy) -> None:
    """Algorithms 1 and 2 with scipy's Weibull fit, two classes revised; its shape leaves little precision."""
    right = toy.train.logits.argmax(1) == toy.train.y
    z, y = toy.train.logits[right].double().numpy(), toy.train.y[right].numpy()
    means, tails = [], []
    for k in range(C):
        means.append(z[y == k].mean(0))
        tail = np.sort([np.linalg.norm(row - means[k]) for row in z[y == k]])[-20:]
        shape, _, scale = weibull_min.fit(tail + 10_000 - tail[0], floc=0)
        tails.append((shape, scale, 10_000 - tail[0]))
    expected = []
    for v in rows(toy.x.logits):
        w = np.ones(C)
        for i, k in enumerate(np.argsort(-v)[:2]):
            shape, scale, shift = tails[k]
            cdf = weibull_min.cdf(np.linalg.norm(v - means[k]) + shift, shape, scale=scale)
            w[k] = 1 - (2 - i) / 2 * cdf
        expected.append((v * (1 - w)).sum() - logsumexp(v * w))
    np.testing.assert_allclose(toy.score(plugin("openmax", alpha=2)), expected, rtol=1e-3, atol=1e-3)


def test_openmax_of_pytorch_ood_depends_on_the_batch(toy: Toy) -> None:
    """Why the revision is our own."""
    theirs = detector.OpenMax(None).fit_logits(toy.train.logits.double(), toy.train.y)
    z = toy.x.logits.double()
    alone = torch.cat([theirs.predict_logits(z[i : i + 1]) for i in range(len(z))])
    assert not torch.allclose(theirs.predict_logits(z), alone, atol=0.01)


def test_a_training_set_without_labels_is_refused(toy: Toy) -> None:
    with pytest.raises(ValueError, match="no labels"):
        plugin("she").fit(toy.train._replace(y=None), None, toy.head)


# ---- any of pytorch-ood's detectors ----------------------------------------------------------------

NEEDED = {"DICE": {"p": 0.5}, "ViM": {"d": 4}}
ANY = Registry().load("posthoc", "pytorch_ood")


@pytest.mark.parametrize("name", sys.modules[ANY.__module__].of_features())
def test_any_detector_scores_as_pytorch_ood_scores_with_a_network(toy: Toy, name: str) -> None:
    """Held to the library's own way: fitted by a loader, asked through an encoder and a head that it calls itself."""
    made = ANY(detector=name, options=NEEDED.get(name, {}))
    head = adapter.linear(toy.head)
    own = {"encoder": nn.Identity(), "model": head, "head": head, "w": toy.W, "b": toy.b}
    kind = getattr(detector, name)
    maps = hasattr(kind, "predict_feature_maps")
    shaped = adapter.maps if maps else lambda h: h
    if maps:
        own |= {"backbone": nn.Identity(), "head": nn.Sequential(nn.Flatten(), head)}
    needed = {key: own[key] for key in inspect.signature(kind.__init__).parameters if key in own}
    theirs = kind(**needed, **NEEDED.get(name, {}))
    theirs.fit(DataLoader(TensorDataset(shaped(toy.train.h), toy.train.y), batch_size=N))
    expected = theirs.predict(shaped(toy.x.h)).detach().numpy()
    np.testing.assert_allclose(toy.score(made), expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"detector": "NCl"}, "no detector NCl; did you mean 'NCI'?"),
        ({"detector": "MCM"}, "MCM reads embeddings of texts"),
        ({"detector": "WeightedEBO"}, "WeightedEBO needs a weight of each class"),
        ({"detector": "ODIN", "options": {"epsilon": 0.1}}, "ODIN has no option epsilon; did you mean 'eps'?"),
        ({"detector": "MCD", "options": {"mode": "max"}}, "MCD does not take {'mode': 'max'}"),
        ({"options": {"alhpa": 1}}, "NCI has no option alhpa; did you mean 'alpha'?"),
        ({"options": {"alpha": "x"}}, "alpha is 'x', allowed is float"),
        ({"detector": "ViM"}, "ViM needs the option d"),
        ({"detector": "DICE", "options": {"p": 2.0}}, "p"),
    ],
)
def test_what_pytorch_ood_cannot_give_is_refused_when_it_is_made(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ANY(**params)


def test_options_are_told_apart_in_labels() -> None:
    assert ANY(options={"alpha": 0.1}).label == "pytorch_ood(NCI, alpha=0.1)"
    assert ANY(detector="DICE", options={"p": 0.5}).linear
    assert ANY(detector="LTS").applies
    assert not ANY(detector="Entropy").applies
