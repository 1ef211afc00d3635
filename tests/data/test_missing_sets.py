"""A study goes on without OOD test sets whose files are not here, and makes their rows once they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from PIL import Image
from tiny import write

import oodbench
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.study import reader

FLAG = "--without-missing-sets"
BLOBS = {"blobs": {"groups": 3, "count": 40, "shift": 60.0, "as": "blobs"}}
OWN = {"folder": {"path": "own", "test_share": 1, "as": "own"}}
NOISE = {"noise": {"count": 30, "size": 8, "as": "noise"}}
LIST = {"image_list": {"path": "list.txt", "test_share": 1, "as": "listed"}}
SVHN = {"svhn": {"as": "SVHN"}}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")


def study(folder: Path, **changes: Any) -> Path:
    """Write a study of one near set that is here, two that are not, a far one that is here, and one that is not."""
    said = {
        "ood": {"near": [BLOBS, OWN, LIST], "far": [NOISE, SVHN]},
        "outliers": None,
        "training": "cross_entropy",
        "clustering": "labels",
        "distance": ["cosine", "euclidean"],
        "threshold": "pooled",
    }
    return write(folder / "s.yaml", **said | changes)


def images(folder: Path, count: int = 20) -> list[Path]:
    folder.mkdir(parents=True)
    rng, paths = np.random.default_rng(0), [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return paths


def place(tmp_path: Path) -> None:
    """Bring the files of the two near sets."""
    images(tmp_path / "data" / "own" / "x")
    lines = [f"{path} a\n" for path in images(tmp_path / "data" / "listed")]
    (tmp_path / "data" / "list.txt").write_text("".join(lines))


def plan_of(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "results" / "s" / "plan.json").read_text())
    return found


def test_it_makes_the_rows_of_what_is_here_and_later_the_others_without_training(tmp_path: Path) -> None:
    file = study(tmp_path)
    done = call("run", file, FLAG, "--device", "cpu")
    assert done.exit_code == 0, done.output
    last = done.stdout.splitlines()[-1]
    assert "6 rows not made: the files of own, listed, SVHN are not here" in last
    assert "1 trained, 2 cells scored, 4 rows" in done.stdout
    before, keys = oodbench_rows(file), plan_of(tmp_path)
    assert set(before["ood"]) == {"blobs", "noise"}
    assert list(keys["sets"]["blobs(groups=3, count=120)"]) == ["blobs", "own", "listed", "noise", "SVHN"]
    assert "DATA/svhn/train_32x32.mat is not here" in keys["missing"]["blobs(groups=3, count=120)"]["SVHN"]
    place(tmp_path)
    again = call("run", file, FLAG, "--device", "cpu")
    assert "0 trained, 2 cells scored, 8 rows" in again.stdout
    assert "2 rows not made: the files of SVHN are not here" in again.stdout.splitlines()[-1]
    after = oodbench_rows(file)
    assert plan_of(tmp_path)["cells"] == keys["cells"]
    assert set(after["ood"]) == {"blobs", "noise", "own", "listed"}
    same = after[after["ood"].isin(before["ood"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, before.reset_index(drop=True))


def oodbench_rows(file: Path) -> pd.DataFrame:
    with pytest.warns(UserWarning, match="rows are there; without"):
        return oodbench.rows(file)


def test_keys_and_plan_are_those_of_a_study_whose_sets_are_all_here(tmp_path: Path) -> None:
    file = study(tmp_path, ood={"near": [BLOBS, OWN, LIST], "far": NOISE})
    lacking = Runner(reader.load(file), Options(device="cpu", without_missing_sets=True))
    facts, wanted = lacking.plan_facts(), [source.wanted for source in map(lacking.source, lacking.plan.work)]
    place(tmp_path)
    whole = Runner(reader.load(file), Options(device="cpu"))
    there, every = whole.plan_facts(), [source.wanted for source in map(whole.source, whole.plan.work)]
    assert {name: facts[name] for name in facts.keys() - {"sets", "missing"}} == {
        name: there[name] for name in there.keys() - {"sets"}
    }
    assert [{*one} - {*other} for one, other in zip(wanted, every, strict=True)] == [set()]
    assert [list(each) for each in facts["sets"].values()] == [list(each) for each in there["sets"].values()]


def test_rows_of_a_set_whose_files_went_away_stay(tmp_path: Path) -> None:
    place(tmp_path)
    file = study(tmp_path, ood={"near": [BLOBS, OWN], "far": NOISE})
    assert call("run", file, "--device", "cpu").exit_code == 0
    (tmp_path / "data" / "own").rename(tmp_path / "data" / "elsewhere")
    done = call("run", file, FLAG, "--device", "cpu")
    assert (done.exit_code, "0 cells scored, 6 rows" in done.stdout) == (0, True)
    assert "not made" not in done.stdout
    assert set(oodbench.rows(file)["ood"]) == {"blobs", "own", "noise"}


def test_without_the_flag_it_is_refused_and_the_flag_named(tmp_path: Path) -> None:
    file = study(tmp_path)
    for command in ("run", "audit"):
        done = call(command, file)
        assert done.exit_code == 2
        assert f"there is no folder {tmp_path}/data/own" in done.stderr
        assert f"; {FLAG} goes on without the OOD test sets that are not here (own, listed, SVHN)" in done.stderr
    done = call("run", study(tmp_path, id="mnist"))
    assert (done.exit_code, FLAG in done.stderr) == (2, False)  # it would not help


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": {"folder": {"path": "mine"}}}, "folder(path=mine) (ID, reference): there is no folder "),
        ({"validation": "mnist"}, "mnist (validation): "),
        ({"validation": SVHN}, "SVHN (far, validation): "),
        ({"reference": {"set": {"folder": {"path": "mine"}}}}, "folder(path=mine) (reference): "),
        ({"training": "outlier_exposure", "outliers": "cifar10"}, "cifar10 (outliers): "),
    ],
)
def test_a_set_of_another_role_is_needed(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    done = call("run", study(tmp_path, **changes), FLAG)
    assert done.exit_code == 2
    first, *lines = [line for line in done.stderr.splitlines() if line and not line.startswith("warning")]
    assert first == f"error: {FLAG} goes on without OOD test sets alone; these are needed"
    assert [line.startswith(named) for line in lines] == [True]
    assert not (tmp_path / "results" / "s" / "plan.json").exists()


def test_an_id_set_keeps_an_ood_set(tmp_path: Path) -> None:
    done = call("run", study(tmp_path, ood={"far": SVHN}), FLAG)
    assert done.exit_code == 2
    assert f"{FLAG} leaves blobs(groups=3, count=120) no OOD test set\nSVHN (far): " in done.stderr


def test_a_damaged_set_is_not_missing(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "data" / "own" / "x" / "0.png").write_bytes(b"no image")
    done = call("run", study(tmp_path), FLAG)
    assert (done.exit_code, "0.png is no image that Pillow can read" in done.stderr) == (2, True)


def test_a_list_some_of_whose_images_are_not_here_is_missing(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "data" / "listed" / "7.png").unlink()
    file = study(tmp_path)
    done = call("plan", file, FLAG)
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("missing: listed"))
    assert "listed (near): " in line
    assert f"list.txt:8: there is no image {tmp_path}/data/listed/7.png" in line
    shown = call("prepare", file, "--dry-run").stdout.splitlines()
    assert [("missing" in line) for line in shown if line.startswith("listed")] == [True]


def test_plan_says_a_line_for_each_missing_set(tmp_path: Path) -> None:
    file = study(tmp_path)
    for flags in ([], [FLAG]):
        done = call("plan", file, *flags)
        assert done.exit_code == 0, done.output
        lines = [line.removeprefix("missing: ") for line in done.stdout.splitlines() if line.startswith("missing: ")]
        own, listed, svhn = lines
        assert own.startswith("own (near): there is no folder ")
        assert listed.endswith("; no command gets your own files: place them, or mend the paths")
        assert "train_32x32.mat is not here (and 1 more); " in svhn
        assert f"oodbench prepare {file} gets train_32x32.mat, test_32x32.mat (246.3 MB) from ufldl.stanford" in svhn
        assert ("6 rows would not be made: the files of own, listed, SVHN are not here" in done.stdout) == bool(flags)
        assert (f"{FLAG} goes on without them" in done.stdout) == (not flags)


def test_prepare_fails_for_sets_that_are_needed_alone(tmp_path: Path) -> None:
    file = study(tmp_path)
    assert call("prepare", file).exit_code == call("prepare", file, "--dry-run").exit_code == 1
    done = call("prepare", file, FLAG)
    assert (done.exit_code, done.stderr.count("missing: ")) == (0, 3)
    assert f"{FLAG}: the study runs without own, listed, SVHN" in done.stdout
    assert call("prepare", file, FLAG, "--dry-run").exit_code == 0
    needed = study(tmp_path, id="mnist")
    assert call("prepare", needed, FLAG).exit_code == call("prepare", needed, FLAG, "--dry-run").exit_code == 1


def test_audit_quality_and_features_go_on_and_say_so(tmp_path: Path) -> None:
    file = study(tmp_path, keep=[0, "last"])
    assert call("run", file, FLAG, "--device", "cpu").exit_code == 0
    folder = tmp_path / "results" / "s"
    assert call("audit", file, FLAG).exit_code == 0
    assert "Without own, listed, SVHN, whose files are not here." in (folder / "audit.md").read_text()
    assert set(json.loads((folder / "audit.json").read_text())["missing"]) == {"own", "listed", "SVHN"}
    for command, table in (("quality", "quality-correlation"), ("curve", "curve")):
        done = call(command, file, FLAG, "--device", "cpu")
        assert done.exit_code == 0, done.output
        assert "; without own, listed, SVHN (their files are not here), " in (folder / f"{table}.md").read_text()
    near = pd.read_csv(folder / "quality-correlation.csv")
    assert near["spearman"].isna().all()  # either group lacks a set
    done = call("export-features", file, FLAG, "--to", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").rglob("ood-*")) == [
        "ood-blobs.safetensors",
        "ood-noise.safetensors",
    ]


def test_other_processes_and_training_nothing(tmp_path: Path) -> None:
    file = study(tmp_path, training=["cross_entropy", "simclr"])
    done = call("run", file, FLAG, "--device", "cpu", "--cached-only")
    assert done.exit_code == 0, done.output
    assert "4 cells left undone: their encoders are not trained" in done.stdout
    done = call("run", file, FLAG, "--device", "cpu", "--workers", 2)
    assert (done.exit_code, "8 rows" in done.stdout) == (0, True), done.output
    place(tmp_path)
    done = call("run", file, FLAG, "--device", "cpu", "--cached-only")
    assert "0 trained, 4 cells scored, 16 rows" in done.stdout


def test_a_study_that_changed_since_is_planned_again_without_them(tmp_path: Path) -> None:
    call("run", study(tmp_path), FLAG, "--device", "cpu")
    done = call("tables", study(tmp_path, distance="cosine"))
    assert (done.exit_code, "2 of 5 rows are there; without own, listed, SVHN" in done.stderr) == (0, True)


def test_python_takes_it_too(tmp_path: Path) -> None:
    file = study(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        oodbench.run(file, device="cpu")
    assert len(oodbench.run(file, device="cpu", without_missing_sets=True)) == 4
