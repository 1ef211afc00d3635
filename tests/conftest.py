"""What all tests share: one thread a process, and folders of their own."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

os.environ.pop("COLUMNS", None)  # what is printed to a file has the width that it says

# in processes that tests start and interrupt, too: a shell ignores it for what it starts in the background
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"  # here and in the processes that tests start: sums and rows depend on it


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and a CUDA device where there is one, held to the same numbers twice as in every run."""
    from oodbench.execution.pipeline import pick_device

    return str(pick_device(request.param))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own results, store and data folders."""
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("OODBENCH_STORE", raising=False)
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same whichever tests ran before it in its process."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tiny study when it has run."""
    from tiny import write

    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.study import reader

    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(folder))
        Runner(reader.load(write(folder / "s.yaml")), Options(device="cpu")).run()
    return folder / "store"


@pytest.fixture
def trained(tiny_store: Path, tmp_path: Path) -> None:
    """A store in which the encoders of the tiny study are: for tests of what comes after training, to save time."""
    shutil.copytree(tiny_store, tmp_path / "results" / "store")
