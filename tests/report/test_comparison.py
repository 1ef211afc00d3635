"""Rows held against published numbers: hand-made rows, whose verdicts are known."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import BASE, by_seed
from scipy.stats import t as student
from scipy.stats import ttest_ind
from tiny import write

from oodbench.errors import UserError
from oodbench.report import comparison, formats, tables, targets
from oodbench.report.comparison import DIFFERENT, OTHER, REPRODUCED, UNDECIDED, Comparison, Line
from oodbench.report.targets import Entry, Target
from oodbench.store.rows import Results, frame
from oodbench.study import reader
from oodbench.study.registry import Registry
from oodbench.study.settings import Augment, Recipe, Space

REGISTRY = Registry()
ENCODER = {"name": "resnet18", "params": {"width": 64, "stem": "cifar"}}
PARAMETERS = {
    "id": {"name": "digits", "keep": None, "only": None, "without": None, "per_class": None},
    "training": {"name": "simclr", "temperature": 0.5, "head": "mlp-128"},
    "outliers": None,
    "encoder": ENCODER,
    "recipe": asdict(Recipe()),
    "image": {"size": 32} | {name: each for name, each in comparison.IMAGE.items() if name != "short"},
}


def detector(k: int = 50, **space: Any) -> str:
    steps = {"layer": "penultimate", "unit": False, "pca": None} | space
    parts = {"space": steps, "clustering": None, "distance": {"name": "knn", "k": k}, "threshold": {"name": "pooled"}}
    return json.dumps(parts)


MINE = {"distance": "knn", "clustering": "–", "posthoc": "–", "detector": detector(), "train_key": "t"}
MINE |= {"reference": "train", "precision": "float32"}


def made(*changes: dict[str, Any]) -> pd.DataFrame:
    return frame([BASE | MINE | {"cell": str(i)} | change for i, change in enumerate(changes)])


def entry(name: str, **params: Any) -> Entry:
    return Entry(name, params)


UNKNOWN: dict[str, Any] = {"std": None, "ddof": None, "n": None}


def target(**change: Any) -> Target:
    about = {"metric": "auroc", "value": 80.0, "std": 0.1, "ddof": 1, "n": 3, "source": "s", "id": entry("digits")}
    about |= {"training": entry("simclr"), "distance": entry("knn"), "ood": (entry("noise"),)}
    return Target(**about | change)


def held(rows: pd.DataFrame, *given: Target, parameters: dict[str, Any] | None = None) -> Comparison:
    kept = {"parameters": PARAMETERS | (parameters or {})}
    return comparison.compare(rows, lambda key: kept if key == "t" else None, given, REGISTRY)


def only(rows: pd.DataFrame, given: Target, **parameters: Any) -> Line:
    (line,) = held(rows, given, parameters=parameters).lines
    return line


# ---- verdicts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddof", [0, 1])
def test_it_is_decided_as_by_welchs_t_tests(ddof: int) -> None:
    """Reproduced by two one-sided tests (TOST), different by a two-sided one, of the runs of either side."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        ours = 80 + rng.normal(rng.uniform(-2, 2), rng.uniform(0.05, 1), rng.integers(2, 6))
        theirs = 80 + rng.normal(0, rng.uniform(0.05, 1), rng.integers(2, 6))
        published = {"value": float(theirs.mean()), "std": float(theirs.std(ddof=ddof)), "ddof": ddof, "n": len(theirs)}
        line = only(made(*by_seed(list(ours / 100))), target(**published))
        below = ttest_ind(ours, theirs - 1, equal_var=False, alternative="greater").pvalue
        above = ttest_ind(ours, theirs + 1, equal_var=False, alternative="less").pvalue
        apart = ttest_ind(ours, theirs, equal_var=False)
        wanted = REPRODUCED if max(below, above) <= 0.05 else DIFFERENT if apart.pvalue < 0.05 else UNDECIDED
        assert line.state == wanted
        ends = apart.confidence_interval(0.95)
        assert line.interval == pytest.approx((ends.low, ends.high))
        seen.add(wanted)
    assert seen == {REPRODUCED, DIFFERENT, UNDECIDED}


