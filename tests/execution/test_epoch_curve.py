"""Accuracy, quality and detection over the epochs that a study keeps: what they are, and that they are made once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import call
from listening import Listener
from tiny import TINY, write
from torch.nn.functional import normalize

from oodbench.errors import UserError
from oodbench.execution import cluster_survey, epoch_curve
from oodbench.execution.garbage import garbage
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.report import epochs
from oodbench.scoring.cluster_quality import MEASURES
from oodbench.study import reader
from oodbench.study.settings import PLAIN

pytestmark = pytest.mark.slow

LONG = TINY["recipe"] | {"epochs": 3}
KEEPING: dict[str, Any] = {"recipe": LONG, "training": "simclr", "keep": [0, 1, "last"]}


def runner(path: Path, listener: Listener | None = None) -> Runner:
    return Runner(reader.load(path), Options(device="cpu"), listener)


def auroc(id_: torch.Tensor, ood: torch.Tensor) -> float:
    """Return the share of pairs in the right order, ties counting half."""
    higher, ties = (ood[:, None] > id_).double(), (ood[:, None] == id_).double()
    return float((higher + ties / 2).mean())


def test_each_epoch_has_the_numbers_of_its_weights(tmp_path: Path) -> None:
    """AUROC of cosine distances to class means by hand, of features that the kept weights make."""
    path = write(tmp_path / "s.yaml", **KEEPING)
    runner(path).run()
    each = runner(path)
    found = epoch_curve.curve(each)
    assert (found.missing, found.scored) == ([], 4)  # two distances at two epochs; those of the last are rows
    assert found.rows.groupby("epoch").size().to_dict() == {0: 4, 1: 4, 3: 4}
    run = each.plan.work[0].run
    for at, epoch in [*zip(each.pipeline.encoders.kept(run), (0, 1), strict=True), (run, 3)]:
        bank = each.pipeline.bank(at, [PLAIN], baselines=False)
        f = bank.fit["penultimate"][0]
        centers = normalize(torch.stack([f[bank.y == c].mean(0) for c in range(3)]).double(), dim=1)

        def score(h: torch.Tensor, centers: torch.Tensor = centers) -> torch.Tensor:
            return 1 - (normalize(h.double(), dim=1) @ centers.T).max(1).values

        rows = found.rows[(found.rows["epoch"] == epoch) & (found.rows["distance"] == "cosine")].set_index("ood")
        id_ = score(bank.test.layers[PLAIN]["penultimate"][0])
        for name, layers in bank.ood.items():
            assert rows.loc[name, "auroc"] == pytest.approx(
                auroc(id_, score(layers[PLAIN]["penultimate"][0])), abs=2e-3
            )
        assert set(rows["accuracy_linear"]) == {each.pipeline.banks.accuracies(at)["linear"]}
        assert set(rows["train_key"]) == {each.pipeline.encoders.train_key(at)}
    assert found.rows.groupby(["distance", "ood"])["auroc"].nunique().gt(1).any()


def test_measures_are_those_of_quality(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    runner(path).run()
    rows = epoch_curve.curve(runner(path)).rows
    measured = cluster_survey.survey(runner(path).pipeline).rows
    assert measured.groupby("epoch").size().to_dict() == {0: 6, 1: 6, 3: 6}  # labels, k-means and none, two splits
    of_test = measured[measured["split"] == "test"].set_index(["epoch", "clustering"])[list(MEASURES)]
    for _, row in rows.iterrows():
        wanted = of_test.loc[(row["epoch"], row["clustering"])]
        pd.testing.assert_series_equal(row[list(MEASURES)].astype(float), wanted.astype(float), check_names=False)
    assert rows.loc[rows["clustering"] == "labels", list(MEASURES)].notna().all().all()
    assert rows.groupby("epoch")["class_separation"].nunique().eq(1).all()
    assert rows["class_separation"].nunique() == 3


def test_rows_of_the_study_do_not_move(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    rows = runner(path).run().rows
    found = epoch_curve.curve(runner(path)).rows
    joined = found[found["epoch"] == 3].merge(rows, on=["cell", "ood"], suffixes=("", " of the study"))
    assert len(joined) == 4
    assert (joined["auroc"] == joined["auroc of the study"]).all()
    assert runner(path).run().scored == 0
    assert len(runner(path).results.current()) == len(rows)


def test_only_what_is_new_is_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    runner(path).run()
    first = epoch_curve.curve(runner(path))
    file = tmp_path / "results" / "s" / "curve.csv"
    before = file.read_bytes()
    listener = Listener()
    again = epoch_curve.curve(runner(path, listener))
    assert (again.scored, listener.stages, file.read_bytes()) == (0, [], before)
    pd.testing.assert_frame_equal(again.rows, first.rows)
    file.write_bytes(before.replace(b"0.", b"1."))  # an export, whose numbers nobody reads back
    assert epoch_curve.curve(runner(path)).scored == 0
    assert file.read_bytes() == before
    kept = sorted((tmp_path / "results" / "store" / epoch_curve.KIND).rglob("manifest.json"))
    assert len(kept) == 8  # two distances on two sets at two epochs
    kept[0].write_text(kept[0].read_text().replace("0.", "1."))
    assert epoch_curve.curve(runner(path)).scored == 1
    assert file.read_bytes() == before
    chosen = {"of": {"clustering": "kmeans(restarts=2)", "threshold": ["pooled", "per_cluster"]}}
    other = epoch_curve.curve(runner(write(path, **KEEPING, curve=chosen)))
    assert other.scored == 4
    assert set(other.rows["threshold"]) == {"pooled", "per_cluster"}
    assert set(other.rows["clustering"]) == {"kmeans(restarts=2)"}


def test_without_a_choice_it_is_one_cell_of_each_distance(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        **KEEPING | {"training": ["cross_entropy", "simclr"]},
        space=[{"layer": "penultimate"}, {"layer": "projection"}],
        clustering=[{"kmeans": {"k": 2}}, "labels"],
        distance=[{"knn": {"k": [3, 5]}}, "cosine"],
        posthoc="msp",
    )
    work = runner(path).plan.work[0]
    followed = [cell.detector.labels for cell in work.of(reader.load(path).curve).cells]
    names = ("space", "clustering", "distance", "threshold")
    assert [tuple(each[name] for name in names) for each in followed] == [
        ("penultimate", "–", "knn(k=3)", "pooled"),
        ("penultimate", "labels", "cosine", "pooled"),
    ]


def test_seeds_are_averaged_and_epochs_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING | {"keep": [2, 1]}, seed=[0, 1])
    runner(path).run()
    rows = epoch_curve.curve(runner(path)).rows
    table = epochs.table(rows)
    assert list(table.mean.index) == [("simclr", d, e) for d in ("cosine", "knn(k=3)") for e in (1, 2, 3)]
    ood = rows["ood"].iloc[0]
    both = rows[(rows["ood"] == ood) & (rows["distance"] == "cosine") & (rows["epoch"] == 2)]
    assert len(both) == 2
    place = ("simclr", "cosine", 2)
    assert table.mean.loc[place, (ood, "AUROC")] == pytest.approx(100 * both["auroc"].mean())
    assert table.std.loc[place, ("clusters", "silhouette")] == pytest.approx(100 * both["silhouette"].std())
    assert table.mean.loc[place, ("ID", "probe accuracy")] == pytest.approx(100 * both["accuracy_linear"].mean())


def test_a_study_that_keeps_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s.yaml:\d+: keep: says no epochs to follow"):
        epoch_curve.curve(runner(write(tmp_path / "s.yaml", **KEEPING | {"keep": ["last"]})))
    path = write(tmp_path / "s.yaml", **KEEPING, curve={"of": {"distance": "euclidean"}})
    with pytest.raises(UserError, match=r"curve.of.distance: no row has distance 'euclidean'"):
        epoch_curve.curve(runner(path))
    path = write(tmp_path / "s.yaml", **KEEPING, curve={"of": {"distance": "knn(k=3)", "clustering": "labels"}})
    with pytest.raises(UserError, match="curve: no cell has all of these labels"):
        epoch_curve.curve(runner(path))


def test_the_command_says_what_is_missing_and_works_on_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    nothing = call("curve", path)
    assert nothing.exit_code == 2
    assert "has nothing to follow of" in nothing.stderr
    assert nothing.stderr.count("warning: not in") == 3
    assert call("run", path).exit_code == 0
    write(path, **KEEPING | {"keep": [0, 1, 2]})
    done = call("curve", path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "warning: not in" in line]
    assert line.endswith("seed 0 · epoch 2")
    assert "--redo train the epochs of what is" in done.stderr
    assert "4 cells scored, 12 rows in all" in done.stdout
    folder = tmp_path / "results" / "s"
    text = (folder / "curve.md").read_text()
    assert [line.split("|")[3].strip() for line in text.splitlines() if "simclr" in line] == ["0", "1", "3"] * 2
    assert "probe accuracy" in text
    assert (folder / "curve.tex").stat().st_size > 500


def test_quality_says_of_which_epoch_its_rows_are(tmp_path: Path) -> None:
    plain_ = write(tmp_path / "s.yaml", recipe=LONG, training=["simclr", "cross_entropy"])
    call("run", plain_)
    assert "12 rows measured, 12 in all" in call("quality", plain_).stdout
    file = tmp_path / "results" / "s" / cluster_survey.FILE
    before = pd.read_csv(file)
    assert "epoch" not in before
    table = (tmp_path / "results" / "s" / "quality-correlation.md").read_text()
    path = write(tmp_path / "s.yaml", recipe=LONG, training=["simclr", "cross_entropy"], keep=[1])
    done = call("quality", path)
    assert "2 epochs to keep are of trainings that are done" in done.stderr
    assert "0 rows measured, 12 in all" in done.stdout  # what was measured without the column still counts
    assert set(pd.read_csv(file)["epoch"]) == {3}
    call("run", path, "--redo", "train")
    assert "12 rows measured, 24 in all" in call("quality", path).stdout
    after = pd.read_csv(file)
    assert after.groupby("epoch").size().to_dict() == {1: 12, 3: 12}
    last = after[after["epoch"] == 3].drop(columns="epoch").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, before)
    assert (tmp_path / "results" / "s" / "quality-correlation.md").read_text() == table  # of the last epochs alone


def test_what_is_measured_is_no_garbage_while_it_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    runner(path).run()
    epoch_curve.curve(runner(path))
    assert garbage([reader.load(path)], lambda message: None)[1] == []
    freed = garbage([reader.load(write(path, **KEEPING | {"keep": [0]}))], lambda message: None)[1]
    kinds = Counter(kind for kind, _ in freed)
    assert (kinds[epoch_curve.KIND], kinds[cluster_survey.KIND]) == (4, 2)  # of epoch 1


def test_a_damaged_epoch_is_as_good_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **KEEPING)
    runner(path).run()
    each = runner(path)
    first, _ = each.pipeline.encoders.kept(each.plan.work[0].run)
    file = each.pipeline.store.path("train", each.pipeline.encoders.train_key(first)) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    found = epoch_curve.curve(runner(path))
    assert found.missing == [first.title]
    assert set(found.rows["epoch"]) == {1, 3}
    assert dataclasses.replace(first, epoch=1).title != first.title
