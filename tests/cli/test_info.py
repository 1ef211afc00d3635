"""What oodbench knows of itself, and that nothing of it is without a meaning."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from command_line import call
from places import ROOT
from pydantic import TypeAdapter
from typer.testing import CliRunner

from oodbench.api import Distance, Positive, Size
from oodbench.cli.app import app
from oodbench.cli.reference import columns, fields, keys, plugins
from oodbench.store.columns import COLUMNS, MEANING, QUALITY, VERDICT
from oodbench.store.heartbeat import Heartbeat
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.axes import AXES
from oodbench.study.registry import ROOMS, PluginFile, Registry, source_of

DOCS = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def of_study() -> dict[str, keys.KeyFacts]:
    return keys.keys(Registry())


def every_plugin() -> list[PluginFile]:
    registry = Registry()
    return [each for room in ROOMS for each in registry.sources(room).values()]


@pytest.mark.parametrize("source", every_plugin(), ids=lambda each: f"{each.room}/{each.name}")
def test_of_every_plugin_all_is_known(source: PluginFile) -> None:
    found = plugins.described(source)
    assert found["error"] == ""
    assert found["doc"].startswith(found["summary"])
    for each in found["parameters"]:
        assert each["meaning"], each["name"]
        assert each["schema"], each["name"]
        assert "anything" not in each["type"]
    assert all(each["meaning"] for each in found["contract"])
    assert json.loads(json.dumps(found)) == found


def test_of_every_key_all_is_known(of_study: dict[str, keys.KeyFacts]) -> None:
    assert set(reader.KEYS) == {name for name in of_study if "." not in name}
    assert {*AXES, *reader.DECLARED} <= set(reader.MEANING)
    assert [name for name, each in of_study.items() if not each.meaning or each.type == "anything"] == []
    for name in of_study:
        above = name.rpartition(".")[0]
        assert not above or name.rpartition(".")[2] in of_study[above].parts


def test_the_documentation_says_of_a_key_what_its_code_says() -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", DOCS, re.M))
    assert {name: each for name, each in reader.MEANING.items() if not said[name].startswith(each)} == {}


def test_of_every_column_all_is_known() -> None:
    assert set(MEANING) == {*COLUMNS, *QUALITY, *VERDICT}
    found = [columns.column(name) for name in MEANING]
    assert all(each and each.unit and each.meaning and each.source for each in found)
    files = {file for each in found if each for file in re.findall(r"oodbench/[\w/]+\.py|docs/\w+\.md", each.source)}
    assert all((ROOT / file).is_file() for file in files)
    direction = {name: each.direction for name in MEANING if (each := columns.column(name))}
    assert (direction["auroc"], direction["fpr95_ood"], direction["ties"]) == (columns.HIGHER, columns.LOWER, "")


def test_what_a_type_allows_is_said_in_words() -> None:
    said = {hint: fields.said(TypeAdapter(hint).json_schema()) for hint in (Size, Positive, tuple[int, ...], bool)}
    assert said[Size] == "integer from 1 to 1e+09"
    assert said[Positive] == "number above 0"
    assert said[tuple[int, ...]] == "list of integer"
    assert said[bool] == "true | false"


OWN = '''"""Own distance (Nobody 2030, arXiv 2999.00001).

