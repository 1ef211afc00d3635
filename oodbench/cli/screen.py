"""The two consoles, and how tables, warnings, times and sizes look on them.

Everything is printed through `screen.out` and `screen.err`, looked up when it is printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from oodbench.errors import printable

if TYPE_CHECKING:
    from oodbench.report.tables import Table


class Screen(Console):
    """A console whose reader may have had enough, such as `head`: then a command ends, as others of the shell do."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes once more at its end
        raise typer.Exit(141)


# What is printed is text, and no markup unless a call says so: a name may hold [/b]. A file has no width to fit, unless
# it is said.
out = Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
err = Screen(stderr=True, highlight=False, markup=False)
LABEL = 24  # columns of the screen that labels keep, at least, in a table that is too wide
NONE = "–"  # a label of what has no part in a row


def say(message: str, style: str = "") -> None:
    """Print a line as it is: no markup, never wrapped, its control characters shown."""
    out.print(printable(message), style=style, soft_wrap=True)


def prose(message: str, style: str = "") -> None:
    """Print sentences: wrapped between words on a terminal, elsewhere a line."""
    out.print(printable(message), style=style, soft_wrap=not out.is_terminal)


def caption(message: str) -> None:
    """Print what is said of a table."""
    prose(message, "italic")


def complain(head: str, message: str) -> None:
    """Print a message to standard error after a head in its colour, such as `[yellow]warning:[/]`."""
    err.print(Text.assemble(Text.from_markup(head), " ", printable(message)), soft_wrap=True)  # a line is one write


def warn(message: str) -> None:
    complain("[yellow]warning:[/]", message)


def text(cell: str, style: str = "") -> Text:
    """Return a cell of a table as it is: no markup, its control characters shown."""
    return Text(printable(cell), style=style)


def columns(*headings: str) -> RichTable:
    """Return an empty table under bold headings."""
    return RichTable(*headings, box=None, header_style="bold", pad_edge=False)


def lines(text: Any, labels: int) -> None:
    """Print a table of text; its first columns are labels. Where it is too wide, they fold, and titles of numbers."""
    text = text.map(escape)
    if _width(_grid(text, "l" * labels)) > out.width:
        text = text.rename(columns={title: title.replace(" ", "\n") for title in text.columns[labels:]})
    out.print()
    out.print(_grid(text, "p" * labels))


def show(table: Table, title: str, top: int) -> None:
    """Print the first rows of a table. Where it is too wide, its details go first, then numbers stand before labels.

    Numbers are never cut: of those that still have no room the last ones are left out, and files have them.
    """
    sheet = table.sheet()
    text = sheet.first(top).cells(escape, "[bold green]{}[/]", "[underline]{}[/]")  # a label: youden [saw noise]
    labels = sheet.labels
    details = [escape(title) for title in table.details]
    shown = _grid(text, "l" * labels)
    while details and _width(shown) > out.width:
        text = text.drop(columns=details.pop(0))
        shown = _grid(text, "l" * labels)
    out.print(f"\n{printable(title)}", style="bold")
    if _width(shown) > out.width:
        shown = _numbers_first(text.iloc[:, :labels], text.iloc[:, labels:])
    out.print(shown)
    caption("\n".join(sheet.below))


def _width(table: RichTable) -> int:
    """Return how wide a table is where nothing is folded."""
    return table.__rich_measure__(out, out.options.update(width=10_000)).maximum


def _numbers_first(labels: Any, numbers: Any) -> RichTable:
    """Return a table of numbers whose labels are one column, the last, folded; print first what all rows share."""
    varying = [i for i in range(labels.shape[1]) if labels.iloc[:, i].nunique() > 1] or [0]
    methods = [_labels(labels.columns[varying], row) for row in labels.iloc[:, varying].to_numpy()]
    alike = labels.drop(columns=labels.columns[varying])
    if shared := _labels(alike.columns, alike.iloc[0]):
        out.print(f"all of {shared}", markup=True)
    numbers = numbers.rename(columns=lambda title: title.replace(" ", "\n"))
    while _width(_grid(numbers)) + LABEL >= out.width and numbers.shape[1] > 1:
        numbers = numbers.iloc[:, :-1]
    return _grid(numbers.assign(**{" · ".join(labels.columns[varying]): methods}), "r" * numbers.shape[1] + "p")


def _labels(names: Iterable[str], row: Iterable[str]) -> str:
    """Return the labels of a row as one; those that are numbers say of what."""
    there = ((name, each) for name, each in zip(names, row, strict=True) if each != NONE)
    return " · ".join(f"{name} {each}" if each.replace(".", "", 1).isdigit() else each for name, each in there)


def _grid(text: Any, layout: str = "") -> RichTable:
    """Return a table whose columns are labels (l), numbers (r; those that the layout does not tell), or folded (p)."""
    shown = columns()
    for column, kind in zip(text.columns, layout.ljust(text.shape[1], "r"), strict=True):
        side: Any = "right" if kind == "r" else "left"
        shown.add_column(Text.from_markup(column), justify=side, no_wrap=kind != "p", overflow="fold")
    for row in text.itertuples(index=False):
        shown.add_row(*(Text.from_markup(str(each)) for each in row))
    return shown


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
