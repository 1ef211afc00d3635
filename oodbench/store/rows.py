"""The rows of a study: part files, one per piece of work, read as their union.

A part is `rows/TR/STAMP-TRAIN_KEY-DIGEST.parquet`, the digest that of its bytes: one cut short or altered is named and
not used. What is asked of one training reads its own parts, and what is asked of all reads the columns it needs.
`compact` makes one part `rows/STAMP-DIGEST.parquet` of them, in the order of trainings; older versions wrote
`rows/STAMP-DIGEST.csv.gz`. Of rows of one cell, set, key and content the one of the last stamp counts. A stamp is the
time, or what comes after the last stamp there is where the clock says less. Beside them, `runs/TRAIN_KEY.json` holds
the parameters and circumstances of each training, and `plan.json` the cells of the study. It knows pandas and files; no
torch, no methods.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from oodbench.store.artifacts import digest
from oodbench.store.columns import COLUMNS, FLOATS, INTEGERS, QUALITY, TEXT, TRACE
from oodbench.store.files import FileError, read_sealed, write_sealed, write_whole, writing

CLUSTERS = "quality.csv"  # what `oodbench quality` measures
CURVE = "curve.csv"  # what `oodbench curve` follows
IMAGE_ERRORS = "image_errors.csv"  # of claims, what `oodbench verdict` measures where scores are kept
SAME = ["cell", "ood", "key", "ood_data"]  # rows that agree in these are one
PART = re.compile(
    r"^(?P<stamp>\d{8}T\d{12})(-(?P<training>[0-9a-f]{16}))?-(?P<digest>[0-9a-f]{16})\.(parquet|csv\.gz)$"
)
GROUP = 20_000  # rows that a row group of a whole has, at least: what is read to find those of a training
OF_STUDY = (*SAME, "id", "group", "status", "trained_on", "scored_on")  # what tells which rows are a study's, and how


@dataclass(frozen=True)
class Added:
    """Seeds beyond a study's own, and how often claims were looked at while they were added."""

    seeds: dict[str, list[int]] = field(default_factory=dict)  # by Run.but_seed
    looks: dict[str, int] = field(default_factory=dict)  # by claim


