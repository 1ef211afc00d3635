"""Bring your own features: Gaussians from files to tables, what is scored once, what is refused, and how."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import Result, call
from filelock import FileLock, Timeout
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from oodbench.data.feature_files import read
from oodbench.errors import UserError
from oodbench.execution import score_features
from oodbench.store.artifacts import digest
from oodbench.store.columns import CHOSEN_BY, COMPAT, COSTS, FLOATS, INTEGERS, INTERVALS, SHIFTED
from oodbench.store.memo import NUMBER
from oodbench.store.rows import Results, parse
from oodbench.study.grid import DETECTOR_AXES
from oodbench.study.registry import Registry

ROWS = Path(__file__).with_name("scored_rows.csv")
C, D = 4, 8
GRID: dict[str, Any] = {
    "space": [{}, {"unit": True}],
    "clustering": ["labels", {"kmeans": {"k": "classes", "restarts": 2}}],
    "distance": ["euclidean", {"knn": {"k": 3}}],
    "posthoc": ["msp"],
    "threshold": ["pooled", "per_cluster"],
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files are named as they are."""
    monkeypatch.chdir(tmp_path)


def gaussians(n: int, seed: int, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """Return n items of four Gaussians at the corners of a square, moved along the other dimensions."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % C
    f = rng.normal(size=(n, D))
    f[:, 0] += 6 * (y % 2)
    f[:, 1] += 6 * (y // 2)
    f[:, 2:] += shift
    return {"features": torch.from_numpy(f).float(), "labels": torch.from_numpy(y)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files of one encoder, and a grid, in a folder of their own."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name, arrays in (
        ("train", gaussians(120, 0)),
        ("id", gaussians(60, 1)),
        ("val", gaussians(40, 2)),
        ("near", gaussians(50, 3, 1.0)),
        ("far", gaussians(50, 4, 4.0)),
        ("seen", gaussians(30, 5, 2.0)),
    ):
        save_file(arrays, folder / f"{name}.safetensors")
    grid(folder / "g.yaml")
    return folder


def grid(path: Path, **changes: Any) -> Path:
    with path.open("w") as stream:
        YAML().dump({key: value for key, value in (GRID | changes).items() if value is not None}, stream)
    return path


def words(folder: Path, **changes: Any) -> list[str]:
    """Return the options of a call; None leaves one out, a list gives it several times."""
    given = {
        "train": folder / "train.safetensors",
        "id": folder / "id.safetensors",
        "near": f"n={folder / 'near.safetensors'}",
        "far": f"f={folder / 'far.safetensors'}",
        "grid": folder / "g.yaml",
    } | changes
    pairs = [(key, each) for key, value in given.items() for each in (value if isinstance(value, list) else [value])]
    return [str(word) for key, value in pairs if value is not None for word in (f"--{key}", value)]


def scored(folder: Path, **changes: Any) -> Result:
    done = call("score", *words(folder, **changes))
    assert done.exit_code == 0, done.output
    return done


def rows(name: str = "features") -> pd.DataFrame:
    return Results(Path("results") / name).current()


# ---- from files to tables -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_are_complete_and_tables_are_written(files: Path) -> None:
    done = scored(files)
    assert "leaderboard: " in done.stdout
    assert "11 cells scored, 22 rows" in done.stdout
    found = rows()
    assert (found["status"] == "ok").all()
    assert set(zip(found["group"], found["ood"], strict=True)) == {("near", "n"), ("far", "f")}
    assert (found["training"] == "train").all()
    assert (found["id"] == "id").all()
    assert (found["accuracy_by"] == "linear probe").all()
    not_here = {"loss", "train_seconds", *CHOSEN_BY, "accuracy_classifier", "accuracy_linear", "accuracy_knn"}
    not_here |= {*COMPAT, *INTERVALS, *SHIFTED, "n_shifted"}
    baseline = found["posthoc"] != "–"
    for column in {*FLOATS, *INTEGERS} - not_here:
        assert found.loc[~baseline, column].notna().all(), column
    assert (found["n_id"] == 60).all()
    assert (found["n_ood"] == 50).all()
    assert (found["n_train"] + found["n_reference"] == 120)[~baseline].all()
    assert (found["reference"] == "val(0.1)").all()
    for name in ("leaderboard", "best"):
        for ending in ("md", "csv", "tex"):
            assert (Path("results/features") / f"{name}.{ending}").stat().st_size > 100


@pytest.mark.slow
def test_numbers_are_those_of_the_arrays(files: Path) -> None:
    """Euclidean distance to the nearest class mean of the training file, the level on the file of --val."""
    scored(files, val=files / "val.safetensors")
    found = rows()
    train, id_, val, ood = (load_file(files / f"{name}.safetensors") for name in ("train", "id", "val", "near"))
    means = np.stack([train["features"][train["labels"] == k].double().mean(0).numpy() for k in range(C)])

    def distance(arrays: dict[str, torch.Tensor]) -> np.ndarray:
        f = arrays["features"].double().numpy()
        return np.linalg.norm(f[:, None] - means[None], axis=2).min(1)

    wanted = roc_auc_score(np.r_[np.zeros(60), np.ones(50)], np.r_[distance(id_), distance(ood)])
    (row,) = found[
        (found["space"] == "penultimate")
        & (found["clustering"] == "labels")
        & (found["distance"] == "euclidean")
        & (found["threshold"] == "pooled")
        & (found["ood"] == "n")
    ].to_dict("records")
    assert row["auroc"] == pytest.approx(wanted, abs=1e-3)
    cut = np.sort(distance(val))[int(np.ceil(0.95 * 40)) - 1]
    assert row["cut"] == pytest.approx(cut, rel=1e-5)
    assert row["id_recall"] == pytest.approx((distance(id_) <= cut).mean(), abs=0.02)
    assert (row["n_train"], row["n_reference"], row["reference"]) == (120, 40, "val(val.safetensors)")


def test_rows_are_those_that_were_before_one_bookkeeping(files: Path) -> None:
    """ROWS was written by `score` when it kept its books itself: cells, identities, numbers, order.

    What is of code, machine and time may differ.
    """
    few = {"space": None, "distance": ["euclidean"], "threshold": ["pooled", "youden"], "compat": True}
    scored(files, grid=grid(files / "g.yaml", **few), validation=f"s={files / 'seen.safetensors'}")
    found, wanted = rows(), parse(ROWS.read_bytes())
    others = ["key", "version", "commit", "libraries", "device", "scored_on", "scored_at", *COSTS]
    pd.testing.assert_frame_equal(found.drop(columns=others), wanted.drop(columns=others), rtol=1e-4)


def test_a_key_is_of_code_parameters_and_files(files: Path) -> None:
    scored(files, far=None)
    registry, whole = Registry(), rows()
    for _, row in whole.iterrows():
        detector = json.loads(row["detector"])
        plugins = {room: each["name"] for room, each in detector.items() if room in DETECTOR_AXES[1:] and each}
        fields = {
            "number": NUMBER["score"],
            "detector": detector,
            "sources": {room: registry.fingerprint(room, name) for room, name in plugins.items()},
            "train": row["train_key"],
            "ood": read(files / "near.safetensors").content,
        }
        assert row["key"] == digest(fields | ({"probe": NUMBER["probe"]} if "posthoc" in plugins else {}))


@pytest.mark.slow
def test_a_second_call_computes_nothing(files: Path) -> None:
    scored(files)
    before = sorted(Path("results/features/rows").iterdir()), rows()
    again = scored(files)
    assert "0 cells scored, 22 rows" in again.stdout
    assert sorted(Path("results/features/rows").iterdir()) == before[0]
    pd.testing.assert_frame_equal(rows(), before[1])


@pytest.mark.slow
def test_what_is_there_is_scored_again_on_demand(files: Path) -> None:
    scored(files)
    before = rows().set_index(["cell", "ood"])["scored_at"]
    assert "0 cells scored" in scored(files, redo="failed").stdout
    again = scored(files, redo="score")
    assert "11 cells scored, 22 rows" in again.stdout
    assert (rows().set_index(["cell", "ood"])["scored_at"] >= before).all()


@pytest.mark.slow
def test_error_rows_are_tried_again_on_demand(files: Path) -> None:
    changes = {"clustering": ["labels", {"kmeans": {"k": 1000}}]}
    grid(files / "g.yaml", **changes)
    first = call("score", *words(files))
    assert first.exit_code == 1
    failed = int((rows()["status"] == "error").sum())
    assert failed > 0
    assert "0 cells scored" in call("score", *words(files)).stdout
    assert f"{failed // 2} cells scored" in call("score", *words(files, redo="failed")).stdout


@pytest.mark.slow
def test_another_encoder_joins_the_leaderboard(files: Path, tmp_path: Path) -> None:
    scored(files, training="one")
    other = tmp_path / "other"
    other.mkdir()
    for path in files.glob("*.safetensors"):
        arrays = load_file(path)
        save_file(arrays | {"features": arrays["features"] * 2 + 1}, other / path.name)
    done = scored(other, training="two", grid=files / "g.yaml")
    assert "11 cells scored, 44 rows" in done.stdout
    assert "best: 2 of 2 methods" in done.stdout
    assert set(rows()["training"]) == {"one", "two"}


@pytest.mark.slow
def test_two_files_of_one_id_set_are_one_leaderboard_by_its_name(files: Path) -> None:
    scored(files, training="one", id=f"digits={files / 'id.safetensors'}")
    (files / "id.safetensors").rename(files / "id=two.safetensors")
    done = scored(files, training="two", id=f"digits={files / 'id=two.safetensors'}")
    assert "best: 2 of 2 methods" in done.stdout
    assert set(rows()["id"]) == {"digits"}


@pytest.mark.slow
def test_sets_may_come_one_after_the_other(files: Path) -> None:
    scored(files, far=None)
    both = scored(files, near=None)
    assert "11 cells scored, 22 rows" in both.stdout
    assert "far AUROC" in both.stdout
    assert "near AUROC" in both.stdout
    assert "0 cells scored, 22 rows" in scored(files).stdout


@pytest.mark.slow
def test_an_added_set_scores_that_set_alone(files: Path) -> None:
    scored(files, far=None)
    before = rows()
    scored(files)
    kept = rows()[rows()["ood"] == "n"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)  # the time of scoring, too


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "id"])
def test_a_changed_file_is_scored_again(files: Path, name: str) -> None:
    scored(files)
    before = rows()
    save_file(gaussians(120, 9), files / f"{name}.safetensors")
    done = scored(files)
    assert "11 cells scored, 22 rows" in done.stdout
    assert not rows()["auroc"].equals(before["auroc"])


@pytest.mark.slow
def test_a_changed_ood_file_is_scored_again_alone(files: Path) -> None:
    scored(files)
    before = rows()
    save_file(gaussians(70, 9, 1.0), files / "near.safetensors")
    assert "11 cells scored, 22 rows" in scored(files).stdout
    found = rows()
    assert set(found.loc[found["ood"] == "n", "n_ood"]) == {70}
    far = [each[each["ood"] == "f"].sort_values("cell").reset_index(drop=True) for each in (found, before)]
    pd.testing.assert_frame_equal(*far)


@pytest.mark.slow
def test_rows_that_leave_the_tables_are_said(files: Path) -> None:
    assert "leave the tables" not in scored(files, far=None).output
    assert "leave the tables" not in scored(files, near=None).output
    done = scored(files, validation=f"v={files / 'seen.safetensors'}", near=None)
    assert "training train was scored with other files before (--validation v): its rows on n, f leave" in done.stderr


def test_what_is_kept_of_large_training_features_lies_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    mapped, made = np.memmap, []
    monkeypatch.setattr(np, "memmap", lambda *args, **kwargs: made.append(mapped(*args, **kwargs)) or made[-1])
    f, places = torch.randn(1000, 4), np.arange(0, 1000, 3)
    assert score_features._rows_of(f, places, 10**6).equal(f[places])
    assert not made
    found = score_features._rows_of(f, places, 5000)  # two blocks
    assert found.equal(f[places])
    assert np.shares_memory(found.numpy(), made[0])


def test_a_temporary_folder_that_is_full_or_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no room, that is said before a page is written, which would end the process."""

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    f, places = torch.randn(4000, 5), np.arange(0, 4000, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        patch.setattr(sys, "platform", "linux")
        with pytest.raises(UserError, match=r"no temporary file of 0\.0 MB: No space left on device; set TMPDIR"):
            score_features._rows_of(f, places, 5000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(UserError, match="No such file or directory; set TMPDIR"):
        score_features._rows_of(f, places, 5000)


@pytest.mark.slow
def test_calls_at_once_do_not_lose_each_others_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where features came from is read, added to and written under a lock: each call has OOD sets of its own."""
    plain, locked = Results.run, []

    def run(results: Results, train_key: str) -> dict[str, Any] | None:
        try:
            with FileLock(results.folder.parent / score_features.PLAN_LOCK, timeout=0):
                locked.append(False)
        except Timeout:
            locked.append(True)
        return plain(results, train_key)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "run", run)
        scored(files, far=None)
    assert locked
    assert all(locked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "near"])
def test_rows_of_a_changed_file_go_even_where_the_grid_has_fewer_cells(files: Path, name: str) -> None:
    scored(files)
    save_file(gaussians(90, 9, 1.0 if name == "near" else 0.0), files / f"{name}.safetensors")
    scored(files, grid=grid(files / "small.yaml", distance={"knn": {"k": 3}}, clustering=None, posthoc=None))
    found = rows()
    assert set(found.loc[found["ood"] == "n", "distance"]) == {"knn(k=3)"}
    assert set(found.loc[found["ood"] == "f", "distance"]) == (
        {"knn(k=3)"} if name == "train" else {"knn(k=3)", "euclidean", "–"}
    )


@pytest.mark.slow
def test_seeds_are_runs_of_one_method(files: Path) -> None:
    scored(files, seed=0)
    done = scored(files, seed=1)
    assert "over 2 seeds" in done.stdout
    assert "11 cells scored, 44 rows" in done.stdout


@pytest.mark.slow
def test_without_a_grid_every_plugin_is_tried_and_what_needs_ood_says_so(files: Path) -> None:
    done = call("score", *words(files, grid=None))
    left_out = json.loads((Path("results") / "features" / "plan.json").read_text())["left_out"]
    assert "ash takes features that are never negative, those of train.safetensors are" in left_out
    assert left_out["youden is set on OOD, and there is no validation OOD"] == 1
    assert "other reason" in done.stdout
    found = rows()
    assert {"cosine", "mahalanobis", "–"} <= set(found["distance"].str.partition("(")[0])
    failed = found[found["status"] == "error"]
    assert failed["error"].str.contains("found no cluster").all()


# ---- validation OOD --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_validation_sets_thresholds_and_choices(files: Path) -> None:
    changes = {
        "threshold": ["pooled", "youden"],
        "distance": [{"knn": {"k": [3, 5]}}],
        "select": {"over": ["distance"]},
    }
    done = scored(files, grid=grid(files / "v.yaml", **changes), validation=f"s={files / 'seen.safetensors'}")
    assert "selection" in done.stdout
    found = rows()
    assert set(found["threshold"]) == {"pooled", "youden [saw s]"}
    assert found[found["threshold"] != "pooled"]["level"].isna().all()
    assert found[list(CHOSEN_BY)].notna().all(axis=None)
    assert Path("results/features/selection.md").exists()


# ---- cells that are left out -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_grid_may_ask_for_the_rules_of_other_codebases(files: Path) -> None:
    scored(files)
    assert rows()["compat_fpr95_ssd"].isna().all()
    grid(files / "g.yaml", compat=True)
    scored(files)
    found = rows()
    assert found["compat_fpr95_ssd"].between(0, 1).all()
    assert found["compat_aupr_out_ssd"].equals(found["aupr_out_ap"])


def without(folder: Path, *names: str, files: tuple[str, ...] = ("train",)) -> None:
    for file in files:
        arrays = load_file(folder / f"{file}.safetensors")
        save_file({key: each for key, each in arrays.items() if key not in names}, folder / f"{file}.safetensors")


def with_logits(folder: Path, *files: str, head: bool = False) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(C, D))).float()
    for file in files:
        arrays = load_file(folder / f"{file}.safetensors")
        arrays["logits"] = arrays["features"] @ weight.T
        if head and file == "train":
            arrays |= {"weight": weight, "bias": torch.zeros(C)}
        save_file(arrays, folder / f"{file}.safetensors")


SETS = ("train", "id", "near", "far")


@pytest.mark.slow
def test_without_labels_what_needs_them_is_left_out(files: Path) -> None:
    without(files, "labels")
    done = scored(files)
    for reason in (
        "… needs labels, train.safetensors has none: labels, msp",
        "kmeans(restarts=2) counts in classes, and there are neither labels nor logits",
    ):
        assert f"cells: {reason}" in done.stdout
    assert set(rows()["distance"]) == {"knn(k=3)"}
    assert rows()["classes"].isna().all()
    assert rows()["accuracy"].isna().all()


@pytest.mark.slow
def test_layers_and_views_that_files_do_not_have(files: Path) -> None:
    done = scored(files, grid=grid(files / "v.yaml", space=[{}, {"layer": "projection"}, {"views": 2}]))
    every = ", ".join(f"{name}.safetensors" for name in SETS)
    assert f"{every} have no projection layer" in done.stdout
    assert "features in files have one view, not penultimate views=2" in done.stdout


@pytest.mark.slow
def test_one_class_has_no_baselines(files: Path) -> None:
    for name in ("train", "id"):
        arrays = load_file(files / f"{name}.safetensors")
        save_file(arrays | {"labels": torch.zeros_like(arrays["labels"])}, files / f"{name}.safetensors")
    done = scored(files)
    assert "msp needs a classifier, there is one class" in done.stdout
    assert "labels needs labels, there is one class" in done.stdout


@pytest.mark.slow
def test_logits_in_some_files_only(files: Path) -> None:
    with_logits(files, "train", "id")
    done = scored(files)
    assert "msp needs logits in every file, or the head's weight and bias in train.safetensors" in done.stdout


@pytest.mark.slow
def test_logits_without_a_head(files: Path) -> None:
    with_logits(files, *SETS)
    done = scored(files, grid=grid(files / "v.yaml", posthoc=["msp", "vim", "react"]))
    assert "… needs the head's weight and bias in train.safetensors: vim, react" in done.stdout
    found = rows()
    assert set(found["posthoc"]) == {"–", "msp"}
    assert (found["status"] == "ok").all()
    assert (found["accuracy_by"] == "classifier").all()


@pytest.mark.slow
def test_a_head_alone_makes_the_logits(files: Path) -> None:
    with_logits(files, *SETS, head=True)
    scored(files, grid=grid(files / "v.yaml", posthoc=["msp", "vim"]))
    whole = rows()
    without(files, "logits", files=SETS)
    scored(files, grid=files / "v.yaml", name="head")
    found = rows("head")
    assert (found["accuracy_by"] == "classifier").all()
    assert {"msp", "vim"} <= set(found["posthoc"])
    assert found["auroc"].tolist() == pytest.approx(whole["auroc"].tolist(), abs=1e-3)


@pytest.mark.slow
def test_a_baseline_that_is_fitted_on_labels_of_the_reference(files: Path) -> None:
    without(files, "labels", files=("val",))
    done = scored(files, grid=grid(files / "v.yaml", posthoc=["msp", "temperature"]), val=files / "val.safetensors")
    assert "temperature needs labels, val.safetensors has none" in done.stdout
    assert "temperature" not in set(rows()["posthoc"])


# ---- mistakes -----------------------------------------------------------------------------------------------------


def refused(folder: Path, **changes: Any) -> str:
    """Return what a call is refused with: one message, exit code 2, nothing written."""
    done = call("score", *words(folder, **changes))
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("results").exists()
    return done.stderr.removeprefix("error: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"near": "svhn"}, "--near svhn: wanted is NAME=FILE"),
        ({"near": "=x.npy"}, "--near =x.npy: wanted is NAME=FILE"),
        ({"near": "x="}, "--near x=: wanted is NAME=FILE"),
        ({"near": "n=none.npy"}, "there is no file none.npy"),
        ({"near": None, "far": None}, "give at least one OOD set: --ood NAME=FILE"),
        ({"near": ["n=f/near.safetensors", "n=f/seen.safetensors"]}, "--near n=f/seen.safetensors: n is given twice"),
        ({"far": "n=f/far.safetensors"}, "far n: a set of this name is given as near, too"),
        ({"far": "f=f/near.safetensors"}, "OOD f and OOD n are the same features: f/near.safetensors"),
        ({"id": "f/train.safetensors"}, "--id and --train are the same features"),
        ({"val": "f/id.safetensors"}, "--val and --id are the same features"),
        ({"validation": "s=f/near.safetensors"}, "--validation s and OOD n are the same features"),
        ({"near": "ID test=f/near.safetensors"}, "near ID test: the name means something else"),
        ({"train": "none.npy"}, "there is no file none.npy"),
        ({"id": "x=none.npy"}, "there is no file none.npy"),
        ({"name": "../x"}, "--name '../x' cannot name a folder"),
        ({"name": "store"}, "--name 'store' cannot name a folder"),
        ({"redo": "scores"}, "--redo scores: there is no such stage; did you mean 'score'?"),
        ({"training": "a\nb"}, "a name should be 1 to 100 signs on one line"),
        ({"training": "=cmd"}, "should not begin as a spreadsheet's formula does"),
        ({"training": "a\u200fb"}, "a name should be 1 to 100 signs on one line"),
        ({"device": "gpu"}, "there is no device 'gpu'; give auto, cpu, cuda or cuda:1"),
        ({"memory": "lots"}, "--memory lots: wanted is a number of bytes"),
        ({"memory": "0"}, "2GB or 2GiB, 50.0 MB at least"),
        ({"grid": "none.yaml"}, "there is no study file none.yaml"),
    ],
)
def test_wrong_options_are_refused(files: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(files, **changes)


def test_a_copy_of_a_file_is_refused(files: Path) -> None:
    (files / "copy.safetensors").write_bytes((files / "id.safetensors").read_bytes())
    said = refused(files, near=f"n={files / 'copy.safetensors'}")
    assert "OOD n and --id are the same features" in said
    assert "copy.safetensors" in said


def test_the_same_features_in_another_format_are_refused(files: Path) -> None:
    np.save(files / "copy.npy", load_file(files / "train.safetensors")["features"].numpy())
    assert "OOD n and --train are the same features" in refused(files, near=f"n={files / 'copy.npy'}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "id", "val"])
def test_sets_may_be_called_like_roles(files: Path, name: str) -> None:
    scored(files, near=f"{name}={files / 'near.safetensors'}", val=files / "val.safetensors")
    assert set(rows()["ood"]) == {name, "f"}
    assert set(rows()["n_id"]) == {60}


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        (
            "near",
            {"features": torch.zeros(9, 5)},
            "near.safetensors: 5 columns, f/train.safetensors has 8 (penultimate)",
        ),
        ("near", {"features": torch.full((9, D), torch.nan)}, "`features` has NaN or infinity in 9 of 9 rows"),
        ("train", gaussians(40, 7) | {"labels": torch.arange(40) % 3 + 1}, "an item of each class; these are 1, 2, 3"),
        ("train", gaussians(40, 7) | {"labels": torch.arange(40) % 2 * 10**12}, "these are 0, 1000000000000"),
        (
            "train",
            gaussians(40, 7) | {"labels": torch.arange(40) + 5},
            "these are 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...",
        ),
        ("train", gaussians(40, 7) | {"labels": torch.arange(40)}, "val(0.1) leaves no item of class 0"),
        (
            "train",
            gaussians(40, 7) | {"logits": torch.zeros(40, 9)},
            "`logits` is of 9 classes, `labels` of 4; drop one",
        ),
        (
            "train",
            gaussians(40, 7) | {"weight": torch.zeros(9, D), "bias": torch.zeros(9)},
            "`weight` is of 9 classes, `labels` of 4; drop one",
        ),
        ("id", gaussians(40, 7) | {"labels": torch.arange(40) % 6}, "reach from 0 to 5, f/train.safetensors has the"),
        ("id", gaussians(40, 7) | {"labels": torch.full((40,), -1)}, "`labels` reach from -1 to -1"),
    ],
)
def test_files_that_do_not_fit_are_refused(files: Path, name: str, arrays: dict[str, torch.Tensor], said: str) -> None:
    save_file(arrays, files / f"{name}.safetensors")
    assert said in refused(files, **{"train": "f/train.safetensors"})


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"distanc": "cosine"}, "distanc", "there is no such key; did you mean 'distance'?"),
        ({"training": ["simclr"]}, "training", "there is no such key"),
        ({"threshold": "pooledd"}, "threshold", "there is no threshold 'pooledd'; did you mean 'pooled'?"),
        ({"distance": {"knn": {"q": 3}}}, "distance", "there is no such parameter"),
        ({"threshold": None}, "", "the key 'threshold' is missing"),
        ({"distance": None, "posthoc": None}, "", "the key 'distance' is missing, and 'posthoc', too"),
        ({"compat": "yes"}, "compat", "is 'yes', should be true or false"),
        ({"clustering": None}, "distance", "needs clusters; say which with the key 'clustering'"),
        ({"threshold": ["youden"]}, "threshold", "youden is set on OOD; say on which: the option --validation"),
        ({"select": {"over": ["space"]}}, "select", "chooses by validation OOD; say which: the option --validation"),
    ],
)
def test_mistakes_in_a_grid_have_a_place(files: Path, changes: dict[str, Any], key: str, said: str) -> None:
    path = grid(files / "g.yaml", **changes)
    found = refused(files)
    assert said in found
    place = int(found.removeprefix(f"{path}:").partition(":")[0])
    lines = path.read_text().splitlines()
    first = next(i for i, text in enumerate(lines, 1) if text.startswith(f"{key}:" if key else ""))
    own = next((i for i, text in enumerate(lines[first:], first) if text[0] not in " -"), len(lines))
    assert first <= place <= own  # in what stands under the key


@pytest.mark.slow
def test_reference_train_and_val_contradict_each_other(files: Path) -> None:
    grid(files / "g.yaml", reference="train", distance={"knn": {"k": 3}}, posthoc=None)
    said = refused(files, val=files / "val.safetensors")
    assert "`reference: train` and --val contradict each other" in said
    grid(files / "h.yaml", reference={"val": 0.3})
    said = refused(files, grid=files / "h.yaml", val=files / "val.safetensors")
    assert "`reference: val(0.3)` and --val contradict each other" in said
    said = refused(files, validation=f"s={files / 'seen.safetensors'}")
    assert f"{files / 'g.yaml'}:" in said
    assert "validation OOD stands against a held-out reference" in said
    scored(files)
    assert set(rows()["reference"]) == {"train"}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_rows_whose_plan_is_gone_are_not_written_over(files: Path, damage: str) -> None:
    scored(files)
    plan = Path("results/features/plan.json")
    before = {path: path.read_bytes() for path in plan.parent.rglob("*") if path.is_file() and path != plan}
    if damage == "lost":
        plan.unlink()
    else:
        plan.write_bytes(plan.read_bytes()[:100])
    done = call("score", *words(files))
    assert done.exit_code == 2
    assert "plan.json, which says of which features the rows are, is lost or damaged" in " ".join(done.stderr.split())
    assert {path: path.read_bytes() for path in before} == before


def test_a_grid_that_leaves_nothing(files: Path) -> None:
    without(files, "labels")
    grid(files / "g.yaml", distance=None, clustering=None, space=None)
    assert "no cell is left: " in refused(files)


def test_the_results_of_a_study_are_not_mixed_with(files: Path, tmp_path: Path) -> None:
    results = Results(Path("results/s"))
    results.write_plan({"study": "s", "cells": {}, "sets": {}, "left_out": {}})
    before = Path("results/s/plan.json").read_bytes()
    done = call("score", *words(files, name="s"))
    assert (done.exit_code, "holds the results of a study" in done.stderr) == (2, True)
    assert Path("results/s/plan.json").read_bytes() == before


# ---- items that two files share ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_items_that_two_files_share_are_said_and_stand_in_the_rows(files: Path) -> None:
    """Of one call: ID test items that are training items, OOD items that are ID test items, a reference from train."""
    train, test = (load_file(files / f"{name}.safetensors") for name in ("train", "id"))
    test["features"][:3] = train["features"][[5, 7, 9]]
    near = load_file(files / "near.safetensors")
    near["features"][4] = test["features"][10]
    val = {name: each[20:40] for name, each in train.items()}
    for name, arrays in (("id", test), ("near", near), ("val", val)):
        save_file({key: each.contiguous() for key, each in arrays.items()}, files / f"{name}.safetensors")
    done = scored(files, val=files / "val.safetensors")
    said = " ".join(done.stderr.split())
    for one in (
        "3 of 60 items of --id are also in --train (rows 0, 1, 2)",
        "20 of 20 items of --val are also in --train (rows 0, 1, 2, 3, 4, ...)",
        "1 of 50 items of OOD n are also in --id (rows 4)",
    ):
        assert one in said
    found = rows().groupby("ood")["warnings"].first()
    assert "items of OOD n are also in --id" in found["n"]
    assert "items of OOD n" not in found["f"]
    assert "20 of 20 items of --val are also in --train" in found["f"]


@pytest.mark.slow
def test_items_that_stand_twice_among_those_of_training_are_said(files: Path) -> None:
    train = load_file(files / "train.safetensors")
    train["features"][3:7] = train["features"][2]
    save_file(train, files / "train.safetensors")
    done = scored(files)
    assert f"4 of {len(train['features'])} items of --train are there before" in " ".join(done.stderr.split())
    val = load_file(files / "id.safetensors")
    save_file({name: each[:20].contiguous() for name, each in val.items()}, files / "val.safetensors")
    assert "of --train are there before" not in scored(files, name="val", val=files / "val.safetensors").stderr


@pytest.mark.slow
def test_other_formats_of_the_same_items_share_them(files: Path) -> None:
    near, test = (load_file(files / f"{name}.safetensors")["features"].double().numpy() for name in ("near", "id"))
    np.save(files / "near.npy", np.concatenate([near, test[:2]]))
    said = scored(files, near=f"n={files / 'near.npy'}").stderr
    assert "2 of 52 items of OOD n are also in --id (rows 50, 51)" in " ".join(said.split())


@pytest.mark.slow
def test_files_that_share_no_item_are_not_warned_of(files: Path) -> None:
    assert "duplicates" not in scored(files).stderr
    assert set(rows()["warnings"].str.contains("duplicates")) == {False}


@pytest.mark.slow
def test_labels_that_are_texts_are_numbered_alike_in_every_file(files: Path) -> None:
    """The test file lacks a class, and has the others in another order; the numbers are those of numbered labels."""
    numbered = accuracy_of(scored(files, grid=grid(files / "g.yaml", posthoc=["msp"])))
    names = np.array(["wolf", "ant", "cat", "bee"])
    for name in ("train", "id"):
        arrays = load_file(files / f"{name}.safetensors")
        np.savez(files / f"{name}.npz", features=arrays["features"].numpy(), labels=names[arrays["labels"].numpy()])
    texts = {name: files / f"{name}.npz" for name in ("train", "id")}
    assert accuracy_of(scored(files, name="texts", grid=files / "g.yaml", **texts)) == numbered
    arrays = load_file(files / "id.safetensors")
    np.savez(files / "id.npz", features=arrays["features"].numpy(), labels=np.full(len(arrays["labels"]), "beee"))
    done = call("score", *words(files, name="texts", **texts))
    assert done.exit_code == 2
    assert "has the label 'beee'; did you mean 'bee'?" in " ".join(done.stderr.split())


def accuracy_of(done: Result) -> list[str]:
    """Return the ID accuracies of the leaderboard that was printed, alike in every row."""
    return sorted({line.split()[-8] for line in done.stdout.splitlines() if line.startswith("train")})


@pytest.mark.slow
def test_what_is_known_of_the_files_is_written_again_where_it_was_lost(files: Path) -> None:
    scored(files)
    (kept,) = (Path("results") / "features" / "runs").glob("*.json")
    before = json.loads(kept.read_text())
    kept.unlink()
    scored(files)
    assert json.loads(kept.read_text()) == before


@pytest.mark.slow
def test_reasons_why_cells_are_left_out_stand_below_the_table(files: Path) -> None:
    done = call("score", *words(files, grid=None))
    lines = done.stdout.splitlines()
    left = [i for i, line in enumerate(lines) if line.startswith("left out:")]
    assert 1 < len(left) <= 9
    assert left[0] > lines.index(next(line for line in lines if line.startswith("leaderboard")))
    assert "other reason" in lines[left[-1]]
    kept = json.loads((Path("results") / "features" / "plan.json").read_text())["left_out"]
    assert len(kept) > len(left)
    warned = [line for line in done.stderr.splitlines() if line.startswith("rows warn: ")]
    rows = Results(Path("results") / "features").current()
    cells = rows[rows["warnings"].str.contains("of scores tied")]["cell"].nunique()
    assert sum("of scores tied" in line and f" {cells} cells (" in line for line in warned) == 1
    assert "a page (--page) lists every warning of rows" in lines


def test_columns_of_csv_go_by_their_names(tmp_path: Path) -> None:
    for name, columns in {"train": "abcdefgh", "id": "hgfedcba", "ood": "abcdefgh"}.items():
        given = gaussians(40, seed=len(name))
        table = pd.DataFrame(given["features"].numpy(), columns=list(columns)).assign(labels=given["labels"].numpy())
        (table if name != "ood" else table.drop(columns="labels")).to_csv(tmp_path / f"{name}.csv", index=False)
    done = call("score", "--train", "train.csv", "--id", "id.csv", "--ood", "o=ood.csv")
    assert done.exit_code == 2
    assert "id.csv: its columns are not those of train.csv, in their order" in done.stderr


def test_the_name_of_a_dry_run_is_refused() -> None:
    done = call("score", "--train", "t.npy", "--id", "i.npy", "--ood", "o=o.npy", "--name", "s.dry")
    assert (done.exit_code, "and not .dry at the end" in done.stderr) == (2, True)