def test_a_side_without_a_deviation_is_taken_to_have_the_others() -> None:
    """A published number without one is a run like ours: Student's t for two samples, of which one has a single run."""
    ours = [79.0, 80.5, 81.0]
    line = only(made(*by_seed([each / 100 for each in ours])), target(value=76.0, **UNKNOWN))
    wanted = ttest_ind(ours, [76.0]).confidence_interval(0.95)
    assert line.interval == pytest.approx((wanted.low, wanted.high))
    line = only(made({"auroc": 0.83}), target(std=0.4, ddof=1, n=4))
    half = student.ppf(0.975, 3) * 0.4 * math.sqrt(1 + 1 / 4)
    assert (line.state, line.interval) == (DIFFERENT, pytest.approx((3 - half, 3 + half)))
    assert only(made({}), target(**UNKNOWN)).state == UNDECIDED  # nothing is known of the error of either


@pytest.mark.parametrize(
    ("value", "tolerance", "state"),
    [(81.0, None, REPRODUCED), (81.001, None, DIFFERENT), (80.2, 0.2, REPRODUCED), (80.201, 0.2, DIFFERENT)],
)
def test_bounds_are_within(value: float, tolerance: float | None, state: str) -> None:
    published = target(value=value, tolerance=tolerance, std=0.0, ddof=1, n=3)
    assert only(made(*by_seed([0.8] * 3)), published).state == state


@pytest.mark.slow
def test_under_their_nulls_reproduced_and_different_are_said_in_5_of_100() -> None:
    """Of a difference of the margin itself, and of none, with three runs on either side, as unequal as they come."""
    rng, said = np.random.default_rng(1), {1.0: [], 0.0: []}  # type: dict[float, list[str]]
    for off, states in said.items():
        for _ in range(300):
            ours, theirs = rng.normal(80 + off, 0.3, 3), rng.normal(80, 0.6, 3)
            published = target(value=theirs.mean(), std=theirs.std(ddof=1), ddof=1, n=3)
            line = Line(published, "", (), ours.mean(), ours.std(ddof=1), 3)
            states.append(line.state)
    most = 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)
    assert said[1.0].count(REPRODUCED) <= most
    assert said[0.0].count(DIFFERENT) <= most


def test_ours_is_a_mean_over_runs_with_its_deviation() -> None:
    line = only(made(*by_seed([0.80, 0.84, 0.88])), target())
    assert (line.mean, line.std, line.n) == (pytest.approx(84), pytest.approx(4), 3)
    failed = made(*by_seed([0.80, 0.84, 0.88]), {"seed": 3, "status": "error"})
    assert only(failed, target()).n == 3


def test_targets_of_other_cells_are_counted() -> None:
    others = [target(id=entry("cifar10")), target(training=entry("supcon")), target(distance=entry("cosine"))]
    others += [target(ood=(entry("svhn"),)), target(posthoc=entry("msp"), distance=None), target(ood=(), group="near")]
    found = held(made({}), target(), *others)
    assert (len(found.lines), found.elsewhere) == (1, 6)
    assert found.caption.endswith("6 targets of other cells.")
    assert held(made({}), others[0]).caption.endswith("1 target of other cells.")


# ---- sets ------------------------------------------------------------------------------------------------

TWO = ({"ood": "noise", "auroc": 0.6}, {"ood": "glyphs", "auroc": 0.9})


def test_rows_of_two_machines_are_said_to_be() -> None:
    rows = made({"trained_on": "one", "seed": 0}, {"trained_on": "other", "seed": 1})
    assert held(rows, target()).caption.startswith("These rows are of 2 machines or numbers of threads")
    assert held(rows[:1], target()).caption.startswith("Ours: ")


def test_a_group_is_the_unweighted_mean_of_its_sets() -> None:
    rows = made(*({**each, "n_ood": n} for each, n in zip(TWO, (10, 1000), strict=True)), {"ood": "b", "group": "near"})
    assert only(rows, target(ood=(), group="far")).mean == pytest.approx(75)


def test_named_sets_are_averaged_whatever_their_group() -> None:
    rows = made(*TWO, {"ood": "b", "auroc": 0.1}, {"ood": "c", "group": "near", "auroc": 0.3})
    assert only(rows, target(ood=(entry("noise"), entry("glyphs")), group="near")).mean == pytest.approx(75)
    assert only(rows, target(ood=(entry("noise"), entry("c")))).mean == pytest.approx(45)


