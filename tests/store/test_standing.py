"""What of a study is done, failed and missing, and what the rest takes."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import pytest

from oodbench.store.heartbeat import Beat
from oodbench.store.rows import frame
from oodbench.store.standing import rest, standing

PLAN: dict[str, Any] = {
    "cells": {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"},
    "sets": {"ID": {"near": ("near", ""), "far": ("far", "")}},
    "work": [
        ("simclr · ID · seed 0", "ID", 0, 2),
        ("simclr · ID · seed 1", "ID", 1, 2),
        ("ccl · ID · seed 0", "ID", 0, 1),
    ],
}
RUNS = [{"title": "simclr · ID · seed 0", "seconds": 100.0}, {"title": "ccl · ID · seed 0", "error": "no memory"}]


def rows(*cells: tuple[str, str, str]) -> pd.DataFrame:
    return frame({"cell": cell, "ood": ood, "status": status, "score_seconds": 3.0} for cell, ood, status in cells)


SOME = rows(("a", "near", "ok"), ("a", "far", "ok"), ("b", "near", "ok"), ("e", "near", "error"), ("e", "far", "error"))


def beat(title: str, **changes: Any) -> Beat:
    facts = {"pid": os.getpid(), "host": "elsewhere", "born": "", "worker": 1, "device": "cpu", "began": 0, "at": 0}
    return Beat.model_validate(facts | {"title": title} | changes)


def test_counts_by_training() -> None:
    found = standing(PLAN, SOME, RUNS, [beat("simclr · ID · seed 1", epoch=3, epochs=4)])
    counts = [(each.group, each.trained, each.cells, each.done, each.failed, each.missing) for each in found]
    assert counts == [
        ("simclr · ID", True, 2, 1, 0, 1),  # a cell that lacks a set is missing
        ("simclr · ID", False, 2, 0, 0, 2),
        ("ccl · ID", False, 1, 0, 1, 0),
    ]
    assert [each.rows_missing for each in found] == [1, 4, 0]
    assert [each.beat is not None for each in found] == [False, True, False]


def test_sets_that_a_study_goes_without_are_not_missing() -> None:
    plan = PLAN | {"missing": {"ID": {"far": "its files are not here"}}}
    assert [each.done for each in standing(plan, SOME, RUNS, [])] == [2, 0, 0]


def test_the_rest_takes_what_the_others_took() -> None:
    found = standing(PLAN, SOME, RUNS, [])
    assert rest(found, SOME, 0) == pytest.approx(5 * 3.0 + 100.0)
    assert rest(found, SOME, 2) == pytest.approx((5 * 3.0 + 100.0) / 2)
    at_work = standing(PLAN, SOME, RUNS, [beat("simclr · ID · seed 1", epoch=3, epochs=4)])
    assert rest(at_work, SOME, 1) == pytest.approx(5 * 3.0 + 25.0)
    assert rest(standing(PLAN, SOME, [], []), SOME, 1) is None
    whole = rows(*((cell, ood, "ok") for cell in PLAN["cells"] for ood in ("near", "far")))
    assert rest(standing(PLAN, whole, RUNS, []), whole, 1) == 0.0
