"""Class protocols: what an integer means, by place or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from tiny import write

from oodbench.api import Dataset, Images
from oodbench.data.prepare import select
from oodbench.errors import UserError
from oodbench.study.class_protocol import kept_classes


class Named(Dataset):
    """Images of classes with given names."""

    names: tuple[str, ...] = ()

    def load(self, split: str, root: Path) -> Images:
        y = np.arange(len(self.names))
        return Images(np.zeros((len(y), 2, 2, 1), np.uint8), y, self.names)


@pytest.mark.parametrize(
    ("names", "given", "kept"),
    [
        (("1", "2", "3"), {"keep": (1, 2)}, ["1", "2"]),
        (("1", "2", "3"), {"only": 3}, ["3"]),
        (("1", "2", "3"), {"without": 1}, ["2", "3"]),
        (("1", "2", "3"), {"without": (1, "2")}, ["3"]),
        (("1", "10", "2"), {"keep": (2, 10)}, ["10", "2"]),
        (("001", "002"), {"keep": (2,)}, ["002"]),
        (("001", "002"), {"keep": ("002",)}, ["002"]),
        (("0", "1", "2"), {"keep": (0, 2)}, ["0", "2"]),
        (("1", "cat"), {"keep": (1,)}, ["1"]),
        (("cat", "dog", "emu"), {"keep": (1, "emu")}, ["dog", "emu"]),
        (("cat", "3 dogs"), {"keep": (1,)}, ["3 dogs"]),
    ],
)
def test_an_integer_is_a_name_where_classes_have_numbers_for_names(
    names: tuple[str, ...], given: dict[str, Any], kept: list[str]
) -> None:
    found = Named(names=names, **given)
    assert [names[k] for k in kept_classes(found, names)] == kept
    assert select(found, found.load("train", Path()))[2] == tuple(kept)


@pytest.mark.parametrize(("names", "given"), [(("1", "2", "3"), 0), (("5", "b"), 1), (("cat", "dog"), 2)])
def test_an_integer_that_is_no_class_is_refused(names: tuple[str, ...], given: int) -> None:
    with pytest.raises(UserError, match=f"there is no class {given}.*allowed: {', '.join(names)}"):
        kept_classes(Named(names=names, only=given), names)


def test_one_split_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    """A table would take them for two runs without deviation."""
    digits = {"digits": {"without": [[0, 1], ["one", "zero"]]}}
    done = call("run", write(tmp_path / "s.yaml", id=digits, ood={"far": "noise"}), "--device", "cpu")
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "id: digits(without=0+1) and digits(without=one+zero) are the same images of the same classes" in said
