"""Tables of other codebases: what is read of them, and what is refused; test_board.py has them on a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oodbench.errors import UserError
from oodbench.exchange import foreign

HEADER = ",FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC"


def test_openoods_older_evaluator_writes_one_run_with_a_column_dataset(tmp_path: Path) -> None:
    path = tmp_path / "ood.csv"
    path.write_text(f"dataset{HEADER}\r\ncifar100,61.03,86.33,85.1,84.2,94.9\r\nnearood,54.82,87.5,86.1,85.2,94.9\r\n")
    (line,) = foreign.read(path)
    assert (line.codebase, line.method) == ("OpenOOD", "ood")
    assert list(line.numbers) == ["near AUROC", "near FPR@95 of OpenOOD", "cifar100 AUROC", "ID accuracy"]
    assert line.numbers["near AUROC"].mean == 87.5
    assert np.isnan(line.numbers["near AUROC"].std)


@pytest.mark.parametrize(("scale", "form"), [(1, "{:.6f}"), (100, "{:.2f}")])
def test_pytorch_oods_means_are_shares_or_per_cent(tmp_path: Path, scale: int, form: str) -> None:
    lines = [
        ",".join([name, *(form.format(scale * value) for value in (auroc, 0.8, 0.7, 0.5))])
        for name, auroc in (("MSP", 0.87), ("ODIN", 1.0))
    ]
    path = tmp_path / "means.csv"
    path.write_text("\n".join(["Detector,AUROC,AUPR-IN,AUPR-OUT,FPR95TPR", *lines]))
    found = {each.method: each.numbers["mean AUROC"].mean for each in foreign.read(path)}
    assert found == pytest.approx({"MSP": 87.0, "ODIN": 100.0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEADER}\ntin,1,2,3,4,5\ntin,1,2,3,4,5\n", "tin is there twice"),
        (f"{HEADER}\nnearood,1,102.0,3,4,5\n", "102.0 is no number from 0 to 100"),
        (f"{HEADER}\nnearood,1,nan,3,4,5\n", "nan is no number from 0 to 100"),
        (f"{HEADER}\nnearood,1,2\n", "the line nearood, 1, 2 has not 6 values"),
        (f"{HEADER}\n", "it has no line"),
        ("", "it has no line"),
        ("method,auroc\nmsp,88\n", "its columns are method, auroc: it is no table of OpenOOD"),
        (f"{HEADER}\n{'x' * 300},1,2,3,4,5\n", "has 300 signs, 200 at most are read"),
        (f"{HEADER}\n" + "a,1,2,3,4,5\n" * 10_001, "it has 10001 lines, 10000 at most are read"),
        ("x" * (1 << 20) + "x", "it has more than 1048576 bytes"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "msp.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        foreign.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="'utf-8' codec can't decode"):
        foreign.read(path)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"there is no table \(\*\.csv\) of another codebase"):
            foreign.tables([path])
