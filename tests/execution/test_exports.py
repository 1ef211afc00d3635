"""A study's features as files: what each holds, and that `oodbench score` makes the study's own numbers of them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import Result, call
from ruamel.yaml import YAML
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from tiny import write

import oodbench
from oodbench.cli import arguments
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.training import weights

GRID: dict[str, Any] = {
    "space": [{}, {"unit": True}],
    "clustering": ["labels", {"kmeans": {"k": "classes", "restarts": 2}}],
    "distance": ["cosine", {"knn": {"k": 3}}],
    "posthoc": ["msp", "vim", "temperature"],
    "threshold": ["pooled", "per_cluster", "youden"],
}
VALIDATION = {"glyphs": {"count": 40, "size": 8}}
METHOD = ["training", "id", "seed", "space", "clustering", "distance", "posthoc", "threshold", "ood", "group"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests share one store."""
    monkeypatch.setenv("OODBENCH_RESULTS", str(root / "results"))


@pytest.fixture(scope="module")
def study(root: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(root / "results"))
        path = write(root / "s.yaml", outliers=None, validation=VALIDATION, **GRID)
        assert (oodbench.run(path, device="cpu")["status"] == "ok").all()
        yield path


@pytest.fixture(scope="module")
def exported(study: Path, root: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(root / "results"))
        done = call("export-features", study, "--to", root / "it's here", "--device", "cpu")
    assert done.exit_code == 0, done.output
    return done


def commands(done: Result) -> list[list[str]]:
    return [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("    oodbench score ")]


@pytest.mark.slow
def test_each_training_is_a_folder_of_files(exported: Result, root: Path) -> None:
    assert "2 of 2 trainings exported to" in exported.stdout
    folders = sorted((root / "it's here").iterdir())
    assert [folder.name.partition("-")[0] for folder in folders] == ["cross_entropy", "simclr"]
    files = {"train", "val", "id", "ood-blobs-groups=3-count=60-shift=60", "ood-noise-count=50-size=8"}
    files |= {"validation-glyphs-count=40-size=8"}
    for folder in folders:
        assert {path.stem for path in folder.iterdir()} == files
        assert {path.suffix for path in folder.iterdir()} == {".safetensors"}
    supervised, contrastive = (load_file(folder / "train.safetensors") for folder in folders)
    assert set(supervised) == {"features", "logits", "labels", "weight", "bias"}
    assert set(contrastive) == {"features", "projection", "labels"}
    logits = supervised["features"] @ supervised["weight"].T + supervised["bias"]
    assert torch.allclose(logits, supervised["logits"], atol=1e-4)
    assert {len(each) for name, each in supervised.items() if name not in ("weight", "bias")} == {90}
    held_out = load_file(folders[0] / "val.safetensors")
    assert set(held_out) == {"features", "logits", "labels"}
    assert len(held_out["labels"]) == 30
    assert set(load_file(folders[1] / "ood-noise-count=50-size=8.safetensors")) == {"features", "projection"}


@pytest.mark.slow
def test_scoring_the_files_makes_the_studys_own_numbers(exported: Result, study: Path, root: Path) -> None:
    grid = root / "g.yaml"
    with grid.open("w") as stream:
        YAML().dump(GRID, stream)
    for words in commands(exported):
        done = call(*words[1:], "--grid", grid, "--device", "cpu")
        assert done.exit_code == 0, done.output
    wanted = oodbench.rows(study)
    found = Results(root / "results" / "s-features").current()
    assert len(found) == len(wanted) > 50
    both = [each.sort_values(METHOD).set_index(METHOD) for each in (found, wanted)]
    same = ["auroc", "aupr_in", "fpr95_id", "cut", "id_recall", "ood_recall", "val_auroc", "accuracy", "accuracy_by"]
    same += ["level", "clusters", "classes", "n_train", "n_reference", "n_id", "n_ood"]
    pd.testing.assert_frame_equal(both[0][same], both[1][same], check_exact=True)


@pytest.mark.slow
def test_the_command_says_group_name_seed_and_training(exported: Result) -> None:
    words = commands(exported)[0]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--near"].startswith("blobs(groups=3, count=60, shift=60)=")
    assert options["--far"].startswith("noise(count=50, size=8)=")
    assert options["--validation"].startswith("glyphs(count=40, size=8)=")
    assert (options["--training"], options["--seed"], options["--name"]) == ("cross_entropy", "0", "s-features")
    assert options["--val"].endswith("val.safetensors")


def test_a_second_export_takes_the_place_of_the_first(exported: Result, study: Path, root: Path) -> None:
    to = root / "it's here"
    before = {path.relative_to(to): path.read_bytes() for path in to.rglob("*.safetensors")}
    victim = next(to.rglob("id.safetensors"))
    victim.write_bytes(b"")
    assert call("export-features", study, "--to", to, "--device", "cpu").exit_code == 0
    assert {path.relative_to(to): path.read_bytes() for path in to.rglob("*") if path.is_file()} == before
    assert not [path for path in to.iterdir() if path.name.startswith(".")]


