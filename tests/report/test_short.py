"""Tables for one column of a paper: which columns they show, in which order, and by which names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hand_made_rows import by_seed, made
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from typer.testing import CliRunner

from oodbench.cli.app import app
from oodbench.errors import UserError
from oodbench.report import formats, tables
from oodbench.report.formats.short import short_names
from oodbench.study.declarations import TableSpec

PUBLISHED = ROOT / "results" / "published"
MAHALANOBIS = ("mahalanobis(shared, pinv)", "mahalanobis(shared, shrink=ledoit_wolf)")


def rows() -> pd.DataFrame:
    """Return rows of three methods on two OOD sets."""
    methods = (("cross_entropy", "cosine"), ("cross_entropy", MAHALANOBIS[0]), ("supcon", MAHALANOBIS[0]))
    changes = [
        row
        for training, distance in methods
        for ood, group in (("letters", "near"), ("photographs", "far"))
        for row in by_seed([0.7, 0.8, 0.9], training=training, distance=distance, ood=ood, group=group)
    ]
    return made(*changes)


def heading(table: tables.Table) -> list[str]:
    return [each.strip() for each in formats.markdown(table.sheet()).splitlines()[0].strip("|").split("|")]


# ---- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["cross_entropy", "supcon", "held_out"], ["CE", "supcon", "held_out"]),
        ([MAHALANOBIS[0]], ["mahal."]),
        (list(MAHALANOBIS), ["mahal.(pinv)", "mahal.(LW)"]),
        (["mahalanobis", *MAHALANOBIS], ["mahal.", "mahal.(shared, pinv)", "mahal.(shared, LW)"]),
        (["knn(k=200)", "knn(k=10)", "knn"], ["knn(k=200)", "knn(k=10)", "knn"]),
        (["penultimate", "penultimate unit", "projection"], ["penul.", "penul. unit", "proje."]),
        (["msp on linear probe", "max_logit on linear probe"], ["msp", "ML"]),
        (["of 20 layers", "of 32 layers"], ["of 20", "of 32"]),
        (["CE", "cross_entropy"], ["CE", "cross_entropy"]),  # one that is there already
        (["cross_entropy", "class_error"], ["cross_entropy", "class_error"]),  # two that would be one
        (["mahalanobis", "mahalarious"], ["mahalanobis", "mahalarious"]),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert short_names(names) == dict(zip(names, short, strict=True))


@given(st.lists(st.text("ab_(), =k1.–", min_size=1, max_size=20), unique=True, max_size=12))
def test_no_two_short_names_are_alike(names: list[str]) -> None:
    found = short_names(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert not {short for name, short in found.items() if short != name} & set(names)


def test_a_short_table_says_what_its_names_stand_for_and_csv_has_all() -> None:
    (board,) = tables.leaderboards(rows())
    short = tables.view(board, TableSpec(short=True))
    assert heading(short) == ["training", "distance", "near", "far", "letters", "photo."][:4]
    text = formats.markdown(short.sheet())
    assert "| CE         | mahal.     | " in text
    assert "Numbers are AUROC. Short names: CE is cross_entropy, mahal. is mahalanobis(shared, pinv)." in text
    assert "FPR95" not in text
    assert formats.csv(short.sheet()) == formats.csv(board.sheet())
    assert short.sheet().marks.to_numpy().sum() == board.marks["near", "AUROC"].sum() * 2  # type: ignore[union-attr]


def test_a_declared_table_is_short_and_keeps_an_n_that_differs() -> None:
    spec = TableSpec(rows=("training", "distance"), short=True)
    assert heading(tables.declared(rows(), "t", spec)) == ["training", "distance", "letters", "photo."]
    assert "photo. is photographs" in tables.declared(rows(), "t", spec).sheet().below[0]
    less = rows().query("not (training == 'supcon' and seed == 2)")
    assert heading(tables.declared(less, "t", spec))[-1] == "n"
    both = TableSpec(rows=("training", "distance"), value=("auroc", "fpr95_id"), short=True)
    assert heading(tables.declared(rows(), "t", both))[2:] == [
        *("letters auroc", "photo. auroc"),
        *("letters fpr95_id", "photo. fpr95_id"),
    ]


def test_the_mark_of_what_did_not_learn_stays_at_a_short_name() -> None:
    bad = {"classes": 10, "accuracy_linear": 0.1, "accuracy_knn": 0.1, "accuracy_by": "linear probe", "accuracy": 0.1}
    found = tables.declared(rows().assign(**bad), "t", TableSpec(rows=("training", "distance"), short=True))
    assert "CE †" in formats.markdown(found.sheet())
    assert "CE is cross_entropy" in found.sheet().below[0]


# ---- columns ----------------------------------------------------------------------------------------------


def test_columns_come_in_the_order_of_a_list() -> None:
    def titles(**spec: Any) -> list[str]:
        return list(tables.declared(rows(), "t", TableSpec(**spec)).mean.columns)

    assert titles(rows=("distance",)) == ["letters", "photographs"]
    assert titles(rows=("distance",), of={"ood": ["photographs", "letters"]}) == ["photographs", "letters"]
    both = titles(rows=("distance",), columns=("training", "ood"), of={"ood": ["photographs", "letters"]})
    assert both == [f"{t} {ood}" for t in ("cross_entropy", "supcon") for ood in ("photographs", "letters")]


def test_a_view_shows_what_is_picked_and_nothing_else_of_the_text() -> None:
    (board,) = tables.leaderboards(rows())
    found = tables.view(
        board, TableSpec(columns=("far AUROC", "distance", "near FPR95_id", "training"), caption="Mine.")
    )
    assert heading(found) == ["distance", "training", "far AUROC", "near FPR95_id"]
    assert found.sheet().below[0].startswith("Mine. Per cent")
    assert "FPR95_id: share of OOD" in found.caption
    assert "near AUROC" not in formats.markdown(found.sheet())
    assert found.sheet().labels == 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("training", "near AUROK"), "there is no column 'near AUROK'; did you mean 'near AUROC'?"),
        (("training", "near AUROC"), "rows of the columns training are not told apart; they differ in distance"),
        (("near AUROC",), "rows of the columns none are not told apart; they differ in training, distance"),
    ],
)
def test_a_view_that_says_too_little_is_refused(columns: tuple[str, ...], said: str) -> None:
    (board,) = tables.leaderboards(rows())
    with pytest.raises(UserError) as error:
        tables.view(board, TableSpec(columns=columns))
    assert said in str(error.value)


@pytest.mark.slow
def test_tables_of_a_study_without_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "openood_cifar10_near"
    shutil.copytree(PUBLISHED / name, tmp_path / "results" / name)
    text = (ROOT / "studies" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.count("\ntables:\n") == 1
    mine = "\ntables:\n  best: {columns: [training, near AUROC], short: true}\n  selection: {}\n"
    study = tmp_path / f"{name}.yaml"
    study.write_text(text.replace("\ntables:\n", mine), encoding="utf-8")
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    done = CliRunner().invoke(app, ["tables", str(study)])
    assert (done.exit_code, done.stderr) == (0, "")
    found = (tmp_path / "results" / name / "tables" / "best.md").read_text(encoding="utf-8").splitlines()
    assert found[0].split() == ["|", "training", "|", "near", "|"]
    assert found[2].split()[1] == "CE"
    assert (tmp_path / "results" / name / "tables" / "best.csv").read_bytes() == (
        PUBLISHED / name / "best.csv"
    ).read_bytes()
    study.write_text(text.replace("\ntables:\n", "\ntables:\n  thresholds: {}\n"), encoding="utf-8")
    done = CliRunner().invoke(app, ["tables", str(study)])
    assert (done.exit_code, done.stderr) == (2, "error: table thresholds: all rows have one threshold\n")
