"""What tables look like on terminals that are too narrow for them."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from oodbench.cli import screen
from oodbench.report.tables import Table

METHODS = [
    ("cross_entropy", "resnet18", "penultimate unit", "kmeans(k=20)", "mahalanobis(shared, pinv)", "pooled"),
    ("pretrained(weights=a/b)", "resnet18", "penultimate unit", "kmeans(k=20)", "knn(k=5) [odd]", "youden [saw noise]"),
]
LABELS = ["training", "encoder", "space", "clustering", "distance", "threshold"]


@pytest.fixture(params=[40, 60, 80, 100, 132, 400])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(screen, "out", Console(file=io.StringIO(), width=request.param, highlight=False))
    return int(request.param)


def said() -> str:
    return screen.out.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_numbers_are_printed_at_any_width_and_labels_are_whole(width: int) -> None:
    index = pd.MultiIndex.from_tuples(METHODS, names=LABELS)
    columns = [("ID", "accuracy"), ("near", "AUROC"), ("far", "AUROC"), ("far", "FPR95_ood")]
    numbers = pd.DataFrame([[95.04, 91.2, 88.8, 20.0], [94.1, 83.3, 77.7, 30.5]], index=index)
    numbers.columns = pd.MultiIndex.from_tuples(columns)
    better = dict.fromkeys(columns, 1)
    table = Table("t", "Caption.", numbers, numbers * 0 + 0.5, numbers * 0 + 3, better, details=("far FPR95_ood",))
    screen.show(table, "t: 2 of 2 methods", 2)
    lines = said().splitlines()
    assert max(map(len, lines)) <= width
    assert all(f"{each} ± 0.5" in said() for each in ("95.0", "94.1"))
    assert all(f"{each} ± 0.5" in said() for each in ("91.2", "83.3", "88.8", "77.7")) is (width >= 60)
    for method in METHODS:
        for label in method:
            assert label.replace(" ", "") in "".join(said().split()) or width < 132, label
    assert ("all of resnet18 · penultimate unit · kmeans(k=20)" in " ".join(said().split())) is (width < 400)
    assert ("20.0" in said()) is (width == 400)


def test_one_row_keeps_its_first_label(width: int) -> None:
    numbers = pd.DataFrame({"noise": [95.04]}, index=pd.MultiIndex.from_tuples(METHODS[:1], names=LABELS))
    screen.show(Table("t", "", numbers, numbers * 0, numbers * 0 + 3, {"noise": 1}), "t", 1)
    assert "cross_entropy" in said()
    assert "95.0" in said()
