"""`make install` takes exact versions: each dependency has one, on each machine that is supported."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_dependency_has_an_exact_version_that_its_range_allows(machine: str, python: str) -> None:
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")
    here = {"platform_machine": machine, "python_version": python, "python_full_version": f"{python}.0"}
    pinned: dict[str, str] = {}
    for each in map(Requirement, lines):
        if each.marker is None or each.marker.evaluate(here):
            (exact,) = each.specifier
            assert exact.operator == "=="
            assert pinned.setdefault(canonicalize_name(each.name), exact.version) == exact.version
    wanted = [Requirement(each) for each in NAMED]
    wrong = [str(each) for each in wanted if not each.specifier.contains(pinned.get(canonicalize_name(each.name), ""))]
    assert wrong == [], "constraints.txt has no version of these, or one out of range; make constraints writes it anew"
