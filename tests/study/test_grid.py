"""From a study to cells: what is there once, what makes no sense, what a count said in classes becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import write

from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.study.class_protocol import class_count
from oodbench.study.grid import Cell, Plan, Run, resolved
from oodbench.study.registry import Registry
from oodbench.training.weights import plan_of


def planned(tmp_path: Path, **changes: Any) -> Plan:
    return plan_of(reader.load(write(tmp_path / "s.yaml", **changes)))


def cells(found: Plan) -> list[Cell]:
    return found.cells


def runs(found: Plan) -> list[Run]:
    return [work.run for work in found.work]


def test_a_grid_is_a_product(tmp_path: Path) -> None:
    found = planned(tmp_path, seed=[0, 1], distance=["cosine", "euclidean"])
    assert len(runs(found)) == 2 * 2
    assert len(cells(found)) == 4 * 2 * 2 * 2  # runs x clusterings x distances x thresholds
    assert len({cell.id for cell in cells(found)}) == len(cells(found))


def test_distances_without_clusters_are_not_multiplied(tmp_path: Path) -> None:
    found = planned(tmp_path, training="simclr", distance=[{"knn": {"k": [1, 3]}}])
    assert [cell.detector.labels["threshold"] for cell in cells(found)] == ["pooled", "pooled"]
    assert {cell.detector.clustering for cell in cells(found)} == {None}
    assert found.left_out["knn(k=3) ignores clusters"] == 2
    assert found.left_out["per_cluster needs clusters, knn(k=3) has none"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clustering": ["labels", "one"]}, "per_cluster needs several clusters, one makes one"),
        (
            {"clustering": ["labels", "one"], "distance": ["cosine", "relative_mahalanobis"]},
            "relative_mahalanobis needs several clusters, one makes one",
        ),
        ({"clustering": ["labels", {"kmeans": {"k": 1}}]}, "per_cluster needs several clusters, kmeans(k=1) makes one"),
        ({"space": [{}, {"layer": "projection"}]}, "cross_entropy has no projection layer"),
        ({"space": [{}, {"unit": True}], "distance": ["norm"]}, "norm needs raw features, not penultimate unit"),
        ({"distance": ["cosine", {"norm": {"of": "each"}}]}, "norm(of=each) needs several views"),
        ({"id": [{"digits": {"only": 3}}, "digits"]}, "labels needs labels, digits(only=3) has one class"),
        ({"id": [{"digits": {"only": 3}}, "digits"]}, "cross_entropy needs labels, digits(only=3) has one class"),
        (
            {"id": [{"digits": {"only": 3}}, "digits"], "training": "ccl", "recipe": {"epochs": 21}},
            "ccl makes as many clusters as classes, digits(only=3) has one class",
        ),
        ({"space": [{}, {"layer": "shifted"}], "distance": ["cosine", "csi"]}, "simclr has no shifted layer"),
        (
            {"space": [{}, {"layer": "shifted"}], "training": ["csi", "simclr"], "distance": ["cosine", "csi"]},
            "csi is not for the layer penultimate",
        ),
        ({"space": [{}, {"layer": "shifted"}], "training": "csi"}, "cosine is not for the layer shifted"),
        (
            {"space": [{}, {"layer": "shifted", "unit": True}], "training": "csi", "distance": ["cosine", "csi"]},
            "csi needs raw features, not shifted unit",
        ),
        ({"reference": "train"}, "cosine does not leave an item out of its own score, as `reference: train` needs"),
        (
            {"reference": "train", "distance": {"knn": {"k": 3}}, "threshold": ["pooled", "conformal"]},
            "conformal needs a reference that is held out, not `reference: train`",
        ),
        ({"skip": [{"training": "simclr", "clustering": "labels"}]}, "skipped: training simclr, clustering labels"),
        (
            {"clustering": ["labels", "one"], "space": [{}, {"zscore": True}]},
            "cosine to the one centroid of penultimate zscore, its origin, is rounding",
        ),
        (
            {"clustering": ["labels", {"kmeans": {"k": 1}}], "space": [{}, {"unit": True, "pca": 4}]},
            "cosine to the one centroid of penultimate unit pca=4, its origin, is rounding",
        ),
    ],
)
def test_what_makes_no_sense_is_left_out_with_its_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    found = planned(tmp_path, **changes)
    assert found.left_out[reason] > 0
    assert cells(found)


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ({"training": "simclr"}, lambda c: c.run.training.name != "simclr"),
        ({"seed": 1}, lambda c: c.run.seed != 1),
        ({"space": {"unit": True}}, lambda c: not c.detector.space.unit),
        ({"distance": {"knn": {"k": 3}}}, lambda c: c.detector.distance.label != "knn(k=3)"),
        ({"distance": ["cosine", {"knn": {"k": [3, 4]}}]}, lambda c: False),
        ({"seed": [1, 2]}, lambda c: c.run.seed != 1),
        ({"space": [{"unit": True}], "encoder": {"resnet18": {"width": 2}}}, lambda c: not c.detector.space.unit),
        ({"distance": "knn", "seed": 0}, lambda c: c.detector.distance.name != "knn" or c.run.seed != 0),
    ],
)
def test_skip(tmp_path: Path, skip: dict[str, Any], left: Any) -> None:
    changes = {"seed": [0, 1], "space": [{}, {"unit": True}]}
    everything = cells(planned(tmp_path, **changes))
    found = cells(planned(tmp_path, **changes, skip=[skip]))
    assert [cell.id for cell in found] == [cell.id for cell in everything if left(cell)]


def test_precisions_are_an_axis(tmp_path: Path) -> None:
    found = planned(tmp_path, precision=["float32", "bf16"], seed=[0, 1], skip=[{"precision": "bf16", "seed": 1}])
    runs = {(cell.run.precision, cell.run.seed) for cell in cells(found)}
    assert runs == {("float32", 0), ("float32", 1), ("bf16", 0)}


@pytest.mark.parametrize("skip", [{"distance": {"knn": {"k": 4}}}, {"seed": 9}, {"space": {"pca": 3}}])
def test_a_skip_that_fits_nothing_is_refused(tmp_path: Path, skip: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"s.yaml:\d+: skip: no cell fits"):
        planned(tmp_path, skip=[skip])


def test_outliers_multiply_only_what_asks_for_them(tmp_path: Path) -> None:
    sets = [{"glyphs": {"size": 8}}, {"noise": {"size": 8, "draw": 3}}]
    found = planned(tmp_path, training=["simclr", {"oecl": {"warmup": 0, "form": ["external", "self"]}}], outliers=sets)
    outliers = [(run.training.label, run.outliers and run.outliers.name) for run in runs(found)]
    assert outliers == [
        ("simclr", None),
        ("oecl(warmup=0)", "glyphs"),
        ("oecl(warmup=0)", "noise"),
        ("oecl(form=self, warmup=0)", None),
    ]


def test_a_cell_keeps_its_identity_when_others_come(tmp_path: Path) -> None:
    before = {cell.id for cell in cells(planned(tmp_path))}
    after = {
        cell.id
        for cell in cells(planned(tmp_path, clustering=["one", "labels", {"kmeans": {"k": "classes", "restarts": 2}}]))
    }
    assert before < after


@pytest.mark.slow
def test_every_parameter_is_part_of_a_cells_identity(tmp_path: Path) -> None:
    base = {cell.id for cell in cells(planned(tmp_path))}
    for changes in (
        {"seed": 1},
        {"precision": "bf16"},
        {"reference": {"val": 0.3}},
        {"image": {"size": 8, "channels": 1, "levels": 17}},
        {"encoder": {"resnet18": {"width": 3}}},
        {"space": {"unit": True}},
    ):
        assert base.isdisjoint(cell.id for cell in cells(planned(tmp_path, **changes)))


def test_counts_said_in_classes_become_numbers() -> None:
    kmeans = Registry().load("clustering", "kmeans")
    assert [resolved(kmeans(k=k), 7).k for k in ("classes", "3*classes", 5)] == [7, 21, 5]  # type: ignore[call-arg]


def test_class_counts() -> None:
    digits = Registry().load("dataset", "digits")
    given: list[dict[str, Any]] = [{}, {"only": 3}, {"keep": (1, 2)}, {"without": (1, 2)}, {"without": "zero"}]
    assert [class_count(digits(**each)) for each in given] == [10, 1, 2, 8, 9]  # type: ignore[arg-type]


def test_labels_show_what_differs_from_the_defaults(tmp_path: Path) -> None:
    found = planned(tmp_path, recipe={"epochs": 1, "lr": [0.1, 0.2]}, training={"simclr": {"temperature": 0.1}})
    labels = [run.labels for run in runs(found)]
    assert [each["recipe"] for each in labels] == ["epochs=1; lr=0.1", "epochs=1; lr=0.2"]
    assert [run.recipe_label for run in runs(found)] == ["lr=0.1", "lr=0.2"]
    assert labels[0]["training"] == "simclr(temperature=0.1)"
    assert labels[0]["encoder"] == "resnet18(width=2)"
    assert labels[0]["outliers"] == "–"


def test_the_shifted_layer_is_there_for_trainings_that_tell_turns_apart(tmp_path: Path) -> None:
    trainings = ["simclr", "csi", {"csi": {"labels": True}}, {"oecl": {"form": "self", "warmup": 0}}]
    found = cells(planned(tmp_path, training=trainings, space=[{"layer": "shifted", "views": 2}], distance="csi"))
    assert {cell.run.training.label for cell in found} == {"csi"}  # with labels it has no classifier of the turn
