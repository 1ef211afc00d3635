"""A table as text, which every format shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from oodbench.errors import printable
from oodbench.report.unlearned import MARK

WORD = re.compile("[A-Za-z]{2}")


@dataclass(frozen=True)
class Sheet:
    """A table as text, which every format shows, with the unrounded numbers behind it."""

    name: str
    text: pd.DataFrame  # str, one title a column
    below: Sequence[str]  # paragraphs under it
    numbers: pd.DataFrame  # what CSV holds
    labels: int  # how many of its first columns are labels, which stand at the left
    marks: pd.DataFrame | None = None  # of some of its columns: 1 at the best cells, 2 at those not told apart from it
    short: bool = False  # it is for one column of a page of two

    def first(self, count: int) -> Sheet:
        """Return the table with so many of its lines, and where that is not all of them, a word of where they are."""
        if len(self.text) <= count:
            return self
        said = f"These are the first {count:,} of {len(self.text):,} lines; {self.name}.csv has them all."
        marks = None if self.marks is None else self.marks[:count]
        return replace(self, text=self.text[:count], below=[*self.below, said], marks=marks)

    def cells(self, escape: Callable[[str], str], *tags: str) -> pd.DataFrame:
        """Return the text, escaped, the best and what is not told apart from it each in a tag such as `**{}**`."""
        text, sign = self.written.copy(), escape(f" {MARK}")
        for i in range(text.shape[1]):
            known = {cell: escape(cell) for cell in {*text.iloc[:, i]}}  # many are alike
            text.isetitem(i, [known[cell] for cell in text.iloc[:, i]])
        for column, marks in ({} if self.marks is None else self.marks).items():
            cells = text[column].to_list()
            for i, mark in ((i, mark) for i, mark in enumerate(marks) if mark):
                number, *rest = cells[i].partition(sign)  # the sign of what did not learn stands outside
                cells[i] = "".join([tags[mark - 1].format(number), *rest])
            text[column] = cells
        return text.rename(columns=lambda title: escape(printable(title)))

    def picked(self, titles: Sequence[str]) -> Sheet:
        """Return the table with some of its columns, in their order but labels first; CSV holds all."""
        labels = [*map(str, self.text.columns[: self.labels])]
        chosen = [title for title in titles if title in labels]
        text = self.text[[*chosen, *(title for title in titles if title not in labels)]]
        marks = None if self.marks is None else self.marks[[each for each in self.marks if each in titles]]
        return replace(self, text=text, marks=marks, labels=len(chosen))

    @cached_property
    def written(self) -> pd.DataFrame:
        """The text, its control characters shown."""
        return self.text.map(printable)

    @cached_property
    def in_words(self) -> list[bool]:
        """Which columns hold text rather than numbers: labels, and what is in words."""
        cells = [{*self.text.iloc[:, i]} for i in range(self.text.shape[1])]
        return [i < self.labels or any(WORD.search(cell) for cell in each) for i, each in enumerate(cells)]

    @property
    def paragraphs(self) -> list[str]:
        """What stands under it, each on one line."""
        return [" ".join(printable(each).splitlines()) for each in self.below]
