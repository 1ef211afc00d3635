"""Covariate-shifted ID sets in a study: full-spectrum numbers against scikit-learn, what they leave as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, auc, precision_recall_curve, roc_auc_score
from tiny import write

from oodbench.api import Clusters, Split
from oodbench.data import needs
from oodbench.errors import UserError
from oodbench.execution import audit
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Outcome, Runner
from oodbench.report import tables
from oodbench.report.unmade import declared
from oodbench.scoring.detectors import Bank
from oodbench.store.columns import FULL_SPECTRUM, METRICS, SHIFTED
from oodbench.store.memo import Watch
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN
from oodbench.toolkit.vectors import centroids
from oodbench.training.weights import plan_of

BASE: dict[str, Any] = {
    "outliers": None,
    "clustering": "one",
    "distance": "euclidean",
    "posthoc": "msp",
    "threshold": "pooled",
}
BLOBS = {"groups": 3, "count": 120}
SHIFTED_SETS = {"blobs": BLOBS | {"corrupt": ["gaussian_noise-5", "contrast-4"]}}


def go(path: Path) -> Outcome:
    return Runner(reader.load(path), Options(device="cpu"), Watch()).run()


class Ran:
    """A tiny study before and after it got shifted sets, on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = go(write(folder / "s.yaml", **BASE))
        self.path = write(folder / "s.yaml", covariate=SHIFTED_SETS, **BASE)
        self.after = go(self.path)
        self.rows = self.after.rows

    def pipeline(self) -> Pipeline:
        return Pipeline(reader.load(self.path), Options(device="cpu", cached_only=True), Watch())

    def bank(self, training: str) -> Bank:
        """Return what is stored of a training."""
        pipeline = self.pipeline()
        (run,) = (work.run for work in plan_of(pipeline.study).work if work.run.training.name == training)
        return pipeline.bank(run, [PLAIN], baselines=True)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("covariate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(folder / "results"))
        yield Ran(folder)


@pytest.fixture(autouse=True)
def here(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(ran.folder / "results"))


def logits(bank: Bank, layers: Any) -> np.ndarray:
    found = layers[PLAIN]
    assert bank.head is not None
    return (found["logits"][0] if "logits" in found else bank.head.apply(found["penultimate"][0])).numpy()


def scores(bank: Bank, layers: Any) -> dict[str, np.ndarray]:
    """Return the scores of a set by the plugins, applied by hand."""
    room: Any = Registry().load
    head, h, f = bank.head, layers[PLAIN]["penultimate"][0], bank.fit["penultimate"][0]
    everything = torch.zeros_like(bank.y)
    seen = Split(h, torch.from_numpy(logits(bank, layers)))
    of_head = room("posthoc", "msp")().fit(seen, None, head)(seen)
    of_features = room("distance", "euclidean")().fit(f, Clusters(centroids(f, everything, 1), everything))(h).score
    return {"msp": of_head.numpy(), "euclidean": of_features.numpy()}


def rate(accepted: np.ndarray, other: np.ndarray) -> float:
    """Return the share of one side beyond the cut that takes 95 % of the other."""
    cut = np.sort(accepted)[int(np.ceil(0.95 * len(accepted))) - 1]
    return float((other <= cut).mean())


@pytest.mark.parametrize("training", ["cross_entropy", "simclr"])
@pytest.mark.parametrize("name", ["msp", "euclidean"])
def test_the_full_spectrum_is_scikit_learn_of_scores_put_together(ran: Ran, training: str, name: str) -> None:
    bank = ran.bank(training)
    assert len(bank.shifted) == 2
    plain, ood = scores(bank, bank.test.layers)[name], {k: scores(bank, v)[name] for k, v in bank.ood.items()}
    shifted = np.concatenate([scores(bank, each)[name] for each in bank.shifted.values()])
    rows = ran.rows[(ran.rows["training"] == training) & ran.rows[["distance", "posthoc"]].eq(name).any(axis=1)]
    if training == "simclr" and name == "msp":
        rows = ran.rows[ran.rows["posthoc"] == "msp on linear probe"]
    assert len(rows) == 2
    for row in rows.to_dict("records"):
        id_, its = np.r_[plain, shifted], ood[row["ood"]]
        truth, both = np.r_[np.zeros(len(id_)), np.ones(len(its))], np.r_[id_, its]
        assert row["fs_auroc"] == pytest.approx(roc_auc_score(truth, both), abs=1e-9)
        assert row["auroc"] == pytest.approx(roc_auc_score(truth[len(shifted) :], np.r_[plain, its]), abs=1e-9)
        for side, positive, by in (("in", 0, -both), ("out", 1, both)):
            precision, recall, _ = precision_recall_curve(truth == positive, by)
            assert row[f"fs_aupr_{side}"] == pytest.approx(auc(recall, precision), abs=1e-9)
        assert row["fs_fpr95_id"] == pytest.approx(rate(id_, its), abs=1e-9)
        assert row["fs_fpr95_ood"] == pytest.approx(rate(-its, -id_), abs=1e-9)
        assert (row["n_id"], row["n_shifted"]) == (len(plain), len(shifted))
        assert row["id_recall_shifted"] == pytest.approx((shifted <= row["cut"]).mean())


@pytest.mark.parametrize("training", ["cross_entropy", "simclr"])
def test_the_accuracy_under_shift_is_of_the_shifted_images_alone(ran: Ran, training: str) -> None:
    bank, pipeline = ran.bank(training), ran.pipeline()
    (setup,) = pipeline.study.setups.values()
    y = {each.label: pipeline.library.prepared(each, "test").y for each in setup.covariate}
    said = {name: logits(bank, each).argmax(1) for name, each in bank.shifted.items()}
    rows = ran.rows[ran.rows["training"] == training]
    assert rows["accuracy_shifted"].nunique() == 1
    together = accuracy_score(np.concatenate([*y.values()]), np.concatenate([said[name] for name in y]))
    assert rows["accuracy_shifted"].iloc[0] == pytest.approx(together)
    assert rows["accuracy_shifted"].iloc[0] != rows["accuracy"].iloc[0]
    facts = Results(pipeline.study.results).run(rows["train_key"].iloc[0])
    assert facts is not None
    wanted = {name: accuracy_score(y[name], said[name]) for name in y}
    assert facts["accuracies under shift"] == pytest.approx(wanted)


def test_shifted_sets_train_nothing_and_change_no_plain_number(ran: Ran) -> None:
    assert (ran.before.trained, ran.after.trained) == (2, 0)
    assert ran.before.rows[[*SHIFTED]].isna().all(axis=None)
    assert set(ran.before.rows["covariate"]) == {""}
    assert ran.rows[[*SHIFTED]].notna().all(axis=None)
    index = ["cell", "ood"]
    plain = [*METRICS, "cut", "id_recall", "accuracy", "n_id", "train_key", "group"]
    one, other = (rows.set_index(index)[plain] for rows in (ran.before.rows, ran.rows))
    pd.testing.assert_frame_equal(one, other, check_like=True)  # no row more, and no other cell


def test_rows_follow_the_content_of_shifted_sets(ran: Ran) -> None:
    """A row's key holds them; without any it is what it was."""
    keys = [
        {each.cell: each.key for each in source.wanted}
        for changes in ({}, {"covariate": SHIFTED_SETS}, {"covariate": {"blobs": BLOBS | {"corrupt": "jpeg-1"}}})
        for runner in [Runner(reader.load(write(ran.folder / "other.yaml", **BASE, **changes)), Options(device="cpu"))]
        for source in [runner.source(runner.plan.work[0])]
    ]
    assert keys[0].keys() == keys[1].keys() == keys[2].keys()
    assert all(len({each[cell] for each in keys}) == 3 for cell in keys[0])
    before = ran.before.rows.set_index("cell")["key"].to_dict()
    assert keys[0].items() <= before.items()


def test_tables_show_the_full_spectrum_apart(ran: Ran) -> None:
    with_, without = (tables.leaderboards(declared(rows))[0] for rows in (ran.rows, ran.before.rows))
    more = [column for column in with_.mean if column not in without.mean]
    assert {title for _, title in more} == {"shifted accuracy", "FS AUROC", "FS FPR95_id", "FS FPR95_ood"}
    shared = [column for column in with_.mean if column not in more]
    pd.testing.assert_frame_equal(with_.mean[shared], without.mean)
    assert with_.better["near", "FS AUROC"] == 1
    assert with_.better["far", "FS FPR95_ood"] == -1
    far = ran.rows[(ran.rows["group"] == "far") & (ran.rows["posthoc"] == "msp")]
    shown = with_.mean.xs("msp", level="posthoc")["far", "FS AUROC"]
    assert shown.iloc[0] == pytest.approx(100 * far["fs_auroc"].iloc[0])
    assert "FS: full spectrum" in with_.caption
    assert "blobs(corrupt=contrast-4, groups=3, count=120)" in with_.caption
    assert "FS" not in without.caption
    lost = ran.rows.assign(kept=ran.rows["group"] == "near")
    lost.attrs = ran.rows.attrs
    unmade = declared(lost[lost["kept"]].drop(columns="kept"))
    assert unmade.loc[unmade["status"] != "ok", [*FULL_SPECTRUM]].isna().all(axis=None)


def test_shifted_sets_are_held_against_what_is_seen_and_not_against_id_test(ran: Ran) -> None:
    study = reader.load(ran.path)
    pairs = audit.pairs(work.run for work in plan_of(study).work)
    roles = {(one.role, other.role) for one, other in pairs if audit.SHIFTED in (one.role, other.role)}
    assert roles == {(audit.ID_TRAIN, audit.SHIFTED)}
    wanted = {need.dataset.label: (need.roles, need.splits) for need in needs.needs(study)}
    assert wanted["blobs(corrupt=contrast-4, groups=3, count=120)"] == (["covariate"], ["test"])


def test_classes_are_matched_by_name(ran: Ran, tmp_path: Path) -> None:
    """Shifted images of some of ID's classes have ID's numbers; a class that ID lacks is refused."""
    some = {"digits": {"keep": [7, 3], "corrupt": "jpeg-5"}}
    study = write(tmp_path / "s.yaml", id="digits", covariate=some, **BASE)
    pipeline = Pipeline(reader.load(study), Options(device="cpu"), Watch())
    (run, *_) = (work.run for work in plan_of(pipeline.study).work)
    assert set(pipeline.library.shifted_labels(run.covariate[0], run.id)) == {3, 7}
    bad = write(tmp_path / "bad.yaml", id="digits", covariate={"blobs": BLOBS}, **BASE)
    said = r"covariate: blobs\(groups=3, count=120\) has the class 'blob 0', the ID set digits has none such"
    with pytest.raises(UserError, match=rf"bad.yaml:\d+: {said}"):
        Runner(reader.load(bad), Options(device="cpu"), Watch()).run()


def test_id_test_itself_is_no_shift(tmp_path: Path) -> None:
    study = write(tmp_path / "same.yaml", id="digits", covariate="digits", **BASE)
    with pytest.raises(
        UserError, match=r"same.yaml:\d+: covariate: digits is ID test itself: none of its images is shifted"
    ):
        go(study)


def test_each_id_set_has_its_own(tmp_path: Path) -> None:
    both = {f"d{k}": [{"digits": {"only": k, "corrupt": "jpeg-3"}}] for k in (1, 2)}
    named = [{"digits": {"only": k, "as": f"d{k}"}} for k in (1, 2)]
    changes = BASE | {"id": named, "covariate": both, "posthoc": None, "training": "simclr"}
    study = reader.load(write(tmp_path / "s.yaml", **changes))
    assert {name: [each.only for each in setup.covariate] for name, setup in study.setups.items()} == {
        "d1": [1],
        "d2": [2],
    }
