"""Scores by image that a study keeps: they are the rows' own, made once, and of the rows that it names alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from sklearn.metrics import roc_auc_score
from tiny import write

from oodbench.execution.garbage import garbage
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.study import reader
from oodbench.study.registry import Registry

OF: dict[str, Any] = {"training": "cross_entropy", "threshold": "pooled"}
OF |= {"clustering": ["labels", "–"], "distance": ["cosine", "knn(k=3)"]}
DECLARED: dict[str, Any] = {"outliers": None, "scores": {"of": OF}}


def runner(path: Path) -> Runner:
    return Runner(reader.load(path), Options(device="cpu"))


def rows_and_scores(path: Path) -> list[tuple[Any, scores.KeptScores | None]]:
    each = runner(path)
    rows = each.results.current()
    store = Store(each.study.store)
    return [(row, scores.kept(store, (row.key, row.ood, row.ood_data))) for row in rows.itertuples()]


@pytest.fixture
def study(trained: None, tmp_path: Path) -> Path:
    path = write(tmp_path / "s.yaml", **DECLARED)
    assert call("run", path, "--device", "cpu", "--rows-only").exit_code == 0
    return path


def declared(row: Any) -> bool:
    return bool(row.training == "cross_entropy" and row.threshold == "pooled" and row.clustering in OF["clustering"])


def test_they_are_those_of_the_rows_that_are_named(study: Path) -> None:
    found = rows_and_scores(study)
    assert {declared(row) for row, _ in found} == {True, False}
    for row, kept in found:
        assert (kept is not None) == declared(row)
        if kept is not None:
            of = np.concatenate([kept.id_, kept.ood])
            is_ood = np.repeat([0, 1], [len(kept.id_), len(kept.ood)])
            assert (len(kept.id_), len(kept.ood), len(kept.reference)) == (row.n_id, row.n_ood, row.n_reference)
            assert roc_auc_score(is_ood, of) == pytest.approx(row.auroc, abs=1e-6)
            assert (kept.id_ <= np.float32(kept.cut)).mean() == pytest.approx(row.id_recall, abs=1e-6)
            assert (kept.ood > np.float32(kept.cut)).mean() == pytest.approx(row.ood_recall, abs=1e-6)


def test_the_most_wrong_images_are_the_sets_own(study: Path) -> None:
    each = runner(study)
    run = each.plan.work[0].run
    for row, kept in rows_and_scores(study):
        if kept is None:
            continue
        sides = (kept.id_wrong, -kept.id_, run.id), (kept.ood_wrong, kept.ood, run.sets[row.ood])
        for wrong, score, dataset in sides:
            assert score[wrong.position].tolist() == sorted(score)[: len(wrong.position)]
            assert np.array_equal(wrong.image, each.library.prepared(dataset, "test").x[wrong.position])
            assert len(wrong.position) == 12


def test_large_images_are_kept_small(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        image={"size": 130, "channels": 3},
        ood={"far": {"noise": {"count": 20, "size": 130}}},
        training=["cross_entropy"],
        **DECLARED | {"scores": {}},
    )
    assert call("run", path, "--device", "cpu", "--rows-only").exit_code == 0
    found = [kept for _, kept in rows_and_scores(path) if kept is not None]
    assert found
    assert {kept.ood_wrong.image.shape[1:] for kept in found} == {(44, 44, 3)}  # a third, rounded up


def test_rows_that_lack_scores_are_scored_again_once_and_errors_are_not(
    trained: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oodbench.scoring import detectors

    whole = detectors._Judge._by_distances

    def failing(self: Any, distances: Any, *rest: Any) -> Any:
        if any(each.name == "cosine" for each in distances):
            raise ValueError("no cosine today")
        return whole(self, distances, *rest)

    monkeypatch.setattr(detectors._Judge, "_by_distances", failing)
    path = write(tmp_path / "s.yaml", outliers=None)
    call("run", path, "--device", "cpu", "--rows-only")
    before = runner(path).results.current()
    path = write(path, **DECLARED)
    again = runner(path).run()
    assert (again.trained, again.scored) == (0, 1)  # k-NN alone: cosine is an error row
    columns = ["cell", "ood", "auroc", "cut", "status"]
    same = [each[columns].sort_values(["cell", "ood"], ignore_index=True) for each in (before, again.rows)]
    pd.testing.assert_frame_equal(*same)
    assert runner(path).run().scored == 0


def test_what_is_scored_anew_has_new_scores(study: Path) -> None:
    row, _ = next(each for each in rows_and_scores(study) if each[1])
    store = Store(runner(study).study.store)
    file = store.path(scores.KIND, scores.name(row.key, row.ood, row.ood_data)) / "scores.safetensors"
    os.utime(file, (0, 0))
    assert call("run", study, "--device", "cpu", "--rows-only", "--redo", "score").exit_code == 0
    assert file.stat().st_mtime > 0
    assert all((kept is not None) == declared(row) for row, kept in rows_and_scores(study))


def test_they_are_garbage_once_nothing_names_them(study: Path) -> None:
    assert not [kind for kind, _ in garbage([reader.load(study)], print)[1] if kind == scores.KIND]
    less = write(study, **DECLARED | {"scores": {"of": OF | {"distance": "cosine"}}})
    freed = [key for kind, key in garbage([reader.load(less)], print)[1] if kind == scores.KIND]
    assert len(freed) == 2  # k-NN on two sets


def test_they_go_with_their_rows_to_other_keys(trained: None, tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **DECLARED)
    whole = Registry.fingerprint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "fingerprint", lambda self, room, name: f"old {whole(self, room, name)}")
        runner(path).run()
        before = {(row.cell, row.ood): kept for row, kept in rows_and_scores(path)}
    assert "4 scores" in call("rekey", path).output
    for row, kept in rows_and_scores(path):
        old = before[row.cell, row.ood]
        assert (kept is None) == (old is None)
        assert kept is None or old is None or np.array_equal(kept.id_, old.id_)
    assert runner(path).run().scored == 0


def test_a_label_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **DECLARED | {"scores": {"of": {"distance": "cosin"}}})
    done = call("run", path, "--device", "cpu")
    assert done.exit_code == 2
    assert "scores.of.distance" in done.output.replace("\n", "")
    assert "no row has distance 'cosin'; did you mean 'cosine'" in done.output
