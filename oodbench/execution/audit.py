"""Which images the sets of a study share, exactly or nearly (see duplicates.py): counted for each pair of sets, listed.

Pairs are remembered in the store, hashes too. A duplicate is counted once for each image of the second set of a pair,
with its closest image in the first. Within a set equal images are counted and listed: `repeated` where all that look so
have one label, else `contradicting`; the first of them is not counted, and is the first of each pair.

`index` is an image's position among those that the study takes of a split, `original` its position in the whole split,
before classes are chosen and `per_class` is applied.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oodbench.api import Dataset
from oodbench.data import duplicates, needs, prepare
from oodbench.data.library import Split
from oodbench.execution.pipeline import Pipeline
from oodbench.report import formats, tables
from oodbench.store.files import write_whole
from oodbench.study.grid import Run

NAME = "audit"
ID_TRAIN, OUTLIERS, VALIDATION, REFERENCE = "ID train", "outliers", "validation OOD", "ID reference"
ID_TEST, OOD_TEST, SHIFTED = "ID test", "OOD test", "covariate-shifted ID"
KINDS = ("exact", "near")
WITHIN = ("repeated", "contradicting")  # kinds of equal images in one set
MAY_SHARE = (
    {ID_TRAIN, ID_TEST},
    {ID_TRAIN, REFERENCE},
    {ID_TEST, OOD_TEST},
    {ID_TRAIN, SHIFTED},
)  # as published sets do: said, not refused
SIDE = ("role", "set", "split", "index", "original", "class")
SIDES = ("one", "other")
COLUMNS = ("kind", *(f"{side}_{name}" for side in SIDES for name in SIDE), "bits", "rest", "correlation")
SHEET, SCALE, ACROSS = 60, 64, 6  # pairs on the sheet, pixels of an image's side at least, pairs in a row


class Side(NamedTuple):
    """A set in its role in a study."""

    role: str
    dataset: Dataset
    split: Split

    @property
    def name(self) -> str:
        return f"{self.role} ({self.dataset.label})"


@dataclass(frozen=True)
class Shared:
    """What two sets share: images of the second, each with its closest one in the first."""

    one: Side
    other: Side
    exact: duplicates.Pairs
    near: duplicates.Pairs  # without the exact ones
    images: int  # of the second set

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.one, self.other

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, kind).other) for kind in KINDS}

    def text(self) -> str:
        return f"{len(self.near.other)} of {self.images:,} in {self.one.name}"


@dataclass(frozen=True)
class Within:
    """The images of a set that equal an earlier one of it, each with the first such."""

    side: Side
    repeated: duplicates.Pairs  # all that look so have one label
    contradicting: duplicates.Pairs  # they have several
    images: int

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.side, self.side

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, kind).other) for kind in WITHIN}


# ---- which sets are compared -----------------------------------------------------------------------------


def sides(run: Run) -> tuple[list[Side], list[Side]]:
    """Return what a run sees while it is made, and what it is tested on."""
    seen = [Side(ID_TRAIN, run.id, "train")]
    seen += [Side(OUTLIERS, run.outliers, "train")] if run.outliers else []
    seen += [Side(VALIDATION, each, "train") for each in run.validation]
    seen += [Side(REFERENCE, run.reference.held_out, "test")] if run.reference.held_out else []
    tests = [Side(ID_TEST, run.id, "test"), *(Side(OOD_TEST, each, "test") for each in run.sets.values())]
    return seen, [*tests, *(Side(SHIFTED, each, "test") for each in run.covariate)]


def all_sides(run: Run) -> list[Side]:
    """Return every set of a run."""
    return [*itertools.chain(*sides(run))]


def pairs(runs: Iterable[Run]) -> list[tuple[Side, Side]]:
    """Return the pairs of sets of a study that should share no image, once each: all but two OOD test sets.

    A covariate-shifted set holds other pictures of ID test's images: the two are no pair either.
    """
    found: dict[tuple[str, str], tuple[Side, Side]] = {}
    for run in runs:
        seen, tests = sides(run)
        id_test, *ood = (each for each in tests if each.role != SHIFTED)
        all_ = [*itertools.combinations(seen, 2), *itertools.product(seen, tests), *((id_test, each) for each in ood)]
        for one, other in all_:
            found[one.name, other.name] = (one, other)
    return list(found.values())


def refused(one: Side, other: Side) -> bool:
    """Return whether two sets must have no equal images."""
    return {one.role, other.role} not in MAY_SHARE


# ---- what they share -------------------------------------------------------------------------------------


def shared(pipeline: Pipeline, one: Side, other: Side) -> Shared:
    """Return what two sets share; hashes and pairs are in the store afterwards."""
    a, b = (pipeline.library.prepared(each.dataset, each.split) for each in (one, other))
    first, second = duplicates.exact(a.digest, b.digest)
    zero = np.zeros(len(first))
    exact = duplicates.Pairs(first, second, zero.astype(np.int64), zero, zero + 1)
    near = pipeline.library.near(one.dataset, one.split, other.dataset, other.split)
    new = ~np.isin(near.other, second)
    return Shared(one, other, exact, near.at(new), len(b.x))


def within(pipeline: Pipeline, runs: Iterable[Run]) -> list[Within]:
    """Return what each split of a study's sets has more than once; a split in several roles is there once."""
    sides_: dict[tuple[str, Split], Side] = {}
    for side in itertools.chain.from_iterable(all_sides(run) for run in runs):
        sides_.setdefault((side.dataset.label, side.split), side)
    found = []
    for side in sides_.values():
        prepared = pipeline.library.prepared(side.dataset, side.split)
        found.append(Within(side, *duplicates.repeated(prepared.digest, prepared.y), len(prepared.y)))
    return found


