"""README and docs keep their promises: examples work, tables are those of the results, lists those of the code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from command_line import call
from places import ROOT
from ruamel.yaml import YAML
from tiny import write

import oodbench
from oodbench.cli import app
from oodbench.training.weights import plan_of

DOCS = ROOT / "docs"
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
README = PAGES["README.md"]
RESULT = re.compile(r"<!-- (results/\S+\.md)(: table)? -->\n(.*?)<!-- end -->", re.S)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
MARK = re.compile(r"^<!-- oodbench list (\w+) -->$", re.M)
LISTED = [name for name, text in PAGES.items() if MARK.search(text)]
LONGEST = 35  # words of a sentence


def blocks(page: str, language: str) -> list[str]:
    """Return what stands in a page's fences of one language, "" where none is said."""
    return [text for found, text in FENCE.findall(PAGES[page]) if found == language]


def shown_results() -> list[tuple[str, str, bool, str]]:
    return [(page, *found) for page, text in PAGES.items() for found in RESULT.findall(text)]


# ---- examples ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_plugin_passes_conformance_and_runs_in_a_study(tmp_path: Path) -> None:
    code = blocks("README.md", "python")[1]
    plugin = tmp_path / "cityblock.py"
    plugin.write_text(code)
    checked = call("check", plugin)
    assert checked.exit_code == 0, checked.output
    study = write(tmp_path / "s.yaml", plugins=["cityblock.py"], distance=["cityblock", "cosine"], training="simclr")
    rows = oodbench.run(study, device="cpu")
    assert set(rows["distance"]) == {"cityblock", "cosine"}
    assert (rows["status"] == "ok").all()


@pytest.mark.slow
def test_features_of_ones_own_are_scored_in_three_lines() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    given = {"train": 4 * np.eye(3, 6)[y] + rng.normal(size=(200, 6)), "y": y, "test": rng.normal(size=(50, 6))}
    names: dict[str, Any] = given | {"svhn": 9 + rng.normal(size=(40, 6))}
    code = blocks("README.md", "python")[0]
    assert len(code.replace("\n\n", "\n").splitlines()) == 3
    with pytest.warns(UserWarning, match=r"^(left out|rows warn): "):
        exec(code, names)
    assert names["rows"]["ood"].unique().tolist() == ["SVHN"]
    assert names["fitted"].predict(names["svhn"]).all()


def test_the_study_is_one(tmp_path: Path) -> None:
    from oodbench.study import reader

    (text,), (changes,) = blocks("docs/start.md", "yaml"), blocks("docs/run.md", "yaml")
    (tmp_path / "own.yaml").write_text(text)
    found = plan_of(reader.load(tmp_path / "own.yaml"))
    assert len(found.work) == 2 * 3 * 3  # splits x seeds x trainings
    yaml = YAML()
    yaml.dump(yaml.load(text) | yaml.load(changes), tmp_path / "other.yaml")
    found = plan_of(reader.load(tmp_path / "other.yaml"))
    assert len(found.work) == 2 * 3 * 2


