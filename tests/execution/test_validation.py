"""Baselines and validation OOD in a study: rows against plugins applied by hand, what is refused, what stays out."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from sklearn.metrics import roc_auc_score
from tiny import write

from oodbench.api import Clusters, Distance, Posthoc, Scores, Split, Threshold
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Outcome, Runner
from oodbench.scoring.detectors import Bank
from oodbench.scoring.metrics import ranking
from oodbench.store.columns import CHOSEN_BY
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN
from oodbench.toolkit.vectors import centroids
from oodbench.training.embed import Layers
from oodbench.training.weights import plan_of

BASE: dict[str, Any] = {"outliers": None, "clustering": "one", "distance": ["euclidean"], "posthoc": ["msp", "energy"]}
GLYPHS = {"glyphs": {"count": 40, "size": 8}}
NOISE = {"noise": {"count": 30, "size": 8, "draw": 7}}


class Listener(Watch):
    """Remembers what a pipeline makes."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []

    def stage(self, what: str, title: str) -> None:
        self.stages.append((what, title))


def go(path: Path, listener: Listener | None = None) -> Outcome:
    return Runner(reader.load(path), Options(device="cpu"), listener or Listener()).run()


class Ran:
    """A tiny study before and after it got validation sets, on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = go(write(folder / "s.yaml", threshold=["pooled"], **BASE))
        self.listener = Listener()
        self.path = write(folder / "s.yaml", threshold=["pooled", "youden", "f1"], validation=[GLYPHS, NOISE], **BASE)
        self.after = go(self.path, self.listener)
        self.rows = self.after.rows

    def bank(self, training: str) -> Bank:
        """Return what is stored of a training."""
        pipeline = Pipeline(reader.load(self.path), Options(device="cpu", cached_only=True), Watch())
        (run,) = (work.run for work in plan_of(pipeline.study).work if work.run.training.name == training)
        return pipeline.bank(run, [PLAIN], baselines=True)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("validation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(folder / "results"))
        yield Ran(folder)


@pytest.fixture(autouse=True)
def here(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(ran.folder / "results"))


def posthoc(name: str) -> Posthoc:
    made = Registry().load("posthoc", name)()
    assert isinstance(made, Posthoc)
    return made


def split(bank: Bank, layers: Layers) -> Split:
    assert bank.head is not None
    h = layers["penultimate"][0]
    return Split(h, layers["logits"][0] if "logits" in layers else bank.head.apply(h))


def scores(bank: Bank, name: str) -> dict[str, np.ndarray]:
    """Return the scores of a baseline on every set, by hand."""
    assert bank.head is not None
    assert bank.reference is not None
    scorer = posthoc(name).fit(split(bank, bank.fit)._replace(y=bank.y), None, bank.head)
    sets = {"id": bank.test.layers, "reference": bank.reference.layers} | bank.ood
    sets |= {f"validation {each}": layers for each, layers in bank.validation.items()}
    return {each: scorer(split(bank, layers[PLAIN])).numpy() for each, layers in sets.items()}


def auroc(id_: np.ndarray, ood: np.ndarray) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(id_)), np.ones(len(ood))], np.r_[id_, ood]))


def of(rows: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    for column, wanted in labels.items():
        rows = rows[rows[column] == wanted]
    return rows


# ---- baselines --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msp", "energy"])
@pytest.mark.parametrize(("training", "label"), [("cross_entropy", ""), ("simclr", " on linear probe")])
def test_a_baseline_is_the_plugin_on_the_stored_features(ran: Ran, training: str, label: str, name: str) -> None:
    bank = ran.bank(training)
    wanted = scores(bank, name)
    found = of(ran.rows, training=training, posthoc=name + label, threshold="pooled")
    assert set(found["ood"]) == set(bank.ood)
    assert (found["status"] == "ok").all()
    cut = np.sort(wanted["reference"])[int(np.ceil(0.95 * len(wanted["reference"]))) - 1]
    for row in found.to_dict("records"):
        assert row["auroc"] == pytest.approx(auroc(wanted["id"], wanted[row["ood"]]), abs=1e-9)
        assert row["cut"] == pytest.approx(cut)
        assert row["ood_recall"] == pytest.approx((wanted[row["ood"]] > cut).mean())
        assert (row["space"], row["clustering"], row["distance"]) == ("–", "–", "–")


@pytest.mark.slow
def test_softmax_by_hand(ran: Ran) -> None:
    """MSP without the plugin: 1 - the highest softmax probability of the classifier's logits."""
    bank = ran.bank("cross_entropy")
    sure = {
        name: torch.softmax(layers["logits"][0].double(), 1).max(1).values.numpy()
        for name, layers in {
            "id": bank.test.layers[PLAIN],
            **{name: each[PLAIN] for name, each in bank.ood.items()},
        }.items()
    }
    for row in of(ran.rows, training="cross_entropy", posthoc="msp", threshold="pooled").to_dict("records"):
        assert row["auroc"] == pytest.approx(auroc(-sure["id"], -sure[row["ood"]]), abs=1e-9)


