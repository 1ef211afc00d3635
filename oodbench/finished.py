"""Whether a finished study is still finished, told without torch: by what its rows came of, not by computing keys.

After a run that left nothing undone, `finished.json` beside the rows holds the study's values, the hashes of our code,
of its plugins' files and of its plan, size and time of its data files, and the names of its row parts. Where one of
these is another now, the ordinary way looks closer. Artifacts in the store are not looked at: they are verified when
they are read, and by `oodbench verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from oodbench.document import Document
from oodbench.files import write_whole

FILE = "finished.json"
PLAN = "plan.json"  # of the results: one that was lost is written again


def remember(
    folder: Path, document: Document, device: str, rows: int, plugins: Iterable[Path], files: Iterable[Path]
) -> None:
    """Keep what the rows in a folder of results came of: a study, the files of its plugins and those of its data."""
    facts = _now(document, device, folder) | {
        "code": {str(path): _hash(path) for path in [*_own_code(), *plugins]},
        "files": {str(path): _stat(path) for path in files},
        "rows": rows,
    }
    write_whole(folder / FILE, json.dumps(facts).encode())


def rows_of(folder: Path, document: Document, device: str) -> int | None:
    """Return the number of rows of a study that is as `remember` left it; None where something is another now."""
    try:
        facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    now = _now(document, device, folder)
    if not isinstance(facts, dict) or any(facts.get(name) != value for name, value in now.items()):
        return None
    code, files = facts["code"], facts["files"]
    known = {str(path) for path in _own_code()} <= code.keys()
    same = all(_hash(Path(path)) == each for path, each in code.items())
    rows: int = facts["rows"]
    return rows if known and same and all(_stat(Path(path)) == each for path, each in files.items()) else None


def _now(document: Document, device: str, folder: Path) -> dict[str, Any]:
    return {
        "study": json.loads(json.dumps(document.value, default=str)),
        "device": device,
        "data": os.environ.get("OODBENCH_DATA"),
        "plan": _digest(folder / PLAN),
        "parts": sorted(path.name for path in (folder / "rows").glob("*.csv.gz")),  # a name holds a part's digest
    }


def _own_code() -> list[Path]:
    """Return the files of the harness."""
    return sorted(Path(__file__).parent.glob("*.py"))


@cache
def _hash(path: Path) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _stat(path: Path) -> list[Any]:
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else []
