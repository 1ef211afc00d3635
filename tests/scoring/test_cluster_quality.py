"""Cluster quality: measures against slow loops and scikit-learn, the survey of a study, correlations by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from listening import Listener
from scipy.stats import spearmanr
from sklearn.metrics import (
    davies_bouldin_score,
    pairwise_distances,
    silhouette_score,
    v_measure_score,
)
from tiny import write
from torch import Tensor

import oodbench
from oodbench.api import Clusters
from oodbench.errors import UserError
from oodbench.execution import cluster_survey
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.report import correlation, formats
from oodbench.scoring import cluster_quality, detectors
from oodbench.scoring.cluster_quality import MEASURES, OF_THE_CLASSES, measures
from oodbench.store.artifacts import Store
from oodbench.store.memo import Watch
from oodbench.store.rows import Results, frame
from oodbench.study import reader
from oodbench.study.settings import PLAIN
from oodbench.training.weights import plan_of


def drawn(n: int = 90, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, classes and clusters that have something to do with each other, of unequal sizes."""
    rng = np.random.default_rng(0)
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    f = rng.normal(size=(classes, 5))[y] * 2 + rng.normal(size=(n, 5)) + 50
    assign = np.where(rng.random(n) < 0.6, y, rng.integers(0, classes + 1, n))
    return torch.from_numpy(f).float(), torch.from_numpy(y), torch.from_numpy(assign)


def one(f: Tensor, y: Tensor, assign: Tensor, classes: int = 4) -> dict[str, float]:
    (found,) = measures(f, y, classes, [assign])
    return found


# ---- loops, as slow and as plain as the authors' words -------------------------------------------------


def slow_separation(f: Tensor, groups: Tensor) -> float:
    distance = pairwise_distances(f.double().numpy())
    names = sorted(set(groups.tolist()) - {-1})

    def between(a: int, b: int) -> float:
        pairs = [(i, j) for i in range(len(f)) if groups[i] == a for j in range(len(f)) if groups[j] == b]
        return sum(distance[i, j] for i, j in pairs) / len(pairs)

    found = []
    for c in names:
        own, nearest = between(c, c), min(between(c, other) for other in names if other != c)
        found.append((nearest - own) / max(nearest, own))
    return sum(found) / len(found)


def slow_cluster_purity(assign: Tensor, y: Tensor) -> float:
    shares = []
    for c in set(assign.tolist()) - {-1}:
        inside = [label for label, cluster in zip(y.tolist(), assign.tolist(), strict=True) if cluster == c]
        shares.append(max(inside.count(label) for label in inside) / len(inside))
    return sum(shares) / len(shares)


def slow_local_purity(f: Tensor, y: Tensor) -> float:
    distance = pairwise_distances(f.double().numpy())
    largest = max(y.tolist().count(c) for c in y.tolist())
    curve = []
    for k in [int(each) for each in np.linspace(0, largest, 10)][1:]:
        shares = []
        for i in range(len(f)):
            others = sorted((j for j in range(len(f)) if j != i), key=lambda j: distance[i, j])
            near = [int(y[j]) for j in [i, *others[:k]]]
            shares.append(max(near.count(label) for label in near) / len(near))
        curve.append(sum(shares) / len(shares))
    return sum(curve) / len(curve)


@pytest.mark.slow
@pytest.mark.parametrize("block", [cluster_quality.BLOCK, 1000])
def test_measures_are_those_of_loops_and_scikit_learn(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_quality, "BLOCK", block)  # 1000: eleven rows at a time
    f, y, assign = drawn()
    found = one(f, y, assign)
    x = f.double().numpy()
    assert tuple(sorted(found)) == tuple(sorted(MEASURES))
    assert found["global_separation"] == pytest.approx(slow_separation(f, assign), abs=1e-5)
    assert found["class_separation"] == pytest.approx(slow_separation(f, y), abs=1e-5)
    assert found["cluster_purity"] == pytest.approx(slow_cluster_purity(assign, y), abs=1e-12)
    assert found["local_purity"] == pytest.approx(slow_local_purity(f, y), abs=1e-12)
    assert found["silhouette"] == pytest.approx(silhouette_score(x, assign), abs=1e-5)
    assert found["davies_bouldin"] == pytest.approx(davies_bouldin_score(x, assign), abs=1e-9)
    assert found["nmi"] == pytest.approx(v_measure_score(y, assign), abs=1e-12)
    assert found["class_separation"] > found["global_separation"] + 0.1  # so that one is not the other


