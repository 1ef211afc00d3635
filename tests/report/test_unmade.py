"""No mean over OOD sets is of fewer than are declared: tables, choices and verdicts say what is missing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hand_made_rows import made

from oodbench.report import comparison, correlation, machines, tables, unmade
from oodbench.report.claims import verdicts
from oodbench.report.selection import selection
from oodbench.report.targets import Entry, Target
from oodbench.study.declarations import ClaimSpec, Select, TableSpec
from oodbench.study.registry import Registry

SETS = {"a": "near", "b": "near", "c": "far"}  # the study's
CLUSTERS = ("class_separation", "local_purity")


def rows(there: str = "ac", cells: Any = ({"distance": "cosine"}, {"distance": "knn", "clustering": "–"})) -> Any:
    """Return rows of methods in three runs on some sets of a study: in the first method, 90 on a, 70 on b, 50 on c."""
    numbers = {"a": 0.9, "b": 0.7, "c": 0.5}
    found = made(
        *(
            cell
            | {"cell": f"{i} {seed}", "seed": seed, "ood": ood, "group": SETS[ood], "posthoc": "–", "n_ood": 50}
            | {"auroc": numbers[ood] - 0.1 * i + 0.01 * seed, "aupr_in": numbers[ood] - 0.1 * i}
            for i, cell in enumerate(cells)
            for seed in range(3)
            for ood in there
        )
    )
    found.attrs = {"sets": {"digits": SETS}, "lacking": "some rows are there"}
    return found


def cell(table: tables.Table, row: Any, column: Any) -> str:
    text = table.text().set_index(table.mean.index.names[0])
    return str(text.loc[row, column])


def test_a_row_without_numbers_stands_for_each_that_is_not_made() -> None:
    found = unmade.declared(rows())
    assert list(found["ood"].iloc[:3]) == ["a", "b", "c"]  # in the order of the study
    lost = found[found["status"] == unmade.UNMADE]
    assert (len(found), len(lost), set(lost["ood"]), set(lost["group"])) == (18, 6, {"b"}, {"near"})
    assert lost[["auroc", "fpr95_id", "ood_recall", "n_ood"]].isna().all(axis=None)
    assert (lost["accuracy"] == 0.9).all()
    assert (lost["id_recall"] == 0.95).all()
    assert found.dtypes.equals(rows().dtypes)
    assert unmade.declared(found).equals(found)
    whole = rows("abc")
    assert unmade.declared(whole) is whole
    failed = rows().assign(status="error")
    failed.attrs = rows().attrs
    assert unmade.declared(failed) is failed  # a method without any number is no method that lacks a set
    assert len(unmade.declared(made({"ood": "a"}))) == 1  # nothing is declared of features that were scored


def test_a_group_that_lacks_a_set_has_no_mean_on_a_leaderboard() -> None:
    (board,) = tables.leaderboards(unmade.declared(rows()))
    found = board.mean
    assert found[[("near", "AUROC"), ("b", "AUROC"), ("near", "FPR95_id"), ("near", "FPR95_ood")]].isna().all(axis=None)
    assert found["far", "AUROC"].to_list() == pytest.approx([51, 41])
    assert found["a", "AUROC"].to_list() == pytest.approx([91, 81])  # no mean of its group
    assert board.text()["near AUROC"].to_list() == ["–", "–"]
    assert "(near: a, b; far: c)" in board.caption
    best = tables.best_of_each_training(board)
    assert best.caption.startswith("The row of each training that is highest by far AUROC")
    (whole,) = tables.leaderboards(rows("abc"))
    assert tables.best_of_each_training(whole).caption.startswith("The row of each training that is highest by near AU")
    assert whole.mean["near", "AUROC"].to_list() == pytest.approx([81, 71])


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"columns": ("group",)}, {"near": "–", "far": "51.0 ± 1.0"}),
        ({"columns": ()}, {"auroc": "–"}),
        ({"columns": ("ood",)}, {"a": "91.0 ± 1.0", "b": "–", "c": "51.0 ± 1.0"}),
        ({"columns": (), "of": {"ood": ["a", "c"]}}, {"auroc": "71.0 ± 1.0"}),  # of what is there, as it says
        ({"columns": (), "of": {"ood": "b"}}, {"auroc": "–"}),
        ({"columns": (), "value": ("accuracy", "id_recall", "ood_recall")}, {"accuracy": "90.0 ± 0.0"}),
        ({"columns": (), "value": ("id_recall", "ood_recall")}, {"id_recall": "95.0 ± 0.0", "ood_recall": "–"}),
    ],
)
def test_nor_in_a_table_that_a_study_declares(spec: dict[str, Any], wanted: dict[str, str]) -> None:
    found = tables.declared(unmade.declared(rows()), "t", TableSpec(rows=("distance",), **spec))
    assert {column: cell(found, "cosine", column) for column in wanted} == wanted


def test_a_method_that_lacks_rows_has_no_mean_beside_one_that_has_all() -> None:
    some = rows("abc")
    some = some[~((some["distance"] == "knn") & (some["ood"] == "b") & (some["seed"] == 1))]
    found = tables.declared(unmade.declared(some), "t", TableSpec(rows=("distance",), columns=("group",)))
    assert found.n["near"].to_dict() == {"cosine": 3, "knn": 2}  # the run that lacks it is in no mean
    assert cell(found, "cosine", "near") == "81.0 ± 1.0"


def test_the_choice_is_by_validation_and_shows_no_mean_that_lacks_a_set() -> None:
    settings = ({"distance": "knn(k=1)", "val_auroc": 0.6}, {"distance": "knn", "val_auroc": 0.8})
    whole, some = (
        selection(unmade.declared(rows(there, settings)), Select(over=("distance",))) for there in ("abc", "ac")
    )
    for found in (whole, some):
        assert found.mean.index.get_level_values("chosen").to_list() == ["knn"]
        assert found.mean.index.get_level_values("of").to_list() == [2]
        assert found.mean["far", "oracle gap"].to_list() == pytest.approx([10])
    assert whole.mean["near", "best on test"].to_list() == pytest.approx([81])
    assert some.mean["near"].isna().all(axis=None)
    nothing = selection(unmade.declared(rows("a", settings)), Select(over=("distance",)))
    assert nothing.mean.isna().all(axis=None)
    assert nothing.mean.index.get_level_values("chosen").to_list() == ["knn"]


def judged(there: str, **claim: Any) -> verdicts.ClaimVerdict:
    sides = {"left": {"distance": "cosine"}, "right": {"distance": "knn"}}
    return verdicts.verdict(unmade.declared(rows(there)), "c", ClaimSpec(says="so", **sides | claim))


@pytest.mark.parametrize(
    ("claim", "state"),
    [
        ({"of": {"group": "near"}}, verdicts.MISSING),
        ({"of": {"group": "far"}}, verdicts.HOLDS),
        ({"of": {"ood": "a"}}, verdicts.HOLDS),
        ({"of": {"ood": "b"}}, verdicts.MISSING),
        ({}, verdicts.MISSING),
        ({"over": ("ood",)}, verdicts.MISSING),
        ({"over": ("ood",), "where": "mean"}, verdicts.MISSING),
        ({"over": ("ood",), "where": "most"}, verdicts.HOLDS),  # two of three, whatever the third will say
        ({"at": {"group": "near"}, "than": {"group": "far"}, "relation": "at_least", "margin": 1}, verdicts.MISSING),
        ({"left": {}, "right": {}, "among": ("distance",), "winner": {"distance": "cosine"}}, verdicts.MISSING),
        ({"value": "accuracy", "relation": "near", "margin": 1}, verdicts.HOLDS),
        ({"value": "id_recall", "relation": "near", "margin": 1}, verdicts.HOLDS),
    ],
)
def test_a_claim_that_needs_a_missing_set_is_not_decided(claim: dict[str, Any], state: str) -> None:
    assert judged("abc", **claim).state == verdicts.HOLDS
    found = judged("ac", **claim)
    assert found.state == state
    assert ("cannot be decided: rows of b are missing" in found.text()) == (state == verdicts.MISSING)
    if claim.get("where") == "most":
        assert found.text().startswith("rows of b are missing; ")
    assert found.lost == 0  # none failed


def test_a_published_number_is_held_against_no_fewer_sets() -> None:
    said = {"training": Entry("simclr", {}), "distance": Entry("knn", {}), "id": Entry("digits", {})}
    wanted = [
        Target(metric="auroc", value=71.0, source="s", group="near", **said),
        Target(metric="auroc", value=41.0, source="s", group="far", **said),
    ]
    some = unmade.declared(rows().assign(reference="train", precision="float32"))
    found = comparison._lines(wanted[0], some[some["group"] == "near"], "val_auroc")
    assert [(line.state, line.why) for line in found] == [(comparison.OTHER, "rows of b are missing")]
    assert comparison.compare(some, lambda key: None, wanted, Registry()).caption.startswith("some rows are there. ")


def test_a_correlation_is_with_no_mean_that_lacks_a_set() -> None:
    found = unmade.declared(rows().assign(train_key=lambda table: table["seed"].astype(str)))
    detection = correlation.detection(found)
    assert detection["near"].isna().all()
    assert detection["far"].notna().all()


def test_machines_are_compared_on_groups_that_lack_no_set() -> None:
    here = rows()
    found = machines.variance(here, here)
    assert found.text().set_index("group")["largest"].to_dict() == {"near": "–", "far": "0.0"}
    assert machines.variance(rows("abc"), rows("abc")).mean.notna().all(axis=None)


def test_what_a_caption_says() -> None:
    assert unmade.said(rows()) == "some rows are there."
    assert unmade.said(pd.DataFrame()) == ""
