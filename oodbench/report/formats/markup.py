"""A table as Markdown, CSV and HTML."""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pandas as pd

from oodbench.errors import printable
from oodbench.report.formats.sheet import Sheet

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.2em 0.6em; text-align: right; }}
th {{ border-bottom: 1px solid; }}
:is(th, td):nth-child(-n+{labels}) {{ text-align: left; }}
</style>
</head>
<body>
{table}
{below}
</body>
</html>
"""


TYPESET = re.compile(r"\*.*\*|`.*`|\]\(|(?<!\w)_.*_(?!\w)")  # what Markdown takes for emphasis, code or a link


def markdown(sheet: Sheet) -> str:
    """Return a table as Markdown, the best bold, what is not told apart from it in italics."""
    table = sheet.cells(_in_markdown, "**{}**", "*{}*").to_markdown(index=False, disable_numparse=True)
    return "\n\n".join([table, *map(_in_paragraph, sheet.paragraphs)]) + "\n"


def _in_markdown(cell: str) -> str:
    """Return a cell on one line, whose `|` ends nothing, and whose stars, backticks and brackets set no type."""
    text = re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(cell.splitlines()))
    return _no_tag(re.sub(r"(\\*)([*_`\[])", r"\1\1\\\2", text) if TYPESET.search(text) else text)


def _in_paragraph(text: str) -> str:
    """Return text with no link or picture of a name's; backticks are ours."""
    return _no_tag(re.sub(r"\[(?=[^\]]*\]\()", r"\\[", text))


def _no_tag(text: str) -> str:
    """Return text in which `<` begins no HTML, which Markdown would let through."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def csv(sheet: Sheet) -> str:
    """Return the numbers of a table as CSV; what a spreadsheet would take for a formula is text, after a `'`."""
    table = sheet.numbers.rename(columns=no_formula)
    for i in (i for i, kind in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(kind)):
        table.isetitem(i, np.array([*map(no_formula, table.iloc[:, i].to_numpy(dtype=object).tolist())], dtype=object))
    return table.to_csv(index=False)


def no_formula(cell: object) -> object:
    """Return a cell that begins no formula; numbers are no text."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell).replace("\r", r"\x0d")  # alone it ends a row, and pandas does not quote it
    return f"'{text}" if text.startswith(tuple("=+-@\t")) else text


def html(sheet: Sheet) -> str:
    """Return a table as a page of HTML, the best bold, what is not told apart from it in italics."""
    text = sheet.cells(escape, "<strong>{}</strong>", "<em>{}</em>")
    with pd.option_context("display.max_colwidth", None):  # by itself, pandas cuts long cells
        table = text.to_html(index=False, escape=False, border=0)
    below = "\n".join(f"<p>{escape(each, quote=False)}</p>" for each in sheet.paragraphs)
    return PAGE.format(title=escape(printable(sheet.name), quote=False), labels=sheet.labels, table=table, below=below)
