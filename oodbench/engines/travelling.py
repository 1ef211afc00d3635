"""What of a study travels to hosts that share no file system with this one: its file, and what lies beside it.

What the study names by a path from its own file travels: plugins, and the Python files beside these and itself;
weights; published numbers. What it names by a whole path has to be on each host under that path, and data sets are
prepared there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from oodbench.engines.parcels import OUT, check_size, pack
from oodbench.errors import UserError
from oodbench.store.rows import Results
from oodbench.study.declarations import PUBLISHED
from oodbench.study.fingerprints import is_installed
from oodbench.study.reader import own_code
from oodbench.study.study import Study

FOLDERS = ("data", "store")  # keys of a study that name folders


class Luggage:
    """The files of a study that travel. Raises UserError where they cannot, or are too large."""

    def __init__(self, study: Study) -> None:
        for key in FOLDERS:
            given = getattr(study.settings, key)
            if given is not None and not Path(given).expanduser().is_absolute():
                how = f"give a whole path, or leave it out and set OODBENCH_{key.upper()} on each host"
                study.document.fail((key,), f"{given} is a path from the study's file, which is copied to hosts; {how}")
        if Results(study.results).added().seeds:
            said = "seeds that --until-decided added are known here alone; write them under `seed:`"
            raise UserError(f"{study.results}: {said}, or run where hosts share a file system")
        main = _plain(study.file)
        files = {main, *_code(study), *_named(study)}
        root = Path(os.path.commonpath([each.parent for each in files]))
        self.main = main.relative_to(root).as_posix()
        sizes = {each.relative_to(root).as_posix(): each for each in sorted(files)}
        self.files = {name: each.read_bytes() for name, each in sizes.items()}
        how = "put what is large on each host, and name it by a whole path"
        check_size(self.files, OUT, f"{study.file} and the files beside it", how)

    def packed(self) -> bytes:
        return pack(self.files, main=self.main)

    @property
    def said(self) -> str:
        """What travels, and what comes back, in a line."""
        names = [self.main, *sorted(self.files.keys() - {self.main})]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        size = decimal(sum(map(len, self.files.values())))
        back = "rows, what is known of the training, scores that are kept, and logs come back"
        return f"to each host travel {', '.join(names[:4])}{more} ({size}); {back}; weights and features stay there"


def _code(study: Study) -> set[Path]:
    """Return the Python files of a study's own that lie beside it, or beside plugins that it names from there."""
    beside = study.file.parent
    plugins = [beside / each for each in study.settings.plugins if not Path(each).is_absolute()]
    roots = {_plain(each if each.is_dir() else each.parent) for each in [beside, *plugins]}
    own = [each for each in own_code(study.document) if not is_installed(each)]
    found = {file: root for each in own for root in roots if (file := _under(root, each))}
    above = {file.parents[i] for file, root in found.items() for i in range(len(file.relative_to(root).parts) - 1)}
    return {*found, *(each / "__init__.py" for each in above if (each / "__init__.py").is_file())}


def _named(study: Study) -> Iterator[Path]:
    """Yield other files that a study names by a path from its own file: weights, and published numbers."""
    weights = [each.weights for each in study.trainings if each.weights is not None]
    against = [each.against for each in study.tables.values() if each.against not in ("", PUBLISHED)]
    for name in (*weights, *against):
        path = _plain(study.file.parent / name)
        if not Path(name).is_absolute() and path.exists():
            yield from (each for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())


def _plain(path: Path) -> Path:
    """Return a path from the root, links in it as they are: what a file says is relative to where it is said to lie."""
    return Path(os.path.abspath(path))


def _under(root: Path, file: Path) -> Path | None:
    """Return a file by its path under a folder; None where it is not in it."""
    for whole, top in ((_plain(file), root), (file.resolve(), root.resolve())):
        if whole.is_relative_to(top):
            return root / whole.relative_to(top)
    return None
