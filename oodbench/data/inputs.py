"""What the plan of a study follows from, as one hash: while it stays, the cells and their keys are those of the plan.

It takes in all that a study says, the code of the package and of the study's own plugins, and its data as they are
prepared: more than keys depend on, so that nothing that decides a row, or what is said of a study before it runs, is
missed. What changes it but no row costs a run that plans anew.
"""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

from oodbench.api import Dataset
from oodbench.data.library import Library, Split
from oodbench.data.needs import needs
from oodbench.errors import UserError
from oodbench.store.artifacts import digest, sha256
from oodbench.study.document import Document
from oodbench.study.reader import stamp
from oodbench.study.registry import ROOMS, Registry


def inputs(library: Library, others: list[str]) -> str:
    """Return the hash, of others, too; "" where data are not prepared, or files of a set are not here."""
    study = library.study
    try:
        data = [_prepared(library, need.dataset, split) for need in needs(study) for split in need.splits]
    except (OSError, ValueError, UserError):  # a run will say what is wrong with it
        return ""
    if not all(data):
        return ""
    said = json.dumps(study, default=_plain)  # in its order, which is that of the plan
    return digest([stamp(study.document), said, package(), data, others])


def _prepared(library: Library, dataset: Dataset, split: Split) -> list[str]:
    """Return what names the prepared split of a set in the store, and its content; nothing where it is not there."""
    key = digest(library.data_fields(dataset, split))
    facts = library.memo.store.manifest("data", key).get("meta", {})
    return [key, facts["content"]] if "content" in facts else []


def package() -> list[tuple[str, str]]:
    """Return name and content of each file of the package and of its plugins."""
    tops = [Path(str(resources.files(each))) for each in ("oodbench", *ROOMS.values())]
    files = sorted(path for top in tops for path in top.rglob("*") if path.suffix in (".py", ".yaml"))
    return [(path.name, sha256(path)) for path in files]


def _plain(value: Any) -> Any:
    """Return a part of a study that JSON does not know as what it knows."""
    if isinstance(value, Registry):
        return None  # `stamp` and `package` know its code
    if isinstance(value, Document):
        return [str(value.file.resolve()), value.value, value.changes]
    if dataclasses.is_dataclass(value):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return [type(value).__name__, getattr(value, "name", ""), getattr(value, "shown_as", ""), parts]
    return sorted(value) if isinstance(value, frozenset) else str(value)
