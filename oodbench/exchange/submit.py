"""From a study's results to a submission."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from oodbench.errors import UserError
from oodbench.exchange import archive
from oodbench.store.provenance import libraries, now, version
from oodbench.store.rows import Results
from oodbench.study.document import Document
from oodbench.study.registry import ROOMS, Registry


class FeatureFolder(NamedTuple):
    """The features of one encoder, as `oodbench export-features` writes them."""

    key: str  # its train_key
    folder: Path
    stems: Mapping[tuple[str, str], str]  # role (ood, validation) and name of a set -> stem of its file


def submit(
    document: Document,
    registry: Registry,
    given: Results,
    rows: pd.DataFrame,
    who: str,
    features: Sequence[FeatureFolder] = (),
) -> tuple[dict[str, Any], dict[str, bytes | Path]]:
    """Return the facts and the members of a submission of the current rows of a study, for `archive.write`.

    Raises UserError where they are features that were scored, whose runs hold no parameters of a training.
    """
    plan = given.plan() or {}
    if "features" in plan or not plan:
        raise UserError(f"{given.folder.parent} is no run of a study; rows of `oodbench score` cannot be submitted")
    runs = {key: given.run(key) for key in rows["train_key"].unique()}
    if lost := [key for key, facts in runs.items() if facts is None]:
        raise UserError(f"{given.folder.parent}: runs/{lost[0]}.json is lost or damaged; oodbench run writes it again")
    members: dict[str, bytes | Path] = {
        archive.STUDY: document.file.read_bytes(),
        archive.PLAN: json.dumps(plan, ensure_ascii=False).encode(),
        archive.ROWS: gzip.compress(rows.to_csv(index=False).encode(), mtime=0),
        archive.RUNS: json.dumps(runs, ensure_ascii=False).encode(),
    }
    for each in features:
        files = sorted(each.folder.glob("*.safetensors"))
        members |= {f"features/{each.key}/{file.name}": file for file in files}
    facts = {
        "format": 1,
        "study": plan["study"],
        "who": who,
        "date": now(),
        "version": version(),
        "libraries": libraries(),
        "plugins": _plugins(registry, rows, runs),
        "changes": document.changes,
        "features": {each.key: _enclosed(each) for each in features},
    }
    return facts, members


def _enclosed(each: FeatureFolder) -> dict[str, Any]:
    roles: dict[str, dict[str, str]] = {"ood": {}, "validation": {}}
    for (role, name), stem in each.stems.items():
        roles[role][name] = stem
    return {"val": (each.folder / "val.safetensors").is_file(), **roles}


def _plugins(registry: Registry, rows: pd.DataFrame, runs: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the hash of the code of every plugin that rows are of, by room and name."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    parts = [json.loads(each) for each in rows["detector"].unique()]
    parts += [{"training": facts["parameters"]["training"]} for facts in runs.values()]
    for part in parts:
        for room in ROOMS:
            if room in part and part[room] and part[room]["name"] not in found[room]:
                name = part[room]["name"]
                found[room][name] = registry.fingerprint(room, name)
    return {room: names for room, names in found.items() if names}
