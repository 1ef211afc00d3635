"""Detectors on features that a user has at hand, from Python: the grid on them, or one detector to keep."""

from __future__ import annotations

import hashlib
import numbers
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodbench.errors import UserError, suggestion

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from oodbench.data.feature_files import FeatureFile
    from oodbench.execution.runner import Outcome
    from oodbench.scoring.fitted import FittedDetector
    from oodbench.store.memo import Watch

Features = Any  # (M, D): array, tensor, list of rows; {"features": ..., "labels": ..., "logits": ...}; or a file
Names = str | Mapping[str, Any]  # a plugin's name, or {name: {parameter: value}}
Plugins = str | Path | Sequence[str | Path] | None  # files or folders of a user's own plugins


def score(  # noqa: PLR0913 - the sets and options of a command
    train: Features,
    id: Features,
    ood: Mapping[str, Features] | None = None,
    *,
    near: Mapping[str, Features] | None = None,
    far: Mapping[str, Features] | None = None,
    val: Features | None = None,
    validation: Mapping[str, Features] | None = None,
    grid: Path | str | Mapping[str, Any] | None = None,
    training: str = "features",
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Return the rows of a grid of detectors on features: a row for each detector and OOD set.

    Features are (M, D) arrays or tensors, files that `oodbench score` reads, or mappings of `features` and what else is
    known of these items: `labels` (M,), `logits` (M, C), `projection` (M, P), and for training the head's `weight` (C,
    D) and `bias` (C,). Detectors that need what is not there are left out; Python warns of why, and of what rows warn
    of. `val` are ID features that nothing was fitted on, else a tenth of `train`; `validation` are OOD sets that
    thresholds and choices may see. `grid` has detectors as a study has, else it is every plugin with its defaults. Rows
    are kept where `name` names a folder of results. `recommend`, `tables`, `write_report` take them.
    """
    from oodbench.execution import score_features
    from oodbench.execution.pipeline import pick_device
    from oodbench.scoring.detectors import How
    from oodbench.study.reader import plugins_of
    from oodbench.study.study import UNGROUPED

    grid = Path(grid) if isinstance(grid, str) else grid
    groups = {"near": near, "far": far, UNGROUPED: ood}
    sets = [(group, *each) for group, of in groups.items() for each in _named(group, of)]
    with tempfile.TemporaryDirectory() as folder:
        given = score_features.Given(
            train=_given("train", train),
            id=("ID", _given("id", id)),
            ood=sets,
            val=None if val is None else _given("val", val),
            validation=dict(_named("validation", validation)),
            grid=grid,
            name=name or "features",
            training=str(training),
            seed=_whole(seed),
            root=None if name else Path(folder),
        )
        outcome = score_features.score(given, How(pick_device(device)), _watch())
    _warn(outcome)
    outcome.rows.attrs |= {"left_out": outcome.left_out, "plugins": plugins_of(grid or {})}
    return outcome.rows


def _warn(outcome: Outcome) -> None:
    """Warn of why cells are left out and of what rows warn of, each kind once."""
    from oodbench.report.gathered import reasons, warned
    from oodbench.report.tables import counted

    for reason, count in reasons(outcome.left_out):
        warnings.warn(f"left out: {counted(count, 'cell')}: {reason}", stacklevel=3)
    for line in warned(outcome.rows):
        warnings.warn(f"rows warn: {line}", stacklevel=3)


def _watch() -> Watch:
    """Return what says in Python's way what a command would print."""
    from oodbench.store.memo import Watch

    class Warned(Watch):
        def warn(self, message: str) -> None:
            warnings.warn(message, stacklevel=5)

    return Warned()