def test_a_run_that_lacks_a_set_is_in_no_mean() -> None:
    second = [each | {"seed": 1} for each in TWO]
    rows = made(*TWO, second[0], second[1] | {"status": "error"})
    given = target(ood=(entry("noise"), entry("glyphs")))
    assert (only(rows, given).mean, only(rows, given).n) == (pytest.approx(75), 1)
    none = only(made(TWO[0], TWO[1] | {"status": "error"}), given)
    assert (none.state, none.why) == (OTHER, "numbers are missing: no run has auroc on all of its sets")


def test_sets_that_are_missing_are_named() -> None:
    line = only(made(*TWO), target(ood=(entry("noise"), entry("svhn"), entry("isun"))))
    assert (line.state, line.why) == (OTHER, "ood is without svhn, isun")


def test_of_a_set_in_two_forms_a_target_has_the_default_one() -> None:
    rows = made({"ood": "textures", "auroc": 0.6}, {"ood": "textures(test=train+val+test)", "auroc": 0.8}, {})
    assert only(rows, target(ood=(entry("textures"),))).mean == pytest.approx(60)
    assert only(rows, target(ood=(entry("textures"), entry("noise")))).mean == pytest.approx(70)
    other = only(rows[1:], target(ood=(entry("textures"), entry("noise"))))
    assert other.why == "ood is textures(test=train+val+test), the target's textures"


def test_a_parameter_that_a_label_does_not_state_is_its_default() -> None:
    rows = made({"ood": "textures", "auroc": 0.6}, {"ood": "textures(test=train+val+test)", "auroc": 0.8})
    assert only(rows, target(ood=(entry("textures", test=["train", "val", "test"]),))).mean == pytest.approx(80)
    assert only(rows, target(ood=(entry("textures", test=["test"]),))).mean == pytest.approx(60)
    assert held(rows, target(ood=(entry("textures", test=["val"]),))).elsewhere == 1


# ---- parameters ------------------------------------------------------------------------------------------


def test_a_parameter_that_a_target_leaves_out_is_the_default() -> None:
    rows = made({"auroc": 0.6}, {"auroc": 0.8, "distance": "knn(k=5)", "detector": detector(k=5)})
    assert only(rows, target()).mean == pytest.approx(60)
    assert only(rows, target(distance=entry("knn", k=5))).mean == pytest.approx(80)
    assert only(rows[1:], target()).why == "distance is knn(k=5), the target's knn"
    assert only(rows, target(distance=entry("knn", k=1))).why == "distance is knn or knn(k=5), the target's knn(k=1)"


def sweep(*numbers: tuple[int, int, float, float | None]) -> pd.DataFrame:
    """Return rows of nearest neighbours: k, seed, AUROC, AUROC on validation."""
    return made(
        *(
            {"distance": f"knn(k={k})" if k != 50 else "knn", "detector": detector(k=k)}
            | {"seed": seed, "auroc": auroc, "val_auroc": validation}
            for k, seed, auroc, validation in numbers
        )
    )


def test_of_what_a_source_swept_one_counts_that_validation_chooses_in_each_run() -> None:
    rows = sweep((5, 0, 0.7, 0.9), (50, 0, 0.8, 0.8), (5, 1, 0.5, 0.3), (50, 1, 0.6, 0.4))
    line = only(rows, target(any={"k": None}))
    assert (line.mean, line.n) == (pytest.approx(65), 2)
    assert dict(line.ours)["distance"] == "knn chosen by val_auroc"
    assert only(rows, target(any={"k": [1, 5]})).mean == pytest.approx(60)  # 50 is none that was tried
    assert only(rows, target(any={"k": [1, 10]})).why == "distance is knn(k=5) or knn, the target's knn"
    assert only(sweep((5, 0, 0.7, None)), target(any={"k": None})).mean == pytest.approx(70)
    without = only(sweep((5, 0, 0.7, None), (50, 0, 0.8, None)), target(any={"k": None}))
    assert without.why == "distance is one of knn(k=5), knn, and no val_auroc says which, as rows have none"


