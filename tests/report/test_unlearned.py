"""Encoders that did not learn: by which floor, and how tables, files and the command line say so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call
from hand_made_rows import BASE, knn, made, validated
from tiny import write

from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.report import formats, tables, unlearned
from oodbench.report.selection import selection
from oodbench.store.rows import Results, frame
from oodbench.study import reader
from oodbench.study.declarations import Select, TableSpec

# ID images of noise with labels that mean nothing: three classes, chance 1/3, default floor 1/2
RANDOM = '''
"""Noise images with classes drawn at random."""

import numpy as np

from oodbench.api import Dataset, Images


class Meaningless(Dataset):
    """Meaningless: noise, and classes that say nothing about it."""

    def load(self, split, root):
        rng = np.random.default_rng(split == "test")
        x = rng.integers(256, size=(120, 8, 8)).astype(np.uint8)
        return Images(x, np.arange(120) % 3, ("a", "b", "c"))
'''
BAD = {"classes": 10, "accuracy": 0.99, "accuracy_linear": 0.2, "accuracy_knn": 0.3}
GOOD = {"classes": 10, "accuracy": 0.1, "accuracy_linear": 0.2, "accuracy_knn": 0.34}


@pytest.mark.parametrize(
    ("change", "floor", "said"),
    [
        (BAD, None, True),  # the classifier's own 99 % is no frozen probe's
        (GOOD, None, False),  # the better probe counts: 0.34 > 0.1 + 0.9 / 4 = 0.325
        (BAD, 0.3, False),  # not below the study's own floor
        (GOOD, 0.4, True),
        (BAD | {"classes": 1, "accuracy_linear": None, "accuracy_knn": None}, 0.4, False),  # one class: no probe
        (BAD | {"classes": 1}, None, False),
        (BAD | {"classes": 4}, 0.2, False),
        (BAD | {"classes": 2}, None, True),
        (BAD | {"classes": None}, None, False),  # an old row: chance is not known
        (BAD | {"classes": None}, 0.4, True),
        ({"classes": 10, "accuracy": 0.1}, None, False),  # an old row: whose accuracy is not known
        ({"classes": 10, "accuracy": 0.1, "accuracy_by": "linear probe"}, None, True),
        ({"classes": 10, "accuracy": 0.1, "accuracy_by": "classifier"}, None, False),
    ],
)
def test_the_better_frozen_probe_against_the_floor(change: dict[str, Any], floor: float | None, said: bool) -> None:
    assert unlearned.unlearned(frame([BASE | change]), floor).tolist() == [said]


def board(rows: pd.DataFrame, floor: float | None = None) -> tables.Table:
    (found,) = tables.leaderboards(rows, floor)
    return found


def test_a_leaderboard_marks_the_row_and_says_what_that_means() -> None:
    table = board(made(BAD, GOOD | {"training": "supcon"}, {"training": "ccl"}))
    lines = formats.markdown(table.sheet()).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["simclr †", "supcon", "ccl"]
    assert lines[-1].startswith("† did not learn: in a run behind the number, the better of the linear and the k-NN")
    assert lines[-1].endswith("than chance + 25% of the way from there to 100 %.")
    assert formats.markdown(board(made(BAD), 0.4).sheet()).endswith("than 40 %.\n")
    for text in (formats.markdown(board(made(BAD), 0.25).sheet()), formats.markdown(board(made(GOOD)).sheet())):
        assert unlearned.MARK not in text
        assert unlearned.NAME not in text


def test_latex_marks_the_row_and_says_what_that_means() -> None:
    text = formats.latex(board(made(BAD, GOOD | {"training": "supcon"})).sheet())
    assert r"simclr $^\dagger$ & " in text
    assert r"supcon & " in text
    assert r"$^\dagger$ did not learn: " in text.partition("\\bottomrule")[2]
    assert unlearned.MARK not in text  # pdflatex has no such letter


def test_csv_counts_the_runs() -> None:
    rows = made(BAD | {"seed": 0}, GOOD | {"seed": 1}, BAD | {"seed": 2}, GOOD | {"training": "supcon"})
    numbers = pd.read_csv(io.StringIO(formats.csv(board(rows).sheet())))
    assert numbers["training"].tolist() == ["simclr", "supcon"]
    assert numbers["far AUROC did not learn"].tolist() == [2, 0]
    assert numbers["far AUROC n"].tolist() == [3, 1]
    assert "did not learn" not in formats.csv(board(made(GOOD)).sheet())


def test_a_row_that_failed_is_not_marked() -> None:
    table = board(made(GOOD, {"status": "error", "auroc": None, "training": "supcon", "classes": 10}))
    assert not table.marked


@pytest.mark.slow
def test_the_best_table_explains_only_what_it_shows() -> None:
    both = board(made(BAD, GOOD | {"training": "supcon", "auroc": 0.7}))
    assert unlearned.NAME in formats.markdown(tables.best_of_each_training(both).sheet())
    rows = made(BAD | {"encoder": "resnet50"}, GOOD | {"auroc": 0.9})
    assert unlearned.NAME in formats.markdown(board(rows).sheet())
    best = formats.markdown(tables.best_of_each_training(board(rows)).sheet())
    assert unlearned.MARK not in best


def test_a_declared_table_marks_rows_or_single_numbers() -> None:
    other = {"training": "supcon"}
    rows = made(BAD, BAD | {"ood": "a"}, GOOD | other, GOOD | other | {"ood": "a"})
    by_row = tables.declared(rows, "t", TableSpec(rows=("training",), columns=("ood",)))
    assert "simclr †" in formats.markdown(by_row.sheet())
    assert "80.0 †" not in formats.markdown(by_row.sheet()).replace("**", "")
    across = tables.declared(rows, "t", TableSpec(rows=("ood",), columns=("training",), value=("auroc", "aupr_in")))
    lines = formats.markdown(across.sheet()).splitlines()
    for line in lines[2:4]:
        cells = [each.strip().replace("*", "") for each in line.split("|")[1:-1]]
        assert cells[1:5] == ["80.0 †", "80.0", "70.0 †", "70.0"]
        assert "†" not in cells[0]
    assert across.unlearned is not None
    assert not tables.declared(rows, "t", TableSpec(rows=("ood",), columns=("training",)), 0.2).marked


def test_a_mean_over_trainings_is_marked_if_one_did_not_learn() -> None:
    rows = made(BAD, GOOD | {"training": "supcon"})
    table = tables.declared(rows, "t", TableSpec(rows=("distance",), columns=("ood",)))
    assert "cosine †" in formats.markdown(table.sheet())


def test_selection_marks_methods() -> None:
    def settings(**change: Any) -> list[dict[str, Any]]:
        return [knn(3, 0.7, 0.9, **change), knn(5, 0.8, 0.6, **change)]

    bad, good = settings(**BAD), settings(**GOOD, training="supcon")
    table = selection(validated(*bad, *good), Select(over=("distance",)))
    assert table.text()["training"].tolist() == ["simclr †", "supcon"]
    assert table.unlearned is not None
    assert table.unlearned.to_numpy().max(axis=1).tolist() == [1, 0]
    assert unlearned.NAME in formats.markdown(table.sheet())
    assert not selection(validated(*bad, *good), Select(over=("distance",)), 0.25).marked


def meaningless(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meaningless.py").write_text(RANDOM)
    small = {"training": "cross_entropy", "clustering": "labels", "distance": "cosine", "threshold": "pooled"}
    ood = {"far": {"noise": {"count": 30, "size": 8, "draw": 3}}}
    more: dict[str, Any] = {"plugins": ["meaningless.py"], "id": "meaningless", "ood": ood, "outliers": None}
    return write(folder / "s.yaml", **{**small, **more, "recipe": {"epochs": 0}, **changes})


def rows_of(path: Path) -> pd.DataFrame:
    return Runner(reader.load(path), Options(device="cpu")).run().rows


@pytest.mark.slow
def test_an_encoder_that_learns_nothing_and_one_that_learns(tmp_path: Path) -> None:
    nothing = rows_of(meaningless(tmp_path / "a", name="a"))
    assert (nothing["classes"] == 3).all()
    assert unlearned.unlearned(nothing, None).all()
    assert not unlearned.unlearned(nothing, 0.1).any()
    recipe = {"epochs": 5, "batch": 16, "lr": 0.05, "warmup": 0, "augment": {"crop": None, "jitter": None, "gray": 0}}
    encoder = {"resnet18": {"width": 8}}
    path = write(tmp_path / "b.yaml", training="cross_entropy", outliers=None, recipe=recipe, encoder=encoder)
    something = rows_of(path)
    assert unlearned.frozen(something).min() > 0.9
    assert not unlearned.unlearned(something, None).any()


@pytest.mark.slow
def test_the_command_line_says_it_and_a_new_floor_trains_nothing(tmp_path: Path) -> None:
    path = meaningless(tmp_path)
    said = call("run", path, "--device", "cpu")
    assert said.exit_code == 0, said.output
    output = " ".join(said.output.split())
    assert "did not learn: cross_entropy · meaningless · resnet18(width=2) · epochs=0 · seed 0: frozen-probe" in output
    assert "below 50.0 %" in output
    assert "1 of 1 encoders did not learn; tables mark them" in output
    results = tmp_path / "results" / "s"
    for ending, mark in (("md", "cross_entropy †"), ("tex", r"cross\_entropy $^\dagger$"), ("csv", "did not learn")):
        assert mark in (results / f"leaderboard.{ending}").read_text(encoding="utf-8")
        assert mark in (results / f"best.{ending}").read_text(encoding="utf-8")
    keys = set(Results(results).read()["train_key"])
    meaningless(tmp_path, learned=0.05, tables={"t": {"rows": ["training"]}})
    said = call("run", path, "--device", "cpu")
    assert "0 trained, 0 cells scored" in said.output
    assert "did not learn" not in said.output
    assert "did not learn" not in (results / "leaderboard.md").read_text(encoding="utf-8")
    assert set(Results(results).read()["train_key"]) == keys
    meaningless(tmp_path, learned=0.9, tables={"t": {"rows": ["training"]}})
    call("tables", path)
    assert "less of ID test right than 90 %." in (results / "tables" / "t.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [0, 1.5, [0.1, 0.2], "half"])
def test_a_floor_is_one_share(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "s.yaml", learned=value)
    for read in (reader.load, reader.tables_of):
        with pytest.raises(UserError, match=r"learned: is|takes one value each"):
            read(path)