@dataclass(frozen=True)
class UnfittedDetector:
    """A detector that is not fitted yet, as a study would declare it."""

    grid: Mapping[str, Any]

    def fit(
        self,
        features: Features,
        labels: Any = None,
        *,
        logits: Any = None,
        weight: Any = None,
        bias: Any = None,
        val: Features | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> Fitted:
        """Fit on training features (N, D) and labels (N,), and set the cut on held-out ID items.

        These are `val`, or a tenth of the training items by class, which nothing is fitted on. A baseline reads
        `logits` (N, C) or the head's `weight` (C, D) and `bias` (C,), else a linear probe that is fitted on the labels.
        Large arrays are not copied: leave them as they are. Raises UserError where features and detector do not fit
        together.
        """
        from oodbench.execution import score_features
        from oodbench.execution.pipeline import pick_device
        from oodbench.scoring.detectors import How

        more = {"labels": labels, "logits": logits, "weight": weight, "bias": bias}
        arrays = dict(features) if isinstance(features, Mapping) else {"features": features}
        arrays |= {key: each for key, each in more.items() if each is not None}
        train, held_out = _arrays("train", arrays), None if val is None else _arrays("val", val)
        try:
            found = score_features.fitted(self._axes(train), train, held_out, _whole(seed), How(pick_device(device)))
            return Fitted(found, {layer: f.shape[1] for layer, f in train.layers.items()})
        except ValueError as error:
            raise UserError(str(error)) from error

    def _axes(self, train: FeatureFile) -> Any:
        from oodbench.study.reader import load_grid

        clustering = {"clustering": "one" if train.labels is None else "labels"} if "distance" in self.grid else {}
        return load_grid(clustering | dict(self.grid), ())


def detector(
    name: str,
    *,
    clustering: Names | None = None,
    threshold: Names = "pooled",
    space: Mapping[str, Any] | None = None,
    plugins: Plugins = None,
    **parameters: Any,
) -> UnfittedDetector:
    """Return a detector by the name of its distance or post-hoc baseline, with the parameters of that plugin.

    `clustering` is that of the labels where there are any, else a single cluster; `space` has steps as in a study, such
    as {"unit": True}; `plugins` are files or folders of your own plugins. Raises UserError where one of them is wrong.
    """
    from oodbench.study.registry import Registry

    folders = each_of(plugins)
    registry = Registry([Path(each) for each in folders])
    rooms = [room for room in ("distance", "posthoc") if name in registry.sources(room)]
    if not rooms:
        known = [*registry.sources("distance"), *registry.sources("posthoc")]
        raise UserError(f"there is no distance and no baseline '{name}'{suggestion(name, known)}")
    made = registry.load(rooms[0], name)
    try:
        made(**parameters)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    grid: dict[str, Any] = {rooms[0]: {name: parameters} if parameters else name, "threshold": threshold}
    grid |= {"space": dict(space)} if space else {}
    grid |= {"plugins": folders} if folders else {}
    return UnfittedDetector(grid | ({"clustering": clustering} if clustering is not None else {}))


class Fitted:
    """A fitted detector: what scores above its threshold is called OOD."""

    def __init__(self, fitted: FittedDetector, columns: Mapping[str, int]) -> None:
        self._fitted, self._columns = fitted, columns

    def __repr__(self) -> str:
        return f"<oodbench detector {self.label}, threshold {self.threshold:g}>"

    @property
    def label(self) -> str:
        """What a table would call it."""
        labels = self._fitted.detector.labels
        parts = (labels[each] for each in ("space", "clustering", "distance", "posthoc", "threshold"))
        return " · ".join(str(part) for part in parts if part != "–")

    @property
    def threshold(self) -> float:
        """The cut, in the unit of `score`."""
        return self._fitted.rule.cut

    def score(self, features: Features) -> NDArray[np.float64]:
        """Return calibrated scores (M,) of features (M, D), larger = more OOD."""
        return self._fitted.scores(self._layers(features))

    def predict(self, features: Features) -> NDArray[np.bool_]:
        """Return which items (M,) are OOD."""
        found: NDArray[np.bool_] = self.score(features) > self.threshold
        return found

    def nearest(self, features: Features) -> NDArray[np.int64]:
        """Return the cluster (M,) that each item is scored against: with the labels as clusters, its nearest class."""
        found: NDArray[np.int64] = self._fitted.nearest(self._layers(features)).numpy()
        return found

    def _layers(self, features: Features) -> dict[str, Tensor]:
        layers = _arrays("the items", features).layers
        for layer, f in layers.items():
            if f.shape[1] != (wanted := self._columns.get(layer, f.shape[1])):
                raise UserError(f"the items: {f.shape[1]} columns, train has {wanted} ({layer})")
        return layers


def each_of(plugins: Plugins) -> list[str]:
    """Return the files and folders that are given, one or several."""
    return [str(each) for each in ([plugins] if isinstance(plugins, str | Path) else plugins or [])]


# ---- arrays ---------------------------------------------------------------------------------------------


def _given(name: str, given: Features) -> Path | FeatureFile:
    return Path(given) if isinstance(given, str | Path) else _arrays(name, given)


def _named(group: str, sets: Any) -> list[tuple[str, Path | FeatureFile]]:
    """Return sets with their names. Raises UserError where they have none."""
    if sets is None:
        return []
    if not isinstance(sets, Mapping):
        raise UserError(
            f"{group} is of type {type(sets).__name__}, wanted are sets by name: {group}={{'SVHN': features}}"
        )
    return [(str(name), _given(str(name), f)) for name, f in sets.items()]


def _whole(seed: Any) -> int:
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise UserError(f"seed is {seed!r}, wanted is a whole number, 0 or more")
    return int(seed)


def _arrays(name: str, given: Features) -> FeatureFile:
    """Return features at hand as a file of this name would hold them. Raises UserError where they cannot be."""
    import numpy as np

    from oodbench.data.feature_files import ARRAYS, checked, read

    if isinstance(given, str | Path):
        return read(Path(given))
    arrays = dict(given) if isinstance(given, Mapping) else {"features": given}
    for each in arrays:
        if each not in ARRAYS:
            raise UserError(f"{name}: '{each}' is no array of features{suggestion(str(each), ARRAYS)}")
    try:
        found = {each: _numbers(value) for each, value in arrays.items()}
    except ValueError as error:  # rows of unlike lengths
        raise UserError(f"{name}: {error}") from error
    sha = hashlib.sha256()
    for each, value in sorted(found.items()):
        plain = value if isinstance(value, np.ndarray) else value.double().numpy()
        sha.update(f"{each} {plain.dtype} {plain.shape} {plain.tolist() if plain.dtype == object else ''}".encode())
        sha.update(np.ascontiguousarray(plain).tobytes())
    return checked(Path(name), found, sha.hexdigest()[:16])


def _numbers(value: Any) -> Any:
    """Return a tensor on the CPU, without a gradient, or what else it is as an array of numpy."""
    import numpy as np

    return value.detach().cpu() if hasattr(value, "detach") else np.asarray(value)
