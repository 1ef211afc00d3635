"""How a table is written: Markdown, CSV, LaTeX (booktabs) and HTML. What a name holds is text in each, never markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from oodbench.report.formats.latex import latex
from oodbench.report.formats.markup import csv, html, markdown, no_formula
from oodbench.report.formats.sheet import Sheet
from oodbench.store.files import write_whole

__all__ = ["FORMATS", "Sheet", "csv", "html", "latex", "markdown", "no_formula", "write_table"]

READ = 2500  # lines of a table that somebody reads: more are for programs, as CSV
FORMATS: dict[str, Callable[[Sheet], str]] = {"md": markdown, "csv": csv, "tex": latex, "html": html}


def write_table(sheet: Sheet, folder: Path, endings: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a table as files NAME.md, .csv, .tex and .html in a folder, or as some of them, and return them.

    All lines are in .csv; of a table of more than READ the others have the first ones.
    """
    paths, read = {ending: folder / f"{sheet.name}.{ending}" for ending in endings}, sheet.first(READ)
    for ending, path in paths.items():
        write_whole(path, FORMATS[ending](sheet if ending == "csv" else read).encode())
    return list(paths.values())