def audit(pipeline: Pipeline, runs: Sequence[Run]) -> list[Shared]:
    """Return what each pair of sets of a study shares, and keep the counts in `audit.json` beside its results.

    The counts of equal images within each set are kept there, too.
    """
    found = [shared(pipeline, *each) for each in pairs(runs)]
    facts: dict[str, Any] = {
        "rule": {"bits": duplicates.BITS, "rest": duplicates.REST, "correlation": duplicates.CORRELATION},
        "pairs": [
            {"one": each.one.name, "other": each.other.name, "images": each.images, **each.counts} for each in found
        ],
        "sets": [{"set": each.side.name, "images": each.images, **each.counts} for each in within(pipeline, runs)],
    }
    if missing := _missing(pipeline):
        facts["missing"] = missing
    if others := needs.other_files(needs.needs(pipeline.study), pipeline.library):
        facts["other files"] = others
    write_whole(pipeline.study.results / f"{NAME}.json", json.dumps(facts, indent=1, ensure_ascii=False).encode())
    return found


def _missing(pipeline: Pipeline) -> dict[str, str]:
    """Return the OOD test sets that a study goes without, and why."""
    return {name: why for names in pipeline.study.missing.values() for name, why in names.items()}


def warning(found: list[Shared], study: Path) -> str:
    """Return a line about near duplicates, and about equal images that are not refused; "" where there are none."""
    said = []
    for each in found:
        kinds = ["near"] if refused(each.one, each.other) else KINDS
        if counts := " and ".join(f"{each.counts[kind]} {kind}" for kind in kinds if each.counts[kind]):
            said.append(f"{counts} of {each.images:,} images of {each.other.name} in {each.one.name}")
    return f"duplicates: {'; '.join(said)}; oodbench audit {study} lists and shows them" if said else ""


def notes(found: list[Shared]) -> dict[tuple[str, str], list[str]]:
    """Return what rows say of near duplicates, by the name of what a run sees and the label of an OOD test set."""
    return {
        (each.one.name, each.other.dataset.label): [f"near duplicates: {each.text()}"]
        for each in found
        if each.other.role == OOD_TEST and each.one.role != ID_TEST and len(each.near.other)
    }


# ---- the list ----------------------------------------------------------------------------------------------


def listed(pipeline: Pipeline, found: Sequence[Shared | Within]) -> pd.DataFrame:
    """Return a row (COLUMNS) for each duplicate: exact ones of a pair of sets first, then the closest."""
    original = {side: _original(pipeline, side) for each in found if any(each.counts.values()) for side in each.sides}
    rows = [row for each in found for kind in each.counts for row in _rows(pipeline, each, kind, original)]
    return pd.DataFrame.from_records(rows, columns=list(COLUMNS))


def _original(pipeline: Pipeline, side: Side) -> NDArray[np.int64]:
    """Return the position in the whole split of each image that a study takes of it."""
    images = side.dataset.load(side.split, pipeline.study.data)
    return prepare.select(side.dataset, images, pipeline.library.prepared(side.dataset, side.split).damaged)[0]


def _rows(
    pipeline: Pipeline, each: Shared | Within, kind: str, original: dict[Side, NDArray[np.int64]]
) -> Iterator[dict[str, Any]]:
    found: duplicates.Pairs = getattr(each, kind)
    prepared = [pipeline.library.prepared(side.dataset, side.split) for side in each.sides]
    for i in np.lexsort((found.other, found.rest)):
        row: dict[str, Any] = {"kind": kind, "bits": found.bits[i], "correlation": round(found.correlation[i], 4)}
        row["rest"] = round(found.rest[i], 2)
        for name, side, at, images in zip(SIDES, each.sides, (found.one[i], found.other[i]), prepared, strict=True):
            values = (side.role, side.dataset.label, side.split, at, original[side][at], images.classes[images.y[at]])
            row |= {f"{name}_{field}": value for field, value in zip(SIDE, values, strict=True)}
        yield row


