"""A study as one page of HTML that needs neither network nor server: verdicts, leaderboard, figures, what it lacks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from oodbench.errors import printable
from oodbench.figures import embedded
from oodbench.figures.boards import Leaderboard, board
from oodbench.figures.by_image import by_image
from oodbench.figures.drawings import PageFigure, drawings
from oodbench.figures.feature_maps import SAYS, FeatureMap, feature_maps
from oodbench.report.claims import verdicts
from oodbench.report.claims.verdicts import ClaimVerdict
from oodbench.report.gathered import warnings
from oodbench.report.tables import counted
from oodbench.report.unlearned import explained
from oodbench.report.unmade import UNMADE
from oodbench.store.artifacts import Store
from oodbench.store.columns import LABELS
from oodbench.store.provenance import commit, now, version
from oodbench.study.grid import NONE

SCRIPTS = ("d3.min.js", "plot.min.js", "tabulator.min.js", "page.js")
STYLES = ("tabulator.min.css", "page.css")
FIRST = 20  # methods that are printed on paper, and shown where no script runs


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a page is made of."""

    study: str  # its name
    file: str  # as a command takes it; "" of features, which no study made
    rows: pd.DataFrame  # those of its tables, with those that are declared and not made
    claims: list[ClaimVerdict] = field(default_factory=list)
    runs: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)  # train_key -> facts
    plan: Mapping[str, Any] = field(default_factory=dict)
    floor: float | None = None  # below which an encoder did not learn
    remarks: str = ""
    warnings: list[str] = field(default_factory=list)  # what reading them warned of
    clusters: pd.DataFrame | None = None  # what `quality` measured
    course: pd.DataFrame | None = None  # what `curve` followed
    store: Store | None = None  # where features, and scores by image, may be kept
    against: tuple[str, pd.DataFrame] | None = None  # published numbers beside ours, and what stands under them