class Results:
    """The rows and runs in a study's folder of results. `warn` hears of what is damaged or out of date."""

    def __init__(self, results: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.folder = results / "rows"
        self._runs = results / "runs"
        self._plan = results / "plan.json"
        self._added = results / "seeds.json"
        self._clusters = results / CLUSTERS
        self._warn = warn
        self._whole: set[str] = set()  # parts that are what their names say; a part never changes
        self._damaged: set[str] = set()  # parts warned of
        self._planned: tuple[tuple[int, int, int], dict[str, Any] | None] | None = None  # the plan, as it was last read
        self._old: dict[str, pa.Table] = {}  # parts of older versions, which cannot be read by column

    def read(
        self, columns: Iterable[str] = COLUMNS, training: str | None = None, cells: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Return all rows, the newest of each cell, OOD set, key and content; of a training, and of cells, if said.

        Those of a training are in the order they were written. They have the columns that are named, and those that
        tell one row from another.
        """
        while True:
            with suppress(FileNotFoundError):  # another process compacted the parts meanwhile: one has their rows
                return self._rows(self._parts(training), columns, training, cells)

    def _rows(
        self,
        parts: list[Path],
        columns: Iterable[str],
        training: str | None = None,
        cells: Collection[str] | None = None,
    ) -> pd.DataFrame:
        names = [name for name in COLUMNS if name in {*columns, *SAME}]
        read = (self._read_part(path, names, training, cells) for path in parts)
        found = [part for part in read if part is not None and len(part)]
        if not found:
            return _empty(tuple(names)).copy()
        table = pa.concat_tables(found).unify_dictionaries()
        del found
        columns = _columns(table)
        del table
        apart = _all_apart(columns["cell"], columns["ood"])
        rows = frame_of(columns)
        if apart:
            return rows
        again = rows.duplicated(SAME, keep="last")
        return rows[~again].reset_index(drop=True) if again.any() else rows

    def cells(self, start: str) -> dict[str, list[str]]:
        """Return the cells that there are rows of whose hash begins so -> their trainings, the last one last."""
        found: dict[str, list[str]] = {}
        for path in self._parts():
            with suppress(FileNotFoundError):  # compacted meanwhile: what has its rows is asked for next
                part = self._read_part(path, ["cell", "train_key"], None, _Start(start))
                rows = (
                    frame_of(_columns(part)).drop_duplicates() if part is not None and len(part) else _empty(("cell",))
                )
                for cell, training in rows.itertuples(index=False):
                    known = found.setdefault(cell, [])
                    known[:] = [*(each for each in known if each != training), training]
        return found

    def current(
        self, columns: Iterable[str] = COLUMNS, training: str | None = None, cells: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Return the rows of the study as it was when it was last run, each in the group that its set is in now.

        They are in the order of the study's cells and sets, in whatever order they were made; of a training or of
        cells, if said. Rows made by other code or from other data than the study has now are left out and warned of,
        and so are machines that differ. Their `attrs` hold the `sets` that a study declares, ID set -> OOD set ->
        group, what all of them are `lacking`, a line, and what was `set` of the study's file.
        """
        rows, facts = self.read({*columns, *OF_STUDY}, training, cells), self.plan()
        if facts is None:
            if len(rows):
                self._warn(f"{self._plan} is not there to say which rows are the study's: all are taken; run it again")
            return rows.drop_duplicates(["cell", "ood"], keep="last", ignore_index=True)
        places, groups, stale = _places(rows, facts)
        if stale:
            self._warn(f"{stale} rows were made by other code or from other data; run the study to renew them")
        order = np.argsort(places, kind="stable")[(places < 0).sum() :]
        found = rows if len(order) == len(rows) and (np.diff(order) == 1).all() else rows.take(order)
        del rows
        found = found.assign(group=pd.array(groups[order], _TEXT)).reset_index(drop=True)
        if said := machines(found):
            self._warn(said)
        if "work" in facts and cells is None and training is None:
            sets = {id_: {ood: group for ood, (group, _) in members.items()} for id_, members in facts["sets"].items()}
            found.attrs = {"sets": sets, "lacking": lacking(found, facts), "set": facts.get("set", [])}
        return found

    def clusters(self) -> pd.DataFrame | None:
        """Return what `oodbench quality` exported of each training, space, clustering and split; None before it ran.

        An empty number is missing, an empty text is a text. A file that is damaged is warned of, and as good as none.
        """
        return self._exported(self._clusters, {"seed": "Int64", **dict.fromkeys(QUALITY, "float64")})

    def curve(self) -> pd.DataFrame | None:
        """Return what `oodbench curve` exported of each training, kept epoch, cell and OOD set, as `clusters` does."""
        return self._exported(self.folder.with_name(CURVE), _NUMBERS | _MEASURED)

    def image_errors(self) -> pd.DataFrame | None:
        """Return what test images add to the errors of claims, as `clusters` does."""
        types = {**dict.fromkeys(("left", "right", "items"), "Int64"), "covariance": "float64"}
        return self._exported(self.folder.with_name(IMAGE_ERRORS), types)

    def write_image_errors(self, table: pd.DataFrame) -> None:
        """Export what `image_errors` returns."""
        write_sealed(self.folder.with_name(IMAGE_ERRORS), table.to_csv(index=False).encode())

    def _exported(self, path: Path, types: dict[str, str]) -> pd.DataFrame | None:
        kinds: Any = defaultdict(lambda: "str", types)
        if not path.is_file():
            return None
        try:
            text = read_sealed(path).decode()
            if len({len(line) for line in csv.reader(io.StringIO(text))}) > 1 or not text.endswith("\n"):
                raise ValueError("it is cut short")  # pandas would take what is lacking for empty
            empty = {name: [""] for name in kinds}
            return pd.read_csv(io.StringIO(text), dtype=kinds, keep_default_na=False, na_values=empty)
        except ValueError as error:
            self._warn(f"{path} is damaged and not used: {error}")
            return None

    def write_clusters(self, table: pd.DataFrame) -> None:
        """Export what `clusters` returns."""
        write_sealed(self._clusters, table.to_csv(index=False).encode())

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows as one part."""
        self.add(frame(rows))

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows (COLUMNS), a part for each training, as the last ones, whatever the clock says."""
        last = max((path.name.partition("-")[0] for path in self._parts()), default="0")
        after = f"{int(last.replace('T', '')) + 1:020d}"
        stamp = max(datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f"), f"{after[:8]}T{after[8:]}")
        for training, part in rows.groupby("train_key", sort=False):
            self._write([part], stamp, str(training))

    def compact(self) -> int:
        """Put all parts that are whole into one, with every row that `read` returns, and return how many they were.

        It gets the stamp of the newest of them: what another process adds meanwhile stays newer.
        """
        while True:
            parts = self._parts()
            with suppress(FileNotFoundError):  # another process compacts, too
                trainings = sorted(self._rows(parts, ["train_key"])["train_key"].unique())
                parts = [path for path in parts if path.name not in self._damaged]
                if len(parts) > 1:
                    by = {path: part["training"] for path in parts if (part := PART.match(path.name))}
                    own = {each: [path for path in parts if by[path] in (None, each)] for each in trainings}
                    rows = (self._rows(own[each], COLUMNS, each) for each in trainings)
                    whole = self._write(_together(rows), max(path.name.partition("-")[0] for path in parts))
                    for path in parts:
                        if path != whole:
                            path.unlink(missing_ok=True)
                            with suppress(OSError):  # others are in it
                                path.parent.rmdir()
                return len(parts)

    def open(self) -> None:
        """Make the folder where it is not there. Raises FileError where rows could not be written."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def check(self) -> int:
        """Look at every file and return how many there are; `warn` hears of what is damaged."""
        runs = [*self._runs.glob("*.json")]
        tables = [self.clusters(), self.curve(), self.image_errors()]
        facts = [self.plan(), self.added(), *tables, *(self.run(path.stem) for path in runs)]
        exports = [self.folder.with_name(name) for name in (CLUSTERS, CURVE, IMAGE_ERRORS)]
        absent = sum(not path.is_file() for path in (self._plan, self._added, *exports))
        rows = self.read(["train_key"])
        lost = [self._runs / f"{key}.json" for key in rows["train_key"].unique()]
        for path in [each for each in (*lost, self._plan) if len(rows) and not each.is_file()]:
            self._warn(f"{path} is not there, and rows are")
        return len(facts) + len(self._parts()) - absent

    def write_run(self, train_key: str, facts: dict[str, Any]) -> None:
        """Keep the parameters and circumstances of a training."""
        _write_json(self._runs / f"{train_key}.json", facts)

    def write_plan(self, facts: dict[str, Any]) -> None:
        """Keep which cells and OOD sets the study has, and what was left out and why."""
        _write_json(self._plan, facts)

    def plan(self) -> dict[str, Any] | None:
        """Return what `write_plan` kept, or None; what is damaged is warned of, and as good as none."""
        with suppress(OSError):
            found = self._plan.stat()
            now = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._planned is None or self._planned[0] != now:
                self._planned = (now, self._json(self._plan, _Plan))
            return None if self._planned[1] is None else {**self._planned[1]}
        return None

    def runs(self) -> list[dict[str, Any]]:
        """Return what `write_run` kept of each training."""
        found = (self.run(path.stem) for path in sorted(self._runs.glob("*.json")))
        return [each for each in found if each is not None]

    def write_added(self, added: Added) -> None:
        """Keep the seeds that `run --until-decided` has added to a study's own."""
        _write_json(self._added, asdict(added))

    def added(self) -> Added:
        """Return what `write_added` kept; nothing where there is none, or, with a warning, where it is damaged."""
        return Added(**(self._json(self._added, _Added) or {}))

    def run(self, train_key: str) -> dict[str, Any] | None:
        """Return what `write_run` kept of this training, or None; what is damaged is warned of, and as good as none."""
        return self._json(self._runs / f"{train_key}.json", _Sealed)

    def _json(self, path: Path, form: type[_Sealed]) -> dict[str, Any] | None:
        try:
            text = path.read_text(encoding="utf-8")
            found: dict[str, Any] = json.loads(text)
            form.model_validate(found)
            if not _is_whole(path.stem, text, found, found.pop("digest", None)):
                raise ValueError("it was altered, or is another file")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{path} is damaged and not used: {_briefly(error)}")
            return None
        return found

    def _parts(self, training: str | None = None) -> list[Path]:
        """Return the parts in the order of their stamps; those that may hold rows of a training, if one is said."""
        folders = "[0-9a-f]*" if training is None else training[:2] or "."
        found = (path for where in (".", folders) for path in self.folder.glob(f"{where}/*.*"))
        parts = {path: part["training"] for path in found if (part := PART.match(path.name))}
        own = (path for path, of in parts.items() if training is None or of in (None, training))
        return sorted(own, key=lambda path: path.name)

    def _read_part(self, path: Path, names: list[str], training: str | None, cells: Allowed | None) -> pa.Table | None:
        if path.name in self._damaged:
            return None
        try:
            if path.name not in self._whole:
                with path.open("rb") as stream:
                    if f"-{hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}." not in path.name:
                        raise ValueError("it was altered or cut short")
            found = self._columns_of(path, names, training, cells)
        except FileNotFoundError:
            raise
        except (IsADirectoryError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, pa.ArrowException) as error:
            self._damaged.add(path.name)
            self._warn(f"{path}: {_briefly(error)}; its rows are not used, and made again where needed")
            return None
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
        self._whole.add(path.name)
        return found

    def _columns_of(self, path: Path, names: list[str], training: str | None, cells: Allowed | None) -> pa.Table:
        """Return columns of a part, of the rows of a training and of cells, if said."""
        limits: dict[str, Allowed] = {} if training is None else {"train_key": {training}}
        limits |= {} if cells is None else {"cell": cells}
        if path.suffix == ".gz":
            if path.name not in self._old:
                self._old[path.name] = _encoded(arrow(parse(gzip.decompress(path.read_bytes()))), COLUMNS)
            return _limited(self._old[path.name], limits).select(names)
        metadata = pq.read_metadata(path)
        texts = [name for name in metadata.schema.names if name in (*TEXT, *TRACE)]
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            groups = row_groups(file, training)
            if cells is not None and not _mask(file.read_row_groups(groups, ["cell"])["cell"], cells).any():
                groups = []
            found = _encoded(file.read_row_groups(groups, [*{*names, *limits}]), [*names, *limits])
        return _limited(found, limits).select(names)

    def _write(self, tables: Iterable[pd.DataFrame], stamp: str, training: str = "") -> Path:
        """Write a part, each of the tables a row group."""
        content, writer = io.BytesIO(), None
        for table in tables:
            rows = arrow(table)
            if writer is None:
                how: dict[str, Any] = {"use_dictionary": [*TEXT, *TRACE], "use_byte_stream_split": [*FLOATS]}
                how |= {"compression": "zstd", "write_statistics": ["train_key"], "store_schema": False}
                writer = pq.ParquetWriter(content, rows.schema, **how)
            writer.write_table(rows, row_group_size=len(rows))
        if writer is not None:
            writer.close()
        middle = f"-{training}" if PART.match(f"{stamp}-{training}-{'0' * 16}.parquet") else ""
        folder = self.folder / training[:2] if middle else self.folder
        path = folder / f"{stamp}{middle}-{_digest(content.getvalue())}.parquet"
        write_whole(path, content.getvalue())
        return path


class _Sealed(BaseModel):
    """The form of what is kept as JSON, whatever else is in it."""

    digest: str = ""


class _Added(_Sealed):
    seeds: dict[str, list[int]]
    looks: dict[str, int]


class _Plan(_Sealed):
    cells: dict[str, str]
    sets: dict[str, dict[str, tuple[str, str]]]


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    text = json.dumps(facts | {"digest": ""}, indent=1, ensure_ascii=False)
    write_whole(path, (text.removesuffix(_END.format("")) + _END.format(_seal(path.stem, text))).encode())


_END = '"{}"\n}}'  # of such a file: the digest comes last


def _seal(name: str, text: str) -> str:
    """Return a hash of what a file of this name holds, its own place in it being empty."""
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()


def _is_whole(name: str, text: str, facts: dict[str, Any], seal: str | None) -> bool:
    """Return whether a file of this name is as it was written; older versions took the hash of the facts."""
    if seal is None or len(seal) < 64:
        return seal in (None, digest([name, facts]))
    end = _END.format(seal)
    return text.endswith(end) and seal == _seal(name, text.removesuffix(end) + _END.format(""))


def _briefly(error: Exception) -> str:
    """Return what is wrong, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return str(getattr(error, "strerror", None) or error)


def lacking(rows: pd.DataFrame, plan: dict[str, Any]) -> str:
    """Return how many of a plan's rows `current` finds, and of which trainings and sets none; nothing where all are."""
    work = plan.get("work", [])
    if len(rows) == sum(count * len(plan["sets"][id_]) for _, id_, _, count in work):  # each is one of them
        return ""
    there, cells = rows.groupby("cell").size().to_dict(), iter(plan.get("cells", {}))
    wanted, have, without = 0, 0, []
    runs: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}  # of which there are rows -> ID set and seed
    for title, id_, seed, count in work:
        found = sum(there.get(cell, 0) for cell in islice(cells, count))
        wanted, have = wanted + count * len(plan["sets"][id_]), have + found
        runs[found > 0].add((id_, seed))
        without += [] if found else [title]
    if have >= wanted:
        return ""
    declared = runs[True] | runs[False]
    n = f"; n = {len(runs[True])} where {len(declared)} are declared" if runs[True] < declared else ""
    more = f" and {len(without) - 3} more" if len(without) > 3 else ""
    nothing = f"; nothing of {', '.join(without[:3])}{more}" if without else ""
    return f"{have} of {wanted} rows are there{n}{nothing}{_lost_sets(rows, plan)}; run the study to make the others"


def _lost_sets(rows: pd.DataFrame, plan: dict[str, Any]) -> str:
    """Return on which OOD sets rows of their ID set lack, all of them or some, as the end of a sentence."""
    cells = rows.groupby("id", sort=False)["cell"].nunique()
    there = rows.groupby(["id", "ood"]).size().to_dict()
    sets = [(id_, ood) for id_ in cells.index for ood in plan["sets"].get(id_, {})]
    lost = dict.fromkeys(ood for id_, ood in sets if there.get((id_, ood), 0) < cells[id_])
    if not lost:
        return ""
    missing = {ood for names in plan.get("missing", {}).values() for ood in names}
    gone = [ood for ood in lost if ood in missing]
    files = "their files" if len(gone) == len(lost) else f"the files of {', '.join(gone)}"
    why = f" ({files} are not here)" if gone else ""
    return f"; without {', '.join(lost)}{why}, so that no mean over OOD sets is shown that lacks one of them"


def machines(rows: pd.DataFrame) -> str:
    """Return a sentence on the machines that made the numbers of rows where they are several, else ""."""
    places = rows[["trained_on", "scored_on"]]
    if all(len(texts_of(places[name])) < 2 for name in places):
        return ""
    found = places[rows["status"] == "ok"].groupby(["trained_on", "scored_on"], sort=False).size()
    if len(found) < 2:
        return ""
    counts = []
    for (trained_on, scored_on), count in zip(found.index, found, strict=True):
        scored = "" if scored_on == trained_on else f", scored on {scored_on}"
        counts.append(f"{count} trained on {trained_on or 'one that is not recorded'}{scored}")
    kinds = f"{len(found)} machines or numbers of threads"
    return f"These rows are of {kinds}, whose numbers may differ: {'; '.join(counts)}."


def texts_of(column: pd.Series[str]) -> set[str]:
    """Return the different texts of a column; of a million a third of the time that pandas's `unique` takes."""
    return {*column.to_numpy(dtype=object).tolist()}


@dataclass(frozen=True)
class _Start:
    """All texts that begin so."""

    text: str


Allowed = Collection[str] | _Start


def _mask(column: pa.ChunkedArray, allowed: Allowed) -> np.ndarray:
    """Return which texts of a column of a part are allowed."""
    parts = (_allowed(each.dictionary, allowed)[each.indices.to_numpy()] for each in column.chunks)
    return np.concatenate([np.empty(0, dtype=bool), *parts])


def _allowed(texts: pa.Array, allowed: Allowed) -> np.ndarray:
    if isinstance(allowed, _Start):
        found = pc.starts_with(texts, allowed.text)
    else:
        found = pc.is_in(texts, pa.array([*allowed], pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _limited(table: pa.Table, limits: dict[str, Allowed]) -> pa.Table:
    """Return the rows of a part whose texts are allowed, by column."""
    masks = [_mask(table[name], allowed) for name, allowed in limits.items()]
    return table.filter(pa.array(np.logical_and.reduce(masks))) if masks else table


def _encoded(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return columns of a part, each text by its number; those that older versions did not have are empty."""
    columns = {}
    for name in dict.fromkeys(names):
        is_text, there = name in (*TEXT, *TRACE), name in table.column_names
        if is_text:
            found = table[name] if there else pa.chunked_array([pa.array([""] * len(table), pa.string())])
            columns[name] = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
        else:
            kind = pa.int64() if name in INTEGERS else pa.float64()
            columns[name] = table[name] if there else pa.chunked_array([pa.nulls(len(table), kind)])
    return pa.table(columns)


def _all_apart(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Return whether no two rows have the same two texts, of columns whose parts have one dictionary."""
    (ones, _), (others, names) = (_numbers_of(each) for each in (one, other))
    return _distinct(ones.astype(np.int64) * len(names) + others) == len(one)


def _distinct(numbers: np.ndarray) -> int:
    """Return how many different numbers there are."""
    ordered = np.sort(numbers)  # of a million, a tenth of the time that numpy's `unique` takes
    return int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered))


def _numbers_of(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return the texts of a column whose parts have one dictionary, and which of them each row has."""
    return np.concatenate([each.indices.to_numpy() for each in column.chunks]), column.chunk(0).dictionary.to_pylist()


def _together(tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield tables put together until they have the rows of a row group."""
    held: list[pd.DataFrame] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= GROUP:
            yield pd.concat(held, ignore_index=True)
            held = []
    if held:
        yield pd.concat(held, ignore_index=True)


def row_groups(file: pq.ParquetFile, training: str | None) -> list[int]:
    """Return the row groups of a part that may hold rows of a training."""
    metadata, every = file.metadata, list(range(file.num_row_groups))
    if training is None or "train_key" not in file.schema_arrow.names:
        return every
    place = file.schema_arrow.names.index("train_key")
    known = [metadata.row_group(i).column(place).statistics for i in every]
    return [i for i, each in zip(every, known, strict=True) if not each or each.min <= training <= each.max]


def _places(rows: pd.DataFrame, facts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return each row's place in the order of a study's cells and sets, -1 where it is not the study's; its group now.

    Beside them, of how many rows that a study asks for there are only old ones.
    """
    cells = pd.Index(list(facts["cells"]), dtype=object)
    keys = np.array([*facts["cells"].values(), ""], dtype=object)
    sets = [(id_, ood, *each) for id_, members in facts["sets"].items() for ood, each in members.items()]
    numbers = {each[:2]: i for i, each in enumerate(sets)}
    groups, contents = (np.array([*(each[i] for each in sets), ""], dtype=object) for i in (2, 3))
    (ids, id_names), (oods, ood_names) = (pd.factorize(rows[name].to_numpy(dtype=object)) for name in ("id", "ood"))
    lookup = [[numbers.get((id_, ood), -1) for ood in ood_names] for id_ in id_names]
    of_set = np.array(lookup, dtype=np.int64).reshape(len(id_names), len(ood_names))[ids, oods]
    of_cell = cells.get_indexer(rows["cell"].to_numpy(dtype=object))
    places = np.where((of_cell >= 0) & (of_set >= 0), of_cell * max(1, len(sets)) + of_set, -1)
    is_fresh = keys[of_cell] == rows["key"].to_numpy(dtype=object)
    is_fresh &= contents[of_set] == rows["ood_data"].to_numpy(dtype=object)
    fresh = np.where(is_fresh, places, -1)
    stale = _distinct(places[places >= 0]) - int((fresh >= 0).sum())
    return fresh, groups[of_set], stale


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def frame(rows: Iterable[dict[str, Any]], names: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """Return rows with every column that is named, in order, each of its type."""
    return typed(pd.DataFrame.from_records(list(rows), columns=list(names)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of rows with each column of its type; a text that is not there is empty."""
    types = {name: (_TYPES | _MEASURED).get(name, "str") for name in table}
    return table.astype(types).fillna({name: "" for name, kind in types.items() if kind in ("str", _TEXT)})


@cache
def _empty(names: tuple[str, ...]) -> pd.DataFrame:
    return frame([], names)


def parse(content: bytes) -> pd.DataFrame:
    """Return the rows of a part of older versions."""
    table = pd.read_csv(io.BytesIO(content), dtype=_TYPES, keep_default_na=False, na_values=[""])
    return table.reindex(columns=list(COLUMNS)).astype(_TYPES).fillna(dict.fromkeys((*TEXT, *TRACE), ""))


def arrow(rows: pd.DataFrame) -> pa.Table:
    """Return rows as they are written."""
    types = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(FLOATS, pa.float64())
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    return pa.Table.from_pandas(rows[list(COLUMNS)], schema, preserve_index=False).replace_schema_metadata()


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def frame_of(columns: dict[str, pa.ChunkedArray]) -> pd.DataFrame:
    """Return rows of columns whose parts have one dictionary, and take these; texts that are alike are one object."""
    return pd.DataFrame({name: _column(columns.pop(name)) for name in [*columns]}, copy=False)


def _column(column: pa.ChunkedArray) -> Any:
    if pa.types.is_int64(column.type):
        return column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    if not pa.types.is_dictionary(column.type):
        return column.to_numpy()
    numbers, texts = _numbers_of(column)
    return pd.array(np.array(texts, dtype=object)[numbers], dtype=_TEXT)


_TEXT: Any = pd.StringDtype("python", na_value=np.nan)  # eight bytes a text that others share
_NUMBERS: Any = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLOATS, "float64")
_TYPES: Any = dict.fromkeys((*TEXT, *TRACE), _TEXT) | _NUMBERS
_MEASURED: Any = dict.fromkeys(("epoch", "n"), "Int64") | dict.fromkeys(("noise", *QUALITY), "float64")  # of exports
