"""Frames as JSON that a page carries: compressed, and safe inside a script element whatever a name holds."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from oodbench.store.columns import COLUMNS, SHARES

DIGITS = 6  # significant ones of a number


def packed(content: Any) -> str:
    """Return JSON as base64 of gzip: letters alone, a quarter of the length."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def columns(table: pd.DataFrame) -> dict[str, dict[str, list[Any] | None]]:
    """Return each column as its distinct values and, for each row, the place among them; of one value no places.

    Where most values differ there is one for each row, and null for places. Missing is null. Numbers keep six
    significant digits.
    """
    return {str(name): _column(column) for name, column in table.items()}


def _column(column: pd.Series[Any]) -> dict[str, list[Any] | None]:
    codes, values = pd.factorize(column, use_na_sentinel=False)
    if len(values) > max(1, len(column) / 2):
        return {"values": [_plain(each) for each in column], "codes": None}
    return {"values": [_plain(each) for each in values], "codes": [] if len(values) == 1 else codes.tolist()}


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, str | bool):
        return value
    if math.isinf(value):
        return str(value)
    return int(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a page shows them: shares in per cent, without the columns in which nothing stands."""
    shown = table[list(COLUMNS)].assign(**{name: table[name] * 100 for name in SHARES})
    return shown.loc[:, [(shown[name].notna() & (shown[name] != "")).any() for name in shown]]


def unit(name: str) -> str:
    """Return the unit of a column of rows, "" where it has none."""
    return "%" if name in SHARES or name == "prevalence" else "s" if name.endswith("_seconds") else ""


def runs(found: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Return the trainings behind rows that are known, without their losses and terms by epoch."""
    long = ("losses", "terms")
    return {key: {name: facts[name] for name in facts if name not in long} for key, facts in found.items() if facts}