def test_the_probe_is_said_where_there_is_no_classifier(ran: Ran) -> None:
    shown = ran.rows.groupby("training")["posthoc"].unique().map(set)
    assert shown["cross_entropy"] == {"–", "msp", "energy"}
    assert shown["simclr"] == {"–", "msp on linear probe", "energy on linear probe"}


def test_one_class_leaves_baselines_out(tmp_path: Path) -> None:
    changes = BASE | {"clustering": ["one"], "training": "simclr", "threshold": ["pooled"]}
    found = plan_of(reader.load(write(tmp_path / "s.yaml", id={"digits": {"only": 3}}, **changes)))
    assert found.left_out["msp needs a classifier, digits(only=3) has one class"] == 1
    assert {cell.detector.posthoc for cell in found.cells} == {None}


def test_reference_train_leaves_baselines_out(tmp_path: Path) -> None:
    changes = BASE | {"reference": "train", "distance": {"knn": {"k": 3}}, "threshold": ["pooled"]}
    found = plan_of(reader.load(write(tmp_path / "s.yaml", **changes)))
    assert found.left_out["msp does not leave an item out of its own score, as `reference: train` needs"] > 0
    assert {cell.detector.posthoc for cell in found.cells} == {None}


def test_what_is_fitted_on_the_reference_promises_no_level_on_it(tmp_path: Path) -> None:
    changes = BASE | {"posthoc": ["temperature", "msp"], "threshold": ["conformal"]}
    found = plan_of(reader.load(write(tmp_path / "s.yaml", **changes)))
    reason = "conformal needs a reference that nothing is fitted on, temperature is fitted on it"
    assert found.left_out[reason] == 2
    assert {cell.detector.posthoc.name for cell in found.cells if cell.detector.posthoc} == {"msp"}


# ---- validation -------------------------------------------------------------------------------------------------


SAW = "[saw glyphs(count=40, size=8), noise(count=30, size=8, draw=7)]"


def line(path: Path, key: str) -> int:
    return next(i for i, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(f"{key}:"))


def test_a_threshold_that_needs_ood_is_refused_without(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **BASE, threshold=["youden"])
    with pytest.raises(UserError) as caught:
        reader.load(path)
    said = "threshold: youden is set on OOD; say on which: the key 'validation'"
    assert str(caught.value) == f"{path}:{line(path, 'threshold')}: {said}"


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"threshold": {"youden": {"level": 0.9}}, "validation": GLYPHS}, "threshold", "youden takes no level"),
        ({"validation": "glyph"}, "validation", "did you mean 'glyphs'?"),
        ({"validation": {"glyphs": {"siz": 8}}}, "validation", "did you mean 'size'?"),
        ({"validation": []}, "validation", "the axis is empty"),
        ({"validation": GLYPHS, "reference": "train"}, "reference", "stands against a held-out reference"),
        ({"posthoc": "mps"}, "posthoc", "did you mean 'msp'?"),
        ({"posthoc": {"energy": {"temperatur": 2}}}, "posthoc", "there is no such parameter"),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, changes: dict[str, Any], key: str, said: str) -> None:
    path = write(tmp_path / "s.yaml", **(BASE | changes))
    with pytest.raises(UserError) as caught:
        reader.load(path)
    assert said in str(caught.value)
    place = int(str(caught.value).removeprefix(f"{path}:").partition(":")[0])
    assert line(path, key) <= place <= line(path, key) + 2


@pytest.mark.slow
@pytest.mark.parametrize("training", ["cross_entropy", "simclr"])
@pytest.mark.parametrize("name", ["youden", "f1"])
def test_the_cut_is_the_plugin_on_reference_and_validation(ran: Ran, training: str, name: str) -> None:
    bank = ran.bank(training)
    (label,) = set(of(ran.rows, training=training)["posthoc"].unique()) & {"energy", "energy on linear probe"}
    found = of(ran.rows, training=training, posthoc=label, threshold=f"{name} {SAW}")
    assert len(found) == 2
    assert found["level"].isna().all()
    known = scores(bank, "energy")
    threshold = Registry().load("threshold", name)()
    assert isinstance(threshold, Threshold)
    seen = np.concatenate([known[f"validation {each}"] for each in bank.validation])
    sides = [Scores(torch.from_numpy(s), torch.zeros(len(s)).long()) for s in (known["reference"], seen)]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        rule = threshold.fit(*sides)
    assert all(str(each.message) in row for each in heard for row in found["warnings"])
    for row in found.to_dict("records"):
        assert row["cut"] == rule.cut
        assert row["id_recall"] == pytest.approx((known["id"] <= rule.cut).mean())
        assert row["ood_recall"] == pytest.approx((known[row["ood"]] > rule.cut).mean())


