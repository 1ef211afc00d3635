"""Figures of named rows: curves and bars of the kept scores, the map of one training, and what is said otherwise."""

from __future__ import annotations

from pathlib import Path

import kept_features as kept
import numpy as np
import pytest

from oodbench.errors import UserError
from oodbench.figures import named_rows
from oodbench.store.artifacts import Store


def test_a_curve_for_each_row_that_is_kept_bears_what_tells_it_apart(tmp_path: Path) -> None:
    rows = kept.rows()
    found = named_rows.roc(rows, kept.filled(tmp_path, rows), "s.yaml")
    assert found["of"].unique().tolist() == ["near set", "far set"]
    for name, curve in found.groupby("of"):
        id_, ood = (kept.score(each, "simclr cosine 0") for each in ("digits", str(name)))
        area = np.trapezoid(curve["ood_found"], curve["id_rejected"]) / 1e4
        assert area == pytest.approx((ood[:, None] > id_).mean())
        assert curve["auroc"].unique().tolist() == [90]


def test_bars_are_shares_in_per_cent_with_the_cut(tmp_path: Path) -> None:
    rows = kept.rows("simclr", "supcon").query("ood == 'near set'")
    found = named_rows.histogram(rows, kept.filled(tmp_path, rows), "s.yaml")
    assert found["of"].unique().tolist() == ["simclr", "supcon"]
    sums = found.groupby("of")[["id", "ood"]].sum().to_numpy()
    np.testing.assert_allclose(sums, 100)
    assert found["cut"].unique().tolist() == [2.5]


def test_a_bank_is_of_the_space_of_the_highest_row(tmp_path: Path) -> None:
    rows = kept.rows()
    highest = rows["distance"] == "cosine"
    rows.loc[highest, "detector"] = rows.loc[highest, "detector"].str.replace("penultimate", "projection")
    found = named_rows.bank(rows, kept.filled(tmp_path, rows), "s.yaml")
    assert found.attrs["of"] == "simclr, seed 0, projection"
    assert set(found["set"]) == {*kept.COUNTS}


def test_what_is_not_there_or_too_much_is_told(tmp_path: Path) -> None:
    rows = kept.rows(*(f"t{i}" for i in range(7)))
    with pytest.raises(UserError, match=r"the key `scores` .* `oodbench run s.yaml` keeps them"):
        named_rows.roc(rows, Store(tmp_path / "nowhere"), "s.yaml")
    store = kept.filled(tmp_path, rows)
    with pytest.raises(UserError, match=r"kept of 14 such rows, a figure holds 12: .* training t0, t1"):
        named_rows.histogram(rows, store, "s.yaml")
    with pytest.raises(UserError, match=r"7 trainings, the figure is of one: add a word of training t0, t1"):
        named_rows.bank(rows, store, "s.yaml")
    with pytest.raises(UserError, match=r"features of t0 are not in .*nowhere; oodbench run s.yaml"):
        named_rows.bank(rows[rows["training"] == "t0"], Store(tmp_path / "nowhere"), "s.yaml")
