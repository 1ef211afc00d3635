"""The README keeps its promises: its plugin works, its tables are those of the results, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import call
from places import ROOT
from ruamel.yaml import YAML
from tiny import write

import oodbench
from oodbench.cli import app
from oodbench.training.weights import plan_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.mark.slow
def test_the_plugin_passes_conformance_and_runs_in_a_study(tmp_path: Path) -> None:
    (code,) = blocks("python")
    plugin = tmp_path / "cityblock.py"
    plugin.write_text(code)
    checked = call("check", plugin)
    assert checked.exit_code == 0, checked.output
    study = write(tmp_path / "s.yaml", plugins=["cityblock.py"], distance=["cityblock", "cosine"], training="simclr")
    rows = oodbench.run(study, device="cpu")
    assert set(rows["distance"]) == {"cityblock", "cosine"}
    assert (rows["status"] == "ok").all()


def test_the_study_is_one(tmp_path: Path) -> None:
    from oodbench.study import reader

    text, changes = blocks("yaml")
    (tmp_path / "own.yaml").write_text(text)
    found = plan_of(reader.load(tmp_path / "own.yaml"))
    assert len(found.work) == 2 * 3 * 3  # splits x seeds x trainings
    yaml = YAML()
    yaml.dump(yaml.load(text) | yaml.load(changes), tmp_path / "other.yaml")
    found = plan_of(reader.load(tmp_path / "other.yaml"))
    assert len(found.work) == 2 * 3 * 2


@pytest.mark.parametrize("source", re.findall(r"<!-- (results/\S+) -->", README))
def test_tables_are_those_of_the_results(source: str) -> None:
    shown = README.split(f"<!-- {source} -->")[1].split("<!-- end -->")[0]
    assert shown.strip() == (ROOT / source).read_text(encoding="utf-8").strip()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_command_is_in_the_readme_and_nothing_else() -> None:
    commands = {command.name for command in app.app.registered_commands}
    table = README.split("| command |")[1].split("\n\n")[0]
    column = "".join(line.split("|")[1] for line in table.splitlines()[2:])
    assert commands == set(re.findall(r"`(?:oodbench )?([a-z-]+)", column))


def test_the_list_of_plugins_is_that_of_their_docstrings(tmp_path: Path) -> None:
    renewed = tmp_path / "README.md"
    renewed.write_text(README, encoding="utf-8")
    assert call("list", "--markdown", renewed).exit_code == 0
    assert renewed.read_text(encoding="utf-8") == README, "renew it: oodbench list --markdown README.md"
