r"""A table as LaTeX, for a page of two columns.

It is a `table` where it fits one column, else a `table*`. Longer than a page it is a longtable, which takes pages of
one column. Text wraps where there is no room for it; where that is higher than labels beside the first in one column,
these are one. Numbers without room stand in parts below each other, each with the labels. Widths are in points, and
estimates from above: of Computer Modern at 8 points, which few fonts are wider than.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from oodbench.errors import printable
from oodbench.report.formats.sheet import Sheet
from oodbench.report.unlearned import MARK
from oodbench.study.grid import NONE

LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in TeX's first fonts
    | {"±": r"$\pm$", "–": "--", MARK: r"$^\dagger$"}
)
COLUMN, PAGE = 219, 397  # the narrowest column, article's on A4, and the narrowest page, one of 5.5 inches
HEIGHT = 540  # of article's lower page, which is letter's
GAP, CLOSE = 6, 4  # between columns, and between those of a short table
LINE, CAPTION = 9.5, 12  # heights of a line of the table and of the caption
MOST = 110  # the width of a text that is no label
JOIN = " · "
WORD = 62  # the width of a word over numbers that is not broken
PARTS = 3  # of a table in one column
LABELS = 0.35  # the share of a width that labels may take before numbers are parted
WIDTHS = {
    letter: width
    for letters, width in (
        ("il.,;:'!|", 2.4),
        (" j[]()-_f", 3),
        ("rst", 3.4),
        ("cez", 3.9),
        ("ago/0123456789", 4.3),
        ("bdhknpquvxy", 4.8),
        ("±=+<>", 6.7),
    )
    for letter in letters
}  # of letters; of most others 7.2
BOLD, SMALL = 1.15, 0.78  # what bold and small deviations are wider by
PIECE = re.compile(r".{0,14}?[_(,=/.+:-]+|.{1,14}$|.{10}")  # of a word, between which it may be broken
SIZE = r"\footnotesize\frenchspacing\setlength{\tabcolsep}{%gpt}"
LONG = 20  # letters of a word that may be broken anywhere
SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Za-z])")
ONE_COLUMN = r"""% longer than a page; longtable wants pages of one column: two columns end here, and begin again below
\makeatletter\if@twocolumn\onecolumn\let\aftertable\twocolumn\else\let\aftertable\relax\fi\makeatother
"""


def latex(sheet: Sheet) -> str:
    """Return a table as LaTeX, the best bold, what is not told apart from it in italics.

    Its first sentence is the caption, the others are notes. The first line names the packages that it takes.
    """
    below = re.sub("`([^`]+)`", r"`\1'", " ".join(sheet.paragraphs))  # TeX's quotation marks
    caption, *notes = SENTENCE.split(below, maxsplit=1)
    layout = _floating(sheet)
    long = layout.height + _lines(caption, layout.width) * CAPTION + _lines(*notes, layout.width) * LINE > HEIGHT
    layout = _layout(sheet, PAGE) if long else layout
    packages = ["array"] * bool(layout.wrapped) + ["booktabs"] + ["longtable"] * long
    around = _long if long else _float
    name = re.sub(r"[^\w-]+", "-", sheet.name)
    head = f"\\caption{{{_in_latex(caption)}}}\n\\label{{tab:{name}}}"
    text = around(layout, head, "".join(map(_in_latex, notes)))
    return f"% \\usepackage{{{','.join(packages)}}}\n{text}"


def _in_latex(cell: str, longest: int = LONG, small: bool = False) -> str:
    """Return text as LaTeX; words of more letters than the longest may be broken, deviations may be small."""
    words = " ".join(cell.splitlines()).split(" ")
    pieces = ([word] if len(word) <= longest else PIECE.findall(word) for word in words)
    text = " ".join(r"\hspace{0pt}".join(each.translate(LATEX) for each in of) for of in pieces)
    text = re.sub(r" \$\\pm\$ ([\d.]+)", r"{\\tiny$\\pm$\1}", text) if small else text
    return f"{{}}{text}" if text.startswith(("[", "*")) else text  # a rule before it would take these


# ---- how wide and high ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A table cut to a width."""

    sheet: Sheet
    width: float
    parts: list[list[int]]  # the columns of each, beside the labels
    widths: list[float]  # of each column
    wrapped: set[int]  # the columns whose text wraps
    headings: list[list[str]]  # the lines of each column's

    @property
    def height(self) -> float:
        """The height of all parts."""
        cells = [[_width(cell) / self.widths[i] for cell in self.sheet.text.iloc[:, i]] for i in sorted(self.wrapped)]
        lines = sum(math.ceil(1.1 * max(row)) for row in zip(*cells, strict=True)) or len(self.sheet.text)
        return len(self.parts) * LINE * (lines + 2 + max(map(len, self.headings)))

    @property
    def fits(self) -> bool:
        """Whether no part is wider than there is room for."""
        gap = _gap(self.sheet)
        return all(sum(self.widths[i] + gap for i in self.of(part)) <= self.width + gap for part in self.parts)

    def columns(self, part: list[int]) -> str:
        """Return the columns of a part as tabular takes them."""
        text = self.sheet.in_words
        kinds = {i: f">{{\\raggedright\\arraybackslash}}p{{{self.widths[i]:.0f}pt}}" for i in self.wrapped}
        return "@{}" + "".join(kinds.get(i, "l" if text[i] else "r") for i in self.of(part)) + "@{}"

    def of(self, part: list[int]) -> list[int]:
        """Return the columns of a part, labels first."""
        return [*range(self.sheet.labels), *part]

    def heading(self, part: list[int]) -> str:
        """Return the line of headings of a part, between its rules."""
        text = self.sheet.in_words
        line = " & ".join(_stacked(self.headings[i], "l" if text[i] else "r") for i in self.of(part))
        return f"\\toprule\n{line} \\\\\n\\midrule\n"

    def rows(self) -> Iterator[str]:
        """Yield the lines of each part."""
        tags = (r"\textbf{{{}}}", r"\textit{{{}}}")
        found = [self.sheet.cells(partial(_in_latex, small=self.sheet.short), *tags)]
        found += (
            [self.sheet.cells(partial(_in_latex, longest=0), *tags)] if self.wrapped else []
        )  # in which words break
        cells = [found[i in self.wrapped].iloc[:, i].to_list() for i in range(found[0].shape[1])]
        for part in self.parts:
            lines = zip(*(cells[i] for i in self.of(part)), strict=True)
            end = f" \\\\{'[2pt]' if self.wrapped else ''}\n"
            yield "".join(" & ".join(line) + end for line in lines)


