"""How tables are written: whatever a name holds comes back as it is from Markdown, LaTeX and HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import grids
import pandas as pd
import pytest
from test_tables import made

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
    assert grids.plain(re.findall(r"\\caption\{(.*)\}\n", latex)[0]) == nasty
    assert r"\label{tab:-b-}" in latex
    page = formats.html(given)
    assert not {"<script", "<b>"} & {*re.findall(r"<\w+>?", page)}
    assert "<title>&lt;b&gt;%&amp;{}</title>" in page
    assert formats.markdown(given).endswith(f"\n\n{nasty}\n")


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
        [("knn †", ""), ("70.0", "second"), ("–", ""), ("1", "")],
    ]
    text = formats.FORMATS[ending](tables.declared(rows, "t", spec).sheet())
    assert {"md": "**80.0** †", "tex": r"\textbf{80.0} $^\dagger$", "html": "<strong>80.0</strong> †"}[ending] in text


def test_some_formats_of_a_table_in_a_new_folder(tmp_path: Path) -> None:
    paths = formats.write_table(sheet("a", "b", name="t.1"), tmp_path / "new", ("md", "tex"))
    assert paths == [tmp_path / "new" / "t.1.md", tmp_path / "new" / "t.1.tex"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"t.1.md", "t.1.tex"}
