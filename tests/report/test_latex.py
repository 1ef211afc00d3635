"""Tables as LaTeX, compiled into a page of two columns: no error, nothing wider or higher than there is room for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import grids
import pandas as pd
import pytest
from places import ROOT

from oodbench.report.formats import Sheet, latex, write_table
from oodbench.report.formats.short import shortened

PDFLATEX = shutil.which("pdflatex")
PUBLISHED = ROOT / "results" / "published"
NUMBER = "100.0 ± 12.3"
MOST = 5  # points by which a line may be too wide
# article's narrowest columns are those of A4, its lowest page is letter's
CLASS = r"\documentclass[twocolumn,a4paper]{article}\setlength{\textheight}{550pt}"
LONG = {
    "parted": "a_very_long_name_of_a_distance_with_many_parts_in_brackets(k=9)",
    "unbroken": "M" * 60,
    "signs": "100%_of_A&B_{c}_#1_$x$_~y^2_\\z_<d>|e|_[f]*",
    "words": "Mahalanobis distance of unit features, one Gaussian to a class, shrunk",
}
needs_latex = pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex; make latex installs Debian's")


def problems(files: list[Path], folder: Path, head: str = CLASS) -> list[str]:
    """Compile tables into one paper, with the packages that they name, and return what it says of each."""
    named = {re.match(r"% \\usepackage\{(.*)\}\n", file.read_text(encoding="utf-8"))[1] for file in files}  # type: ignore[index]
    tables = "\n".join(f"\\typeout{{TABLE {i}}}\\input{{{file}}}" for i, file in enumerate(files))
    body = f"\\begin{{document}}\nSome text.\n{tables}\n\\clearpage\\typeout{{TABLE {len(files)}}}\\end{{document}}\n"
    (folder / "paper.tex").write_text(f"{head}\n\\usepackage{{{','.join(sorted(named))}}}\n{body}", encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    for _ in range(2):  # columns of a longtable are as wide as the last run says
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=200, check=False)
        log = (folder / "paper.log").read_text(encoding="utf-8", errors="replace")
        if done.returncode:
            return [log[log.index("\n!") :][:400]]
    return list(said(log, [*files, Path("the last page")]))


def said(log: str, files: list[Path]) -> Iterator[str]:
    """Yield what a log says of tables that have no room."""
    at = files[0]
    for line in log.splitlines():
        if found := re.match(r"TABLE (\d+)", line):
            at = files[int(found[1])]
        wide = re.match(r"Overfull \\hbox \(([\d.]+)pt", line)
        if (wide and float(wide[1]) > MOST) or "Float too large" in line:
            yield f"{at}: {line}"


def sheet(name: str, columns: int, rows: int, labels: int = 2) -> Sheet:
    """Return a table of numbers whose names are all as long as one."""
    titles = [f"{i} {name}" for i in range(labels)] + [f"{name} {i}" for i in range(columns)]
    cells = [[f"{name}{i}"] * labels + [NUMBER] * columns for i in range(rows)]
    text = pd.DataFrame(cells, columns=titles)
    marks = pd.DataFrame(1, index=text.index, columns=titles[labels:])
    return Sheet(f"{len(name)}-{columns}-{rows}", text, [f"Of {name}. Numbers of {name} again."], text, labels, marks)


@pytest.mark.parametrize("name", LONG)
def test_long_names_and_many_columns_are_whole(name: str) -> None:
    """Whatever it is cut into, every label and number is there, and no heading is lost."""
    for columns, rows, labels in product((1, 12), (3, 60), (1, 3)):
        given = sheet(LONG[name], columns, rows, labels)
        found = grids.of_latex(latex(given))
        text = [[grids.Cell(title) for title in given.text]]
        text += [[grids.Cell(cell, "best" * (cell == NUMBER)) for cell in row] for row in given.text.to_numpy()]
        assert found == grids.joined(text, found)


@needs_latex
@pytest.mark.slow
def test_published_tables_compile(tmp_path: Path) -> None:
    files = sorted(file for study in ("benchmark", "cifar10_pretrained") for file in (PUBLISHED / study).rglob("*.tex"))
    assert len(files) >= 17
    assert problems(files, tmp_path) == []


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "names"),
    [(CLASS, [*LONG]), (CLASS.replace("twocolumn,", "") + r"\setlength{\textwidth}{397pt}", ["parted"])],
    ids=["two columns", "one column of 5.5 inches"],
)
def test_the_worst_names_compile(head: str, names: list[str], tmp_path: Path) -> None:
    files = []
    for kind, columns, rows, labels in product(names, (1, 12), (3, 60), (1, 3)):
        given = sheet(LONG[kind], columns, rows, labels)
        for each in (given, shortened(given)):
            folder = tmp_path / f"{kind}-{labels}-{'short' if each.short else 'long'}"
            files += write_table(each, folder, ["tex"])
    assert problems(files, tmp_path, head) == []


@needs_latex
@pytest.mark.slow
def test_what_has_no_room_is_told(tmp_path: Path) -> None:
    """The check itself: tables that are wider than a column, that are higher than a page, and that are no LaTeX."""
    wide, high, wrong = (tmp_path / f"{name}.tex" for name in ("wide", "high", "wrong"))
    table = r"\begin{table}\begin{tabular}{l}\rule{%s}{1pt}\\\rule{1pt}{%s}\end{tabular}\end{table}"
    for file, text in ((wide, table % ("300pt", "1pt")), (high, table % ("1pt", "700pt")), (wrong, "a_b")):
        file.write_text(f"% \\usepackage{{booktabs}}\n{text}\n")
    assert [each.partition(":")[0] for each in problems([wide, high], tmp_path)] == [str(wide), str(high)]
    assert "Missing $ inserted" in problems([wrong], tmp_path)[0]


@needs_latex
@pytest.mark.slow
def test_a_short_table_is_one_column_wide(tmp_path: Path) -> None:
    """Four OOD sets beside a training and a distance, even in A4's columns of 3.06 inches."""
    text = pd.DataFrame({"training": ["cross_entropy", "supcon"], "distance": ["mahalanobis(shared, pinv)"] * 2})
    sets = ("held_out", "photographs", "noise", "natural_patches(count=2000)")
    text = text.assign(**dict.fromkeys(sets, "95.9 ± 1.8"))
    (file,) = write_table(shortened(Sheet("t", text, ["AUROC. Notes."], text, 2)), tmp_path, ["tex"])
    assert file.read_text(encoding="utf-8").count(r"\begin{tabular}{@{}llrrrr@{}}") == 1
    assert r"\begin{table}" in file.read_text(encoding="utf-8")
    assert problems([file], tmp_path) == []
