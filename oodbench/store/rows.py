"""The rows of a study: part files, one per piece of work, read as their union.

A part is `rows/STAMP-DIGEST.csv.gz`, the digest that of its bytes: one cut short or altered is named and not
used. Of rows of one cell, set, key and content the one of the last stamp counts. A stamp is the time, or what comes
after the last stamp there is where the clock says less. Beside them, `runs/TRAIN_KEY.json` holds the parameters and
circumstances of each training, and `plan.json` the cells of the study. It knows pandas and files; no torch, no methods.
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
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError

from oodbench.store.artifacts import digest
from oodbench.store.columns import COLUMNS, FLOATS, INTEGERS, QUALITY, TEXT, TRACE
from oodbench.store.files import FileError, read_sealed, write_sealed, write_whole, writing

CLUSTERS = "quality.csv"  # what `oodbench quality` measures
CURVE = "curve.csv"  # what `oodbench curve` follows
IMAGE_ERRORS = "image_errors.csv"  # of claims, what `oodbench verdict` measures where scores are kept
SAME = ["cell", "ood", "key", "ood_data"]  # rows that agree in these are one
PART = re.compile(r"^(\d{8}T\d{12})-([0-9a-f]{16})\.csv\.gz$")


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
        self._known: dict[str, pd.DataFrame] = {}  # parts by name; a part never changes
        self._damaged: set[str] = set()  # parts warned of

    def read(self) -> pd.DataFrame:
        """Return all rows, the newest of each cell, OOD set, key and content, in the order they were written."""
        while True:
            parts = self._parts()
            found = [part for path in parts if (part := self._read_part(path)) is not None]
            if all(path.name in self._known or path.exists() for path in parts):
                return _newest(found)  # else another process compacted the parts meanwhile: one has their rows

    def current(self) -> pd.DataFrame:
        """Return the rows of the study as it was when it was last run, each in the group that its set is in now.

        They are in the order of the study's cells and sets, in whatever order they were made. Rows made by other code
        or from other data than the study has now are left out and warned of, and so are machines that differ. Their
        `attrs` hold the `sets` that a study declares, ID set -> OOD set -> group, and what they are `lacking`, a line.
        """
        rows, facts = self.read(), self.plan()
        if facts is None:
            if len(rows):
                self._warn(f"{self._plan} is not there to say which rows are the study's: all are taken; run it again")
            return rows.drop_duplicates(["cell", "ood"], keep="last", ignore_index=True)
        sets = [(id_, ood, *each) for id_, members in facts["sets"].items() for ood, each in members.items()]
        wanted = pd.DataFrame(sets, columns=["id", "ood", "group", "content"], dtype="str").reset_index(names="of sets")
        rows = rows[rows["cell"].isin(facts["cells"].keys())].drop(columns="group").merge(wanted, on=["id", "ood"])
        fresh = (rows["cell"].map(facts["cells"]) == rows["key"]) & (rows["ood_data"] == rows["content"])
        rows["of cells"] = rows["cell"].map({cell: place for place, cell in enumerate(facts["cells"])})
        places = ["of cells", "of sets"]
        stale = len(rows[places].drop_duplicates()) - fresh.sum()
        if stale:
            self._warn(f"{stale} rows were made by other code or from other data; run the study to renew them")
        found = rows[fresh].sort_values(places)[list(COLUMNS)].reset_index(drop=True)
        if said := machines(found):
            self._warn(said)
        if "work" in facts:
            sets_ = {id_: {ood: group for ood, (group, _) in members.items()} for id_, members in facts["sets"].items()}
            found.attrs = {"sets": sets_, "lacking": lacking(found, facts)}
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
        """Add rows (COLUMNS) as one part, the last one, whatever the clock says."""
        last = max((path.name.partition("-")[0] for path in self._parts()), default="0")
        after = f"{int(last.replace('T', '')) + 1:020d}"
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self._write(rows, max(now, f"{after[:8]}T{after[8:]}"))

    def compact(self) -> int:
        """Put all parts that are whole into one, with every row that `read` returns, and return how many they were.

        It gets the stamp of the newest of them: what another process adds meanwhile stays newer.
        """
        parts = {path: part for path in self._parts() if (part := self._read_part(path)) is not None}
        if len(parts) > 1:
            whole = self._write(_newest(list(parts.values())), max(parts).name.partition("-")[0])
            for path in parts.keys() - {whole}:  # where the newest part holds all rows, it is the whole
                path.unlink(missing_ok=True)
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
        facts = [self.plan(), self.added(), self.clusters(), *(self.run(path.stem) for path in runs)]
        absent = sum(not path.is_file() for path in (self._plan, self._added, self._clusters))
        rows = self.read()
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
        return self._json(self._plan, _Plan)

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
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            form.model_validate(found)
            seal = found.pop("digest", None)
            if seal not in (None, _seal(path, found)):
                raise ValueError("it was altered, or is another file")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{path} is damaged and not used: {_briefly(error)}")
            return None
        return found

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.csv.gz") if PART.match(path.name))

    def _read_part(self, path: Path) -> pd.DataFrame | None:
        if path.name not in self._known:
            if path.name in self._damaged:
                return None
            try:
                content = path.read_bytes()
                if not path.name.endswith(f"-{_digest(content)}.csv.gz"):
                    raise ValueError("it was altered or cut short")
                self._known[path.name] = parse(gzip.decompress(content))
            except FileNotFoundError:  # another process compacted the parts
                return None
            except (IsADirectoryError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
                self._damaged.add(path.name)
                self._warn(f"{path}: {_briefly(error)}; its rows are not used, and made again where needed")
                return None
            except OSError as error:
                raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
        return self._known[path.name]

    def _write(self, rows: pd.DataFrame, stamp: str) -> Path:
        content = gzip.compress(rows.to_csv(index=False).encode(), mtime=0)
        path = self.folder / f"{stamp}-{_digest(content)}.csv.gz"
        write_whole(path, content)
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
    write_whole(path, json.dumps(facts | {"digest": _seal(path, facts)}, indent=1, ensure_ascii=False).encode())


def _seal(path: Path, facts: dict[str, Any]) -> str:
    """Return a hash of what a file of this name holds."""
    return digest([path.stem, json.loads(json.dumps(facts))])


def _briefly(error: Exception) -> str:
    """Return what is wrong, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return str(getattr(error, "strerror", None) or error)


