"""What all tests share: one thread a process where tests run in parallel, and folders of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if os.environ.get("PYTEST_XDIST_WORKER"):  # here and in the processes that tests start: sums depend on it
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own results, store and data folders."""
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("OODBENCH_STORE", raising=False)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path / "data"))
