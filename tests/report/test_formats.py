"""How tables are written: whatever a name holds comes back as it is from Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grids
import pandas as pd
import pytest
from hand_made_rows import made
from markdown_it import MarkdownIt

from oodbench.report import formats, tables
from oodbench.report.formats import Sheet
from oodbench.study.declarations import TableSpec

NASTY = (
    r"\input{/etc/passwd}",
    r"\end{tabular}\write18{ls}",
    "a_b & 5 % ± #1 $x^2$ ~ {}",
    "– † ^ ~",
    "<script>alert(1)</script>",
    "\"quoted\" & 'so'",
    "a | b",
    r"ends in \|",
    "*stars* in_it",
    r"\textbf{bold}",
    "{{title}} {0}",
    "[2cm] of a rule",
    "**bold** and _slanted_ and `code`",
    r"a \\* b*, 2*x",
    "[a](https://example.org) | ![b](c)",
    "a < b > c | d",
)
READ: dict[str, Callable[[str], grids.Grid]] = {
    "md": grids.of_markdown,
    "tex": grids.of_latex,
    "html": grids.of_html,
}


def sheet(*cells: str, name: str = "t", below: str = "Under it.") -> Sheet:
    text = pd.DataFrame({"label": list(cells), cells[0]: "1.0"})
    marks = pd.DataFrame({cells[0]: [1, 2] + [0] * (len(cells) - 2)})
    return Sheet(name, text, [below], text, 1, marks)


def first(cells: tuple[str, ...], i: int) -> tuple[str, ...]:
    return (*cells[i:], *cells[:i])


@pytest.mark.parametrize("i", range(len(NASTY)))
@pytest.mark.parametrize("ending", READ)
def test_any_name_is_text(ending: str, i: int) -> None:
    names = first(NASTY, i)
    head, *body = READ[ending](formats.FORMATS[ending](sheet(*names)))
    assert [cell.text for cell in head] == ["label", names[0]]
    assert [row[0].text for row in body] == list(names)
    assert [row[1] for row in body] == [("1.0", "best"), ("1.0", "second"), *[("1.0", "")] * (len(names) - 2)]


def test_what_stands_around_a_table_is_text_too() -> None:
    nasty = " ".join(NASTY)
    given = sheet("a", "b", name="<b>%&{}", below=nasty)
    latex = formats.latex(given)
    assert grids.plain(re.findall(r"\\caption\{(.*)\}\n", latex)[0]) == nasty.replace("`code`", "`code'")
    assert r"\label{tab:-b-}" in latex
    assert latex.startswith("% \\usepackage{booktabs}\n\\begin{table}\n")  # what a paper's preamble has to have
    page = formats.html(given)
    assert not {"<script", "<b>"} & {*re.findall(r"<\w+>?", page)}
    assert "<title>&lt;b&gt;%&amp;{}</title>" in page
    below = MarkdownIt("commonmark").render(formats.markdown(given).rpartition("\n\n")[2])
    assert not {"<a", "<img", "<script", "<b>"} & {*re.findall(r"<\w+>?", below)}


@pytest.mark.parametrize("ending", ["md", "tex"])
def test_a_cell_is_one_line(ending: str) -> None:
    names = ("two\nlines", "two\r\n\nmore")
    head, *body = READ[ending](formats.FORMATS[ending](sheet(*names)))
    assert [head[1].text, *(row[0].text for row in body)] == ["two lines", "two lines", "two  more"]


def test_numbers_keep_every_digit_and_line() -> None:
    numbers = pd.DataFrame({"a,b": [0.1 + 0.2, float("nan")], 'c "d"': ["x\ny", "z"]})
    given = Sheet("t", sheet("a", "b").text, [], numbers, 1)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(formats.csv(given), newline="")), numbers)


@pytest.mark.parametrize("ending", READ)
def test_large_tables_are_whole(ending: str) -> None:
    """By itself pandas leaves out rows and columns of a table above so many cells."""
    with pd.option_context("styler.render.max_elements", 4):
        found = READ[ending](formats.FORMATS[ending](sheet(*map(str, range(50)))))
    assert (len(found), {len(row) for row in found}) == (51, {2})


@pytest.mark.parametrize("ending", READ)
def test_what_did_not_learn_is_said_outside_of_the_mark(ending: str) -> None:
    bad = {"classes": 10, "accuracy_linear": 0.2, "accuracy_knn": 0.3}
    rows = made(bad, {"distance": "knn", "auroc": 0.7, **bad}, {"training": "supcon", "auroc": 0.75})
    spec = TableSpec(rows=("distance",), columns=("training",))
    found = READ[ending](formats.FORMATS[ending](tables.declared(rows, "t", spec).sheet()))
    assert found[1:] == [
        [("cosine", ""), ("80.0 †", "best"), ("75.0", "best"), ("1", "")],
        [("knn †", ""), ("70.0", ""), ("–", ""), ("1", "")],
    ]
    text = formats.FORMATS[ending](tables.declared(rows, "t", spec).sheet())
    assert {"md": "**80.0** †", "tex": r"\textbf{80.0} $^\dagger$", "html": "<strong>80.0</strong> †"}[ending] in text


def test_some_formats_of_a_table_in_a_new_folder(tmp_path: Path) -> None:
    paths = formats.write_table(sheet("a", "b", name="t.1"), tmp_path / "new", ("md", "tex"))
    assert paths == [tmp_path / "new" / "t.1.md", tmp_path / "new" / "t.1.tex"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"t.1.md", "t.1.tex"}


# ---- what a name may not do ------------------------------------------------------------------------------

ESC = "\x1b[31mred\x1b[0m\x07 a\u202eb\x9b"


@pytest.mark.parametrize("ending", formats.FORMATS)
def test_control_characters_are_shown_and_not_obeyed(ending: str) -> None:
    text = formats.FORMATS[ending](sheet(ESC, "b", name=f"n{ESC}", below=f"Under {ESC}\n| it |"))
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & {*text}
    assert "x1b[31mred" in text.replace(r"\hspace{0pt}", "")


def test_what_stands_under_a_table_is_no_row_of_it() -> None:
    text = formats.markdown(sheet("a", "b", below="Under\n| x | y |\n\n# head"))
    assert text.splitlines()[-1] == "Under | x | y |  # head"


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\tx"])
def test_no_cell_of_csv_begins_a_formula(cell: str) -> None:
    numbers = pd.DataFrame({cell: [cell, "plain"], "n": [-1.5, 2.0]})
    read = list(csv.reader(io.StringIO(formats.csv(Sheet("t", numbers.astype(str), [], numbers, 1)), newline="")))
    assert [read[0][0], read[1][0]] == [f"'{cell}", f"'{cell}"]
    assert [row[1] for row in read[1:]] == ["-1.5", "2.0"]  # a number is none
    assert read[2][0] == "plain"
    assert formats.csv(Sheet("t", numbers, [], pd.DataFrame({"a": ["x\ry"]}), 1)) == "a\nx\\x0dy\n"


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_tables_and_the_next_one_the_rest(tmp_path: Path) -> None:
    """SIGKILL in the middle of each write in turn: what is there is what a run to the end leaves, byte for byte."""
    code = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from oodbench.report.formats import Sheet, write_table
left, fsync = int(sys.argv[2]), os.fsync
def dying(handle):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = dying
text = pd.DataFrame({"a": ["x" * 100_000], "b": ["1.0"]})
for name in ("one", "two"):
    write_table(Sheet(name, text, ["Under it."], text, 1), Path(sys.argv[1]))
"""

    def run(folder: Path, writes: int) -> int:
        return subprocess.run([sys.executable, "-c", code, str(folder), str(writes)], check=False).returncode

    assert run(tmp_path / "whole", 99) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert len(whole) == 8
    for writes in (0, 3, 5):
        folder = tmp_path / str(writes)
        assert run(folder, writes) == -signal.SIGKILL
        there = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".part-")}
        assert len(there) == writes
        assert there.items() <= whole.items()
        assert run(folder, 99) == 0
        assert {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".part-")} == whole


def test_a_table_that_nobody_reads_to_the_end_is_whole_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "READ", 2)
    text = pd.DataFrame({"method": ["a", "b", "c"], "AUROC": ["9", "8", "7"]})
    long = formats.Sheet("t", text, ["Below."], text, 1, pd.DataFrame({"AUROC": [1, 0, 0]}))
    formats.write_table(long, tmp_path)
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["a,9", "b,8", "c,7"]
    for ending in ("md", "tex", "html"):
        written = (tmp_path / f"t.{ending}").read_text()
        assert "These are the first 2 of 3 lines; t.csv has them all." in written
        assert "7" not in written
    assert "first" not in formats.markdown(long.first(3))
