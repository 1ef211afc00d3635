"""A study's page: what it carries is what the rows say, whatever a name holds."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import kept_features
import numpy as np
import pandas as pd
import pytest
from hand_made_rows import by_seed, made
from page_data import page_data

from oodbench.figures.boards import board
from oodbench.figures.feature_maps import feature_maps
from oodbench.figures.page import Material, data, page
from oodbench.report.unmade import UNMADE
from oodbench.store.artifacts import Store
from oodbench.store.columns import LABELS, MEASURED, SHARES
from oodbench.store.rows import frame

HOSTILE = "</script><script>alert(1)</script>"
QUOTES = """a"b'c`<img src=x onerror=alert(2)>{{ 7*7 }}"""


class Elements(HTMLParser):
    """The elements of a page, and its text without its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_data = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        self.text += data * (not self._in_data)


def contents(rows: pd.DataFrame, **more: Any) -> Material:
    return Material(study="tiny", file="tiny.yaml", rows=rows, **more)


def records(table: dict[str, Any]) -> pd.DataFrame:
    """Return what the page's script makes of columns that it carries."""
    return pd.DataFrame(
        {
            name: column["values"]
            if column["codes"] is None
            else [column["values"][code] for code in column["codes"] or [0] * table["size"]]
            for name, column in table["columns"].items()
        }
    )


def several() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    methods = [
        {"distance": f"knn(k={k})", "ood": ood, "group": group}
        for k in range(7)
        for ood, group in (("noise", "far"), ("letters", "near"))
    ]
    return made(*(change for method in methods for change in by_seed(rng.uniform(0.5, 1, 3).tolist(), **method)))


def test_the_rows_that_a_page_carries_are_the_rows() -> None:
    rows = several()
    carried = page_data(page(contents(rows)))["rows"]
    shown = records(carried)
    assert carried["size"] == len(rows)
    for name in shown:
        if name in SHARES:
            np.testing.assert_allclose(shown[name].astype(float), 100 * rows[name].astype(float), rtol=5e-6)
        else:
            assert shown[name].tolist() == rows[name].tolist(), name
    empty = {name for name in rows if not (rows[name].notna() & (rows[name] != "")).any()}
    assert {*shown} == {*rows} - empty


def test_a_line_of_the_leaderboard_is_the_mean_of_the_rows_behind_it() -> None:
    rows = several()
    carried = data(contents(rows), board(rows))["board"]
    shown = records(carried)
    place = carried["titles"].index(["near", "AUROC"])
    assert shown[f"{place} mean"].is_monotonic_decreasing
    assert len(shown) == 7
    for i, behind in enumerate(carried["rows"]):
        mine = rows.loc[behind]
        assert set(mine["distance"]) == {shown.loc[i, "distance"]}
        near = 100 * mine.loc[mine["group"] == "near", "auroc"]
        assert len(mine) == 6
        assert len(near) == shown.loc[i, f"{place} n"] == 3
        assert shown.loc[i, f"{place} mean"] == pytest.approx(near.mean(), rel=1e-5)
        assert shown.loc[i, f"{place} deviation"] == pytest.approx(near.std(ddof=1), rel=1e-5)
        half = 4.30265 * near.std(ddof=1) / 3**0.5  # the 97.5 % point of t with two degrees of freedom
        assert shown.loc[i, f"{place} low"] == pytest.approx(max(near.mean() - half, 0), rel=1e-5)
        assert shown.loc[i, f"{place} high"] == pytest.approx(min(near.mean() + half, 100), rel=1e-5)


def test_the_leaderboards_of_several_id_sets_are_one() -> None:
    rows = pd.concat(
        [several(), several().assign(cell=lambda each: "b" + each["cell"], family="letters", id="letters")],
        ignore_index=True,
    )
    found = board(rows)
    assert found is not None
    assert found.labels["family"].tolist() == ["digits"] * 7 + ["letters"] * 7
    for labels, behind in zip(found.labels.to_dict("records"), found.rows, strict=True):
        assert set(rows.loc[behind, "family"]) == {labels["family"]}


def test_names_are_data() -> None:
    rows = made(
        *(
            {"training": HOSTILE, "ood": QUOTES, "id": QUOTES, "family": HOSTILE, "warnings": HOSTILE, "distance": name}
            for name in ("cosine", QUOTES)
        )
    )
    text = page(contents(rows, warnings=[HOSTILE], remarks=QUOTES))
    found, plain = Elements(text), Elements(page(contents(several())))
    assert found.tags.count("script") == plain.tags.count("script") == text.count("</script>")
    assert "img" not in found.tags
    assert HOSTILE in found.text
    assert QUOTES in found.text
    carried = records(page_data(text)["rows"])
    assert set(carried["training"]) == {HOSTILE}
    assert set(carried["ood"]) == {QUOTES}


