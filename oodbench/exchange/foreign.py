"""Tables of results that other codebases write, as lines of a board: read as they are, nothing of them verified.

OpenOOD v1.5 (Zhang et al. 2023, arXiv 2306.09301): a file for each method, named after it, in per cent. Its script
writes `mean ± std` over runs (ddof 0) behind the names of sets, its older evaluator one run with a column `dataset`;
`nearood` and `farood` are the means of the groups. In a folder `fsood` all of it is of the full spectrum.
pytorch-ood (Kirchheim et al. 2022): a line for each detector and data set, or their means by detector, in shares or per
cent. Which images a line is of, who made it and with which version no such file says.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from oodbench.errors import UserError, printable

MOST, LINES, LONGEST = 1 << 20, 10_000, 200  # bytes of a file, its lines, signs of a name
OPENOOD, PYTORCH_OOD = "OpenOOD", "pytorch-ood"
OF_OPENOOD = ("FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC")  # behind the name of a set
OF_PYTORCH_OOD = ("Detector", "AUROC", "AUPR-IN", "AUPR-OUT", "FPR95TPR")
GROUPS = {"nearood": "near", "farood": "far"}
FULL_SPECTRUM = "fsood"  # the folder of such results of OpenOOD
NUMBER = re.compile(r"(\d{1,3}(?:\.\d{1,16})?)(?: ± (\d{1,3}(?:\.\d{1,16})?))?")


class Number(NamedTuple):
    """A mean and its standard deviation in per cent, NaN where there is none."""

    mean: float
    std: float


class ForeignLine(NamedTuple):
    """What a table says of a method."""

    codebase: str
    method: str
    numbers: dict[str, Number]  # title of a column -> number, the one that ranks first


def tables(paths: Iterable[Path]) -> list[Path]:
    """Return the files of tables: what is given, and every .csv in folders. Raises UserError where there is none."""
    found = []
    for path in paths:
        files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        if not files or not path.exists():
            raise UserError(f"{path}: there is no table (*.csv) of another codebase")
        found += files
    return list(dict.fromkeys(found))


def read(path: Path) -> list[ForeignLine]:
    """Return the lines of a table. Raises UserError where it is of no known codebase, or a line is none."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST + 1)
        if len(content) > MOST:
            raise ValueError(f"it has more than {MOST} bytes")
        header, lines = _parsed(content.decode())
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        if header[0] in ("", "dataset") and (*header[1:],) == OF_OPENOOD:
            return [_of_openood(rows, header[0], path)]
        if {*OF_PYTORCH_OOD} <= {*header}:
            return list(_of_pytorch_ood(rows))
        known = f"{OPENOOD} ({', '.join(OF_OPENOOD)}) nor of {PYTORCH_OOD} ({', '.join(OF_PYTORCH_OOD)})"
        raise ValueError(f"its columns are {', '.join(header)}: it is no table of {known}")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(printable(f"{path}: {error}")) from error


def _parsed(text: str) -> tuple[list[str], list[list[str]]]:
    """Return the header of a table and its lines, of as many values each."""
    lines = [[*map(_name, line)] for line in csv.reader(io.StringIO(text)) if line]
    if len(lines) < 2:
        raise ValueError("it has no line")
    header, *lines = lines
    if len(lines) > LINES:
        raise ValueError(f"it has {len(lines)} lines, {LINES} at most are read")
    if other := next((line for line in lines if len(line) != len(header)), None):
        raise ValueError(f"the line {', '.join(other)} has not {len(header)} values")
    return header, lines


def _name(text: str) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]}... has {len(text)} signs, {LONGEST} at most are read")
    return printable(text.strip())


def _of_openood(rows: list[dict[str, str]], of: str, path: Path) -> ForeignLine:
    sets = [row[of] for row in rows]
    if again := next((each for each in sets if sets.count(each) > 1), ""):
        raise ValueError(f"{again} is there twice")
    full = path.parent.name == FULL_SPECTRUM
    fs, by_set = "FS " * full, dict(zip(sets, rows, strict=True))
    groups = {ours: by_set[theirs] for theirs, ours in GROUPS.items() if theirs in by_set}
    found = {f"{group} {fs}AUROC": _number(row["AUROC"]) for group, row in groups.items()}
    found |= {f"{group} {fs}FPR@95 of {OPENOOD}": _number(row["FPR@95"]) for group, row in groups.items()}
    found |= {f"{name} {fs}AUROC": _number(row["AUROC"]) for name, row in by_set.items() if name not in GROUPS}
    if not full:  # there it is of clean and shifted images together
        found["ID accuracy"] = _number(rows[0]["ACC"])
    return ForeignLine(OPENOOD, path.stem, found)


def _of_pytorch_ood(rows: list[dict[str, str]]) -> Iterator[ForeignLine]:
    share = max(_number(row["AUROC"]).mean for row in rows) <= 1
    found: dict[str, dict[str, Number]] = {}
    for row in rows:
        title, numbers = f"{row.get('Dataset', 'mean')} AUROC", found.setdefault(row["Detector"], {})
        if title in numbers:
            raise ValueError(f"{row['Detector']} is there twice with {title}")
        mean, std = _number(row["AUROC"])
        numbers[title] = Number(100 * mean, 100 * std) if share else Number(mean, std)
    yield from (ForeignLine(PYTORCH_OOD, method, numbers) for method, numbers in found.items())


def _number(text: str) -> Number:
    """Return mean and standard deviation of a cell. Raises ValueError where it is no share or per cent."""
    parts = NUMBER.fullmatch(text)
    if parts is None or float(parts[1]) > 100:
        raise ValueError(f"{text} is no number from 0 to 100, nor two with ± between them")
    return Number(float(parts[1]), float(parts[2]) if parts[2] else math.nan)
