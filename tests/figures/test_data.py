"""What figures show, against slow loops and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made_rows import made
from places import ROOT
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score, roc_curve

from oodbench.errors import UserError
from oodbench.figures import data
from oodbench.figures.drawings import drawings
from oodbench.store.columns import LABELS, QUALITY, QUALITY_LABELS
from oodbench.store.rows import Results
from oodbench.store.scores import KeptScores, Wrong

NOBODY = Wrong(np.zeros(0, np.int64), np.zeros((0, 1, 1, 1), np.uint8))
SETS = (("a", "near"), ("b", "far"), ("c", "far"))


def grid(seeds: int = 3, **change: Any) -> pd.DataFrame:
    """Return rows of two trainings, three detectors and two thresholds that rank alike, AUROC drawn at random."""
    draw = np.random.default_rng(0)
    rows = []
    scorers = (("cosine", "–"), ("knn", "–"), ("–", "msp"))
    for training, (distance, posthoc), seed in itertools.product(("simclr", "supcon"), scorers, range(seeds)):
        values = draw.uniform(0.5, 1, len(SETS))
        for threshold, (k, (ood, group)) in itertools.product(("pooled", "conformal"), enumerate(SETS)):
            labels = {"training": training, "distance": distance, "posthoc": posthoc, "threshold": threshold}
            cell = {"cell": f"{training} {distance} {posthoc} {threshold} {seed}", "seed": seed, "train_key": f"{seed}"}
            spent = 1.0 + seed + len(distance) + 7 * (threshold == "conformal")
            numbers = {"ood": ood, "group": group, "auroc": values[k], "score_seconds": spent}
            rows.append(labels | cell | numbers | change)
    return made(*rows)


def scores(id_: Any, ood: Any) -> KeptScores:
    one, other = (np.asarray(each, np.float32) for each in (id_, ood))
    return KeptScores(0.0, one, one, other, NOBODY, NOBODY)


def of(rows: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    for name, label in labels.items():
        rows = rows[rows[name] == label]
    return rows


def test_heat_is_the_mean_over_runs_at_one_threshold() -> None:
    rows = grid()
    found = data.heat(rows)
    assert len(found) == 2 * 3 * len(SETS)
    for each in found.itertuples():
        mine = rows[(rows["distance"] == each.scorer) | (rows["posthoc"] == each.scorer)]
        mine = of(mine, training=each.training, ood=each.ood, threshold="pooled")
        assert len(mine) == 3
        assert each.auroc == pytest.approx(100 * sum(mine["auroc"]) / 3)


def test_a_dot_is_a_detector_whatever_its_thresholds() -> None:
    rows = grid()
    found = data.near_far(rows)
    assert len(found) == 6
    assert list(found["near"]) == sorted(found["near"], reverse=True)
    for each in found.itertuples():
        mine = of(rows, training=each.training, distance=each.distance, posthoc=each.posthoc, threshold="pooled")
        far = [100 * float(np.mean(of(mine, seed=seed, group="far")["auroc"])) for seed in range(3)]
        assert each.far == pytest.approx(np.mean(far))
        low, high = student.interval(0.95, 2, np.mean(far), np.std(far, ddof=1) / math.sqrt(3))
        assert (each.far_low, each.far_high) == pytest.approx((max(low, 0), min(high, 100)))


def test_two_runs_have_no_interval() -> None:
    found = data.near_far(grid(seeds=2))
    assert len(found) == 6
    assert found[["near_low", "near_high", "far_low", "far_high"]].isna().all(axis=None)


def test_an_observation_is_a_class_split_where_they_are_several() -> None:
    values = [[0.6, 0.8], [0.7, 0.7], [0.9, 0.7]]  # by split and seed
    rows = made(
        *(
            {"id": f"digits(keep={i})", "seed": j, "auroc": each, "group": group, "ood": group, "cell": f"{i} {j}"}
            for i, seeds in enumerate(values)
            for j, each in enumerate(seeds)
            for group in ("near", "far")
        )
    )
    means = np.array([70.0, 70.0, 80.0])
    half = student.ppf(0.975, 2) * means.std(ddof=1) / math.sqrt(3)
    found = data.near_far(rows).iloc[0]
    assert found["near_high"] - found["near"] == pytest.approx(half)


def test_without_far_sets_there_is_no_such_figure() -> None:
    with pytest.raises(UserError, match="no row is of far-OOD"):
        data.near_far(grid().query("group == 'near'"))


def test_several_id_sets_are_a_figure_each() -> None:
    rows = pd.concat([grid(), grid(family="letters", id="letters")], ignore_index=True)
    with pytest.raises(UserError, match="several ID data sets, each a figure of its own: digits, letters"):
        data.near_far(rows)


def test_the_front_is_of_those_whom_no_one_beats() -> None:
    rows = grid()
    found = data.pareto(rows)
    assert len(found) == 2 * 6
    for each in found.itertuples():
        mine = of(rows, training=each.training, distance=each.distance, posthoc=each.posthoc, threshold="pooled")
        assert each.seconds == pytest.approx(mine["score_seconds"].mean())
        others = of(found, group=each.group)
        beaten = any(
            one.seconds <= each.seconds and one.auroc >= each.auroc and (one.seconds, one.auroc) != (each[-3], each[-2])
            for one in others.itertuples()
        )
        assert each.front != beaten


def test_fronts_of_points_on_a_raster() -> None:
    """Many are equal in one number, or in both."""
    draw = np.random.default_rng(0)
    for _ in range(50):
        x, y = draw.integers(0, 4, (2, 12)).astype(float)
        slow = [
            not any(u <= s and v >= a and (u, v) != (s, a) for u, v in zip(x, y, strict=True))
            for s, a in zip(x, y, strict=True)
        ]
        assert data.on_front(x, y).tolist() == slow


def test_rows_without_seconds_have_no_front() -> None:
    with pytest.raises(UserError, match="score_seconds"):
        data.pareto(grid(score_seconds=float("nan")))
    assert (data.pareto(grid(score_seconds=0.0))["seconds"] == data.SHORTEST).all()


def test_ranks_need_independent_id_sets() -> None:
    with pytest.raises(UserError, match="8 independent ID data sets or more, these rows are of 1"):
        data.ranks(grid())


def test_mean_ranks_and_the_critical_difference_of_nemenyi() -> None:
    """q of 5 methods and infinitely many degrees of freedom, 2.728, is in Demšar's table 5a."""
    draw = np.random.default_rng(0)
    values = draw.uniform(0.5, 1, (5, 9))
    rows = made(
        *(
            {"distance": f"d{i}", "family": f"set {j}", "id": f"set {j}", "auroc": values[i, j], "cell": f"{i} {j}"}
            for i, j in np.ndindex(values.shape)
        )
    )
    found = data.ranks(rows)
    slow = {f"d{i}": np.mean([1 + sum(values[:, j] > values[i, j]) for j in range(9)]) for i in range(5)}
    assert dict(zip(found["distance"], found["rank"], strict=True)) == pytest.approx(slow)
    assert list(found["rank"]) == sorted(found["rank"])
    assert found.attrs["difference"] == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 9)), abs=1e-3)
    ranks = np.array([*slow.values()])
    assert found.attrs["blocks"] == 9
    chi2 = 12 * 9 / (5 * 6) * (np.sum(ranks**2) - 5 * 6**2 / 4)
    assert found.attrs["p"] == pytest.approx(math.exp(-chi2 / 2) * (1 + chi2 / 2))  # chi-squared of 4 degrees
    lacking = data.ranks(rows[(rows["distance"] != "d1") | (rows["id"] != "set 3")])
    assert (found.attrs["lacking"], lacking.attrs["lacking"], len(lacking)) == (0, 1, 4)
    says = drawings(rows, None, None, "s.yaml")["ranks"].says
    assert f"Over 9 ID data sets Friedman's test has p = {found.attrs['p']:.2g}: it tells no two of these" in says