def test_what_is_not_trained_is_counted_and_not_trained(exported: Result, root: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.yaml", outliers=None, validation=VALIDATION, **GRID, seed=[0, 1])
    done = call("export-features", more, "--to", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "2 of 4 trainings exported" in done.stdout
    assert "2 trainings are missing" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert len(list((root / "results" / "store" / "train").glob("[!.]*"))) == 2


def test_nothing_trained_is_an_error(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "elsewhere"))
    done = call("export-features", study, "--to", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 2
    assert "none of the 2 trainings of" in done.stderr
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_missing_ones(
    study: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root / "results", tmp_path / "copy")
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "copy"))
    weights = next((tmp_path / "copy" / "store" / "train").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = call("export-features", study, "--to", tmp_path / "out", "--device", "cpu")
    assert "1 of 2 trainings exported" in done.stdout
    assert "1 trainings are missing" in done.stderr


def test_a_killed_export_leaves_nothing_half_written(
    exported: Result, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oodbench.execution import exports

    written: list[Path] = []

    def full(arrays: Any, path: Path) -> None:
        if written:
            raise OSError("no space left on device")
        path.write_bytes(b"x")
        written.append(path)

    monkeypatch.setattr(exports, "save_file", full)
    done = call("export-features", study, "--to", tmp_path / "out", "--device", "cpu")
    assert (done.exit_code, "cannot be written: no space left on device" in done.stderr) == (2, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_way_is_said(exported: Result, study: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = call("export-features", study, "--to", tmp_path / "out", "--device", "cpu")
    assert (done.exit_code, "cannot be written" in done.stderr) == (2, True)
    assert (tmp_path / "out").read_text() == "mine"


def test_names_are_safe_and_differ() -> None:
    from oodbench.execution.exports import _names
    from oodbench.scoring.detectors import Bank, Known

    names = ["a b", "A/B", "../../etc", "x" * 300, "ö", "ä"]
    none = torch.zeros(0)
    bank = Bank({}, none, 1, Known({}, none), None, {name: {} for name in names}, {"a b": {}})
    found = list(_names(bank).values())
    assert found[:3] == ["ood-a-b", "ood-A-B-2", "ood-etc"]
    assert len({each.casefold() for each in found}) == 7
    assert max(map(len, found)) < 150
    assert found[-1] == "validation-a-b"


# ---- scores


@pytest.mark.parametrize(
    "wanted",
    [
        {"distance": "cosine", "space": "penultimate unit", "clustering": "labels", "threshold": "pooled"},
        {"distance": "knn(k=3)", "space": "penultimate", "threshold": "pooled"},
        {"distance": "cosine", "clustering": "kmeans(restarts=2)", "threshold": "per_cluster"},
        {"posthoc": "vim", "threshold": "youden"},
    ],
)
def test_scores_by_image_are_those_that_rows_were_made_of(study: Path, tmp_path: Path, wanted: dict[str, str]) -> None:
    rows = oodbench.rows(study)
    for column, value in wanted.items():
        rows = rows[rows[column].str.startswith(value)]
    row = rows.iloc[0]
    done = call("scores", study, row["cell"], "--to", tmp_path / "s.csv", "--device", "cpu")
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "s.csv")
    assert list(found.columns) == ["role", "set", "split", "position", "class", "score", "accepted"]
    id_ = found[found["role"] == "ID test"]
    assert list(id_["position"]) == list(range(int(row["n_id"])))
    assert id_["accepted"].mean() == pytest.approx(row["id_recall"])
    assert (found["role"] == "ID reference").sum() == row["n_reference"]
    for _, each in rows[rows["cell"] == row["cell"]].iterrows():
        ood = found[(found["role"] == each["group"]) & (found["set"] == each["ood"])]
        assert len(ood) == each["n_ood"]
        labels = [0] * len(id_) + [1] * len(ood)
        assert roc_auc_score(labels, [*id_["score"], *ood["score"]]) == pytest.approx(each["auroc"], abs=1e-12)
        assert 1 - ood["accepted"].mean() == pytest.approx(each["ood_recall"])


def test_scores_call_an_ood_set_as_rows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    blobs = {"groups": 3, "count": 60, "shift": 60, "as": "moved"}
    path = write(tmp_path / "s.yaml", ood={"near": {"blobs": blobs}})
    rows = oodbench.run(path, device="cpu")
    assert call("scores", path, rows["cell"].iloc[0], "--to", tmp_path / "s.csv", "--device", "cpu").exit_code == 0
    found = pd.read_csv(tmp_path / "s.csv")
    assert set(found.loc[found["role"] == "near", "set"]) == set(rows["ood"]) == {"moved"}


def test_scores_have_the_class_and_the_place_of_each_image(study: Path, tmp_path: Path) -> None:
    cell = oodbench.rows(study)["cell"].iloc[0]
    assert call("scores", study, cell, "--to", tmp_path / "s.parquet", "--device", "cpu").exit_code == 0
    found = pd.read_parquet(tmp_path / "s.parquet")
    with arguments.at_work(study) as pipeline:
        run = pipeline.study.ids[0]
        prepared = pipeline.library.prepared(run, "train")
    held_out = found[found["role"] == "ID reference"]
    assert list(held_out["class"]) == [prepared.classes[prepared.y[at]] for at in held_out["position"]]
    assert set(held_out["split"]) == {"train"}


def test_what_has_no_scores_is_said_and_nothing_is_written(study: Path, tmp_path: Path) -> None:
    cell = oodbench.rows(study)["cell"].iloc[0]
    for words, said in (
        (["dead", "--to", tmp_path / "s.csv"], "nothing is called 'dead' in these rows"),
        (["", "--to", tmp_path / "s.csv"], "cells begin so"),
        (["seed=0", "--to", tmp_path / "s.csv"], "scores is of one cell; give a word more"),
        ([cell, "--to", tmp_path / "s.xls"], "wanted is a file .csv, .csv.gz, .parquet"),
    ):
        done = call("scores", study, *words)
        assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
        assert said in done.output


def test_a_training_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    path = write(tmp_path / "s.yaml")
    done = call("scores", path, weights.plan_of(reader.load(path)).work[0].cells[0].id, "--to", tmp_path / "s.csv")
    assert done.exit_code == 2
    assert f"is not trained; oodbench run {path} trains it" in " ".join(done.output.split())
    assert not (tmp_path / "s.csv").exists()