def lacking(rows: pd.DataFrame, plan: dict[str, Any]) -> str:
    """Return how many of the rows of a plan there are, and of which trainings and sets none; nothing where all are."""
    there, cells = rows.groupby("cell").size().to_dict(), iter(plan.get("cells", {}))
    wanted, have, without = 0, 0, []
    runs: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}  # of which there are rows -> ID set and seed
    for title, id_, seed, count in plan.get("work", []):
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
    found = rows[rows["status"] == "ok"].groupby(["trained_on", "scored_on"], sort=False).size()
    if len(found) < 2:
        return ""
    counts = []
    for (trained_on, scored_on), count in zip(found.index, found, strict=True):
        scored = "" if scored_on == trained_on else f", scored on {scored_on}"
        counts.append(f"{count} trained on {trained_on or 'one that is not recorded'}{scored}")
    kinds = f"{len(found)} machines or numbers of threads"
    return f"These rows are of {kinds}, whose numbers may differ: {'; '.join(counts)}."


def _newest(parts: list[pd.DataFrame]) -> pd.DataFrame:
    if not parts:
        return frame([])
    return pd.concat(parts, ignore_index=True).drop_duplicates(SAME, keep="last", ignore_index=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def frame(rows: Iterable[dict[str, Any]], names: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """Return rows with every column that is named, in order, each of its type."""
    table = pd.DataFrame.from_records(list(rows), columns=list(names))
    types = {name: (_TYPES | _MEASURED).get(name, "str") for name in table}
    return table.astype(types).fillna({name: "" for name, kind in types.items() if kind == "str"})


def parse(content: bytes) -> pd.DataFrame:
    """Return the rows of a part."""
    table = pd.read_csv(io.BytesIO(content), dtype=_TYPES, keep_default_na=False, na_values=[""])
    return table.reindex(columns=list(COLUMNS)).astype(_TYPES).fillna(dict.fromkeys((*TEXT, *TRACE), ""))


_NUMBERS: Any = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(FLOATS, "float64")
_TYPES: Any = dict.fromkeys((*TEXT, *TRACE), "str") | _NUMBERS
_MEASURED: Any = dict.fromkeys(("epoch", "n"), "Int64") | dict.fromkeys(("noise", *QUALITY), "float64")  # of exports
