"""Tables read back from Markdown, LaTeX and HTML: each cell as plain text, with the mark that it has."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import NamedTuple

from markdown_it import MarkdownIt

LATEX = {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|"}
LATEX |= {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"$\pm$": "±", "--": "–"}
LATEX |= {r"$^\dagger$": "†"} | {f"\\{sign}": sign for sign in "&%$#_{}"}


class Cell(NamedTuple):
    text: str
    mark: str = ""  # best, second


Grid = list[list[Cell]]  # the first row is the headings


def of_markdown(text: str) -> Grid:
    page = MarkdownIt("commonmark").enable("table").render(text)
    return of_html(f"<body>{page}</body>")


def of_latex(text: str) -> Grid:
    head, body = text.partition("\\toprule\n")[2].partition("\\bottomrule")[0].split("\\midrule\n")
    return [[_of_latex(each) for each in line.removesuffix(r" \\").split(" & ")] for line in (head + body).splitlines()]


def _of_latex(cell: str) -> Cell:
    for command, mark in (("textbf", "best"), ("textit", "second")):
        if found := re.fullmatch(rf"\\{command}\{{(.+)\}}( \$\^\\dagger\$)?", cell):
            return Cell(plain(found[1] + (found[2] or "")), mark)
    return Cell(plain(cell))


def plain(latex: str) -> str:
    """Return what LaTeX prints."""
    latex = re.sub(r"^\{\}(?=[\[*])", "", latex)
    return re.sub("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))), lambda found: LATEX[found[0]], latex)


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.grid: Grid = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.grid.append([])
        if tag in ("td", "th"):
            self.grid[-1].append(Cell(""))
        if tag in ("strong", "em"):
            self.grid[-1][-1] = self.grid[-1][-1]._replace(mark={"strong": "best", "em": "second"}[tag])

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.tags}:
            cell = self.grid[-1][-1]
            self.grid[-1][-1] = cell._replace(text=cell.text + data)


def of_html(text: str) -> Grid:
    parser = _Html()
    parser.feed(text.partition("<body>")[2].partition("</body>")[0])
    return parser.grid
