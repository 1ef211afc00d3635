"""docs/study.md names every key of a study, and no other."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from places import ROOT

from oodbench.api import Dataset
from oodbench.study.declarations import CellsSpec, ClaimSpec, Select, TableSpec
from oodbench.study.reader import KEYS
from oodbench.study.settings import RESNETS, Augment, ImageFormat, Recipe, ResNet, Space

TEXT = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
PARTS: list[Any] = [ImageFormat, Recipe, Augment, Space, TableSpec, Select, ClaimSpec, CellsSpec, ResNet, Dataset]


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)[`:]", text))


def test_every_key_is_there() -> None:
    assert set(KEYS) <= named(TEXT)
    assert {*RESNETS} <= named(TEXT)


@pytest.mark.parametrize("part", PARTS)
def test_every_parameter_is_there(part: Any) -> None:
    names = {field.name for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else set()
    names |= set(vars(part).get("__annotations__", {}))
    assert names <= named(TEXT), names - named(TEXT)


def test_no_key_is_there_that_is_none() -> None:
    first = {name for line in TEXT.splitlines() if line.startswith("| `") for name in named(line.split("|")[1])}
    known = {*KEYS, *(field.name for part in (Recipe, Augment) for field in dataclasses.fields(part))}
    assert first <= known, first - known