@pytest.mark.slow
def test_the_way_from_an_idea_to_a_row_beside_the_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/extend.md says is done as it stands there, block by block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path / "store"))
    said: dict[str, str] = {}
    files = {"python": iter(["cityblock.py", "smoothed.py"]), "yaml": iter(["idea.yaml"])}
    for language, text in FENCE.findall(PAGES["docs/extend.md"]):
        if language:
            Path(next(files[language])).write_text(text)
        for line in [] if language else text.splitlines():
            words = shlex.split(line)[1:]
            done = call(*words)
            assert done.exit_code == 0, done.output
            said[words[0]] = done.stdout
    assert blocks("docs/extend.md", "python")[0] == blocks("README.md", "python")[1]
    rows = oodbench.rows("idea.yaml")
    assert {*rows["distance"], *rows["posthoc"]} >= {"cityblock", "euclidean", "msp", "energy"}
    assert (rows["status"] == "ok").all()
    assert "City-block distance is ahead of MSP." in said["verdict"]
    assert (tmp_path / "results" / "idea" / "report.html").is_file()


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained_outside_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/study.md says is done as it stands there."""
    (tmp_path / "my_net.py").write_text(blocks("docs/study.md", "python")[0])
    (tmp_path / "own.yaml").write_text(next(each for each in blocks("docs/study.md", "yaml") if "my_net" in each))
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec(blocks("docs/study.md", "python")[1], {})
    rows = oodbench.run(tmp_path / "own.yaml", device="cpu")
    assert (rows["status"] == "ok").all()
    assert set(rows["accuracy_by"]) == {"classifier"}


def test_what_is_read_from_python_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OODBENCH_RESULTS", str(ROOT / "results" / "published"))
    names: dict[str, Any] = {}
    exec(blocks("docs/python.md", "python")[0], names)
    assert len(names["rows"]) == 18657
    assert isinstance(names["tables"]["best"], pd.DataFrame)
    assert set(names["verdicts"]["verdict"]) == {"holds"}


# ---- commands ------------------------------------------------------------------------------------


def typed() -> list[tuple[str, str]]:
    """Return the page and text of each command in a fence without language, several of a line apart."""
    found = []
    for page in PAGES:
        for line in "".join(blocks(page, "")).splitlines():
            found += [(page, each.strip()) for each in line.partition(" #")[0].split("&&") if each.strip()]
    return found


@pytest.mark.parametrize(("page", "line"), typed())
def test_a_command_is_one(page: str, line: str) -> None:
    program, *words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)] or ["export"]
    if Path(program).name == "oodbench":
        command = typer.main.get_command(app.app)
        with command.make_context("oodbench", list(words)) as context:
            name, of, rest = command.resolve_command(context, words)  # type: ignore[attr-defined]
            of.make_context(name, rest, parent=context)  # what is not allowed raises
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "python" and words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file()
    else:
        assert program in ("python", "source", "pip", "export", "rsync", ".venv/bin/pip")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["verdict benchmark.yaml", "list suites"])
def test_a_command_that_needs_seconds_does_what_it_says(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    shutil.copytree(ROOT / "results" / "published" / "benchmark", tmp_path / "benchmark")
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path))
    done = call(*words.split())
    assert done.exit_code == 0, done.output
    assert any(words in text for text in PAGES.values())


def test_every_command_is_in_the_table_and_nothing_else() -> None:
    commands = {command.name for command in app.app.registered_commands}
    table = PAGES["docs/commands.md"].split("| command |")[1].split("\n\n")[0]
    column = "".join(line.split("|")[1] for line in table.splitlines()[2:])
    assert commands == set(re.findall(r"`(?:oodbench )?([a-z-]+)", column))


# ---- numbers, lists, links -----------------------------------------------------------------------


@pytest.mark.parametrize(("page", "source", "table", "shown"), shown_results(), ids=lambda each: str(each)[:60])
def test_tables_are_those_of_the_results(page: str, source: str, table: str, shown: str) -> None:
    text = (ROOT / source).read_text(encoding="utf-8")
    assert shown.strip() == (text.partition("\n\n")[0] if table else text).strip()


def test_readme_and_results_show_tables() -> None:
    shown = {(page, source) for page, source, *_ in shown_results()}
    assert ("README.md", "results/published/benchmark/tables/best.md") in shown
    for name in ("benchmark/best", "benchmark/verdict", "benchmark/machine", "fashion/best"):
        assert ("docs/results.md", f"results/published/{name}.md") in shown


def test_findings_are_decided_claims() -> None:
    decided = pd.read_csv(ROOT / "results" / "published" / "benchmark" / "verdict.csv")
    table = README.split("| claim | verdict | evidence |")[1].split("\n\n")[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(found) == 3
    lines = (ROOT / "results" / "published" / "benchmark" / "verdict.md").read_text(encoding="utf-8").splitlines()
    known = [[cell.strip() for cell in line.strip("|").split("|")][:3] for line in lines if line.startswith("|")]
    assert all(each in known for each in found)
    assert len(decided) == len(known) - 2


@pytest.mark.slow
@pytest.mark.parametrize("page", LISTED)
def test_lists_are_those_of_the_code(page: str, tmp_path: Path) -> None:
    renewed = tmp_path / "page.md"
    renewed.write_text(PAGES[page], encoding="utf-8")
    assert call("list", "--markdown", renewed).exit_code == 0
    assert renewed.read_text(encoding="utf-8") == PAGES[page], f"renew it: oodbench list --markdown {page}"


def test_pages_have_every_list() -> None:
    marks = {each for text in PAGES.values() for each in MARK.findall(text)}
    rooms = {"training", "clustering", "distance", "threshold", "posthoc", "dataset"}
    assert marks == rooms | {"recipes", "suites", "keys"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.slow
def test_the_site_is_built_and_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", "docs/site/mkdocs.yml"]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "-d", str(tmp_path)], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("index", "start", "plugins", "extend", "changelog"):
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://(?!oodbench)[^"]*"', text)


# ---- sentences -----------------------------------------------------------------------------------


def prose(text: str) -> list[str]:
    """Return the paragraphs and list items of a page without headings, tables, code, lists of the code and results."""
    for left_out in (r"```.*?```", r"<!-- (?:results/|oodbench list).*?<!-- end -->", r"<!--.*?-->"):
        text = re.sub(left_out, "\n", text, flags=re.S)
    lines = ["" if re.match(r"[|#<!]|:::", line) else line for line in text.splitlines()]
    joined = re.sub(r"\n(?=\s*(?:[-*]|\d+\.) )", "\n\n", "\n".join(lines))
    plain = re.sub(r"`[^`]*`", "NAME", re.sub(r"\]\([^)]*\)", "]", joined))
    return [" ".join(each.split()) for each in plain.split("\n\n") if each.strip()]


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: str) -> None:
    sentences = [each for text in prose(PAGES[page]) for each in re.split(r"(?<=[.?!])[\s*]+", text)]
    assert [each for each in sentences if len(each.split()) > LONGEST] == []


def test_the_twelve_words_are_defined_and_readme_has_each() -> None:
    part = PAGES["docs/start.md"].split("## Twelve words")[1].split("\n## ")[0]
    defined = [line for line in part.splitlines() if line.startswith("- **")]
    assert len(defined) == 12
    for line in defined:
        for word in re.findall(r"\*\*(\w+)\*\*", line.partition(":")[0]):
            assert f"**{word}**" in README, word


def test_readme_is_read_in_two_minutes() -> None:
    assert len(README.splitlines()) <= 125