def test_features_and_their_classes_are_carried_whatever_they_are_called(tmp_path: Path) -> None:
    rows = kept_features.rows(HOSTILE)
    store = kept_features.filled(tmp_path, rows)
    text = page(contents(rows, store=store))
    (carried,) = page_data(text)["maps"]
    ((wanted,), _) = feature_maps(rows, store, list(rows.index))
    shown = records(carried["points"])
    assert shown["class"].tolist() == wanted.points["class"].tolist()
    assert "<b>bee</b>" in set(shown["class"])
    for name in wanted.points.select_dtypes(float):
        np.testing.assert_allclose(shown[name].astype(float), wanted.points[name], rtol=6e-4, err_msg=name)
    assert carried["images"] == kept_features.COUNTS
    assert "none of the features of these trainings is in the store" not in text
    assert "none of the features of these trainings is in the store" in page(contents(rows))


def test_scores_are_shown_of_a_threshold_that_ranks_like_another(tmp_path: Path) -> None:
    one = kept_features.rows().query("seed == 0")
    other = one.assign(threshold="conformal", cell=one["cell"] + " too", key=one["key"].str[::-1])
    unmade = one.assign(status=UNMADE, distance="cosine, later", cell=one["cell"] + " later", key=pd.NA, ood_data=pd.NA)
    unmade = unmade.drop_duplicates("ood").assign(auroc=np.nan)
    rows = pd.concat([one, other, unmade], ignore_index=True)
    store = Store(tmp_path)
    kept_features.keep_scores(store, rows[(rows["threshold"] == "conformal") & (rows["distance"] == "knn")])
    text = page(contents(rows, store=store))
    shown = [each["row"] for each in page_data(text)["images"]]
    assert rows.loc[shown, "threshold"].tolist() == ["conformal"] * 2
    assert "Shown are 2 of 2 rows whose scores are kept" in text


def test_a_page_asks_for_nothing() -> None:
    text = page(contents(several()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'")
    assert policy[1].count("'sha256-") == len(re.findall("<script>", text))
    assert not re.findall(
        r"<(?:link|img|iframe)|<script [^>]*src=|url\((?!data:)|@import", text.partition('id="data"')[0]
    )


@pytest.mark.parametrize("rows", [frame([]), made({"status": "error", "error": "it broke", "auroc": np.nan})])
def test_a_study_without_numbers_says_so(rows: pd.DataFrame) -> None:
    found = Elements(page(contents(rows)))
    assert "no rows with numbers yet" in found.text
    assert "oodbench run tiny.yaml" in found.text
    assert "Leaderboard" not in found.text
    assert ("it broke" in found.text) == bool(len(rows))


def test_what_is_missing_is_said() -> None:
    rows = made(
        {"warnings": "few images; tied"},
        {"status": "error", "error": "out of memory", "auroc": np.nan, "distance": "knn"},
    )
    plan = {"missing": {"digits": ["textures"]}, "left_out": {"gmm needs clusters": 4}}
    text = " ".join(Elements(page(contents(rows, plan=plan, warnings=["a part is damaged"]))).text.split())
    for wanted in (
        "textures",
        "1 row, 1 cell, such as 1/noise: out of memory",
        "gmm needs clusters: 4",
        "a part is damaged",
        "few images: 1 row",
        "tied: 1 row",
    ):
        assert wanted in text


def large(count: int) -> pd.DataFrame:
    """Return as many rows as asked for, in which every number stands and differs."""
    rng, each = np.random.default_rng(0), np.arange(count)
    rows = pd.concat([made({})] * count, ignore_index=True)
    rows = rows.assign(**{name: rng.uniform(size=count) for name in MEASURED if not name.startswith("compat")})
    return rows.assign(
        cell=[f"{i // 2:016x}" for i in each],
        key=[f"{i // 2 + 7:016x}" for i in each],
        detector=[json.dumps({"distance": {"name": "knn", "k": int(i // 6)}, "of": "x" * 200}) for i in each],
        distance=[f"knn(k={i // 6})" for i in each],
        seed=pd.array(each // 2 % 3, "Int64"),
        ood=np.where(each % 2, "a", "b"),
        group=np.where(each % 2, "near", "far"),
        score_seconds=rng.uniform(size=count),
    )


@pytest.mark.slow
def test_ten_thousand_rows_are_a_page_of_eight_megabytes_in_twenty_seconds() -> None:
    rows, start = large(10_000), time.process_time()
    text = page(contents(rows))
    assert time.process_time() - start < 20  # of one core
    assert len(text.encode()) < 8e6
    assert {*LABELS} > {*page_data(text)["rows"]["labels"]}
