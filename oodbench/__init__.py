"""oodbench: what really makes an out-of-distribution detector work.

import oodbench
rows = oodbench.run("benchmark.yaml")    # a DataFrame: a row for each method, ID set, seed and OOD set
rows = oodbench.run({"name": "mine", "image": {"size": 8}, ...})  # what would stand in a file
rows = oodbench.rows("benchmark.yaml")   # what is there already; needs no torch
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows", "run"]


def run(
    study: str | Path | Mapping[str, Any], device: str = "auto", without_missing_sets: bool = False
) -> pd.DataFrame:
    """Run a study, a file or what would stand in it, and return its rows. What is there is not computed again.

    `without_missing_sets` goes on without OOD test sets whose files are not here; a later run makes their rows.
    """
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.study import reader

    options = Options(device=device, without_missing_sets=without_missing_sets)
    return Runner(reader.load(_source(study)), options).run().rows


def rows(study: str | Path | Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows that a study has so far; Python warns of what is missing."""
    from oodbench.cli.kept import current

    return current(_source(study), warnings.warn)[1]


def _source(study: str | Path | Mapping[str, Any]) -> Path | Mapping[str, Any]:
    return Path(study) if isinstance(study, str | Path) else study
