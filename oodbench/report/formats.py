"""How a table is written: Markdown, CSV, LaTeX (booktabs) and HTML. What a name holds is text in each, never markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import pandas as pd

from oodbench.errors import printable
from oodbench.report.unlearned import MARK
from oodbench.store.files import write_whole

LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in TeX's first fonts
    | {"±": r"$\pm$", "–": "--", MARK: r"$^\dagger$"}
)
READ = 5000  # lines of a table that somebody reads: more are for programs, as CSV
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


@dataclass(frozen=True)
class Sheet:
    """A table as text, which every format shows, with the unrounded numbers behind it."""

    name: str
    text: pd.DataFrame  # str, one title a column
    below: Sequence[str]  # paragraphs under it
    numbers: pd.DataFrame  # what CSV holds
    labels: int  # how many of its first columns are labels, which stand at the left
    marks: pd.DataFrame | None = None  # of some of its columns: 1 at the best cells, 2 at those not told apart from it
    layout: str = ""  # of the columns in LaTeX; "" = labels at the left, the others at the right

    def first(self, count: int) -> Sheet:
        """Return the table with so many of its lines, and where that is not all of them, a word of where they are."""
        if len(self.text) <= count:
            return self
        said = f"These are the first {count:,} of {len(self.text):,} lines; {self.name}.csv has them all."
        marks = None if self.marks is None else self.marks[:count]
        return replace(self, text=self.text[:count], below=[*self.below, said], marks=marks)

    def cells(self, escape: Callable[[str], str], *tags: str) -> pd.DataFrame:
        """Return the text, escaped, the best and what is not told apart from it each in a tag such as `**{}**`."""
        text, sign = self.text.map(printable).map(escape), escape(f" {MARK}")
        for column, marks in ({} if self.marks is None else self.marks).items():
            parts = (each.partition(sign) for each in text[column])  # the sign of what did not learn stands outside
            both = zip(parts, marks, strict=True)
            text[column] = ["".join([("{}", *tags)[mark].format(number), *rest]) for (number, *rest), mark in both]
        return text.rename(columns=lambda title: escape(printable(title)))

    @property
    def paragraphs(self) -> list[str]:
        """What stands under it, each on one line."""
        return [" ".join(printable(each).splitlines()) for each in self.below]


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
    return sheet.numbers.map(no_formula).rename(columns=no_formula).to_csv(index=False)


def no_formula(cell: object) -> object:
    """Return a cell that begins no formula; numbers are no text."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell).replace("\r", r"\x0d")  # alone it ends a row, and pandas does not quote it
    return f"'{text}" if text.startswith(tuple("=+-@\t")) else text


def latex(sheet: Sheet) -> str:
    """Return a table as LaTeX, the best bold, what is not told apart from it in italics."""
    text = sheet.cells(_in_latex, r"\textbf{{{}}}", r"\textit{{{}}}")
    layout = sheet.layout or "l" * sheet.labels + "r" * (text.shape[1] - sheet.labels)
    caption, label = _in_latex(" ".join(sheet.paragraphs)), "tab:" + re.sub(r"[^\w-]+", "-", sheet.name)
    with pd.option_context("styler.render.max_elements", text.size + 1):  # by itself, pandas cuts large tables
        table = text.to_latex(index=False, escape=False, column_format=layout, caption=caption, label=label)
    return f"% \\usepackage{{booktabs}}\n{table}"


def _in_latex(cell: str) -> str:
    text = " ".join(cell.splitlines()).translate(LATEX)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text  # a rule before it would take these


def html(sheet: Sheet) -> str:
    """Return a table as a page of HTML, the best bold, what is not told apart from it in italics."""
    text = sheet.cells(escape, "<strong>{}</strong>", "<em>{}</em>")
    with pd.option_context("display.max_colwidth", None):  # by itself, pandas cuts long cells
        table = text.to_html(index=False, escape=False, border=0)
    below = "\n".join(f"<p>{escape(each, quote=False)}</p>" for each in sheet.paragraphs)
    return PAGE.format(title=escape(printable(sheet.name), quote=False), labels=sheet.labels, table=table, below=below)


FORMATS: dict[str, Callable[[Sheet], str]] = {"md": markdown, "csv": csv, "tex": latex, "html": html}


def write_table(sheet: Sheet, folder: Path, endings: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a table as files NAME.md, .csv, .tex and .html in a folder, or as some of them, and return them.

    All lines are in .csv; of a table of more than READ the others have the first ones.
    """
    paths, read = {ending: folder / f"{sheet.name}.{ending}" for ending in endings}, sheet.first(READ)
    for ending, path in paths.items():
        write_whole(path, FORMATS[ending](sheet if ending == "csv" else read).encode())
    return list(paths.values())
