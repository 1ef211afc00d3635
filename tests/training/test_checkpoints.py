"""When a checkpoint of a training is due, and what is left of older ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodbench.store.artifacts import Store
from oodbench.training.checkpoints import KIND, Asked, Checkpoints
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


def progress(epochs: int, steps: int) -> Progress:
    return Progress(epochs, [0.5] * epochs, {"model/w": torch.full((2,), float(10 * epochs + steps))}, steps)


def test_a_checkpoint_within_an_epoch_is_due_by_the_clock_and_when_it_is_asked_for(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), Asked()
    checkpoints = Checkpoints(store, FIELDS, 1e9, None, asked)
    checkpoints.offer(1, lambda: progress(1, 0))
    checkpoints.offer_step(lambda: progress(1, 3))
    assert store.keys(KIND) == []
    asked.now = True
    checkpoints.offer_step(lambda: progress(1, 4))
    checkpoints.offer_step(lambda: progress(1, 5))  # what was asked for is there
    (key,) = store.keys(KIND)
    assert key.endswith("-000001-00000004")
    latest = Checkpoints(Store(tmp_path), FIELDS, 1e9).latest()
    assert latest is not None
    assert (latest.epochs, latest.steps, latest.tensors["model/w"].tolist()) == (1, 4, [14.0, 14.0])
    quick = Checkpoints(store, FIELDS, 1e-9)
    quick.offer_step(lambda: progress(1, 6))
    assert [key[-8:] for key in store.keys(KIND)] == ["00000006"]
    quick.offer(2, lambda: progress(2, 0))
    assert [key[-7:] for key in store.keys(KIND)] == ["-000002"]
    Checkpoints(store, FIELDS, 0).offer_step(lambda: progress(2, 1))  # 0 is at each epoch
    assert [key[-7:] for key in store.keys(KIND)] == ["-000002"]


def test_a_checkpoint_that_is_to_end_the_work_ends_it(tmp_path: Path) -> None:
    asked = Asked()
    checkpoints = Checkpoints(Store(tmp_path), FIELDS, 1e9, None, asked)

    def ask() -> None:
        with checkpoints.wanted():
            asked.now = asked.to_end = asked.at_work
            checkpoints.offer(3, lambda: progress(3, 0))

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert (asked.to_end, asked.at_work) == (True, False)
    assert Store(tmp_path).keys(KIND) != []
