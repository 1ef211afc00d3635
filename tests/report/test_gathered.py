"""What is said of many rows or cells is said once."""

from __future__ import annotations

import pandas as pd
from hand_made_rows import made

from oodbench.report.gathered import reasons, warned, warnings
from oodbench.store.columns import STAND_IN


def test_reasons_that_differ_in_one_label_are_one() -> None:
    left_out = {
        "knn(k=1, p=2) ignores clusters": 40,
        "gmm_likelihood needs a mixture, labels is none": 3,
        "norm ignores clusters": 30,
        "gmm_likelihood needs a mixture, k means is none": 5,
        "gmm_likelihood needs a mixture, one is none": 4,
        "cosine has no projection layer": 50,
    }
    assert reasons(left_out) == [
        ("… ignores clusters: knn(k=1, p=2), norm", 70),
        ("cosine has no projection layer", 50),
        ("gmm_likelihood needs a mixture, … is none: labels, one", 7),
        ("gmm_likelihood needs a mixture, k means is none", 5),
    ]
    assert reasons({f"d{i} ignores clusters": 1 for i in range(7)}) == [
        ("… ignores clusters: d0, d1, d2, d3, and 3 more", 7)
    ]
    assert reasons({}) == []


def rows() -> pd.DataFrame:
    short = "ssd: rank 60 of 64, from 86 items"
    return made(
        {"distance": "ssd", "ood": "sea", "cell": "a", "warnings": f"{short}; AUROC below 50: ssd on sea"},
        {"distance": "ssd", "ood": "sky", "cell": "a", "warnings": short},
        {"distance": "ssd", "ood": "sky", "cell": "b", "warnings": "ssd: rank 9 of 64, from 1.5 items"},
        {"distance": "–", "posthoc": "vim on linear probe", "ood": "sky", "cell": "c", "warnings": "vim: rank 2 of 64, "
        "from 3 items"},
        {"distance": "–", "posthoc": "msp", "ood": "sea", "cell": "d", "warnings": STAND_IN},
    )  # fmt: skip


def test_warnings_that_differ_in_numbers_and_labels_are_one() -> None:
    assert warned(rows()) == [
        "3 cells (ssd, vim on linear probe): ssd: rank 60 of 64, from 86 items, and 2 warnings like it",
        "1 cell (ssd; sea): AUROC below 50: ssd on sea",
    ]
    assert warned(rows().iloc[4:]) == []


def test_each_warning_stands_under_its_row() -> None:
    assert warnings(rows()).index.tolist() == [0, 0, 1, 2, 3]


def test_a_label_is_a_word_of_a_warning() -> None:
    """`one` is no part of `none`, so that what differs elsewhere stays two kinds."""
    found = warned(
        made(
            {"clustering": "one", "cell": "a", "warnings": "none of it"},
            {"clustering": "two", "cell": "b", "warnings": "ntwo of it"},
        )
    )
    assert found == ["1 cell: none of it", "1 cell: ntwo of it"]
