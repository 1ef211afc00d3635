"""A set that does not fit on the device stays on the host, and gives the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from listening import Listener
from tiny import write

from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.study import reader
from oodbench.study.settings import PLAIN, Seen
from oodbench.training import encoders


def bank(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return features of a study with outliers, by their place, and what was warned of meanwhile."""
    listener = Listener()
    loaded = reader.load(write(folder / "s.yaml", training=[{"oecl": {"warmup": 0}}], store=str(folder / "store")))
    run = Runner(loaded, Options(device="cpu")).plan.work[0].run
    found = Pipeline(loaded, Options(device="cpu"), listener).bank(run, [PLAIN, Seen(2)], baselines=False)
    ood = {f"{name} {views}": each for name, seen in found.ood.items() for views, each in seen.items()}
    layers = {"fit": found.fit} | {f"test {views}": each for views, each in found.test.layers.items()} | ood
    return {f"{name} {layer}": f for name, each in layers.items() for layer, f in each.items()}, listener.warnings


@pytest.mark.slow
def test_a_study_whose_images_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit the same weights and features; it is said once for each set."""
    expected, nothing = bank(tmp_path / "device")
    monkeypatch.setattr(encoders, "room", lambda device: 0)
    found, warnings = bank(tmp_path / "host")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert nothing == []
    assert len(warnings) == len(set(warnings)) == 5
    assert all("stay in host memory" in each for each in warnings)