def test_ari_counts_pairs() -> None:
    _, y, assign = drawn(40)
    pairs = [(y[i] == y[j], assign[i] == assign[j]) for i in range(40) for j in range(i)]
    both = sum(bool(a and b) for a, b in pairs)
    same_y, same_c = sum(bool(a) for a, _ in pairs), sum(bool(b) for _, b in pairs)
    expected = same_y * same_c / len(pairs)
    wanted = (both - expected) / ((same_y + same_c) / 2 - expected)
    assert one(torch.randn(40, 3), y, assign)["ari"] == pytest.approx(wanted, abs=1e-12)


def test_calinski_harabasz_is_a_ratio_of_scatters() -> None:
    f, y, assign = drawn()
    parts = [f[assign == c].double() for c in assign.unique()]
    between = sum(len(p) * (p.mean(0) - f.double().mean(0)).square().sum() for p in parts) / (len(parts) - 1)
    within = sum((p - p.mean(0)).square().sum() for p in parts) / (len(f) - len(parts))
    assert one(f, y, assign)["calinski_harabasz"] == pytest.approx(float(between / within), rel=1e-9)


def test_an_item_alone_in_its_cluster() -> None:
    f, y, assign = drawn()
    assign[0] = 7
    found = one(f, y, assign)
    assert found["silhouette"] == pytest.approx(silhouette_score(f.double().numpy(), assign), abs=1e-5)
    assert found["global_separation"] == pytest.approx(slow_separation(f, assign), abs=1e-5)


def test_noise_is_left_out_of_what_is_of_clusters() -> None:
    f, y, assign = drawn()
    assign[::4] = -1
    kept = assign >= 0
    found, without = one(f, y, assign), one(f[kept], y[kept], assign[kept])
    for name in cluster_quality.OF_THE_CLUSTERS:
        assert found[name] == pytest.approx(without[name], abs=1e-5), name
    whole = one(f, y, drawn()[2])
    for name in OF_THE_CLASSES:
        assert found[name] == whole[name], name
        assert found[name] != without[name], name


def test_perfect_clusters() -> None:
    y = torch.arange(4).repeat_interleave(25)
    f = torch.eye(4)[y] * 1000 + torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 1e-3
    found = one(f, y, 3 - y)  # whatever their numbers
    for name in ("class_separation", "global_separation", "cluster_purity", "silhouette", "nmi", "ari"):
        assert found[name] == pytest.approx(1, abs=1e-4), name
    # 25 other items at most, of which 24 are of the item's own class: the last of nine steps has one that is not
    assert found["local_purity"] == pytest.approx((8 + 25 / 26) / 9)
    assert found["davies_bouldin"] == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_random_labels() -> None:
    rng = torch.Generator().manual_seed(0)
    f, y = torch.randn(2000, 3, generator=rng), torch.randint(0, 2, (2000,), generator=rng)
    found = one(f, y, torch.randint(0, 2, (2000,), generator=rng), 2)
    for name in ("class_separation", "global_separation", "silhouette", "nmi", "ari"):
        assert found[name] == pytest.approx(0, abs=0.01), name
    assert found["cluster_purity"] == pytest.approx(0.5, abs=0.05)
    assert found["local_purity"] == pytest.approx(0.5, abs=0.1)


def test_what_does_not_exist_is_absent() -> None:
    f, y, assign = drawn()
    single = one(f, y, torch.zeros_like(assign))
    assert set(single) == {*OF_THE_CLASSES, "cluster_purity", "nmi", "ari"}
    assert single["cluster_purity"] == pytest.approx(int(y.bincount().max()) / len(y))
    assert (single["nmi"], single["ari"]) == (0, 0)
    of_one_class = one(f, torch.zeros_like(y), assign, classes=1)
    assert set(of_one_class) == {"global_separation", "silhouette", "davies_bouldin", "calinski_harabasz"}
    assert measures(f, y, 4, [None]) == [{name: single[name] for name in OF_THE_CLASSES}]
    assert measures(f, torch.zeros_like(y), 1, [None]) == [{}]
    each_alone = one(f[:5], y[:5], torch.arange(5))
    assert set(each_alone) == {*OF_THE_CLASSES, "global_separation", "cluster_purity", "nmi", "ari"}
    assert each_alone["global_separation"] == 1