def test_settings_are_chosen_by_the_reference_against_each_validation_set(ran: Ran) -> None:
    """val_*: the mean over the sets, of a baseline and of a distance by hand; the same number for every test set."""
    bank = ran.bank("cross_entropy")
    assert bank.reference is not None
    known = scores(bank, "msp")
    baseline = of(ran.rows, training="cross_entropy", posthoc="msp")
    f, everything = bank.fit["penultimate"][0], torch.zeros_like(bank.y)
    distance = Registry().load("distance", "euclidean")()
    assert isinstance(distance, Distance)
    scorer = distance.fit(f, Clusters(centroids(f, everything, 1), everything))
    sets = {"reference": bank.reference.layers} | {f"validation {n}": each for n, each in bank.validation.items()}
    measured = {name: scorer(layers[PLAIN]["penultimate"][0]).score.numpy() for name, layers in sets.items()}
    for rows, by_set in ((baseline, known), (of(ran.rows, training="cross_entropy", distance="euclidean"), measured)):
        assert len(rows) == 2 * 3
        seen = [ranking(by_set["reference"], by_set[f"validation {name}"]) for name in bank.validation]
        for column in CHOSEN_BY:
            wanted = np.mean([each[column.removeprefix("val_")] for each in seen])
            np.testing.assert_allclose(rows[column].astype(float), wanted, atol=1e-9)
        by_hand = np.mean([auroc(by_set["reference"], by_set[f"validation {name}"]) for name in bank.validation])
        np.testing.assert_allclose(rows["val_auroc"].astype(float), by_hand, atol=1e-9)


def test_a_validation_set_is_the_train_split(ran: Ran) -> None:
    pipeline = Pipeline(reader.load(ran.path), Options(device="cpu"), Watch())
    work = plan_of(pipeline.study).work[0]
    splits = {piece.split for piece in pipeline.banks.pieces(work.run, [PLAIN]) if piece.dataset in work.run.validation}
    assert splits == {"train"}
    assert {len(each[PLAIN]["penultimate"][0]) for each in ran.bank("simclr").validation.values()} == {40, 30}


def test_adding_validation_trains_nothing_and_keeps_the_numbers(ran: Ran) -> None:
    assert (ran.before.trained, ran.after.trained) == (2, 0)
    made = {what for what, _ in ran.listener.stages}
    assert made == {"data", "hash", "near", "bank", "score"}
    embedded = [title for what, title in ran.listener.stages if what == "bank"]
    assert len(embedded) == 4  # two sets under two encoders
    assert all(", train · " in title for title in embedded)
    assert ran.before.rows[list(CHOSEN_BY)].isna().all(axis=None)
    assert ran.rows[list(CHOSEN_BY)].notna().all(axis=None)
    index = ["cell", "ood"]
    pooled = of(ran.rows, threshold="pooled").set_index(index)
    numbers = ["auroc", "cut", "fpr95_id", "id_recall", "ood_recall"]
    pd.testing.assert_frame_equal(ran.before.rows.set_index(index)[numbers], pooled[numbers], check_like=True)


def test_validation_images_in_a_test_set_are_refused(ran: Ran, tmp_path: Path) -> None:
    """A set that draws the same images for both splits: what chooses would be what is tested on."""
    (tmp_path / "leaky.py").write_text(LEAKY)
    changes = BASE | {"plugins": ["leaky.py"], "ood": {"far": "leaky"}, "threshold": ["pooled"], "training": "simclr"}
    path = write(tmp_path / "leak.yaml", validation="leaky", **changes)
    with pytest.raises(UserError, match=r"20 images of OOD test \(leaky\) are also in validation OOD \(leaky\)"):
        go(path)
    assert not (ran.folder / "results" / "leak" / "rows").exists()
    allowed = write(tmp_path / "leak.yaml", validation="leaky", allow_overlap=True, **changes)
    Runner(reader.load(allowed), Options(device="cpu"), Listener()).checks.check()


LEAKY = '''"""The same images in both splits."""
import numpy as np

from oodbench.api import Dataset, Images


class Leaky(Dataset):
    """Leaky: train is test."""

    class_names = ("all",)

    def load(self, split, root):
        x = np.random.default_rng(5).integers(0, 256, (20, 8, 8), dtype=np.uint8)
        return Images(x, np.zeros(20, dtype=np.int64), ("all",))
'''


@pytest.mark.slow
def test_the_selection_of_a_study_is_a_table(ran: Ran, tmp_path: Path) -> None:

    changes = BASE | {"posthoc": [{"energy": {"temperature": [1.0, 5.0]}}], "threshold": ["pooled"]}
    path = write(tmp_path / "chosen.yaml", validation=GLYPHS, select={"over": ["posthoc"]}, **changes)
    shutil.rmtree(ran.folder / "results" / "chosen", ignore_errors=True)
    done = call("run", path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    written = pd.read_csv(ran.folder / "results" / "chosen" / "selection.csv")
    assert written["of"].tolist() == [2, 2]
    assert written["training"].tolist() == ["cross_entropy", "simclr"]
    assert set(written["posthoc"]) == {"energy", "energy on linear probe"}
    assert written.filter(like="best on test, other half mean").notna().all(axis=None)  # all scores are kept
