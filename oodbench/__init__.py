"""oodbench: what really makes an out-of-distribution detector work.

From Python:

    import oodbench
    rows = oodbench.run("benchmark.yaml")    # a DataFrame: a row for each method, ID set, seed and OOD set
    rows = oodbench.run({"name": "mine", "image": {"size": 8}, ...})  # what would stand in a file
    rows = oodbench.rows("benchmark.yaml")   # what is there already; needs no torch
    rows = oodbench.score(train={"features": h, "labels": y}, id=h_test, ood={"SVHN": h_svhn})  # features at hand
    print(best := oodbench.recommend(rows))  # of rows, or of a study; best.detector.fit(h, y) is that detector
    oodbench.write_report(rows, "page.html")
    fitted = oodbench.detector("mahalanobis", covariance="shared").fit(h, y)
    fitted.score(h_new), fitted.predict(h_new), fitted.threshold
    taken = oodbench.load_detector("folder")  # of `oodbench export`; taken.predict("a.png")
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodbench.errors import UserError
from oodbench.own_features import Fitted, Plugins, UnfittedDetector, detector, each_of, score
from oodbench.recommended import Recommended

if TYPE_CHECKING:
    import pandas as pd

    from oodbench.deployment.detector import DeployedDetector

__all__ = [
    "Fitted",
    "Recommended",
    "UnfittedDetector",
    "UserError",
    "detector",
    "load_detector",
    "plugins",
    "recommend",
    "rows",
    "run",
    "score",
    "tables",
    "verdict",
    "write_report",
]

Study = str | Path | Mapping[str, Any]  # a file, the name of one that comes with oodbench, or what would stand in it


def run(study: Study, device: str = "auto", without_missing_sets: bool = False) -> pd.DataFrame:
    """Run a study, a file or what would stand in it, and return its rows. What is there is not computed again.

    `without_missing_sets` goes on without OOD test sets whose files are not here; a later run makes their rows. Python
    warns of what the command would warn of.
    """
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.store.memo import Warnings
    from oodbench.study import reader

    options = Options(device=device, without_missing_sets=without_missing_sets)
    runner = Runner(reader.load(_source(study)), options, Warnings(warnings.warn))
    return (runner.finished() or runner.run()).rows


def rows(study: Study) -> pd.DataFrame:
    """Return the rows that a study has so far; Python warns of what is missing."""
    from oodbench.cli.kept import current

    return current(_source(study), warnings.warn)[1]


def tables(study: Study | pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a study, or of rows, by name: mean, standard deviation and n, unrounded, in per cent.

    It needs no torch. What a study declares of a table of every study is `tables/NAME`, beside NAME.
    """
    from oodbench.cli.tables import made
    from oodbench.recommended import checked
    from oodbench.report import unmade

    if isinstance(study, str | Path | Mapping):
        found = made(_source(study), unmade.declared(rows(study)), warnings.warn)
    else:
        found = made(None, unmade.declared(checked(study)), warnings.warn)
    return {("tables/" if spec and not spec.rows else "") + table.name: table.numbers() for table, spec in found}


def verdict(study: Study) -> pd.DataFrame:
    """Return what becomes of the claims of a study: a row for each claim and place, unrounded; needs no torch."""
    from oodbench.cli.kept import current, judged, store
    from oodbench.report import unmade
    from oodbench.report.claims.verdicts import sheet
    from oodbench.study.reader import claims_of

    source = _source(study)
    given, found = current(source, warnings.warn)
    return sheet(judged(source, given, unmade.declared(found), claims_of(source), store(source, given))).numbers


def recommend(study: Study | pd.DataFrame, *, plugins: Plugins = None) -> Recommended:
    """Return which detector to take, of the rows of a study or of those that `score` returned; needs no torch.

    It is chosen on validation OOD, or with one OOD set left out after the other, over all trainings of the rows; Python
    warns of trainings without an answer. `plugins` are files or folders of your own plugins, which the rows of several
    calls of `score`, put together, do not name. Raises UserError where there is neither validation OOD nor a second
    set.
    """
    from oodbench.recommended import checked, recommended
    from oodbench.study.reader import plugins_of, tables_of
    from oodbench.study.registry import Registry

    own = each_of(plugins)
    Registry([Path(each) for each in own])  # which refuses what is not there
    if isinstance(study, str | Path | Mapping):
        source = _source(study)
        answer, without = recommended(checked(rows(study)), [*plugins_of(source), *own], tables_of(source)[2])
    else:
        found = checked(study)
        answer, without = recommended(found, [*found.attrs.get("plugins", []), *own])
    for each in without:
        warnings.warn(each, stacklevel=2)
    return answer


def write_report(study: Study | pd.DataFrame, to: str | Path | None = None) -> Path:
    """Write a study, or rows as `score` returned them, as one page of HTML, and return its file; needs no torch.

    The page opens without a network. That of a study goes to its results where `to` names no file; that of rows to
    `report.html` here.
    """
    from oodbench.cli.report_commands import PAGE, written, written_of_rows
    from oodbench.recommended import checked

    if isinstance(study, str | Path | Mapping):
        return written(_source(study), None if to is None else Path(to), warnings.warn)
    found = checked(study)
    name, plan = ", ".join(found["training"].unique()), {"left_out": found.attrs.get("left_out", {})}
    return written_of_rows(Path(to or PAGE), name, found, plan)


def load_detector(
    folder: str | Path,
    *,
    device: str = "auto",
    onnx: bool = False,
    plugins: Plugins = None,
    own_encoder: bool = False,
) -> DeployedDetector:
    """Return a detector that `oodbench export` wrote: `score`, `predict` and `nearest` of images, `threshold`.

    `onnx` runs its encoder in ONNX Runtime; `plugins` are files or folders of your own plugins, where it is made of
    some; `own_encoder` lets a module be imported that its encoder is from. Raises UserError where it is damaged.
    """
    from oodbench.deployment.detector import Trust, load
    from oodbench.execution.pipeline import pick_device
    from oodbench.study.registry import Registry

    trust = Trust(
        Registry([Path(each) for each in each_of(plugins)]), own_encoder, lambda said: warnings.warn(said, stacklevel=4)
    )
    return load(Path(folder), pick_device(device), trust, onnx)


def plugins(room: str = "") -> list[dict[str, Any]]:
    """Return what is known of each plugin, or of those of one room, such as "distance": as `oodbench list --json`."""
    from oodbench.cli.reference.plugins import described
    from oodbench.errors import suggestion
    from oodbench.study.registry import ROOMS, Registry

    if room and room not in ROOMS:
        raise UserError(f"there is no room '{room}'{suggestion(room, ROOMS)}")
    registry = Registry()
    return [described(each) for of in ([room] if room else ROOMS) for each in registry.sources(of).values()]


def __getattr__(name: str) -> Any:
    """Return what is looked up when it is asked for: `__version__` and the module `metrics`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("oodbench")
    if name == "metrics":
        from importlib import import_module

        return import_module("oodbench.metrics")
    raise AttributeError(f"module 'oodbench' has no attribute '{name}'")


def _source(study: Study) -> Path | Mapping[str, Any]:
    from oodbench.study.document import file_of

    return file_of(study) if isinstance(study, str | Path) else study
