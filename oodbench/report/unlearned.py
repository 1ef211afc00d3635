"""Which encoders did not learn: their frozen-probe accuracy is below a floor. It knows rows alone.

The accuracy is the better of the linear and the k-NN probe on frozen penultimate features. The classifier's own is
none: it may have failed on features that a probe reads well, or be missing. The floor is the study's (`learned:`),
else chance and a quarter of the way from there to 1: c + (1 - c) / 4 with c = 1 / classes. With one class, or no
accuracy, nothing is said.
"""

from __future__ import annotations

import pandas as pd

MARK = "†"
NAME = "did not learn"
WAY = 0.25  # from chance to 1


def unlearned(rows: pd.DataFrame, floor: float | None) -> pd.Series[bool]:
    """Return whether the encoder of each row did not learn, by the study's floor (a share) or the default one."""
    return frozen(rows) < floors(rows, floor)


def frozen(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the better probe's accuracy, as a share; NaN where there is none."""
    probed = rows["accuracy"].where(rows["accuracy_by"] == "linear probe")
    return pd.concat([rows["accuracy_linear"], rows["accuracy_knn"], probed], axis=1).max(axis=1)


def floors(rows: pd.DataFrame, floor: float | None) -> pd.Series[float]:
    """Return the floor of each row, as a share; NaN where none applies."""
    classes = rows["classes"].astype("float64")
    chance = 1 / classes
    found = chance + WAY * (1 - chance) if floor is None else pd.Series(floor, index=rows.index)
    return found.where(classes != 1)


def explained(floor: float | None) -> str:
    """Return what the mark means, as the line under a table."""
    least = f"chance + {WAY:.0%} of the way from there to 100 %" if floor is None else f"{100 * floor:g} %"
    return (
        f"{MARK} {NAME}: in a run behind the number, the better of the linear and the k-NN probe of the frozen "
        f"penultimate features gets less of ID test right than {least}."
    )


def encoders(rows: pd.DataFrame, floor: float | None) -> pd.DataFrame:
    """Return a row of each trained encoder that did not learn, with its `frozen` accuracy and its `floor`."""
    found = rows[unlearned(rows, floor)].drop_duplicates("train_key")
    return found.assign(frozen=frozen(found), floor=floors(found, floor))