def test_of_a_sweep_the_lowest_error_counts_where_a_study_selects_by_it() -> None:
    rows = sweep((5, 0, 0.7, None), (50, 0, 0.8, None)).assign(val_fpr95_id=[0.5, 0.4])
    kept = {"parameters": PARAMETERS}
    found = comparison.compare(rows, lambda key: kept, [target(any={"k": None})], REGISTRY, "val_fpr95_id")
    assert found.lines[0].mean == pytest.approx(80)


def test_what_was_swept_is_a_parameter() -> None:
    with pytest.raises(UserError, match=r"distance: knn has no parameter 'K'; did you mean 'k'\?"):
        held(made({}), target(any={"K": None}))
    said = r"training: simclr has no parameter 'temprature'; did you mean 'temperature'\?"
    with pytest.raises(UserError, match=said):
        held(made({}), target(training=entry("simclr", temprature=1)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"suite": "openood/cifar10"}, "suite is none, the target's openood/cifar10"),
        ({"protocol": "one class"}, "protocol is all classes, the target's one class"),
        ({"outliers": entry("svhn")}, "outliers is –, the target's svhn"),
        ({"encoder": entry("resnet50")}, "encoder is resnet18, the target's resnet50"),
        ({"encoder": entry("resnet18", width=8)}, "encoder is resnet18, the target's resnet18(width=8)"),
        ({"epochs": 100}, "recipe is epochs=500, the target's epochs=100"),
        ({"recipe": Recipe(lr=0.1)}, "recipe is lr=0.5, the target's lr=0.1"),
        ({"space": Space(unit=True)}, "space is unit=False, the target's unit=True"),
        ({"precision": "bf16"}, "precision is float32, the target's bf16"),
        ({"reference": "val(0.1)"}, "reference is train, the target's val(0.1)"),
        ({"image": {"size": 224}}, "image is size=32, the target's size=224"),
        ({"training": entry("simclr", temperature=0.2)}, "training is simclr, the target's simclr(temperature=0.2)"),
        ({"clustering": entry("labels")}, "clustering is –, the target's labels"),
        ({"threshold": entry("conformal")}, "threshold is pooled, the target's conformal"),
        ({"splits": 10}, "splits are 1, the target's 10"),
        ({"metric": "compat_fpr95_ssd"}, "metric is not there: no row has compat_fpr95_ssd"),
        ({"metric": "silhouette"}, "metric is of clusters, not of rows: oodbench quality has silhouette"),
        ({"epochs": 5, "space": Space(unit=True)}, "recipe is epochs=500, the target's epochs=5"),  # the first
    ],
)
def test_what_differs_first_says_why_it_is_not_comparable(change: dict[str, Any], why: str) -> None:
    line = only(made({}), target(**change))
    assert (line.state, line.why, line.n) == (OTHER, why, 0)


ASH = {"distance": "–", "posthoc": "ash", "detector": json.dumps({"posthoc": {"name": "ash", "variant": "s"}})}


@pytest.mark.parametrize(
    ("row", "parameters", "why"),
    [
        ({"precision": "bf16"}, {}, "precision is bf16, the target's float32"),
        ({"reference": "val(0.9)"}, {}, "reference is val(0.9), the target's all of ID train"),
        ({"reference": "val(0.1)"}, {}, "reference is val(0.1), the target's all of ID train"),
        ({"suite": "openood/cifar10"}, {}, "suite is openood/cifar10, the target's none"),
        ({"protocol": "one class"}, {}, "protocol is one class, the target's all classes"),
        ({"outliers": "glyphs"}, {"outliers": {"name": "glyphs"}}, "outliers is glyphs, the target's –"),
        (
            {"id": "digits(limit=500)"},
            {"id": {"name": "digits", "limit": 500}},
            "id is digits(limit=500), the target's digits",
        ),
        ({}, {"recipe": asdict(Recipe(lr=1e-9))}, "recipe is lr=1e-09, the target's lr=0.5"),
        ({}, {"recipe": asdict(Recipe(epochs=1))}, "recipe is epochs=1, the target's epochs=500"),
        (
            {},
            {"recipe": asdict(Recipe(augment=Augment(crop=None)))},
            "recipe is augment.crop=None, the target's augment.crop=0.2+1",
        ),
        ({}, {"image": {"size": 8, "channels": 1}}, "image is channels=1, the target's channels=3"),
        ({"encoder": "x"}, {"encoder": ENCODER | {"params": {"width": 8}}}, "encoder is x, the target's resnet18"),
        (
            {"training": "simclr(temperature=1)"},
            {"training": {"name": "simclr", "temperature": 1}},
            "training is simclr(temperature=1), the target's simclr",
        ),
        (
            {"space": "penultimate zscore pca=8", "detector": detector(zscore=True, pca=8)},
            {},
            "space is zscore=True, pca=8, the target's zscore=False, pca=None",
        ),
        (
            {"threshold": "per_cluster", "detector": detector().replace("pooled", "per_cluster")},
            {},
            "threshold is per_cluster, the target's pooled",
        ),
    ],
)
def test_what_a_target_leaves_out_is_the_default(row: dict[str, Any], parameters: dict[str, Any], why: str) -> None:
    line = only(made(row).assign(suite=row.get("suite", "")), target(), **parameters)
    assert (line.state, line.why, line.n) == (OTHER, why, 0)