def page(given: Material) -> str:
    """Return the page of a study."""
    found = board(given.rows, given.floor)
    figures = _figures(given, found)
    order = [row for behind in found.rows for row in behind] if found else []  # the highest methods first
    others = given.rows.index.difference(order).tolist()  # of thresholds that rank alike, and rows without numbers
    images, kept = by_image(given.rows, given.store, [*order, *others]) if given.store else ([], 0)
    maps, unmapped = feature_maps(given.rows, given.store, order) if given.store else ([], 0)
    carried = {"images": images, "maps": [_map(each) for each in maps]}
    scripts = [_asset(name) for name in SCRIPTS]
    environment = Environment(
        loader=PackageLoader("oodbench.figures", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return environment.get_template("page.html.j2").render(
        given=given,
        made=f"oodbench {version()}{f', commit {commit()}' if commit() else ''}, {now()}",
        counts=_counts(given.rows),
        verdict_caption=verdicts.caption(given.claims),
        board=found,
        first=_first(found) if found else [],
        published=_published(given.against[1]) if given.against else [],
        notes=list(_notes(given, found)),
        figures=figures,
        kept=kept,
        shown=len(images),
        maps=len(maps),
        unmapped=unmapped,
        map_says=SAYS,
        drawable=found is not None and {("near", "AUROC"), ("far", "AUROC")} <= {*found.numbers},
        missing=list(missing(given)),
        hashes=Markup(" ".join(map(_hash, scripts))),
        scripts=[Markup(each) for each in scripts],
        styles=[Markup(_asset(name)) for name in STYLES],
        data=Markup(embedded.packed(data(given, found) | _drawn(figures, given.against) | carried)),
    )


def data(given: Material, found: Leaderboard | None) -> dict[str, Any]:
    """Return what the page's script reads: all rows, the trainings behind them, the leaderboard."""
    rows = embedded.rows(given.rows)
    shown: dict[str, Any] = {
        "study": given.file,
        "rows": {
            "size": len(rows),
            "columns": embedded.columns(rows),
            "labels": [each for each in LABELS if each in rows],
        },
        "units": {str(name): embedded.unit(str(name)) for name in rows},
        "runs": embedded.runs(given.runs),
        "board": None,
    }
    if found:
        numbers = {f"{i} {part}": column[part] for i, column in enumerate(found.numbers.values()) for part in column}
        shown["board"] = {
            "size": len(found.labels),
            "labels": list(found.labels),
            "titles": [list(title) for title in found.numbers],
            "columns": embedded.columns(pd.concat([found.labels, pd.DataFrame(numbers)], axis=1)),
            "rows": found.rows,
        }
    return shown


def _figures(given: Material, found: Leaderboard | None) -> dict[str, PageFigure]:
    """Return what is drawn of a study beside its leaderboard, nothing of one without numbers."""
    if found is None:
        return {}
    drawn = drawings(given.rows, given.clusters, given.course, given.file)
    if (front := drawn["pareto"].frame) is not None:
        places = [name for name in found.labels if name in front]
        lines = found.labels[places].reset_index(names="line")
        labelled = front.astype(dict.fromkeys(places, "str")).fillna(dict.fromkeys(places, NONE))
        shown = labelled.merge(lines, on=places)
        drawn["pareto"] = drawn["pareto"]._replace(frame=shown[["line", "group", "seconds", "auroc", "front"]])
    return drawn


def _drawn(figures: dict[str, PageFigure], against: tuple[str, pd.DataFrame] | None) -> dict[str, Any]:
    """Return figures and published numbers as the page's script reads them."""
    tables = {name: each.frame for name, each in figures.items() if each.frame is not None}
    tables |= {"against": against[1]} if against else {}
    drawn = {name: {"size": len(each), "columns": embedded.columns(each)} for name, each in tables.items()}
    return {"figures": drawn}


def _map(found: FeatureMap) -> dict[str, Any]:
    """Return a map as the page's script reads it."""
    numbers = found.points.select_dtypes(float).map(lambda value: float(f"{value:.4g}"))  # as much as is seen
    points = {"size": len(found.points), "columns": embedded.columns(found.points.assign(**numbers))}
    return found._asdict() | {"points": points}


def _hash(script: str) -> str:
    """Return by what a page's policy knows a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (resources.files("oodbench.figures") / "assets" / name).read_text(encoding="utf-8")


def _counts(rows: pd.DataFrame) -> str:
    """Return how much there is, in a line."""
    made = rows[rows["status"] != UNMADE]
    counts = {"row": len(made), "cell": made["cell"].nunique(), "training": made["train_key"].nunique()}
    counts |= {"ID set": made["id"].nunique(), "OOD set": made["ood"].nunique(), "seed": made["seed"].nunique()}
    return ", ".join(counted(count, noun) for noun, count in counts.items())


def _first(found: Leaderboard) -> list[list[str]]:
    """Return the head and the first lines of the leaderboard, as text."""
    labels = found.labels.head(FIRST)
    shown = [name for name in labels if found.labels[name].nunique() > 1] or [*labels.columns[:1]]
    titles = [title for title in found.numbers if title[0] in ("near", "far", "ood") and title[1] == "AUROC"]
    lines = [[*labels.loc[i, shown], *(_spread(found.numbers[title].loc[i]) for title in titles)] for i in labels.index]
    return [[*shown, *(f"{' '.join(title)}, %" for title in titles)], *lines]


def _spread(number: pd.Series[float]) -> str:
    low = "" if pd.isna(number["low"]) else f" [{number['low']:.1f}, {number['high']:.1f}]"
    return ("–" if pd.isna(number["mean"]) else f"{number['mean']:.1f}{low}").replace(" ", "\N{NO-BREAK SPACE}")


def _published(table: pd.DataFrame) -> list[list[str]]:
    """Return our numbers beside published ones as text, names of columns first."""
    shown = table.drop(columns="state")
    shown["difference"] = [NONE if pd.isna(each) else f"{each:+.2f}" for each in shown["difference"]]
    return [list(shown), *shown.astype(str).to_numpy().tolist()]


def _notes(given: Material, found: Leaderboard | None) -> Iterator[str]:
    """Yield what stands under the leaderboard."""
    if found:
        yield from found.captions
        if any(column["unlearned"].gt(0).any() for column in found.numbers.values()):
            yield explained(given.floor)


def missing(given: Material) -> Iterator[tuple[str, list[str]]]:
    """Yield what a study lacks, failed in or warns of, each a sentence and its lines."""
    rows, plan = given.rows, given.plan
    if given.warnings:
        yield "Reading the rows warned of:", given.warnings
    for id_, names in plan.get("missing", {}).items():
        yield f"OOD sets of {id_} whose files were not here:", list(names)
    if lost := {ood: len(each) for ood, each in rows[rows["status"] == UNMADE].groupby("ood", sort=False)}:
        yield "Rows that are declared and not made:", [f"{ood!s}: {counted(n, 'row')}" for ood, n in lost.items()]
    failed = rows[rows["status"] == "error"].groupby("error", sort=False)
    if len(failed):
        yield "Rows that failed, and are in no mean:", [_failure(error, each) for error, each in failed]
    said = warnings(rows).value_counts()
    if len(said):
        yield f"{len(said)} different warnings of rows:", [f"{text}: {counted(n, 'row')}" for text, n in said.items()]
    if left := plan.get("left_out", {}):
        cells = counted(sum(left.values()), "combination")
        yield f"{cells} that the grid leaves out:", [f"{why}: {n}" for why, n in left.items()]


def _failure(error: Any, rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    cells = counted(rows["cell"].nunique(), "cell")
    return f"{counted(len(rows), 'row')}, {cells}, such as {one['cell']}/{one['ood']}: {error}"
