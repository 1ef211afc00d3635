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
    """Return the parts of a table beside each other, the labels that each repeats once."""
    found = re.findall(r"^\\begin\{(tabular|longtable)\}\{[^\n]*\}$(.*?)^\\end\{\1\}$", text, re.M | re.S)
    parts = [
        [_line(each) for each in re.findall(r"^(?!\\label)(.+) \\\\(?:\[2pt\])?$", part, re.M)] for _, part in found
    ]
    parts = [[part[0], *(line for line in part if line != part[0])] for part in parts]
    heads = [[cell.text for cell in part[0]] for part in parts]
    same = [len({*cells}) == 1 for cells in zip(*heads, strict=False)]
    labels = ([*same, False].index(False)) if len(parts) > 1 else 0
    return [
        [cell for i, row in enumerate(rows) for cell in row[labels * (i > 0) :]] for rows in zip(*parts, strict=True)
    ]


def joined(grid: Grid, like: Grid) -> Grid:
    """Return a table whose labels beside the first are one column where those of another are."""
    count = like[0][1].text.count(" · ") + 1
    if count == 1:
        return grid
    head, *body = [[row[0], row[1 : 1 + count], *row[1 + count :]] for row in grid]
    cells = [head, *([row[0], [each for each in row[1] if each.text != "–"] or row[1][:1], *row[2:]] for row in body)]
    return [[row[0], Cell(" · ".join(each.text for each in row[1])), *row[2:]] for row in cells]


def _line(line: str) -> list[Cell]:
    return [_of_latex(each) for each in line.split(" & ")]


def _of_latex(cell: str) -> Cell:
    if found := re.fullmatch(r"\\begin\{tabular\}\[b\]\{@\{\}[lr]@\{\}\}(.*)\\end\{tabular\}", cell):
        lines = re.sub(r"\\\\|\\.", lambda sign: "\n" if sign[0] == r"\\" else sign[0], found[1]).split("\n")
        return Cell("".join(map(plain, lines)))
    for command, mark in (("textbf", "best"), ("textit", "second")):
        if found := re.fullmatch(rf"\\{command}\{{(.+)\}}( \$\^\\dagger\$)?", cell):
            return Cell(plain(found[1] + (found[2] or "")), mark)
    return Cell(plain(cell))


def plain(latex: str) -> str:
    """Return what LaTeX prints."""
    latex = re.sub(r"^\{\}(?=[\[*])", "", latex).replace(r"\hspace{0pt}", "")
    latex = re.sub(r"\{\\tiny\$\\pm\$([\d.]+)\}", r" ± \1", latex)
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