def test_where_a_training_runs_is_no_difference() -> None:
    assert only(made({}), target(), recipe=asdict(Recipe(devices=4, batch=512))).state == REPRODUCED
    assert only(made({}), target(), recipe=asdict(Recipe(compile=True))).state == REPRODUCED


def test_clusters_are_the_classes_where_a_target_does_not_say() -> None:
    rows = made(
        *(
            {
                "distance": "ssd",
                "clustering": c,
                "auroc": a,
                "detector": json.dumps(
                    {
                        "space": {"layer": "penultimate"},
                        "clustering": {"name": c},
                        "distance": {"name": "ssd"},
                        "threshold": {"name": "pooled"},
                    }
                ),
            }
            for c, a in (("one", 0.9), ("labels", 0.7))
        )
    )
    assert only(rows, target(distance=entry("ssd"))).mean == pytest.approx(70)
    assert only(rows, target(distance=entry("ssd"), clustering=entry("one"))).mean == pytest.approx(90)


def test_a_training_that_loads_weights_has_no_recipe() -> None:
    rows = made({"training": "pretrained", "encoder": "timm/x"})
    loaded = {"training": {"name": "pretrained", "weights": "timm"}, "encoder": {"name": "timm/x", "params": {}}}
    given = target(training=entry("pretrained"), encoder=entry("timm/x"))
    assert only(rows, given, **loaded, recipe=asdict(Recipe(epochs=0))).state == REPRODUCED


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "all classes"},
        {"encoder": entry("resnet18", width=64, stem="cifar")},
        {"epochs": 500},
        {"recipe": Recipe(lr=0.5, augment=Augment(crop=(0.2, 1)))},
        {"space": Space(layer="penultimate", unit=False, pca=None)},
        {"image": {"size": 32}},
        {"training": entry("simclr", temperature=0.5)},
        {"id": entry("digits", per_class=None)},
        {"threshold": entry("pooled")},
        {"metric": "fpr95_id", "value": 40.0},
        {"metric": "fpr95_ood", "value": 30.0},
    ],
)
def test_what_a_row_is_fits(change: dict[str, Any]) -> None:
    assert only(made({}), target(**change)).state == REPRODUCED


def test_each_polarity_is_its_own_number() -> None:
    rows = made({"fpr95_ood": None})
    assert only(rows, target(metric="fpr95_id", value=40.0)).state == REPRODUCED
    assert only(rows, target(metric="fpr95_ood", value=40.0)).why == "metric is not there: no row has fpr95_ood"


def test_the_suite_of_rows_that_have_one() -> None:
    rows = made({"seed": 0}, {"seed": 1, "auroc": 0.5}).assign(suite=["openood/cifar10", "other"])
    assert only(rows, target(suite="openood/cifar10")).mean == pytest.approx(80)
    rows["suite"] = "other"
    assert only(rows, target(suite="openood/cifar10")).why == "suite is other, the target's openood/cifar10"


def baseline(head: str) -> dict[str, Any]:
    parts = {"posthoc": {"name": "msp"}, "head": head, "threshold": {"name": "pooled"}}
    label = "msp" + " on linear probe" * (head == "linear probe")
    return {"distance": "–", "posthoc": label, "detector": json.dumps(parts)}


