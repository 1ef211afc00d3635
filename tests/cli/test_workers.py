"""Several processes on one study: how many, who waits for whom, what is heard of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from oodbench.cli import workers
from oodbench.errors import UserError


def test_the_number_of_processes() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (workers.count("3", cpu), workers.count("auto", gpu)) == (3, 1)
    assert workers.count("auto", cpu) == workers.cores()
    for wrong in ("0", "-1", "all", "1.5"):
        with pytest.raises(UserError, match=f"workers {wrong}: give a number of processes from 1, or auto"):
            workers.count(wrong, cpu)


@pytest.mark.slow
def test_helpers_run_meanwhile_are_waited_for_and_heard(tmp_path: Path) -> None:
    heard: list[str] = []
    threads = torch.get_num_threads()
    try:
        with workers.helped(["tables", str(tmp_path / "nowhere.yaml")], 2, heard.append):
            assert torch.get_num_threads() == max(1, workers.cores() // 3)
    finally:
        torch.set_num_threads(threads)
    assert len(heard) == 2
    assert all("there is no study file" in each for each in heard)


@pytest.mark.slow
def test_helpers_end_with_a_run_that_fails(tmp_path: Path) -> None:
    start = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        with pytest.raises(KeyboardInterrupt), workers.helped(["list"], 1, lambda text: None):
            raise KeyboardInterrupt
    finally:
        torch.set_num_threads(threads)
    assert time.perf_counter() - start < 60


def test_nobody_helps_one_process() -> None:
    with workers.helped(["nonsense"], 0, pytest.fail):
        assert torch.get_num_threads() >= 1
