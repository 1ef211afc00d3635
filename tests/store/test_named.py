"""Which rows words name."""

from __future__ import annotations

import pandas as pd
import pytest

from oodbench.errors import UserError
from oodbench.store import named
from oodbench.store.rows import frame

AXES = ("cell", "training", "space", "distance", "ood", "group", "seed")
ROWS = [
    ("aaaa1", "supcon", "penultimate", "mahalanobis(shared, pinv)", "svhn", "far", 0),
    ("aaaa1", "supcon", "penultimate", "mahalanobis(shared, pinv)", "tin", "near", 0),
    ("bbbb1", "supcon", "penultimate unit", "mahalanobis(shared, pinv)", "svhn", "far", 0),
    ("bbbb2", "supcon", "penultimate unit", "mahalanobis(shared, shrink=0.5)", "svhn", "far", 1),
    ("cccc1", "csi", "penultimate", "knn(k=5)", "svhn", "far", 1),
    ("dddd1", "simclr", "projection", "csi", "svhn", "far", 0),
]


@pytest.fixture
def table() -> pd.DataFrame:
    return frame(dict(zip(AXES, each, strict=True)) for each in ROWS)


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["supcon"], [0, 1, 2, 3]),
        (["SupCon", "penultimate"], [0, 1]),  # the label itself goes before a part of another
        (["unit"], [2, 3]),
        (["mahalanobis"], [0, 1, 2, 3]),
        (["mahalanobis(shared, pinv)", "near"], [1]),
        (["pinv", "seed=0", "far"], [0, 2]),
        (["csi"], [4, 5]),  # of two axes
        (["training=csi"], [4]),
        (["5"], [4]),
        (["bbbb", "shrink"], [3]),
        (["supcon", "seed=1"], [3]),
    ],
)
def test_words_name_rows(table: pd.DataFrame, words: list[str], places: list[int]) -> None:
    assert list(named.rows(table, words).index) == places


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["supconn"], "nothing is called 'supconn' in these rows; near are: training supcon"),
        (["distance=mahalonobis"], "near are: distance mahalanobis"),
        (["zzz"], "there are: ood svhn, tin; group far, near; training supcon, csi, simclr; seed 0, 1"),
        (["supcon", "knn"], "no row of supcon is of 'knn'; they are of: training supcon; "),
        (["seed=7"], "nothing is called 'seed=7'"),
    ],
)
def test_what_is_not_there_has_its_nearest(table: pd.DataFrame, words: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        named.rows(table, words)
    assert said in str(error.value)


def test_what_cells_differ_in(table: pd.DataFrame) -> None:
    assert named.varying(named.rows(table, ["supcon", "unit"])) == ["seed", "distance"]
    assert named.varying(named.rows(table, ["near"])) == []
