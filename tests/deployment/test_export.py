"""`oodbench export`: which cells there is a folder of, and what is said of the others; nothing is half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from safetensors.numpy import load_file
from tiny import write

import oodbench
from oodbench import UserError
from oodbench.deployment import export
from oodbench.deployment.folder import BANK


@pytest.fixture
def study(trained: None, tmp_path: Path) -> Path:
    path = write(tmp_path / "s.yaml", outliers=None, threshold="pooled", distance=["cosine", {"knn": {"k": 3}}])
    assert call("run", path, "--device", "cpu", "--rows-only").exit_code == 0
    return path


CELL = ("cross_entropy", "labels", "cosine")


def test_a_cell_by_its_words_or_hash(study: Path, tmp_path: Path) -> None:
    done = call("export", study, *CELL, "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 0, done.output
    cell = oodbench.load_detector(tmp_path / "a", device="cpu").facts.cell
    done = call("export", study, cell[:8], "--to", tmp_path / "deep" / "b", "--device", "cpu")
    assert done.exit_code == 0, done.output
    one, other = (load_file(tmp_path / name / BANK) for name in ("a", "deep/b"))
    assert {name: each.shape for name, each in one.items()} == {name: each.shape for name, each in other.items()}
    for name, each in one.items():
        np.testing.assert_array_equal(each, other[name])
    assert "training items that cosine is fitted on" in done.stdout


def test_several_cells_are_listed(study: Path, tmp_path: Path) -> None:
    done = call("export", study, "cosine", "--to", tmp_path / "a")
    assert done.exit_code == 2
    assert "4 cells are called so" in done.stdout
    assert f"oodbench export {study} CELL" in done.stdout
    assert "export is of one cell; give a word more" in done.stderr
    assert not (tmp_path / "a").exists()
    nothing = call("export", study, "cosin", "--to", tmp_path / "a")
    assert nothing.exit_code == 2
    assert "nothing is called 'cosin'" in nothing.stderr


def test_a_folder_that_is_there_stays(study: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    done = call("export", study, *CELL, "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 2
    assert "is there already; give another folder, or remove it" in done.stderr
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["mine.txt"]


def test_nothing_is_left_of_an_export_that_fails(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_held", failing)
    (tmp_path / "to").mkdir()
    done = call("export", study, *CELL, "--to", tmp_path / "to" / "a", "--device", "cpu")
    assert done.exit_code == 2
    assert "cannot be written: No space left on device" in done.stderr
    assert [*(tmp_path / "to").iterdir()] == []


def test_a_training_that_is_gone_is_named(study: Path, tmp_path: Path) -> None:
    for each in (tmp_path / "results" / "store" / "train").rglob("manifest.json"):
        each.unlink()
    done = call("export", study, *CELL, "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 2
    assert "is not trained; oodbench run" in done.stderr


@pytest.mark.slow
def test_views_are_refused(trained: None, tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", outliers=None, threshold="pooled", distance="cosine", space={"views": 2})
    assert call("run", path, "--device", "cpu", "--rows-only").exit_code == 0
    done = call("export", path, *CELL, "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 2
    assert "augmented views whose draw depends on the set that an image is in" in done.stderr


@pytest.mark.slow
def test_a_reference_of_training_items_is_kept_as_its_scores(device: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        outliers=None,
        reference="train",
        training="cross_entropy",
        clustering=None,
        distance={"knn": {"k": 3}},
        threshold="pooled",
    )
    rows = oodbench.run(path, device=device)
    done = call("export", path, "knn", "--to", tmp_path / "a", "--device", device)
    assert done.exit_code == 0, done.output
    assert "scores are the study's, bit for bit" in done.stdout
    assert oodbench.load_detector(tmp_path / "a", device=device).threshold == rows["cut"].iloc[0]


NETWORK = """
from torch import nn


def small(channels: int, size: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, width), nn.ReLU())
"""


@pytest.mark.slow
def test_an_encoder_of_ones_own_is_imported_if_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken_along.py").write_text(NETWORK)
    path = write(
        tmp_path / "s.yaml",
        outliers=None,
        encoder={"taken_along:small": {"width": 12}},
        training="cross_entropy",
        clustering="labels",
        distance="mahalanobis",
        threshold="pooled",
    )
    rows = oodbench.run(path, device="cpu")
    done = call("export", path, "mahalanobis", "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "scores are the study's, bit for bit" in done.stdout
    with pytest.raises(
        UserError, match="its encoder is taken_along:small, code that is not of oodbench: --own-encoder"
    ):
        oodbench.load_detector(tmp_path / "a")
    assert oodbench.load_detector(tmp_path / "a", device="cpu", own_encoder=True).threshold == rows["cut"].iloc[0]
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    words = ("predict", tmp_path / "a", tmp_path / "x.npy", "--device", "cpu")
    assert call(*words).exit_code == 2
    assert call(*words, "--own-encoder").exit_code == 0


@pytest.mark.slow
def test_what_a_plugin_warns_of_is_in_the_json_and_said_once(tmp_path: Path) -> None:
    distance = {"ssd": {}}
    path = write(tmp_path / "s.yaml", outliers=None, distance=distance, clustering="labels", training="simclr")
    rows = oodbench.run(path, device="cpu")
    said = rows["warnings"].iloc[0]
    assert "rank" in said
    done = call("export", path, "ssd", "pooled", "--to", tmp_path / "a", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert done.stderr.count(said) == 1
    assert oodbench.load_detector(tmp_path / "a", device="cpu").facts.warnings == [said]


@pytest.mark.parametrize("words", [["--onnx"]])
def test_onnx_that_is_not_installed_is_said_before_anything_is_made(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    from oodbench.deployment import onnx_encoder

    monkeypatch.setattr(onnx_encoder, "find_spec", lambda name: None)
    done = call("export", study, *CELL, "--to", tmp_path / "a", "--device", "cpu", *words)
    assert done.exit_code == 2
    assert "--onnx takes onnx, onnxscript, onnxruntime, not here: pip install 'oodbench[onnx]'" in done.stderr
    assert not (tmp_path / "a").exists()
