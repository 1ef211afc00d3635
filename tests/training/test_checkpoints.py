"""When a checkpoint of a training is due, and what is left of older ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodbench.store.artifacts import Store
from oodbench.training.checkpoints import KIND, Checkpoints
from oodbench.training.train import Progress

FIELDS = {"seed": 0}  # of a training


def offered(checkpoints: Checkpoints, store: Store, epochs: int) -> list[int]:
    """Return which checkpoints are in the store after each epoch: at most one."""
    found = []
    for epoch in range(1, epochs + 1):
        progress = Progress(epoch, [0.5] * epoch, {"model/w": torch.full((2,), float(epoch))})
        checkpoints.offer(epoch, lambda progress=progress: progress)  # type: ignore[misc]
        (*older, newest) = [int(key[-6:]) for key in store.keys(KIND)] or [0]
        assert older == []
        found.append(newest)
    return found


@pytest.mark.parametrize(
    ("minutes", "every", "there"),
    [
        (1e9, None, [0, 0, 0, 0, 0]),
        (1e9, 1, [1, 2, 3, 4, 5]),
        (1e9, 2, [0, 2, 2, 4, 4]),
        (1e9, 3, [0, 0, 3, 3, 3]),
        (0, None, [1, 2, 3, 4, 5]),
        (0, 2, [1, 2, 3, 4, 5]),
    ],
)
def test_a_checkpoint_is_due_by_the_clock_and_by_epochs(
    tmp_path: Path, minutes: float, every: int | None, there: list[int]
) -> None:
    store = Store(tmp_path)
    checkpoints = Checkpoints(store, FIELDS, minutes, every)
    assert offered(checkpoints, store, 5) == there
    latest = Checkpoints(Store(tmp_path), FIELDS, minutes, every).latest()
    if not there[-1]:
        assert latest is None
        return
    assert latest is not None
    assert (latest.epochs, latest.losses) == (there[-1], [0.5] * there[-1])
    assert latest.tensors["model/w"].tolist() == [there[-1]] * 2
    checkpoints.clear()
    assert store.keys(KIND) == []


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    warned: list[str] = []
    store = Store(tmp_path, warned.append)
    offered(Checkpoints(store, FIELDS, 0), store, 2)
    (file,) = tmp_path.glob(f"{KIND}/*/*-*/progress.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert Checkpoints(Store(tmp_path, warned.append), FIELDS, 0).latest() is None
    assert "altered or cut short" in warned[0]