def _floating(sheet: Sheet) -> Layout:
    """Return a table that floats: in one column where it fits, or is to."""
    column, page = _layout(sheet, COLUMN), _layout(sheet, PAGE)
    whole = len(column.parts) == 1 and not column.wrapped
    return column if whole or (sheet.short and column.fits and len(column.parts) <= PARTS) else page


def _layout(sheet: Sheet, width: float) -> Layout:
    """Return a table cut to a width, the labels beside the first in one column where it is less high with them so."""
    found = [_cut(sheet, width), *([_cut(_joined(sheet), width)] if sheet.labels > 2 else [])]
    return min(found, key=lambda each: (not each.fits, each.height))


def _joined(sheet: Sheet) -> Sheet:
    """Return a table whose labels beside the first are one column."""
    labels = sheet.text.iloc[:, 1 : sheet.labels]
    joined = [JOIN.join(each for each in row if each != NONE) or NONE for row in labels.to_numpy()]
    text = sheet.text.drop(columns=labels.columns)
    text.insert(1, JOIN.join(map(str, labels.columns)), joined)
    return replace(sheet, text=text, labels=2)


def _cut(sheet: Sheet, width: float) -> Layout:
    """Return a table cut to a width, in as few parts as leave room for the labels."""
    gap, text, count = _gap(sheet), sheet.in_words, sheet.labels
    titles = [printable(str(title)) for title in sheet.text.columns]
    cells = [{*sheet.written.iloc[:, i]} for i in range(len(titles))]
    bodies = [max((_width(each, sheet.short) for each in column), default=0) for column in cells]
    bodies = [body if text[i] else BOLD * body for i, body in enumerate(bodies)]
    headings = [[title] if text[i] else _broken(title, bodies[i]) for i, title in enumerate(titles)]
    full = [max(body, *map(_width, lines)) for body, lines in zip(bodies, headings, strict=True)]
    least = [_least(titles[i], *cells[i]) if text[i] else each for i, each in enumerate(full)]
    widths = [min(each, max(MOST, least[i])) if i >= count else each for i, each in enumerate(full)]
    natural, needed = (sum(each[:count]) + gap * count for each in (full, least))
    parts, room = _parted(widths, count, width + gap, gap, min(natural, max(needed, LABELS * width)))
    cap = _cap(full[:count], least, room - gap * count)
    widths = [max(least[i], min(each, cap)) if i < count else each for i, each in enumerate(widths)]
    wrapped = {i for i, each in enumerate(widths) if each < full[i]}
    headings = [_broken(title, widths[i]) if i in wrapped else headings[i] for i, title in enumerate(titles)]
    return Layout(sheet, width, parts, widths, wrapped, headings)


