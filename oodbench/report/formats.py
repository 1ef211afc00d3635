"""How a table is written: Markdown, CSV, LaTeX (booktabs) and HTML. What a name holds is text in each, never markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from oodbench.report.unlearned import MARK
from oodbench.store.files import write_whole

SIGNS = str.maketrans({"±": r"$\pm$", "–": "--", MARK: r"$^\dagger$"})  # of LaTeX
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
    marks: pd.DataFrame | None = None  # of some of its columns: 1 at the best cells, 2 at the second best
    layout: str = ""  # of the columns in LaTeX; "" = labels at the left, the others at the right

    def tagged(self, *tags: str) -> pd.DataFrame:
        """Return the text, the best and the second best cells each in a tag such as `**{}**`."""
        text = self.text.copy()
        for column, marks in ({} if self.marks is None else self.marks).items():
            text[column] = [_in_tag(("{}", *tags)[mark], each) for each, mark in zip(text[column], marks, strict=True)]
        return text


def _in_tag(tag: str, cell: str) -> str:
    """Return a cell in a tag, the sign of what did not learn after it."""
    number, *sign = cell.partition(f" {MARK}")
    return "".join([tag.format(number), *sign])


def markdown(sheet: Sheet) -> str:
    """Return a table as Markdown, the best bold, the second best in italics."""
    text = sheet.tagged("**{}**", "*{}*").map(_in_markdown).rename(columns=_in_markdown)
    return "\n\n".join([text.to_markdown(index=False, disable_numparse=True), *sheet.below]) + "\n"


def _in_markdown(cell: str) -> str:
    """Return a cell on one line, whose `|` ends nothing."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(cell.splitlines()))


def csv(sheet: Sheet) -> str:
    """Return the numbers of a table as CSV."""
    return sheet.numbers.to_csv(index=False)


def latex(sheet: Sheet) -> str:
    """Return a table as LaTeX, the best bold, the second best underlined."""
    layout = sheet.layout or "l" * sheet.labels + "r" * (sheet.text.shape[1] - sheet.labels)
    below = pd.DataFrame({"": [" ".join(sheet.below)]})
    caption = _rendered(below, "latex", lambda style: style.hide(axis="columns").to_string().removesuffix("\n"))
    label = "tab:" + re.sub(r"[^\w-]+", "-", sheet.name)

    def table(style: Styler) -> str:
        return style.to_latex(hrules=True, column_format=layout, caption=caption, label=label)

    return _rendered(sheet.text, "latex", table, sheet.marks, r"\textbf{{{}}}", r"\underline{{{}}}")


def html(sheet: Sheet) -> str:
    """Return a table as a page of HTML, the best bold, the second best in italics."""
    tags = ("<strong>{}</strong>", "<em>{}</em>")
    table = _rendered(sheet.text, "html", lambda style: style.to_html(exclude_styles=True), sheet.marks, *tags)
    below = "\n".join(f"<p>{escape(each, quote=False)}</p>" for each in sheet.below)
    return PAGE.format(title=escape(sheet.name, quote=False), labels=sheet.labels, table=table, below=below)


def _rendered(
    text: pd.DataFrame, kind: str, render: Callable[[Styler], str], marks: pd.DataFrame | None = None, *tags: str
) -> str:
    """Return text escaped for LaTeX or HTML, then marked, then rendered, whole: by itself, pandas cuts large tables."""

    def shown(tag: str) -> Callable[[object], str]:
        def show(cell: object) -> str:
            found = _in_tag(tag, str(cell))
            return " ".join(found.splitlines()).translate(SIGNS) if kind == "latex" else found

        return show

    style = text.style.hide(axis="index").format(shown("{}"), escape=kind)
    style.format_index(shown("{}"), axis="columns", escape=kind)
    for mark, tag in enumerate(tags, 1):
        for column, each in ({} if marks is None else marks).items():
            style.format(shown(tag), escape=kind, subset=(each.index[each == mark], [column]))
    with pd.option_context("styler.render.max_elements", text.size + 1):
        return render(style)


FORMATS: dict[str, Callable[[Sheet], str]] = {"md": markdown, "csv": csv, "tex": latex, "html": html}


def write_table(sheet: Sheet, folder: Path, endings: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a table as files NAME.md, .csv, .tex and .html in a folder, or as some of them, and return them."""
    paths = {ending: folder / f"{sheet.name}.{ending}" for ending in endings}
    for ending, path in paths.items():
        write_whole(path, FORMATS[ending](sheet).encode())
    return list(paths.values())
