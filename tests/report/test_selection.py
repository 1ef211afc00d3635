"""Choosing settings on validation OOD: hand-made rows, what is chosen, what it costs, what is no candidate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_tables import BASE
from tiny import write

from oodbench.errors import UserError
from oodbench.report import formats, tables
from oodbench.report.selection import selection
from oodbench.store.rows import frame
from oodbench.study import reader
from oodbench.study.declarations import Select

DISTANCE = Select(over=("distance",))


def made(*changes: dict[str, Any]) -> pd.DataFrame:
    base = BASE | {"posthoc": "–", "group": "near", "ood": "a", "val_auroc": 0.5}
    return frame([base | {"cell": str(i)} | change for i, change in enumerate(changes)])


def knn(k: int, val: float, auroc: float, **change: Any) -> dict[str, Any]:
    return {"distance": f"knn(k={k})" if k != 50 else "knn", "val_auroc": val, "auroc": auroc} | change


def chosen(table: tables.Table) -> list[str]:
    return list(table.mean.index.get_level_values("chosen"))


def near(table: tables.Table, column: str) -> list[float]:
    return list(table.mean["near", column])


def test_the_setting_is_chosen_by_validation_and_the_gap_is_what_that_costs() -> None:
    table = selection(made(knn(3, 0.7, 0.9), knn(5, 0.8, 0.6), knn(50, 0.6, 0.5)), DISTANCE)
    assert chosen(table) == ["knn(k=5)"]
    assert table.mean.index.get_level_values("distance").tolist() == ["knn"]
    assert table.mean.index.get_level_values("of").tolist() == [3]
    assert (near(table, "AUROC"), near(table, "best on test")) == (pytest.approx([60]), pytest.approx([90]))
    assert near(table, "oracle gap") == pytest.approx([30])
    assert "**60.0**" in formats.markdown(table.sheet())


def test_each_run_chooses_for_itself_and_numbers_are_means_over_runs() -> None:
    first = (knn(3, 0.9, 0.6), knn(5, 0.8, 0.7))
    second = (knn(3, 0.1, 0.9, seed=1), knn(5, 0.2, 0.8, seed=1))
    table = selection(made(*first, *second), DISTANCE)
    assert chosen(table) == ["knn(k=3) (1 of 2); knn(k=5) (1 of 2)"]
    assert near(table, "AUROC") == pytest.approx([70])  # 60 and 80
    assert near(table, "best on test") == pytest.approx([80])  # 70 and 90
    assert list(table.std["near", "AUROC"]) == pytest.approx([math.sqrt(200)])
    assert list(table.n["near", "AUROC"]) == [2]


def test_ties_go_to_the_first_in_the_study() -> None:
    table = selection(made(knn(9, 0.8, 0.5), knn(3, 0.8, 0.9), knn(5, 0.8, 0.7)), DISTANCE)
    assert chosen(table) == ["knn(k=9)"]


def test_the_best_on_test_is_that_of_each_group() -> None:
    rows = made(
        *(knn(3, 0.9, v, ood=o, group=g) for o, g, v in (("a", "near", 0.6), ("b", "near", 0.8), ("c", "far", 0.9))),
        *(knn(5, 0.8, v, ood=o, group=g) for o, g, v in (("a", "near", 0.9), ("b", "near", 0.7), ("c", "far", 0.4))),
    )
    table = selection(rows, DISTANCE)
    assert table.mean["near", "AUROC"].tolist() == pytest.approx([70])
    assert table.mean["near", "best on test"].tolist() == pytest.approx([80])
    assert table.mean["far", "oracle gap"].tolist() == pytest.approx([0])


def test_a_candidate_that_failed_on_a_set_is_none() -> None:
    sets = ("a", "b")
    rows = made(
        *(knn(3, 0.9, 0.9, ood=ood) for ood in sets),
        *(knn(5, 0.7, 0.6, ood=ood) for ood in sets),
        knn(9, 0.99, 1.0),
        knn(9, math.nan, math.nan, ood="b", status="error"),
    )
    table = selection(rows, DISTANCE)
    assert chosen(table) == ["knn(k=3)"]
    assert table.mean.index.get_level_values("of").tolist() == [2]
    assert near(table, "best on test") == pytest.approx([90])


def test_a_group_that_a_method_was_not_given_makes_none_of_its_settings_fail() -> None:
    far = [knn(k, 0.5, 0.7, group="far", ood="f") for k in (1, 5)]
    two = [knn(k, val, auroc, training="two") for k, val, auroc in ((1, 0.9, 0.6), (5, 0.8, 0.8))]
    table = selection(made(knn(1, 0.5, 0.7), knn(5, 0.6, 0.7), *far, *two), DISTANCE)
    assert table.mean.index.get_level_values("training").tolist()[-1] == "two"
    assert table.mean.loc[table.mean.index[-1], ("near", "oracle gap")] == pytest.approx(20)
    assert pd.isna(table.mean.loc[table.mean.index[-1], ("far", "AUROC")])


def test_what_has_no_validation_number_is_no_candidate() -> None:
    other = {"training": "supcon"}
    rows = made(knn(3, 0.7, 0.9), knn(5, 0.8, 0.6), knn(3, math.nan, 0.9, **other), knn(5, math.nan, 0.9, **other))
    table = selection(rows, DISTANCE)
    assert table.mean.index.get_level_values("training").tolist() == ["simclr"]
    with pytest.raises(UserError, match="no row has val_auroc"):
        selection(rows[rows["training"] == "supcon"], DISTANCE)


def test_methods_with_one_setting_are_not_shown() -> None:
    rows = made(knn(3, 0.7, 0.9), knn(5, 0.8, 0.6), {"distance": "cosine"})
    assert selection(rows, DISTANCE).mean.index.get_level_values("distance").tolist() == ["knn"]
    with pytest.raises(UserError, match="no method has several settings of distance"):
        selection(rows[rows["distance"] != "knn(k=3)"], DISTANCE)


def test_a_space_is_a_setting_as_a_whole() -> None:
    rows = made(
        {"space": "penultimate", "val_auroc": 0.6, "auroc": 0.9}, {"space": "penultimate unit", "val_auroc": 0.7}
    )
    table = selection(rows, Select(over=("space",)))
    assert chosen(table) == ["penultimate unit"]
    assert table.mean.index.names == ["training", "chosen", "of"]


def test_several_axes_are_chosen_at_once() -> None:
    spaces = ("penultimate", "penultimate unit")
    grid = [
        knn(k, val, 0.5 + val / 10, space=space, clustering="–")
        for space, vals in zip(spaces, ((0.1, 0.4), (0.3, 0.2)), strict=True)
        for k, val in zip((3, 5), vals, strict=True)
    ]
    table = selection(made(*grid), Select(over=("space", "distance")))
    assert chosen(table) == ["penultimate · knn(k=5)"]
    assert table.mean.index.get_level_values("of").tolist() == [4]
    clusterings = [{"clustering": f"kmeans(k={k})", "val_auroc": 0.1 * k} for k in (2, 3)]
    table = selection(made(*clusterings, *grid), Select(over=("clustering", "distance")))
    assert chosen(table) == ["kmeans(k=3) · cosine", "knn(k=5)", "knn(k=3)"]


def test_baselines_are_named_without_their_parameters() -> None:
    labels = ("energy on linear probe", "energy(temperature=2) on linear probe")
    rows = made(
        *(
            {"posthoc": label, "distance": "–", "space": "–", "val_auroc": 0.1 * i, "auroc": 0.9 - 0.1 * i}
            for i, label in enumerate(labels)
        )
    )
    table = selection(rows, Select(over=("posthoc",)))
    assert chosen(table) == ["energy(temperature=2) on linear probe"]
    assert table.mean.index.get_level_values("posthoc").tolist() == ["energy on linear probe"]


def test_a_false_positive_rate_is_chosen_low() -> None:
    rows = made(knn(3, 0.7, 0.9, val_fpr95_id=0.2), knn(5, 0.8, 0.6, val_fpr95_id=0.3))
    table = selection(rows, Select(over=("distance",), by="val_fpr95_id"))
    assert chosen(table) == ["knn(k=3)"]
    assert near(table, "AUROC") == pytest.approx([90])
    assert "FPR95_id of the ID reference" in table.caption


def test_one_threshold_stands_for_all() -> None:
    rows = made(
        *(knn(k, v, v, level=0.9) for k, v in ((3, 0.7), (5, 0.6))),
        *(knn(k, v, v, level=0.95) for k, v in ((3, 0.4), (5, 0.5), (7, 0.3))),
    )
    table = selection(rows, DISTANCE)
    assert chosen(table) == ["knn(k=5)"]
    assert "pooled at 0.95" in table.caption


def test_many_settings_take_no_product_of_all_labels() -> None:
    """Each method has its own settings; the product of all labels would have 10^9 rows."""
    rows = made(
        *(
            {"training": f"t{i}", "space": f"s{i}", "clustering": f"kmeans(k={k})", "encoder": f"e{i}"}
            | {"recipe": f"r{i}", "outliers": f"o{i}", "seed": i, "val_auroc": k / 10, "auroc": k / 10}
            for i in range(25)
            for k in (2, 3)
        )
    )
    table = selection(rows, Select(over=("clustering",)))
    assert chosen(table) == ["kmeans(k=3)"] * 25


VALIDATION = {"validation": {"glyphs": {"count": 40, "size": 8}}, "outliers": None}


@pytest.mark.parametrize(
    ("select", "changes", "said"),
    [
        ({"over": ["distanc"]}, VALIDATION, "did you mean 'distance'?"),
        ({"over": ["distance"], "by": "auroc"}, VALIDATION, "did you mean 'val_auroc'?"),
        ({"over": []}, VALIDATION, "wanted are axes, each once"),
        ({"over": ["distance", "distance"]}, VALIDATION, "wanted are axes, each once"),
        ({}, VALIDATION, "the parameter 'over' is missing"),
        ({"ovr": ["distance"]}, VALIDATION, "did you mean 'over'?"),
        ({"over": ["space"]}, VALIDATION, "nothing has several settings of space"),
        ({"over": ["clustering", "posthoc"]}, VALIDATION, "nothing has several settings of clustering, posthoc"),
        ({"over": ["distance"]}, {}, "chooses by validation OOD; say which: the key 'validation'"),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, select: Any, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "s.yaml", distance=["cosine", {"knn": {"k": [3, 5]}}], select=select, **changes)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("select"))
    with pytest.raises(UserError) as caught:
        reader.load(path)
    assert said in str(caught.value)
    place = int(str(caught.value).removeprefix(f"{path}:").partition(":")[0])
    assert line <= place <= line + 3
