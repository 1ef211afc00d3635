"""Claims that no row of a study could decide are told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import call
from tiny import write

from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.report.claims.unmet import unmet
from oodbench.store.memo import Watch
from oodbench.study.document import Changed
from oodbench.study.reader import load
from oodbench.training.weights import plan_of

SIDES = {"left": {"distance": "cosine"}, "right": {"distance": "knn(k=3)"}}


@pytest.mark.parametrize(
    ("claim", "key", "said"),
    [
        ({"of": {"training": "simcrl"}}, "of.training", "no row has training 'simcrl'; did you mean 'simclr'?"),
        ({"right": {"distance": "knn(k=5)"}}, "right.distance", "no row has distance 'knn(k=5)'; did you mean 'knn(k"),
        ({"of": {"ood": ["noise(count=50, size=8)", "moon"]}}, "of.ood", "no row has ood 'moon'"),
        ({"at": {"group": "near"}, "than": {"group": "fat"}}, "than.group", "no row has group 'fat'; did you mean"),
        ({"left": {"threshold": "per_cluster"}}, "", ""),
        (
            {"left": {"distance": "knn(k=3)", "clustering": "kmeans(k=classes, restarts=2)"}},
            "left.clustering",
            "among rows of distance knn(k=3), no row has clustering 'kmeans(k=classes, restarts=2)'",
        ),
        (
            {"left": {}, "right": {}, "among": ["training"], "winner": {"training": "supcon"}},
            "winner.training",
            "no row has training 'supcon'",
        ),
        (
            {"table": "quality", "value": "nmi", "of": {"split": "test"}, "left": {"training": "simclr"}}
            | {"right": {"training": "simcl"}},
            "right.training",
            "no row has training 'simcl'; did you mean 'simclr'?",
        ),
    ],
)
def test_a_claim_whose_side_no_row_is_of(tmp_path: Path, claim: dict[str, Any], key: str, said: str) -> None:
    claims = {"mine": {"says": "so"} | SIDES | claim}
    study = load(write(tmp_path / "s.yaml", outliers=None, claims=claims))
    found = [(".".join(map(str, trail)), text) for trail, text in unmet(study, plan_of(study))]
    if not said:
        assert not found
        return
    assert found[0][0] == f"claims.mine.{key}"
    assert found[0][1].startswith(said)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_it_is_refused_before_anything_is_trained(tmp_path: Path, command: str) -> None:
    claim = {"says": "so"} | SIDES | {"of": {"ood": "moon"}}
    file = write(tmp_path / "s.yaml", outliers=None, claims={"mine": claim})
    done = call(command, file, "--device", "cpu")
    assert done.exit_code == 2, done.output
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if "moon" in text)
    assert f"{file}:{line}: claims.mine.of.ood: no row has ood 'moon'; allowed: blobs(" in done.output
    assert not list(tmp_path.glob("results/store/train*/*"))


def test_a_claim_of_a_study_that_is_changed_by_set_is_warned_of(tmp_path: Path) -> None:
    study = load(Changed(write(tmp_path / "s.yaml", claims={"mine": {"says": "so"} | SIDES}), ("distance=cosine",)))
    warned: list[str] = []

    class Listening(Watch):
        def warn(self, message: str) -> None:
            warned.append(message)

    Runner(study, Options(device="cpu"), Listening()).checks.check_study()
    assert [each for each in warned if "claims.mine.right.distance: no row has distance 'knn(k=3)'" in each]
