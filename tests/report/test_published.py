"""The published tables are those that the published rows give, in every format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import grids
import pandas as pd
import pytest
from places import ROOT
from typer.testing import CliRunner

from oodbench.cli.app import app
from oodbench.execution import epoch_curve
from oodbench.report import correlation, epochs, formats, tables, unmade
from oodbench.scoring import cluster_quality
from oodbench.store.rows import Results

PUBLISHED = ROOT / "results" / "published"
FASHION = PUBLISHED / "fashion"
OTHERWISE = ("curve", "quality", "quality-correlation", "machine", "peers")  # not made of the rows beside them


def same(made: Path, published: Path) -> None:
    """Hold a table (without an ending) to the published one: its text and LaTeX byte for byte, and all cell by cell."""
    markdown = made.with_suffix(".md").read_text(encoding="utf-8")
    assert markdown == published.with_suffix(".md").read_text(encoding="utf-8")
    grid = grids.of_markdown(markdown)
    assert len(grid) > 1
    assert grids.of_html(made.with_suffix(".html").read_text(encoding="utf-8")) == grid
    ours, theirs = (each.with_suffix(".tex").read_text(encoding="utf-8") for each in (made, published))
    found = grids.of_latex(ours)
    assert found == grids.of_latex(theirs) == grids.joined(grid, found)
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/plan.json")))
def test_the_tables_of_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published, folder = PUBLISHED / name, tmp_path / name
    tables = {path.relative_to(published).with_suffix("") for path in published.rglob("*.md")}
    tables -= {Path(each) for each in OTHERWISE}
    again = {f"{table.name}.{ending}" for table in tables for ending in ("md", "csv", "tex", "html")}
    shutil.copytree(published, folder, ignore=lambda at, names: again & {*names})
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path))
    (study,) = [path for path in (ROOT / f"{name}.yaml", ROOT / "studies" / f"{name}.yaml") if path.is_file()]
    for command in ["tables", *(["verdict"] if Path("verdict") in tables else [])]:
        done = CliRunner().invoke(app, [command, str(study)])
        assert (done.exit_code, done.stderr) == (0, "")
    assert len(tables) >= 4
    for table in tables:
        same(folder / table, published / table)
        csv = table.with_suffix(".csv")
        assert (folder / csv).read_bytes() == (published / csv).read_bytes()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/plan.json")))
def test_no_row_is_out_of_date(name: str) -> None:
    heard: list[str] = []
    rows = Results(PUBLISHED / name, heard.append).current()
    assert heard == []
    planned = json.loads((PUBLISHED / name / "plan.json").read_text(encoding="utf-8"))["cells"]
    assert rows["cell"].nunique() == len(planned) > 100
    assert all((PUBLISHED / name / "runs" / f"{key}.json").is_file() for key in rows["train_key"].unique())


def test_the_course_over_epochs(tmp_path: Path) -> None:
    numbers = {"level", "epoch", *epoch_curve.SCORED, *cluster_quality.MEASURES}
    rows = pd.read_csv(FASHION / "curve.csv", keep_default_na=False, na_values={name: [""] for name in numbers})
    formats.write_table(epochs.table(rows).sheet(), tmp_path, epochs.ENDINGS)
    same(tmp_path / "curve", FASHION / "curve")


@pytest.mark.slow
def test_the_correlations(tmp_path: Path) -> None:
    rows = unmade.declared(Results(FASHION).current())
    formats.write_table(correlation.correlations(rows, pd.read_csv(FASHION / "quality.csv")).sheet(), tmp_path)
    ours, theirs = tmp_path / correlation.NAME, FASHION / correlation.NAME
    same(ours, theirs)
    one, other = (pd.read_csv(each.with_suffix(".csv")) for each in (ours, theirs))
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-9)


def test_the_variance_of_machines_is_written_as_its_numbers_are(tmp_path: Path) -> None:
    """The other machine's rows are not published: what is compared are the numbers of the table as CSV."""
    published = PUBLISHED / "benchmark" / "machine"
    numbers = pd.read_csv(published.with_suffix(".csv")).set_index(["training", "group"])
    columns = [name.removesuffix(" mean") for name in numbers if name.endswith(" mean")]
    mean, std, n = (numbers[[f"{name} {part}" for name in columns]] for part in ("mean", "std", "n"))
    caption = published.with_suffix(".md").read_text(encoding="utf-8").strip().rpartition("\n\n")[2]
    parts = (each.set_axis(columns, axis=1) for each in (mean, std, n))
    formats.write_table(tables.Table("machine", caption, *parts, dict.fromkeys(columns, 0)).sheet(), tmp_path)
    same(tmp_path / "machine", published)
