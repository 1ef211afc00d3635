"""The bootstrap-t that checks claims of ten runs: against slow loops, under the null, and what verdicts make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hand_made_rows import BASE
from scipy.special import stdtrit

from oodbench.report.claims import verdicts
from oodbench.report.claims.bootstrap import BootstrapT, bootstrap_t
from oodbench.report.claims.estimates import ImageError, Runs, estimate, interval
from oodbench.report.claims.verdicts import EQUAL, FAILS, HOLDS, OPEN, ClaimVerdict
from oodbench.store.columns import VERDICT
from oodbench.store.rows import frame
from oodbench.study.declarations import ClaimSpec

Draw = Callable[[np.random.Generator, Any], np.ndarray]
LOOPS = 4000


def runs_of(*blocks: np.ndarray) -> Runs:
    unit = np.repeat(np.arange(len(blocks)), [len(each) for each in blocks])
    return Runs(np.concatenate(blocks), unit if len(blocks) > 1 else np.arange(len(blocks[0])), "run")


def checked(*blocks: np.ndarray, images: tuple[ImageError, ...] = ()) -> BootstrapT:
    runs, these = runs_of(*blocks), len(blocks) > 1
    found = bootstrap_t(runs, estimate(runs, these, images), these)
    assert found is not None
    return found


def ends(mean: float, error: float, draws: list[float]) -> tuple[float, float]:
    return mean - float(np.quantile(draws, 0.95)) * error, mean - float(np.quantile(draws, 0.05)) * error


def test_it_is_the_slow_loop_over_runs_of_each_block() -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.lognormal(0, 0.7, 12), rng.lognormal(0, 0.4, 15) + 1]
    draws = []
    for _ in range(LOOPS):
        drawn = [rng.choice(each, len(each)) for each in blocks]
        shift = sum(each.mean() - whole.mean() for each, whole in zip(drawn, blocks, strict=True))
        draws.append(float(shift / np.sqrt(sum(each.var(ddof=1) / len(each) for each in drawn))))
    error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in blocks)) / 2
    mean = np.mean([each.mean() for each in blocks])
    assert checked(*blocks).interval(1) == pytest.approx(ends(float(mean), error, draws), abs=0.12 * error)


def test_of_images_it_is_the_slow_loop_over_runs_and_images() -> None:
    """Placements by run and image: those of ID are drawn as those of OOD are, the same in all runs of a draw."""
    rng, n, sizes = np.random.default_rng(1), 12, (70, 50)
    of = [5 + 4 * rng.normal(size=m) + rng.exponential(2, (n, 1)) + rng.normal(size=(n, m)) for m in sizes]

    def error_of(parts: list[np.ndarray]) -> float:
        over_runs = sum(each.mean(1) for each in parts).var(ddof=1) / n  # type: ignore[union-attr]
        return float(np.sqrt(over_runs + sum(each.mean(0).var(ddof=1) / each.shape[1] for each in parts)))

    values = np.asarray(sum(each.mean(1) for each in of))
    draws = []
    for _ in range(LOOPS):
        run = rng.integers(n, size=n)
        drawn = [each[np.ix_(run, rng.integers(each.shape[1], size=each.shape[1]))] for each in of]
        draws.append((sum(each.mean() for each in drawn) - values.mean()) / error_of(drawn))
    variance = sum(each.mean(0).var(ddof=1) / each.shape[1] for each in of)
    found = checked(values, images=(ImageError(float(variance), min(sizes)),))
    error = error_of(of)
    assert float(found.found.spread()[0]) == pytest.approx(error)
    assert variance > 0.3 * error**2
    assert found.interval(1) == pytest.approx(ends(values.mean(), error, draws), abs=0.12 * error)


def test_runs_in_another_order_have_the_same_and_under_ten_have_none() -> None:
    values = np.random.default_rng(2).lognormal(size=10)
    assert checked(values).interval(3) == pytest.approx(checked(values[::-1]).interval(3))
    few = runs_of(values[:9])
    assert bootstrap_t(few, estimate(few)) is None
    sets = runs_of(values, values[:9])
    assert bootstrap_t(sets, estimate(sets, these=True), these=True) is None
    assert bootstrap_t(sets, estimate(sets)) is None  # two observations


def test_draws_without_an_error_leave_the_end_open() -> None:
    """Nine runs alike and one that differs: a third of the draws lack it."""
    one, alike = np.array([0.0] * 9 + [1.0]), np.full(10, 0.3)
    assert checked(one).interval(1)[1] == np.inf
    assert checked(one).wider().variance[0] > 1e5 * one.var()
    assert checked(alike).interval(1) == pytest.approx((0.3, 0.3))


SHAPES: dict[str, tuple[Draw, float]] = {  # and how often the t interval errs on its worse side
    "normal": (lambda rng, n: rng.normal(size=n), 0.05),
    "both sides skewed": (lambda rng, n: rng.exponential(size=n) - rng.exponential(size=n), 0.05),
    "exponential": (lambda rng, n: rng.exponential(size=n) - 1, 0.14),
    "lognormal": (lambda rng, n: rng.lognormal(size=n) - np.exp(0.5), 0.21),
}
JOINT = {"normal": 0.05, "both sides skewed": 0.05, "exponential": 0.085, "lognormal": 0.13}  # docs/results.md


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_under_the_null_both_err_less_often_than_t_alone(shape: str) -> None:
    """Ten runs, at the edge itself: to lie above it or below is an error."""
    draw, by_t = SHAPES[shape]
    rng, count, errors = np.random.default_rng(3), 1000, np.zeros((2, 2))
    for _ in range(count):
        runs = runs_of(draw(rng, 10))
        both = checked(runs.values)
        for i, (low, high) in enumerate((interval(both.found, 1), both.with_t(1))):
            errors[i] += low > 0, high < 0
    t, joint = errors / count
    for found, most in ((t, by_t), (joint, JOINT[shape])):
        assert found.max() == pytest.approx(most, abs=3 * np.sqrt(most * (1 - most) / count) + 0.01)
    assert joint.max() < t.max()


@pytest.mark.slow
def test_under_the_null_a_claim_of_runs_that_share_images_errs_as_seldom_as_it_says() -> None:
    """Runs vary as much as the draw of images, of which DeLong's variance is an estimate."""
    rng, count, n, m = np.random.default_rng(4), 1000, 10, 40
    errors = np.zeros(2)
    for _ in range(count):
        placements = rng.normal(size=m)
        values = placements.mean() + rng.normal(0, m**-0.5 * n**0.5, n)
        low, high = checked(values, images=(ImageError(placements.var(ddof=1) / m, m),)).with_t(1)
        errors += low > 0, high < 0
    assert (errors / count <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)).all()
    assert errors.min() / count > 0.02