More of it.
"""
from typing import Literal
from oodbench.api import Distance

class Own(Distance):
    """Own: says nothing."""

    kind: Literal["a", "b"] = "a"  # which of two
    # above,
    # in two lines
    least: int
    clusters = False

    def fit(self, f, c):
        raise NotImplementedError
'''


def test_a_plugin_is_described_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    found = plugins.described(source_of(tmp_path / "own.py"))
    assert (found["room"], found["name"], found["arxiv"]) == ("distance", "own", ["2999.00001"])
    kind, least = found["parameters"]
    assert (kind["type"], kind["default"], kind["required"], kind["meaning"]) == ("a | b", "a", False, "which of two")
    assert (least["type"], least["required"], least["meaning"]) == ("integer", True, "above, in two lines")
    facts = {each["name"]: each for each in found["contract"]}
    assert facts["clusters"]["value"] is False
    assert facts["raw"]["value"] == plugins.UNKNOWN
    assert Distance.raw.__doc__ == facts["raw"]["meaning"]


def test_a_broken_plugin_says_why(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("import Literal", "import Litteral"))
    assert "cannot be imported" in plugins.described(source_of(tmp_path / "own.py"))["error"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "mahalanobis",
            ["distance mahalanobis", "shared | diagonal | per_cluster", "arXiv 1807.03888"],
        ),
        ("distance/knn", ["distance knn", "integer from 1 to 1e+09", "clusters  false"]),
        ("training.supcon", ["training supcon", "labels  true", "batches carry the class of each item"]),
        ("csi", ["training csi", "distance csi"]),
        ("recipe.augment.crop", ["recipe.augment.crop", "[0.2, 1.0]", "oodbench/study/settings.py"]),
        ("crop", ["recipe.augment.crop", "space.crop"]),
        ("posthoc", ["posthoc  key of a study", "msp", "posthoc  column of rows"]),
        ("reference", ["reference  key of a study", "default  val"]),
        ("fpr95_id", ["share of OOD accepted", "lower is better", "docs/metrics.md"]),
        ("nmi", ["oodbench quality", "higher is better"]),
    ],
)
def test_info(name: str, said: list[str]) -> None:
    done = call("info", name)
    assert done.exit_code == 0, done.output
    for each in said:
        assert each in done.stdout


def test_an_unknown_name_has_its_nearest_of_all_three() -> None:
    for given, near in (("mahalonobis", "'mahalanobis' (distance)"), ("recipe.lrr", "'recipe.lr' (key)")):
        done = call("info", given)
        assert done.exit_code == 2
        assert near in done.stderr
    assert "'auroc' (column)" in call("info", "aurok").stderr


def test_the_list_as_json() -> None:
    found = json.loads(call("list", "distance", "--json").stdout)
    assert set(found) == {"format", "oodbench", "plugins"}
    assert found["format"] == 1
    knn = next(each for each in found["plugins"] if each["name"] == "knn")
    assert set(knn) == {
        *("room", "name", "summary", "doc", "says", "arxiv", "file", "module", "parameters", "contract", "error"),
    }
    assert knn["parameters"][0] == {
        "name": "k",
        "type": "integer from 1 to 1e+09",
        "schema": {"maximum": 10**9, "minimum": 1, "type": "integer"},
        "required": False,
        "default": 50,
        "meaning": "which neighbour, 1 = the nearest",
    }
    assert Path(knn["file"]).name == "knn.py"
    assert {each["room"] for each in found["plugins"]} == {"distance"}
    assert {each["name"] for each in json.loads(call("list", "recipes", "--json").stdout)["recipes"]} >= {"fast"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- oodbench list distanse -->\n<!-- end -->\n", "did you mean 'distance'?"),
        ("<!-- oodbench list distance -->\nand so on\n", "has no <!-- end --> after <!-- oodbench list distance -->"),
        ("# Notes\n", "has no <!-- oodbench list ROOM -->"),
    ],
)
def test_a_page_whose_marks_are_wrong_stays_as_it_is(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    done = call("list", "--markdown", tmp_path / "page.md")
    assert (done.exit_code, said in done.stderr) == (2, True)
    assert (tmp_path / "page.md").read_text() == text


def test_a_list_in_a_page_has_formula_paper_and_parameters(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other = "<!-- oodbench list keys -->\n<!-- end -->\n"
    page.write_text(f"before\n<!-- oodbench list threshold -->\nof last year\n<!-- end -->\nafter\n{other}")
    assert call("list", "threshold", "--markdown", page).exit_code == 0
    text = page.read_text()
    assert "of last year" not in text
    assert text.startswith("before\n")
    assert text.endswith(f"\nafter\n{other}")  # another list stays
    assert "### `conformal`" in text
    assert "[arXiv 1604.04173](https://arxiv.org/abs/1604.04173)" in text
    assert "| `level` | number above 0 below 1 | `0.95` |" in text
    assert "3:1&lt;32::AID" in text  # of a docstring no sign is Markdown


@pytest.mark.slow
def test_the_whole_list_as_json_has_every_plugin() -> None:
    found = json.loads(call("list", "--json").stdout)
    assert [(each["room"], each["name"]) for each in found["plugins"]] == [(s.room, s.name) for s in every_plugin()]
    assert {"recipes", "suites"} <= set(found)
    names = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in names for name in found["plugins"][0])


def test_words_that_name_several_cells_list_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(ROOT / "results" / "published"))
    study = ROOT / "benchmark.yaml"
    several = call("show", study, "supcon", "unit", "pinv", "labels", "pooled", "level=0.95")
    assert several.exit_code == 0, several.output
    cells = re.findall(r"^([0-9a-f]{10})  ([012]) *$", several.stdout, re.M)
    assert [seed for _, seed in cells] == ["0", "1", "2"]
    assert "3 cells are called so" in several.stdout
    one = call("show", study, "supcon", "unit", "pinv", "labels", "pooled", "level=0.95", "seed=1", "noise")
    facts = json.loads(one.stdout.partition("the training ")[0])
    assert (facts["cell"][:10], facts["ood"], facts["seed"]) == (cells[1][0], "noise", 1)
    assert call("show", study, cells[1][0], "noise").stdout == one.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("oodbench run bench", ["benchmark", "benchmark.yaml"]),
        ("oodbench run studies/cifar_s", ["studies/cifar_small.yaml"]),
        ("oodbench info mahal", ["mahalanobis"]),
        ("oodbench list dat", ["dataset"]),
        ("oodbench run x --redo sc", ["score"]),
        ("oodbench check distance/k", ["distance/knn"]),
    ],
)
def test_a_shell_is_offered_names(words: str, offered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    typed = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_OODBENCH_COMPLETE": "complete_bash"}
    done = CliRunner(env=typed).invoke(app, [], prog_name="oodbench")
    assert done.stdout.split() == offered


def test_status_of_published_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = ROOT / "benchmark.yaml"
    monkeypatch.setenv("OODBENCH_RESULTS", str(ROOT / "results" / "published"))
    done = call("status", study)
    assert done.exit_code == 0, done.output
    assert re.search(r"^cross_entropy +3 of 3 +915 +915 +0 +0", done.stdout, re.M)
    assert "15 of 15 trainings, 6219 cells: 6219 done, 0 failed, 0 missing" in done.stdout
    assert "nothing runs now" in done.stdout
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path))
    never = call("status", study)
    assert (never.exit_code, "has no plan" in never.stdout) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_status_while_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path))
    shutil.copytree(ROOT / "results" / "published" / "benchmark", tmp_path / "benchmark")
    shutil.rmtree(tmp_path / "benchmark" / "rows")
    title = json.loads((tmp_path / "benchmark" / "plan.json").read_text())["work"][4][0]
    beat = Heartbeat(tmp_path / "benchmark", "cpu", Watch())
    with beat.beating():
        beat.training(25, 0, 600)
        beat.stage("train", title)
        beat.training(25, 7, 600)
        beat.stage("score", title)
        done = call("status", ROOT / "benchmark.yaml")
    assert f"worker 1, process {os.getpid()} on " in done.stdout
    assert re.search(rf"cpu: score {re.escape(title)} for \d s", done.stdout)
    assert re.search(r"^simclr +3 of 3 +1326 +0 +0 +1326 +1 at work", done.stdout, re.M)
    assert "left: unknown until a training is scored with 1 at work" in done.stdout
