"""Our numbers beside published ones on a study's page: those of the rows and of the targets that the study declares."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from hand_made_rows import BASE, by_seed
from page_data import page_data
from tiny import write

from oodbench.report import comparison
from oodbench.store.rows import Results, frame
from oodbench.study import reader
from oodbench.study.settings import Recipe

TRAINED = {
    "parameters": {
        "id": {"name": "digits", "keep": None, "only": None, "without": None, "per_class": None},
        "training": {"name": "simclr", "temperature": 0.5, "head": "mlp-128"},
        "outliers": None,
        "encoder": {"name": "resnet18", "params": {"width": 64, "stem": "cifar"}},
        "recipe": asdict(Recipe()),
        "image": {"size": 32} | {name: each for name, each in comparison.IMAGE.items() if name != "short"},
    }
}
TARGETS = """\
id,training,distance,ood,epochs,metric,value,source
digits,simclr,knn,noise,,auroc,81.2,<i>a</i>
digits,simclr,knn,glyphs,,auroc,77.5,b
digits,simclr,cosine,noise,,auroc,95.25,c
digits,simclr,cosine,glyphs,7,auroc,70,d
digits,supcon,knn,noise,,auroc,90,of no row
digits,simclr,knn,noise,,fpr95_id,20,of another number
"""
OURS = {  # scorer, OOD set -> AUROC by seed
    ("knn", "noise"): [0.80, 0.81, 0.82],
    ("knn", "glyphs"): [0.74, 0.75, 0.76],
    ("cosine", "noise"): [0.60, 0.625, 0.65],
    ("cosine", "glyphs"): [0.70, 0.70, 0.70],
}
WANTED = [  # method, published, ours, difference, state
    ("simclr · knn", "81.20", "81.00 ± 1.00 (n=3)", -0.2, "undecided"),
    ("simclr · knn", "77.50", "75.00 ± 1.00 (n=3)", -2.5, "undecided"),
    ("simclr · cosine", "95.25", "62.50 ± 2.50 (n=3)", -32.75, "different"),
    ("simclr · cosine", "70.00", "–", None, "not comparable"),
]


def rows() -> list[dict[str, Any]]:
    parts = {"space": {"layer": "penultimate", "unit": False, "pca": None}, "threshold": {"name": "pooled"}}
    params = {"knn": {"name": "knn", "k": 50}, "cosine": {"name": "cosine"}}
    found = []
    for (scorer, ood), values in OURS.items():
        detector = parts | {
            "distance": params[scorer],
            "clustering": {"name": "labels"} if scorer == "cosine" else None,
        }
        change = {"distance": scorer, "ood": ood, "group": "far", "train_key": "t", "detector": json.dumps(detector)}
        change |= {"clustering": "labels" if scorer == "cosine" else "–", "posthoc": "–", "precision": "float32"}
        found += by_seed(values, **BASE | change | {"reference": "train"})
    return [each | {"cell": f"{each['distance']} {each['seed']}"} for each in found]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study that has rows, and a table that is held against targets beside it."""
    (tmp_path / "t.csv").write_text(TARGETS)
    spec = {"rows": ["training"], "value": "auroc", "against": "t.csv"}
    path = write(tmp_path / "s.yaml", tables={"mine": spec})
    results = reader.results_of(path)
    Results(results).write(frame(rows()).to_dict("records"))
    (results / "runs").mkdir()
    (results / "runs" / "t.json").write_text(json.dumps(TRAINED))
    return path


def page(study: Path) -> str:
    file = study.parent / "page.html"
    done = call("report", study, "--to", file)
    assert done.exit_code == 0, done.output
    return file.read_text(encoding="utf-8")


def records(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a table that a page carries."""
    lines = range(table["size"])
    values = {
        name: each["values"]
        if each["codes"] is None
        else [each["values"][i] for i in each["codes"] or [0] * len(lines)]
        for name, each in table["columns"].items()
    }
    return [{name: values[name][i] for name in values} for i in lines]


def test_numbers_are_those_of_the_rows_and_of_the_targets(study: Path) -> None:
    text = page(study)
    found = records(page_data(text)["figures"]["against"])
    shown = [tuple(each[name] for name in ("method", "published", "ours", "difference", "state")) for each in found]
    assert shown == WANTED
    assert "epochs" in found[3]["verdict"]
    assert [each["source"] for each in found] == ["<i>a</i>", "b", "c", "d"]
    section = text.partition('<section id="published">')[2].partition("</section>")[0]
    cells = [unescape(each) for each in re.findall("<td>(.*?)</td>", section)]
    for (method, published, ours, difference, state), line in zip(WANTED, _lines(cells, 11), strict=True):
        assert line[2:6] == [method, "auroc", published, ours]
        assert line[6] == ("–" if difference is None else f"{difference:+.2f}")
        assert line[8].startswith(state)
    assert "<i>" not in section


def _lines(cells: list[str], width: int) -> list[list[str]]:
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def test_a_study_without_targets_says_how_to_have_them(study: Path) -> None:
    write(study)
    assert "No table of the study is held against published numbers" in page(study)
