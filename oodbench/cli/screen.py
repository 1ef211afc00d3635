"""The two consoles, and how tables, warnings, times and sizes look on them.

Everything is printed through `screen.out` and `screen.err`, looked up when it is printed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from oodbench.report.tables import Table

out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)  # a file has no width to fit
err = Console(stderr=True, highlight=False)
LABEL = 16  # columns of the screen that a label keeps in a table that is too wide


def say(message: str) -> None:
    """Print a line as it is: no markup, never wrapped."""
    out.print(message, markup=False, soft_wrap=True)


def complain(head: str, message: str) -> None:
    """Print a message to standard error after a head in its colour, such as `[yellow]warning:[/]`."""
    err.print(head, end=" ")
    err.print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    complain("[yellow]warning:[/]", message)


def columns(*headings: str) -> RichTable:
    """Return an empty table under bold headings."""
    return RichTable(*headings, box=None, header_style="bold", pad_edge=False)


def show(table: Table, title: str, top: int) -> None:
    """Print the first rows of a table; its details go first where it is too wide, and numbers are never cut."""
    text = table.sheet().cells(escape, "[bold green]{}[/]", "[underline]{}[/]")  # a label: youden [saw noise]
    labels = len(table.mean.index.names)
    details = [escape(title) for title in table.details]
    while details and _width(_grid(text[:top], labels)) > out.width:
        text = text.drop(columns=details.pop(0))
    shown = _grid(text[:top], labels, folded=_width(_grid(text[:top], labels)) > out.width)
    out.print(f"\n[bold]{title}[/]")
    out.print(shown, width=max(out.width, shown.__rich_measure__(out, out.options).minimum))
    out.print("\n".join(table.below), style="italic", markup=False, soft_wrap=True)


def _width(table: RichTable) -> int:
    """Return how wide a table is where nothing is folded."""
    return table.__rich_measure__(out, out.options.update(width=10_000)).maximum


def _grid(text: Any, labels: int, folded: bool = False) -> RichTable:
    """Return a table whose labels may be folded, and whose headings are where it is too wide; cells never are."""
    shown = columns()
    for i, column in enumerate(text.columns):
        title = column.replace(" ", "\n") if folded and i >= labels else column
        least = max(map(_cells, [title, *text.iloc[:, i]]), default=0)
        least = least if i >= labels else min(least, LABEL)
        side: Any = "left" if i < labels else "right"
        shown.add_column(title, justify=side, overflow="fold", no_wrap=i >= labels, min_width=least)
    for row in text.itertuples(index=False):
        shown.add_row(*(str(each) for each in row))
    return shown


def _cells(markup: object) -> int:
    """Return the width of the longest line."""
    return max(Text(line).cell_len for line in Text.from_markup(str(markup)).plain.split("\n"))


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
