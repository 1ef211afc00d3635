"""`as:` gives a set, a training, an encoder or a detector the label that everything shows, and changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call
from tiny import TINY, write

import oodbench
from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.training.weights import plan_of

NOISE = {"noise": {"count": 50, "size": 8}}
ALIASES: dict[str, Any] = {
    "id": {"blobs": {"groups": 3, "count": 120, "as": "B3"}},
    "ood": {"near": TINY["ood"]["near"], "far": {"noise": {"count": 50, "size": 8, "as": "TIN (ours)"}}},
    "encoder": {"resnet18": {"width": 2, "as": "R18"}},
    "training": [{"cross_entropy": {"as": "CE"}}, "simclr"],
    "distance": [{"cosine": {"as": "cos"}}, {"mahalanobis": {"as": "Maha"}}],
    "threshold": [{"pooled": {"level": 0.9, "as": "P"}}, "per_cluster"],
}
PLAIN = ALIASES | {
    **{key: TINY[key] for key in ("id", "ood", "encoder", "training")},
    "distance": ["cosine", "mahalanobis"],
    "threshold": [{"pooled": {"level": 0.9}}, "per_cluster"],
}


def test_an_alias_is_shown_and_in_no_identity(tmp_path: Path) -> None:
    named, plain = (plan_of(reader.load(write(tmp_path / "s.yaml", **each))) for each in (ALIASES, PLAIN))
    assert [cell.id for cell in named.cells] == [cell.id for cell in plain.cells]
    assert [work.run.canonical for work in named.work] == [work.run.canonical for work in plain.work]
    labels = named.cells[0].run.labels | named.cells[0].detector.labels
    assert [labels[name] for name in ("id", "family", "encoder", "training", "distance", "threshold")] == [
        *("B3", "B3", "R18", "CE", "cos", "P")
    ]
    assert list(named.work[0].run.ood["far"]) == ["TIN (ours)"]


def test_class_splits_of_aliases_share_a_table_and_what_they_leave_out_is_itself(tmp_path: Path) -> None:
    ids = [{"digits": {"keep": [0, 1], "as": "first"}}, {"digits": {"keep": [2, 3], "as": "second"}}]
    far = {"first": [NOISE], "second": [NOISE, "glyphs"]}
    found = reader.load(write(tmp_path / "s.yaml", id=ids, ood={"near": "held_out", "far": far}))
    runs = [work.run for work in plan_of(found).work]
    assert {run.labels["family"] for run in runs} == {"digits"}
    assert {run.sets["held_out"].label for run in runs} == {"digits(without=0+1)", "digits(without=2+3)"}
    assert {(run.id.label, len(run.sets)) for run in runs} == {("first", 2), ("second", 3)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distance": {"knn": {"k": [1, 2], "as": "KNN"}}}, "two entries are both shown as 'KNN'"),
        ({"distance": ["cosine", {"knn": {"as": "cosine"}}]}, "two entries are both shown as 'cosine'"),
        ({"distance": {"knn": {"as": ["a", "b"]}}}, r"knn.as: takes one value each"),
        ({"distance": {"knn": {"as": 3}}}, r"knn.as: is 3, should be a valid string"),
        ({"distance": {"knn": {"as": " "}}}, "knn.as: is ' ', should be 1 to 40 signs on one line"),
        ({"distance": {"knn": {"as": "=1+1"}}}, "knn.as: is .=1.1., should not begin as a spreadsheet"),
        ({"training": {"simclr": {"as": "x" * 41}}}, r"simclr.as: is 'x+', "),
        ({"encoder": {"resnet18": {"as": ""}}}, "resnet18.as: is '', should be 1 to 40 signs"),
        ({"skip": [{"training": "SimCLR"}]}, "there is no training 'SimCLR'; did you mean 'simclr'"),
        ({"ood": {"far": [NOISE, {"glyphs": {"as": "noise(count=50, size=8)"}}]}}, "two sets are both shown as"),
    ],
)
def test_aliases_that_tell_nothing_apart(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reader.load(write(tmp_path / "s.yaml", **changes))


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_aliases_are_used_everywhere_and_train_nothing(tmp_path: Path) -> None:
    folder, said = tmp_path / "results" / "s", {"of": {"ood": "TIN (ours)"}, "left": {"distance": "Maha"}}
    declared = {
        "tables": {"t": {"rows": ["training", "distance"], "of": {"ood": "TIN (ours)"}}},
        "claims": {"c": {"says": "x", **said, "right": {"distance": "cos"}}},
        "skip": [{"training": "simclr", "distance": "cos"}],
    }
    call("run", write(tmp_path / "s.yaml", **PLAIN))
    before = oodbench.rows(tmp_path / "s.yaml")
    done = call("run", write(tmp_path / "s.yaml", **ALIASES, **declared))
    assert "0 trained" in done.stdout, done.output
    rows = oodbench.rows(tmp_path / "s.yaml")
    assert [set(rows[name]) for name in ("id", "encoder")] == [{"B3"}, {"R18"}]
    assert set(rows["ood"]) == {"TIN (ours)", "blobs(groups=3, count=60, shift=60)"}
    assert set(zip(rows["training"], rows["distance"], strict=True)) == {
        *(("CE", "cos"), ("CE", "Maha"), ("simclr", "Maha"))
    }
    shared = before.merge(rows, on=["cell", "group"], suffixes=("", " now"))
    assert len(shared) == len(rows)
    assert (shared["auroc"] == shared["auroc now"]).all()
    assert set(pd.read_csv(folder / "tables" / "t.csv")["distance"]) == {"cos", "Maha"}
    assert call("verdict", tmp_path / "s.yaml").exit_code == 0
    assert call("run", write(tmp_path / "s.yaml", **ALIASES, **declared), "--dry-data").exit_code == 0
    assert "0 trained, 0 cells scored" in call("run", write(tmp_path / "s.yaml", **PLAIN)).stdout


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_published_numbers_know_a_set_by_its_own_name(tmp_path: Path) -> None:
    target = "id,training,distance,ood,metric,value,source\n"
    target += '"{blobs: {groups: 3, count: 120}}",cross_entropy,cosine,"{noise: {count: 50, size: 8}}",auroc,50,x\n'
    (tmp_path / "mine.csv").write_text(target)
    states = []
    for each in (PLAIN, ALIASES):
        call("run", write(tmp_path / "s.yaml", **each))
        done = call("tables", tmp_path / "s.yaml", "--against", tmp_path / "mine.csv")
        assert done.exit_code == 0, done.output
        found = pd.read_csv(tmp_path / "results" / "s" / "against-mine.csv")
        states.append(found[["ours", "verdict", "why"]].astype(str).to_dict("records"))
    assert states[0] == states[1]
    assert len(states[0]) == 1  # rows have the set