def test_items_in_one_point() -> None:
    y = torch.tensor([0, 0, 1, 1])
    found = one(torch.ones(4, 2), y, y, 2)
    assert (found["global_separation"], found["silhouette"]) == (0, 0)
    assert not any(math.isnan(value) for value in found.values())


def test_groupings_do_not_see_each_other() -> None:
    f, y, assign = drawn()
    together = measures(f, y, 4, [y, None, assign])
    assert together == [one(f, y, y), measures(f, y, 4, [None])[0], one(f, y, assign)]


# ---- the survey of a study ------------------------------------------------------------------------------


def surveyed(path: Path, listener: Listener | None = None) -> cluster_survey.Survey:
    return cluster_survey.survey(Pipeline(reader.load(path), Options(device="cpu"), listener or Listener()))


SPACES = [{"layer": "penultimate"}, {"layer": "projection", "unit": True}]


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_every_cluster_of_a_study_is_measured_once(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", space=SPACES)
    rows = oodbench.run(path, device="cpu")
    first = surveyed(path)
    places = {
        (cell.run.training.label, cell.detector.labels["space"], cell.detector.labels["clustering"], split)
        for cell in plan_of(reader.load(path)).cells
        for split in ("train", "test")
    }
    found = list(first.rows[["training", "space", "clustering", "split"]].itertuples(index=False, name=None))
    assert set(found) == places
    assert (len(found), first.measured) == (len(places), len(places))
    assert (first.trainings, first.missing) == (2, 0)
    listener = Listener()
    file = tmp_path / "results" / "s" / cluster_survey.FILE
    before = file.read_bytes()
    second = surveyed(path, listener)
    assert (second.measured, listener.stages) == (0, [])
    pd.testing.assert_frame_equal(first.rows, second.rows)
    assert file.read_bytes() == before
    assert set(first.rows["train_key"]) == set(rows["train_key"])
    sizes = rows[rows["clustering"] != "–"].groupby(["train_key", "space", "clustering"])["clusters"].first()
    measured = first.rows[first.rows["clustering"] != "–"].groupby(["train_key", "space", "clustering"])["clusters"]
    assert measured.first().to_dict() == sizes.to_dict()
    assert first.rows.groupby("split")["n"].unique().to_dict() == {"train": [90], "test": [120]}


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_the_clusters_are_those_that_detectors_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", space=SPACES, clustering=[{"kmeans": {"k": 5, "restarts": 1}}])
    fitted: list[Clusters] = []
    fit = detectors.clusters_in

    def seen(*args: Any) -> Clusters:
        fitted.append(fit(*args))
        return fitted[-1]

    monkeypatch.setattr(detectors, "clusters_in", seen)
    oodbench.run(path, device="cpu")
    scored, fitted = fitted, []
    surveyed(path)
    assert len(scored) == len(fitted) == 6  # two spaces of SimCLR, one of cross-entropy; k-NN has no clusters
    for one_, other in zip(scored, fitted, strict=True):
        assert torch.equal(one_.assign, other.assign)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_measures_of_a_study_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr", clustering="labels", distance="cosine")
    oodbench.run(path, device="cpu")
    rows = surveyed(path).rows.set_index("split")
    pipeline = Pipeline(reader.load(path), Options(device="cpu"), Watch())
    (work,) = plan_of(pipeline.study).work
    bank = pipeline.bank(work.run, [PLAIN], baselines=False)
    f, y = bank.fit["penultimate"][0], bank.y
    f_test, y_test = bank.test.layers[PLAIN]["penultimate"][0], bank.test.y
    centers = torch.stack([f[y == c].mean(0) for c in range(3)])
    nearest = torch.tensor([int((x - centers).norm(dim=1).argmin()) for x in f_test])
    assert rows.loc["train", list(MEASURES)].to_dict() == pytest.approx(one(f, y, y, 3))
    assert rows.loc["test", list(MEASURES)].to_dict() == pytest.approx(one(f_test, y_test, nearest, 3), rel=1e-6)
    assert rows.loc["train", ["cluster_purity", "nmi", "ari"]].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_nothing_is_trained_for_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    found = surveyed(path)
    assert (len(found.rows), found.missing, found.trainings) == (0, 2, 2)
    oodbench.run(write(tmp_path / "s.yaml", training="simclr"), device="cpu")
    listener = Listener()
    found = surveyed(write(tmp_path / "s.yaml"), listener)
    assert (set(found.rows["training"]), found.missing) == ({"simclr"}, 1)
    assert set(listener.stages) == {"quality"}


@pytest.mark.usefixtures("trained")
def test_damaged_features_are_as_good_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    oodbench.run(path, device="cpu")
    for file in (tmp_path / "results" / "store" / "bank").glob("*/*/features.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    listener = Listener()
    found = surveyed(path, listener)
    assert (len(found.rows), found.missing, listener.stages) == (0, 1, [])
    assert "altered or cut short" in listener.warnings[0]


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_the_file_is_an_export_that_is_never_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    oodbench.run(path, device="cpu")
    before, file = surveyed(path), tmp_path / "results" / "s" / cluster_survey.FILE
    whole = file.read_bytes()
    for other in (b"", whole[:-1], whole.replace(b"0.", b"1.")):  # other numbers
        file.write_bytes(other)
        again = surveyed(path)
        assert (again.measured, file.read_bytes()) == (0, whole)
        pd.testing.assert_frame_equal(again.rows, before.rows)
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path / "elsewhere"))
    assert (len(surveyed(path).rows), file.read_bytes()) == (0, whole)  # a store without any leaves it