def by_skewness(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return t, and t adjusted by the skewness of the runs, of draws (D, N); all have the quantiles of t."""
    n, s = x.shape[1], x.std(1, ddof=1)
    skew = ((x - x.mean(1, keepdims=True)) ** 3).sum(1) * n / ((n - 1) * (n - 2)) / s**3
    w, root = x.mean(1) / s, n**0.5
    t, a = root * w, skew / (6 * root)
    return {
        "t": t,
        "Johnson": t + a + skew / (3 * root) * t**2,
        "Chen": t + a * (1 + 2 * t**2) + 4 * a**2 * (t + 2 * t**3),
        "Hall": root * (w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * n)),
    }


FIVE = {  # errors on the worse side; power for a normal difference of one deviation: docs/results.md
    "exponential": {"t": 0.16, "Johnson": 0.09, "Chen": 0.16, "Hall": 0.10},
    "lognormal": {"t": 0.23, "Johnson": 0.12, "Chen": 0.23, "Hall": 0.14},
    "both sides skewed": {"t": 0.04, "Johnson": 0.06, "Chen": 0.08, "Hall": 0.06},
    "power": {"t": 0.58, "Johnson": 0.48, "Chen": 0.62, "Hall": 0.50},
}


@pytest.mark.parametrize("shape", FIVE)
def test_no_adjustment_by_skewness_holds_with_five_runs(shape: str) -> None:
    draw = SHAPES["normal" if shape == "power" else shape][0]
    drawn = draw(np.random.default_rng(0), (20_000, 5)) + (shape == "power")
    wanted = stdtrit(4, 0.95)
    for name, t in by_skewness(drawn).items():
        found = max((t > wanted).mean(), (t < -wanted).mean())
        assert found == pytest.approx(FIVE[shape][name], abs=0.01), name


# ---- verdicts


def judged(differences: list[float], id_: Callable[[int], str] = lambda i: "digits", **claim: Any) -> ClaimVerdict:
    rows = [
        BASE | {"posthoc": "–", "cell": f"{name}{i}", "seed": i, "id": id_(i), "family": id_(i)} | {"training": name}
        | {"auroc": 0.5 + each / 100 * (name == "a")}
        for i, each in enumerate(differences)
        for name in ("a", "b")
    ]  # fmt: skip
    left, right = {"training": "a"}, {"training": "b"}
    return verdicts.verdict(frame(rows), "c", ClaimSpec(says="so", left=left, right=right, **claim))


SKEWED = [1.9, 2.2, 1.6, 2.1, 1.4, 2.0, 1.2, 2.3, 1.8, -3.0]  # one run is far behind


def test_what_t_decides_and_the_bootstrap_does_not_is_open() -> None:
    found = judged(SKEWED, margin=0.3)
    (line,) = found.evidence
    assert (found.state, line.by_t, line.bootstrap) == (OPEN, HOLDS, "runs")
    assert line.bootstrap_low < 0.3 < line.low
    assert 0 < line.more == found.more_runs() < verdicts.MOST
    said = (
        f"holds by t alone [{line.low:+.2f}, {line.high:+.2f}], not by bootstrap over runs [{line.bootstrap_low:+.2f}, "
    )
    assert said in found.text()
    assert "From 10 observations on a claim is decided where the bootstrap-t" in verdicts.caption([found])
    listed = verdicts.sheet([found]).numbers
    assert set(VERDICT) <= set(listed)
    assert listed["by_t"].item() == HOLDS
    nine = judged(SKEWED[1:], margin=0.3)
    assert (nine.evidence[0].bootstrap, "bootstrap" in nine.text()) == ("", False)
    assert "bootstrap" not in verdicts.caption([nine])


def test_what_both_decide_is_decided() -> None:
    values = list(2 + np.random.default_rng(6).normal(0, 1, 12))
    found = judged(values, margin=0.5)
    assert (found.state, found.evidence[0].by_t) == (HOLDS, "")
    assert found.text().endswith("12 runs, 11 above, by bootstrap over runs too")
    few, many = (judged(values, margin=0.5, id_=lambda i, k=k: f"set {i % k}") for k in (2, 12))  # type: ignore[misc]
    assert [each.evidence[0].bootstrap for each in (few, many)] == ["", "ID sets"]
    assert "by bootstrap over ID sets too" in many.text()


def test_equal_by_t_alone_is_what_both_say() -> None:
    found = judged([0.0, 0.3, 0.1, 0.4, -0.1, 0.2, 0.5, 0.2, 0.3, -2.2])
    (line,) = found.evidence
    assert line.bootstrap_low < -0.5 < line.low < line.high < 0.5
    assert (found.state, line.by_t) == (FAILS, EQUAL)