def _parted(widths: list[float], labels: int, width: float, gap: float, wanted: float) -> tuple[list[list[int]], float]:
    """Return the columns beside the labels in as few parts as leave these the room that is wanted, and the room."""
    others = [*range(labels, len(widths))]
    parts, room = [others], width
    for count in range(1, len(others) + 1):
        size = math.ceil(len(others) / count)
        parts = [others[start : start + size] for start in range(0, len(others), size)]
        room = width - max(sum(widths[i] + gap for i in part) for part in parts)
        if room >= wanted:
            break
    return parts, room


def _cap(widths: Sequence[float], least: Sequence[float], room: float) -> float:
    """Return the width to which the wider columns are cut so that all fit a room, none below its least."""
    low, high = 0.0, max(widths, default=0.0)
    for _ in range(30):
        cap = (low + high) / 2
        fits = sum(max(least[i], min(each, cap)) for i, each in enumerate(widths)) <= room
        low, high = (cap, high) if fits else (low, cap)
    return high if sum(widths) <= room else low


def _gap(sheet: Sheet) -> float:
    """Return what stands between columns."""
    return CLOSE if sheet.short else GAP


@lru_cache(maxsize=100_000)
def _width(text: str, small: bool = False) -> float:
    """Return how wide text is at most, where its deviation is small or not."""
    if small and " ± " in text:
        number, _, deviation = text.partition(" ± ")
        return _width(number) + SMALL * _width(f"±{deviation}")
    return sum(WIDTHS.get(letter, 8.8 if letter in "MW" else 7.2) for letter in text)


def _least(*texts: str) -> float:
    """Return the width of the widest piece of text that is not broken."""
    return max((_width(piece) for text in texts for word in text.split() for piece in PIECE.findall(word)), default=0)


def _broken(title: str, width: float) -> list[str]:
    """Return the lines of a heading over numbers of a width; a line that ends within a word has no blank at its end."""
    words = ([word] if _width(word) <= max(width, WORD) else PIECE.findall(word) for word in title.split(" "))
    pieces = [each for *first, last in words for each in (*first, f"{last} ")]
    width, lines = max(width, *(_width(each.rstrip()) for each in pieces)), [""]
    for piece in pieces:
        if _width(lines[-1] + piece.rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [*lines[:-1], lines[-1].rstrip()]


def _lines(*texts: str | float) -> int:
    """Return how many lines texts take in a width, which comes last."""
    *paragraphs, width = texts
    return sum(math.ceil(_width(str(each)) / float(width)) for each in paragraphs)


# ---- as LaTeX ---------------------------------------------------------------------------------------------


def _stacked(lines: list[str], side: str) -> str:
    """Return the lines of a heading above each other."""
    if len(lines) == 1:
        return _in_latex(lines[0])
    text = "\\\\".join(_in_latex(line) for line in lines)
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{text}\\end{{tabular}}"


def _float(layout: Layout, head: str, notes: str) -> str:
    """Return a table that floats, in one column or over both."""
    name = "table" if layout.width == COLUMN else "table*"
    parts = "\n\\par\\medskip\n".join(
        f"\\begin{{tabular}}{{{layout.columns(part)}}}\n{layout.heading(part)}{rows}\\bottomrule\n\\end{{tabular}}"
        for part, rows in zip(layout.parts, layout.rows(), strict=True)
    )
    below = f"\n\\par\\medskip\n\\parbox{{\\linewidth}}{{\\raggedright {notes}}}" if notes else ""
    begin = f"\\begin{{{name}}}\n\\centering\n{head}\n\\par\\smallskip{SIZE % (_gap(layout.sheet) / 2)}\n"
    return f"{begin}{parts}{below}\n\\end{{{name}}}\n"


def _long(layout: Layout, head: str, notes: str) -> str:
    """Return a table of several pages of one column, headings on each."""
    parts = []
    for i, (part, rows) in enumerate(zip(layout.parts, layout.rows(), strict=True)):
        heading, again = layout.heading(part), "\\addtocounter{table}{-1}\n" * bool(i)
        first = f"{head} \\\\\n{heading}\\endfirsthead\n" * (not i)
        parts.append(
            f"{again}\\begin{{longtable}}{{{layout.columns(part)}}}\n{first}{heading}\\endhead\n"
            f"\\bottomrule\n\\endfoot\n{rows}\\end{{longtable}}\n"
        )
    begin = f"{ONE_COLUMN}\\begingroup{SIZE % (_gap(layout.sheet) / 2)}\\setlength{{\\LTcapwidth}}{{\\linewidth}}\n"
    return f"{begin}{''.join(parts)}\\noindent\\raggedright {notes}\\par\\endgroup\n\\aftertable\n"
