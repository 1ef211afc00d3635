"""The conformance suite over all plugins whose data is here, and over plugins that it has to catch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import careless
import numpy as np
import own
import pytest
import torch

from oodbench import metrics
from oodbench.conformance.suite import conform, find
from oodbench.errors import PluginError, UserError
from oodbench.store.process import outlived
from oodbench.study.registry import ROOMS, PluginFile, Registry, load, source_of
from oodbench.toolkit.raw_files import missing


def has_its_files(source: PluginFile) -> bool:
    """Tell of a data set whether it is made, on this machine, or written by a test here: tests/datasets do others."""
    if source.room != "dataset" or source.name in own.WRITERS:
        return True
    if source.name == "tiny_images":  # withdrawn: it cannot be made
        return False
    dataset: Any = load(source)()
    return not missing(dataset.needed(Path("nowhere"))) and not dataset.requires


SLOW = {"glyphs"}  # it draws 8,000 letters
ALL = [
    pytest.param(each, id=f"{room}/{each.name}", marks=[pytest.mark.slow] * (each.name in SLOW))
    for room in ROOMS
    for each in Registry().sources(room).values()
    if has_its_files(each)
]


@pytest.mark.slow
@pytest.mark.parametrize("source", ALL)
def test_conformance(source: PluginFile, tmp_path: Path) -> None:
    if source.room == "dataset" and source.name in own.WRITERS:
        own.WRITERS[source.name](tmp_path, own.pictures())
    problems = [f"{each.check}: {each.problem}" for each in conform(source, tmp_path) if each.problem]
    assert not problems


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")


def broken(tmp_path: Path, of: str, old: str, new: str) -> list[str]:
    """Return the problems of a built-in plugin with one thing changed."""
    room, name = of.split("/")
    text = Registry().source(room, name).path.read_text()
    assert old in text
    path = tmp_path / f"broken_{name}.py"
    path.write_text(text.replace(old, new))
    return [f"{each.check}: {each.problem}" for each in conform(source_of(path), tmp_path) if each.problem]


@pytest.mark.parametrize(
    ("of", "old", "new", "said"),
    [
        ("training/simclr", 'b.out["z"], self', 'b.out["z"].double(), self', "the loss is float32"),
        ("training/simclr", 'nt_xent(b.out["z"]', 'nt_xent(b.out["z"].detach()', "element 0 of tensors"),
        ("training/supcon", "b.y, self", "b.y.roll(1), self", "order of a batch does not matter"),
        ("training/cider", "    ordered = True\n", "", "order of a batch does not matter"),
        ("training/supcon", "    labels = True\n", "    labels = True\n    ordered = True\n", "it says `ordered`"),
        (
            "training/cross_entropy",
            "label_smoothing: Fraction = 0.0",
            "label_smoothing: Fraction",
            "without one: label_smoothing",
        ),
        ("clustering/one", "torch.zeros(len(f)", "torch.ones(len(f)", ""),
        ("clustering/kmeans", "means.fit(f.", "means.fit((f + 30 * f.new_empty(f.shape).uniform_()).", "same seed"),
        ("clustering/labels", "grouped(f, y)", "grouped(f, y.roll(5))", "clusters"),
        ("clustering/gmm", "mixture = True", "mixture = False", "it says `mixture`"),
        ("distance/euclidean", "squares.sqrt()", "-squares.sqrt()", "far items score higher"),
        ("distance/euclidean", "squares.sqrt()", "squares.sqrt().float()", "score is float64"),
        ("distance/cosine", "unit(rows.double())", "unit(rows.double() - rows.double().mean(0))", "neighbours"),
        ("distance/knn", "k + 1", "k", "leave_one_out"),
        ("threshold/pooled", "self.level, len", "0.5, len", "it accepts 0.95 of its reference"),
        (
            "threshold/per_cluster",
            "torch.searchsorted(reference, score)",
            "-torch.searchsorted(reference, score)",
            "higher score",
        ),
        ("posthoc/max_logit", "detector.MaxLogit(None).predict_logits", "lambda z: z.amax(1)", "none of 3 classes"),
        ("posthoc/msp", "of_logits(doubt)", "lambda items: doubt(items.logits)", "score is float64"),
        ("posthoc/msp", "return of", "train.h.zero_()\n        return of", "changed `train`"),
        ("posthoc/entropy", "logits.log_softmax(1)", "(logits - logits.mean(0)).log_softmax(1)", "neighbours"),
        ("posthoc/entropy", "-(log_p.exp()", "-(log_p.exp() + 1e-9 * log_p.new_empty(1).normal_()", "global seed"),
        ("posthoc/scale", ".clamp_min(LEAST)", "", "finite"),
        ("posthoc/react", "    applies = True\n\n", "", "does not say `applies = True`"),
        ("posthoc/fdbd", "    linear = True\n", "", "head is not linear"),
        ("posthoc/temperature", "    val = True\n", "", "no ID reference"),
        ("dataset/noise", 'split == "test"', "0", "disjoint"),
        ("dataset/mnist", '"none stated"', '""', "its source has a licence"),
        ("dataset/mnist", "SITES)", "())", "its downloads have a name each"),
        ("dataset/mnist", '"md5:f68', '"f68', "is md5:... or sha256:..., not f68"),
        ("dataset/digits", ".astype(np.int64)", ".astype(np.int32)", "labels are int64"),
    ],
)
def test_what_is_broken_is_caught(tmp_path: Path, of: str, old: str, new: str, said: str) -> None:
    problems = broken(tmp_path, of, old, new)
    if said:
        assert any(said in problem for problem in problems), problems
    else:
        assert not problems


def test_a_class_without_docstring_is_caught(tmp_path: Path) -> None:
    found = broken(
        tmp_path, "distance/cosine", '    """Cosine: 1 - the largest cosine similarity to a centroid."""\n', ""
    )
    assert found == ["it says what it is: its class has no docstring"]


@pytest.mark.parametrize(
    ("where", "text", "said"),
    [("in_fit", *each) for each in careless.IN_FIT.items()]
    + [("in_score", *each) for each in careless.IN_SCORE.items()],
)
def test_what_is_careless_is_caught(tmp_path: Path, where: str, text: str, said: str) -> None:
    source = source_of(careless.write(tmp_path / "x.py", **{where: text}))
    with outlived():
        problems = [each.problem for each in conform(source, tmp_path) if each.problem]
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(("text", "said"), careless.AT_IMPORT.items())
def test_what_is_careless_when_it_is_imported_is_refused(tmp_path: Path, text: str, said: str) -> None:
    before, source = os.getcwd(), source_of(careless.write(tmp_path / "x.py", at_import=text))
    for _ in range(2):  # it is not there the second time, either
        with outlived(), pytest.raises(PluginError, match=f"x.py: .*{re.escape(said)}"):
            conform(source, tmp_path)
    assert (os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled()) == (before, torch.float32, True)
    assert metrics.auroc.__module__ == "oodbench.scoring.metrics"


def test_an_author_reads_the_line_of_the_own_file(tmp_path: Path) -> None:
    """Also where a mistake shows in ours."""
    whole = "return loss if self.base_temperature is None else loss * self.temperature / self.base_temperature, state"
    for old, new, said in (("    views = 2\n", "", ""), (whole, "return loss", "not a Tensor")):
        folder = tmp_path / f"{len(said)}"  # of its own: a module is imported once
        folder.mkdir()
        problems = broken(folder, "training/simclr", old, new)
        assert any(said in problem for problem in problems), problems
        assert all(re.search(r"broken_simclr\.py:\d+\)$", problem) for problem in problems), problems
    problems = broken(tmp_path, "training/supcon", "    labels = True\n", "")
    assert all(re.search(r"broken_supcon\.py:\d+\)$", problem) for problem in problems), problems


OWN = '''"""Own files."""

from pathlib import Path

import numpy as np

from oodbench.api import Dataset, Images


class Mine(Dataset):
    """Mine: files of my own."""

    def needed(self, root: Path) -> list[Path]:
        return [root / "mine.npy"]

    def load(self, split: str, root: Path) -> Images:
        x = np.load(root / "mine.npy")[::2] if split == "train" else np.load(root / "mine.npy")[1::2]
        return Images(x, np.zeros(len(x), dtype=np.int64), ("a",))
'''


def test_a_set_of_own_files_needs_no_source(tmp_path: Path) -> None:
    """Its files are looked at where they are there; else the checks that need them are skipped."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    found = conform(source_of(path), tmp_path)
    assert [each.problem for each in found if each.problem] == []
    assert [each.check for each in found if each.skipped and "there is no file" in each.check]
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8))
    found = conform(source_of(path), tmp_path)
    assert [each.problem for each in found if each.problem] == []
    assert not any(each.skipped for each in found)


def test_finding_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "nul.py").write_text("x = 1\0\n")
    assert find("simclr").room == "training"
    assert find("distance/cosine").name == "cosine"
    for name, said in (
        ("nobody", "is in no room"),
        ("distanse/cosine", "there is no room 'distanse'"),
        ("distance/cosin", "did you mean 'cosine'"),
        (str(tmp_path / "x.py"), "there is no file"),
        (str(tmp_path), "is no file of a plugin, which ends with .py"),
        (str(tmp_path / "nul.py"), "nul.py: cannot be parsed"),
    ):
        with pytest.raises(UserError, match=said):
            find(name)
