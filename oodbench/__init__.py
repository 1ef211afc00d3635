"""oodbench: what really makes an out-of-distribution detector work.

import oodbench
rows = oodbench.run("benchmark.yaml")    # a DataFrame: a row for each method, ID set, seed and OOD set
rows = oodbench.rows("benchmark.yaml")   # what is there already; needs no torch
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows", "run"]


def run(study: str | Path, device: str = "auto") -> pd.DataFrame:
    """Run a study file and return its rows. What is there already is not computed again."""
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.study import reader

    return Runner(reader.load(Path(study)), Options(device=device)).run().rows


def rows(study: str | Path) -> pd.DataFrame:
    """Return the rows that a study file has so far; Python warns of what is missing."""
    from oodbench.cli.kept import current

    return current(Path(study), warnings.warn)[1]