def test_a_baseline_on_a_linear_probe_is_not_held_against_the_networks_own_classifier() -> None:
    own, probe = baseline("classifier"), baseline("linear probe")
    given = target(distance=None, posthoc=entry("msp"))
    line = only(made(probe), given)
    assert (line.state, line.why) == (OTHER, "head is linear probe, the target's classifier")
    assert only(made(own, probe | {"auroc": 0.5}), given).mean == pytest.approx(80)
    probed = target(distance=None, posthoc=entry("msp"), head="linear probe")
    assert only(made(own | {"auroc": 0.5}, probe), probed).mean == pytest.approx(80)
    assert only(made(own), probed).why == "head is classifier, the target's linear probe"


def test_a_list_of_images_goes_by_its_title() -> None:
    listed = {"id": {"name": "image_list", "title": "digits", "path": "list.txt", "per_class": None}}
    assert only(made({}), target(id=entry("digits", per_class=None)), **listed).state == REPRODUCED


def test_rows_without_a_kept_training_are_told_by_their_labels_and_of_no_known_recipe() -> None:
    rows = made({"train_key": "gone", "encoder": "resnet18(width=8)", "training": "simclr(temperature=0.2)"})
    given = target(training=entry("simclr", temperature=0.2), encoder=entry("resnet18", width=8), suite="s")
    assert only(rows.assign(suite="s"), given).why == "recipe is not known, the target's another"
    assert only(rows.assign(suite="s"), target(suite="s")).why == "encoder is resnet18(width=8), the target's resnet18"


# ---- runs ------------------------------------------------------------------------------------------------


def test_class_splits_are_averaged_before_the_deviation() -> None:
    splits = [
        {"id": f"digits(only={k})", "seed": seed, "auroc": 0.5 + k / 10 + seed / 100} for k in (0, 2) for seed in (0, 1)
    ]
    line = only(made(*splits), target(splits=2))
    assert (line.mean, line.n) == (pytest.approx(60.5), 2)
    assert line.std == pytest.approx(0.5**0.5)
    without = held(made(*splits), target())  # of one split each
    assert [line.mean for line in without.lines] == pytest.approx([50.5, 70.5])
    assert only(made(*splits[:-1]), target(splits=2)).n == 1


def test_a_class_may_be_named_or_numbered() -> None:
    mine = {"id": {"name": "cifar10", "only": 3, "per_class": None}}
    rows = made({"id": "cifar10(only=3)", "family": "cifar10"})
    assert only(rows, target(id=entry("cifar10", only="cat", per_class=None)), **mine).state == REPRODUCED
    assert held(rows, target(id=entry("cifar10", only="dog")), parameters=mine).elsewhere == 1
    gone = rows.assign(train_key="gone", id="cifar10(keep=3+4)")  # told by its label
    assert held(gone, target(id=entry("cifar10", keep=["cat", 4]))).elsewhere == 0
    assert held(gone, target(id=entry("cifar10", without=[0, 1, 2, 5, 6, 7, 8, "truck"]))).elsewhere == 0
    assert held(gone, target(id=entry("cifar10", keep=["cat", "dog"]))).elsewhere == 1


def test_levels_and_detectors_do_not_multiply_an_accuracy() -> None:
    rows = made({"level": 0.9}, {"level": 0.95}, {"distance": "cosine"}, {"status": "error", "accuracy": None})
    given = target(metric="accuracy", value=90.0, distance=None, ood=())
    assert (only(rows, given).state, only(rows, given).n) == (REPRODUCED, 1)
    assert only(rows[rows["distance"] == "knn"], target()).n == 1


# ---- files -----------------------------------------------------------------------------------------------


