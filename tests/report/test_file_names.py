"""Names of leaderboards' files: no two ID sets share one."""

from __future__ import annotations

import pytest

from oodbench.report.tables import file_names


@pytest.mark.parametrize(
    "names",
    [
        ["狗", "猫"],
        ["c10_v1", "c10-v1", "c10 v1"],
        ["CIFAR", "cifar"],
        ["a" * 300 + "1", "a" * 300 + "2"],
        ["(", ")", "cifar10"],
    ],
)
def test_no_two_names_share_a_file(names: list[str]) -> None:
    found = file_names(names)
    assert list(found) == names
    assert len({each.lower() for each in found.values()}) == len(names)
    assert all(0 < len(each) < 100 and each.isascii() for each in found.values())
    assert found == {**file_names(names[::-1])}


def test_names_that_are_apart_are_plain() -> None:
    assert file_names(["cifar10, one class", "fashion_mnist"]) == {
        "cifar10, one class": "cifar10-one-class",
        "fashion_mnist": "fashion-mnist",
    }