# ---- the table -----------------------------------------------------------------------------------------------


class Counts(tables.Table):
    """Numbers of duplicates rather than means."""

    def text(self) -> pd.DataFrame:
        return self.mean.astype(int).reset_index().astype(str)


def table(found: list[Shared]) -> Counts:
    """Return the number of exact and near duplicates of each pair of sets."""
    index = pd.MultiIndex.from_tuples([(each.one.name, each.other.name) for each in found], names=["in", "images of"])
    counts = pd.DataFrame([each.counts | {"of": each.images} for each in found], index=index)
    caption = (
        f"Images of one set that are in another: equal in the study's format, or near, which is a phash within "
        f"{duplicates.BITS} of 64 bits, at most {duplicates.REST:g} grey levels (root mean square) after a change of "
        f"brightness and contrast, and a correlation of at least {duplicates.CORRELATION:g}."
    )
    return Counts(NAME, caption, counts, counts * np.nan, counts, dict.fromkeys(counts.columns, 0))


def within_table(found: list[Within]) -> Counts:
    """Return the number of equal images in each set."""
    index = pd.Index([each.side.name for each in found], name="within")
    counts = pd.DataFrame([each.counts | {"of": each.images} for each in found], index=index)
    caption = (
        "Images that are equal, in the study's format, to an earlier one of their set: repeated where all that look so "
        "are of one class, contradicting where they are of several."
    )
    return Counts(f"{NAME}_within", caption, counts, counts * np.nan, counts, dict.fromkeys(counts.columns, 0))


# ---- the sheet -------------------------------------------------------------------------------------------------


def sheet(pipeline: Pipeline, found: Sequence[Shared | Within], rows: pd.DataFrame) -> Image.Image:
    """Return pictures of the first pairs, side by side, that of the first set on the left, with their indices.

    Every pair of sets has its share of the sheet.
    """
    order = rows.groupby(["one_role", "one_set", "other_role", "other_set"], sort=False).cumcount()
    chosen = rows.loc[order.sort_values(kind="stable").index[:SHEET]].sort_index()
    known = {(side.role, side.dataset.label): side for each in found for side in each.sides}
    tiles = [_tile(pipeline, known, row) for row in chosen.to_dict("records")]
    width, height = tiles[0].size
    across = min(ACROSS, len(tiles))
    page = Image.new("RGB", (across * width, -(-len(tiles) // across) * height), "white")
    for i, tile in enumerate(tiles):
        page.paste(tile, (i % across * width, i // across * height))
    return page


def _tile(pipeline: Pipeline, known: dict[tuple[str, str], Side], row: dict[Any, Any]) -> Image.Image:
    pictures = []
    for name in SIDES:
        side = known[row[f"{name}_role"], row[f"{name}_set"]]
        pictures.append(_picture(pipeline.library.prepared(side.dataset, side.split).x[row[f"{name}_index"]]))
    size = pictures[0].width
    tile = Image.new("RGB", (2 * size + 24, size + 56), "white")
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(10)
    for i, (name, picture) in enumerate(zip(SIDES, pictures, strict=True)):
        tile.paste(picture, (8 + i * (size + 4), 4))
        text = f"{row[f'{name}_index']}: {row[f'{name}_role']}, {row[f'{name}_set']}"
        while draw.textlength(text, font) > tile.width - 12:
            text = text[:-1]
        draw.text((8, size + 6 + 12 * i), text, "black", font)
    draw.text((8, size + 30), f"{row['kind']}, {row['bits']} bits, rest {row['rest']:g}", "black", font)
    return tile


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    """Return an image (H, W, C) as RGB, enlarged by a whole factor to be seen."""
    rgb = image if image.shape[2] == 3 else np.repeat(image.mean(2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    factor = -(-SCALE // picture.width)
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


# ---- writing ---------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """What `write` has written."""

    pairs: Counts
    sets: Counts
    rows: pd.DataFrame


def write(pipeline: Pipeline, found: list[Shared], inside: list[Within], folder: Path) -> Written:
    """Write the list as .csv, the tables as .md and .tex, and the sheet as .png where there is a pair to show."""
    everything: list[Shared | Within] = [*found, *inside]
    rows, counts, sets = listed(pipeline, everything), table(found), within_table(inside)
    if names := ", ".join(_missing(pipeline)):
        counts = replace(counts, caption=f"Without {names}, whose files are not here. {counts.caption}")
    formats.write_table(replace(counts.sheet(), numbers=rows), folder, ("csv", "md", "tex"))
    formats.write_table(sets.sheet(), folder, ("md", "tex"))
    picture = folder / f"{NAME}.png"
    picture.unlink(missing_ok=True)
    if len(rows):
        stream = io.BytesIO()
        sheet(pipeline, everything, rows).save(stream, "PNG")
        write_whole(picture, stream.getvalue())
    return Written(counts, sets, rows)