def test_files_hold_every_line_and_escape_what_they_must(tmp_path: Path) -> None:
    rows = made({}, {"seed": 1, "auroc": 0.81})
    source = "<b>A & B</b> 100 % | so_so"
    found = held(rows, target(source=source, std=0.25, ddof=0, n=3), target(encoder=entry("resnet50")))
    formats.write_table(comparison.sheet(found, "against-t"), tmp_path)
    files = {path.suffix: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(files) == [".csv", ".html", ".md", ".tex"]
    assert "80.00 ± 0.25 (n=3) | 80.50 ± 0.71 (n=2) | +0.50        | [-3.72, +4.72]  | undecided" in files[".md"]
    assert "100 % \\| so_so" in files[".md"]
    assert "&lt;b&gt;A &amp; B&lt;/b&gt; 100 % | so_so" in files[".html"]
    assert "<b>" not in files[".html"]
    text = files[".tex"].replace(r"\hspace{0pt}", "")
    assert r"A \& B\textless{}/b\textgreater{} 100 \% \textbar{} so\_so" in text
    listed = pd.read_csv(tmp_path / "against-t.csv")
    assert list(listed["verdict"]) == [UNDECIDED, OTHER]
    assert listed["margin"][0] == 1
    assert (listed["source"][0], listed["our_distance"][0]) == (source, "knn")
    assert listed["why"][1] == "encoder is resnet18, the target's resnet50"


def test_files_of_nothing_comparable(tmp_path: Path) -> None:
    nothing = held(made({}), target(training=entry("supcon")))
    formats.write_table(comparison.sheet(nothing, "a"), tmp_path)
    assert list(pd.read_csv(tmp_path / "a.csv").columns)[:2] == ["id", "training"]
    assert "1 target of other cells" in (tmp_path / "a.md").read_text()


def test_a_table_as_html_marks_the_best_and_escapes_labels() -> None:
    rows = made({"training": "a<b>&c"}, {"training": "plain", "auroc": 0.7})
    (board,) = tables.leaderboards(rows)
    text = formats.html(board.sheet())
    assert "a&lt;b&gt;&amp;c</td>" in text
    assert "<strong>80.0</strong>" in text
    assert "nth-child(-n+2)" in text
    assert "<p>Per cent, mean ± standard deviation" in text


# ---- the command -----------------------------------------------------------------------------------------

CSV = "id,training,distance,ood,metric,value,source\ndigits,simclr,knn,noise,auroc,80.2,paper\n"


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return a study that has rows, and a file of targets beside it."""
    (tmp_path / "t1.csv").write_text(CSV + "digits,simclr,,noise,fpr95_id,70,paper\n")
    spec = {"rows": ["training"], "value": "auroc", "against": "t1.csv", "of": {"distance": "knn"}}
    path = write(tmp_path / "s.yaml", tables={"mine": spec})
    results = reader.results_of(path)
    Results(results).write(made({}, {"distance": "cosine", "auroc": 0.1}).to_dict("records"))
    (results / "runs").mkdir()
    (results / "runs" / "t.json").write_text(json.dumps({"parameters": PARAMETERS}))
    return path


@pytest.mark.slow
def test_the_command_holds_rows_against_a_file(ran: Path) -> None:
    asked = call("tables", ran, "--against", str(ran.parent / "t1.csv"))
    assert asked.exit_code == 0, asked.output
    assert re.search(r"against-t1: 0 reproduced, 0 different, \d undecided, 0 not comparable", asked.output)
    folder = reader.results_of(ran)
    assert "| undecided" in (folder / "against-t1.md").read_text()
    assert (folder / "leaderboard.html").exists()
    assert "| auroc " in (folder / "tables" / "mine-against.md").read_text()
    assert "fpr95_id" not in (folder / "tables" / "mine-against.md").read_text()  # another value than the table's


@pytest.mark.slow
def test_the_command_knows_the_published_numbers_and_says_what_is_wrong_with_others(ran: Path) -> None:
    asked = call("tables", ran, "--against", "targets")
    assert asked.exit_code == 0, asked.output
    every = len(targets.load(targets.published(), REGISTRY))
    assert f"{every} targets of other cells" in asked.output.replace("\n", " ")
    (ran.parent / "t1.csv").write_text(CSV.replace("auroc", "fpr95"))
    asked = call("tables", ran)  # the table's own
    assert (asked.exit_code, "t1.csv:2: metric: rows have no number 'fpr95'" in asked.output) == (2, True)


def test_a_table_against_a_file_that_is_not_there(tmp_path: Path) -> None:
    spec = {"rows": ["training"], "against": "nowhere.csv"}
    with pytest.raises(UserError, match=r"tables.t.against: there is no file or folder nowhere.csv"):
        reader.load(write(tmp_path / "s.yaml", tables={"t": spec}))