@pytest.mark.usefixtures("trained")
def test_damaged_measures_are_made_again(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    oodbench.run(path, device="cpu")
    before = surveyed(path).rows
    manifest = Store(tmp_path / "results" / "store").path("quality", before["key"][0]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.", "1."))
    listener = Listener()
    again = surveyed(path, listener)
    assert again.measured == 2
    assert "its manifest was altered" in listener.warnings[0]
    pd.testing.assert_frame_equal(again.rows, before)


@pytest.mark.usefixtures("trained")
def test_a_damaged_export_is_named_and_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    oodbench.run(path, device="cpu")
    before, file, heard = surveyed(path).rows, tmp_path / "results" / "s" / cluster_survey.FILE, list[str]()
    results, whole = Results(file.parent, heard.append), file.read_bytes()
    found = results.clusters()
    assert found is not None
    pd.testing.assert_frame_equal(found[list(MEASURES)], before[list(MEASURES)])
    for cut in (b"", whole[:-1], whole[: len(whole) // 2], b"\xff\xfe", whole.replace(b"0.", b"x.")):
        file.write_bytes(cut)
        assert results.clusters() is None
        assert "quality.csv is damaged and not used" in heard.pop()


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_only_what_is_new_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oodbench.study.registry import Registry

    path = write(tmp_path / "s.yaml", training="simclr", clustering=["labels", "one"])
    oodbench.run(path, device="cpu")
    before = surveyed(path).rows
    more = surveyed(write(tmp_path / "s.yaml", training="simclr", clustering=["labels", "one", {"kmeans": {"k": 2}}]))
    assert more.measured == 2
    kept = more.rows[more.rows["key"].isin(before["key"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    whole = Registry.fingerprint

    def edited(self: Registry, room: str, name: str) -> str:
        return "edited" if name == "one" else whole(self, room, name)

    monkeypatch.setattr(Registry, "fingerprint", edited)
    again = surveyed(path)
    assert (again.measured, len(again.rows)) == (2, len(more.rows))
    monkeypatch.setattr(cluster_survey, "fingerprint_module", lambda name: "edited")
    assert surveyed(path).measured == len(more.rows)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_clustering_that_fails_leaves_the_others_theirs(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr", clustering=["labels", {"kmeans": {"k": 91}}])
    oodbench.run(path, device="cpu")
    rows = surveyed(path).rows.set_index("clustering")
    assert set(rows.loc["kmeans(k=91)", "error"]) == {"ValueError: 91 clusters of 90 training items"}
    assert rows.loc["kmeans(k=91)", list(MEASURES)].isna().all().all()
    assert rows.loc["labels", list(MEASURES)].notna().all().all()
    again = surveyed(path)
    assert (again.measured, len(again.rows)) == (2, len(rows))  # it is tried again, and there once


@pytest.mark.slow
def test_one_class_has_no_measures_of_classes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        id={"blobs": {"groups": 3, "count": 120, "only": 0}},
        training="simclr",
        clustering=[{"kmeans": {"k": 2}}, "one"],
    )
    oodbench.run(path, device="cpu")
    rows = surveyed(path).rows.set_index("clustering")
    there = set(rows.columns[rows.loc["kmeans(k=2)"].notna().all()]) & set(MEASURES)
    assert there == {"global_separation", "silhouette", "davies_bouldin", "calinski_harabasz"}
    assert rows.loc[["one", "–"], list(MEASURES)].isna().all().all()


# ---- correlations ---------------------------------------------------------------------------------------


def test_repeated_spearman_is_that_of_repeated_items() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)  # ties and none
    times = rng.integers(0, 4, (5, 20)).astype(float)
    wanted = [spearmanr(np.repeat(a, n.astype(int)), np.repeat(b, n.astype(int))).statistic for n in times]
    assert correlation.repeated_spearman(a, b, times) == pytest.approx(wanted)
    assert math.isnan(correlation.repeated_spearman(a, b, np.eye(20)[:1])[0])  # one item


def test_an_interval_needs_encoders_that_differ() -> None:
    rng = np.random.default_rng(0)
    x = pd.Series(rng.normal(size=200))
    y = x + rng.normal(size=200)
    few = correlation.correlation(x, y, np.repeat(["a", "b", "c", "d"], 50).astype(object))
    assert (few.n, few.runs, math.isnan(few.low), math.isnan(few.high)) == (200, 4, True, True)
    alone = correlation.correlation(x, y, np.arange(200).astype(str).astype(object))
    assert alone.spearman == pytest.approx(spearmanr(x, y).statistic)
    assert alone.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert alone.low < alone.spearman < alone.high
    # by Fisher's z the standard error of atanh(r) is about 1 / sqrt(n - 3)
    wide = (np.arctanh(alone.high) - np.arctanh(alone.low)) / (2 * 1.96 / math.sqrt(197))
    assert wide == pytest.approx(1, abs=0.25)
    # cells of ten encoders that are all alike within one: the interval is that of ten, not of two hundred
    together = correlation.correlation(
        x[:10].repeat(20), y[:10].repeat(20), np.repeat(np.arange(10), 20).astype(object)
    )
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_no_correlation_of_what_does_not_vary_or_is_not_there() -> None:
    x, runs = pd.Series([0.1, 0.2, 0.4, math.nan]), np.array(["a", "b", "c", "d"], dtype=object)
    assert correlation.correlation(x, x, runs).n == 3
    assert correlation.correlation(x, x, runs).spearman == pytest.approx(1)
    assert math.isnan(correlation.correlation(x, x * 0 + 0.3 * (1 + 1e-15), runs).pearson)
    assert correlation.correlation(x[1:], x[1:], runs[1:])[:2] == (2, 2)
    assert math.isnan(correlation.correlation(x[1:], x[1:], runs[1:]).spearman)


def made(runs: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows and measures of two trainings: near AUROC goes with purity in one, against it in the other."""
    rows, measured = [], []
    for run in range(runs):
        training, sign = (("simclr", 1), ("supcon", -1))[run % 2]
        for k, clustering in enumerate(("labels", "kmeans", "gmm")):
            purity = 0.5 + 0.01 * run + 0.1 * k
            place = {"train_key": str(run), "training": training, "space": "penultimate", "clustering": clustering}
            for ood, group, auroc in (
                ("a", "near", 0.6 + sign * purity / 10),
                ("b", "near", 0.8 + sign * purity / 10),
                ("c", "far", 0.9),
            ):
                row = place | {"distance": "cosine", "ood": ood, "group": group, "status": "ok", "level": 0.9}
                rows.append(row | {"threshold": "pooled", "auroc": auroc})
                if clustering != "labels":  # worse and there less often: not what is compared
                    rows.append(row | {"threshold": "per_cluster", "auroc": 1 - auroc})
            measured += [place | {"clusters": 3, "split": "test", "cluster_purity": purity}]
            measured += [place | {"clusters": 3, "split": "train", "cluster_purity": 1.0}]
    table = frame([{"cell": str(i)} | row for i, row in enumerate(rows)])
    return table, pd.DataFrame(measured).reindex(columns=list(cluster_survey.COLUMNS))


def listed(table: correlation.Correlations, **where: str) -> pd.Series[Any]:
    found = table.listed
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1
    return found.iloc[0]


NEAR = {"distance": "cosine", "measure": "cluster_purity", "split": "test", "group": "near"}


def test_correlations_of_a_study(tmp_path: Path) -> None:
    rows, measured = made()
    table = correlation.correlations(rows, measured)
    for training, wanted in (("simclr", 1), ("supcon", -1)):
        found = listed(table, trainings=training, **NEAR)
        assert (found["n"], found["runs"]) == (9, 3)
        assert [found["spearman"], found["pearson"]] == pytest.approx([wanted, wanted])
    purity, auroc = measured[measured["split"] == "test"]["cluster_purity"], []
    for training, p in zip(measured["training"][::2], purity, strict=True):
        auroc.append(0.7 + (1 if training == "simclr" else -1) * p / 10)
    found = listed(table, trainings="all", **NEAR)
    assert found["spearman"] == pytest.approx(spearmanr(purity, auroc).statistic)
    assert found["low"] < found["spearman"] < found["high"]
    assert math.isnan(listed(table, trainings="all", **NEAR | {"group": "far"})["spearman"])
    assert math.isnan(listed(table, trainings="all", **NEAR | {"split": "train"})["spearman"])
    assert "18 cells in all, of 6 trained encoders" in table.caption
    assert "pooled at 0.9" in table.caption
    assert "not causation" in table.caption
    formats.write_table(table.sheet(), tmp_path)
    text = (tmp_path / "quality-correlation.md").read_text()
    assert f"| {found['spearman']:.2f} [{found['low']:.2f}, {found['high']:.2f}] |" in " ".join(text.split())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "quality-correlation.csv"), table.listed)
    assert r"\begin{tabular}{@{}lll" in (tmp_path / "quality-correlation.tex").read_text()


def test_a_group_with_a_failed_set_is_not_compared() -> None:
    rows, measured = made()
    rows.loc[(rows["ood"] == "b") & (rows["train_key"] == "0"), "auroc"] = math.nan
    assert listed(correlation.correlations(rows, measured), trainings="all", **NEAR)["n"] == 15


def test_single_clusters_are_not_compared() -> None:
    rows, measured = made()
    measured.loc[measured["clustering"] == "gmm", "clusters"] = 1
    assert listed(correlation.correlations(rows, measured), trainings="all", **NEAR)["n"] == 12
    measured["clusters"] = pd.NA  # what has no clusters is no single one
    assert listed(correlation.correlations(rows, measured), trainings="all", **NEAR)["n"] == 18


def test_rows_of_other_trainings_are_not_compared() -> None:
    rows, measured = made()
    with pytest.raises(UserError, match="no measured clusters are those of a row"):
        correlation.correlations(rows, measured.assign(train_key="other " + measured["train_key"]))


# ---- the command ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quality_prints_and_writes(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", seed=[0, 1, 2])
    never = call("quality", path)
    assert never.exit_code == 2
    assert "run the study first" in never.stderr
    assert call("run", path).exit_code == 0
    done = call("quality", path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "11 of 33 rows, those of all trainings" in done.stdout
    assert "36 rows measured, 36 in all" in done.stdout
    folder = tmp_path / "results" / "s"
    for ending in ("md", "csv", "tex"):
        assert (folder / f"quality-correlation.{ending}").stat().st_size > 1000
    table = pd.read_csv(folder / "quality-correlation.csv")
    measured = table.groupby("distance")["measure"].unique()
    assert set(measured["knn(k=3)"]) == set(OF_THE_CLASSES)
    assert set(measured["cosine"]) == set(MEASURES)
    assert "0 rows measured, 36 in all" in call("quality", path).stdout


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_quality_without_features_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    call("run", path)
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path / "elsewhere"))
    done = call("quality", path)
    assert done.exit_code == 2
    assert "the features of 1 of 1 trainings are not in" in done.stderr
    assert "has no features of" in done.stderr
    assert Results(tmp_path / "results" / "s").current()["status"].eq("ok").all()