def test_what_thresholds_keep_and_catch() -> None:
    kept = {"id_recall_low": 0.9, "id_recall_high": 0.98}
    rows = made(
        *({"level": level, "seed": seed, "id_recall": level + seed / 100, "ood_recall": seed / 10, **kept}
          for level in (0.8, 0.9) for seed in range(3))
    )  # fmt: skip
    found = data.thresholds(rows)
    assert found["level"].tolist() == [0.8, 0.9]
    assert found["id_recall"].tolist() == pytest.approx([81, 91])
    assert found["ood_recall"].tolist() == pytest.approx([10, 10])
    assert found["id_recall_low"].tolist() == pytest.approx([90, 90])
    assert found["ood_recall_low"].isna().all()


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return measures of the clusters of rows: silhouettes that differ, the others 0.5."""
    places = rows[["train_key", *(each for each in QUALITY_LABELS if each != "split")]].drop_duplicates()
    places = places.assign(clusters=3, error="", **dict.fromkeys(QUALITY, 0.5))
    places = places.assign(silhouette=np.arange(len(places)) / 10)
    return pd.concat([places.assign(split=split) for split in ("train", "test")], ignore_index=True)


def test_quality_is_beside_the_auroc_of_its_cell() -> None:
    rows = of(grid(), training="simclr")
    clusters = measured(rows)
    found = data.quality(rows, clusters)
    assert len(found) == 3 * 3 * 2 * len(QUALITY) * 2  # runs, scorers, splits, measures, groups
    silhouettes = dict(zip(clusters["train_key"], clusters["silhouette"], strict=True))
    for each in of(found, measure="silhouette").itertuples():
        assert each.value == silhouettes[each.train_key]
        mine = of(rows, train_key=each.train_key, distance=each.distance, group=each.group, threshold="pooled")
        assert each.auroc == pytest.approx(100 * mine["auroc"].mean())


def test_what_is_not_measured_is_told() -> None:
    with pytest.raises(UserError, match=r"oodbench quality s\.yaml does that"):
        data.quality(grid(), None, "s.yaml")
    with pytest.raises(UserError, match=r"oodbench curve s\.yaml does that"):
        data.curve(None, "s.yaml")


def test_numbers_over_epochs_are_means_over_runs() -> None:
    rows = of(grid(), training="simclr", threshold="pooled", distance="cosine")[[*LABELS, "auroc"]]
    course = pd.concat(
        [
            rows.assign(epoch=epoch, accuracy_linear=0.5 + epoch / 10 + rows["seed"].astype(float) / 100, error="")
            for epoch in (0, 2)
        ]
    ).assign(**dict.fromkeys(QUALITY, 0.25))
    found = data.curve(course)
    assert set(found["kind"]) == {"ID", "clusters", "AUROC"}
    accuracy = of(found, kind="ID")
    assert accuracy["epoch"].tolist() == [0, 2]
    assert accuracy["mean"].tolist() == pytest.approx([51, 71])
    assert accuracy["std"].tolist() == pytest.approx([1, 1])
    assert accuracy["n"].tolist() == [3, 3]
    assert of(found, number="silhouette")["mean"].tolist() == pytest.approx([25, 25])
    for ood, _ in SETS:
        assert of(found, kind="AUROC", number=ood)["mean"].iloc[0] == pytest.approx(
            100 * of(rows, ood=ood)["auroc"].mean()
        )


def test_roc_curves_have_the_corners_and_the_area_of_others() -> None:
    draw = np.random.default_rng(0)
    for id_, ood in (
        (draw.normal(size=50), draw.normal(1, size=30)),
        (draw.integers(0, 5, 50), draw.integers(1, 6, 30)),  # many are tied
        (np.zeros(4), np.ones(3)),
        (np.ones(4), np.ones(3)),
    ):
        truth = np.repeat([0, 1], [len(id_), len(ood)])
        found = data.roc(scores(id_, ood))
        both = np.concatenate([id_, ood]).astype(np.float32)
        rejected, caught, _ = roc_curve(truth, both, drop_intermediate=True)
        assert np.trapezoid(found["ood_found"], found["id_rejected"]) == pytest.approx(roc_auc_score(truth, both))
        assert set(zip(found["id_rejected"], found["ood_found"], strict=True)) <= set(
            zip(rejected, caught, strict=True)
        )
        assert found.iloc[0].tolist() == [0, 0]
        assert found.iloc[-1].tolist() == [1, 1]


def test_shares_of_a_histogram_are_of_all_items() -> None:
    id_, ood = np.linspace(0, 1, 1000), np.append(np.linspace(0.5, 1.5, 999), 1e6)  # one far outside
    found = data.histogram(scores(id_, ood))
    assert len(found) == data.BINS
    assert found["id"].sum() == pytest.approx(1)
    assert found["ood"].sum() == pytest.approx(1)
    assert found["high"].iloc[-1] < 2
    assert (found["low"].iloc[1:].to_numpy() == found["high"].iloc[:-1].to_numpy()).all()
    slow = [sum(1 for x in id_.astype(np.float32) if each.low <= x < each.high) / 1000 for each in found.itertuples()]
    assert found["id"].iloc[1:-1].tolist() == pytest.approx(slow[1:-1])


@pytest.mark.parametrize("sign", [-1, 1])
def test_id_is_no_single_bar_where_ood_lies_far_out(sign: int) -> None:
    id_, ood = np.linspace(0, 1, 1000), np.linspace(2, 500, 1000)
    found = data.histogram(scores(sign * id_, sign * ood))
    assert (found["id"] > 0.05).sum() >= 5
    assert found["id"].sum() == pytest.approx(1)
    assert found["ood"].sum() == pytest.approx(1)
    outermost = found["ood"].iloc[-1 if sign > 0 else 0]
    edge = 0.95 + data.REACH * 0.9  # of the middle of ID test, and the reach beside it
    assert outermost == pytest.approx((ood > edge).mean(), abs=2e-3)


def test_what_was_followed_is_read_from_its_export() -> None:
    folder = ROOT / "results" / "published" / "fashion"
    found = data.curve(Results(folder).curve())
    rows = pd.read_csv(folder / "curve.csv")
    mine = of(rows, training="supcon", distance="cosine", ood="digits", epoch=15)
    (mean,) = of(found, training="supcon", distance="cosine", number="digits", epoch=15)["mean"]
    assert len(mine) == 3
    assert mean == pytest.approx(100 * mine["auroc"].mean())
