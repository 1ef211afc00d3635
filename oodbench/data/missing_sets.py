"""The sets of a study whose files are not here: why, where they would be got, and a study that goes on without them.

Only OOD test sets may be gone without. They stay declared: no key changes, and their rows are made once they are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.filesize import decimal

from oodbench.data import needs
from oodbench.data.needs import Need, Supply
from oodbench.errors import UserError
from oodbench.study.grid import Run, canonical
from oodbench.study.study import GROUPS, Study

FLAG = "--without-missing-sets"


class MissingSet(NamedTuple):
    """A set whose files are not here."""

    need: Need
    why: str
    supply: Supply

    @property
    def label(self) -> str:
        return self.need.dataset.label

    @property
    def may_lack(self) -> bool:
        """Whether a study can go on without it."""
        return may_lack(self.need)

    def text(self, study: object, data: Path) -> str:
        """Return its name, why it is missing, and where it would be got, as one line."""
        return f"{self.label} ({', '.join(self.need.roles)}): {self.why}; {self._got(study, data)}"

    def _got(self, study: object, data: Path) -> str:
        source = self.need.dataset.source
        if self.need.files:
            return self.need.files.by_hand.replace("{data}", str(data))
        if source is None:
            return "no command gets your own files: place them, or mend the paths"
        names = ", ".join(each.name for each in self.supply.downloads)
        if self.supply.state == needs.BY_HAND:
            return f"place {names} in {data / source.folder}, from {source.page}" + f"; {source.by_hand}" * bool(
                source.by_hand
            )
        size = "size unknown" if self.supply.size is None else decimal(self.supply.size)
        return f"oodbench prepare {study} gets {names} ({size}) from {self.supply.origin}"


def may_lack(need: Need) -> bool:
    """Return whether a set is an OOD test set and nothing else."""
    return {*need.roles} <= {*GROUPS}


def missing_sets(study: Study) -> list[MissingSet]:
    """Return the sets of a study whose files are not here; a set that is damaged is here."""
    found = []
    for need in needs.needs(study):
        try:
            why = needs.lacking(need, study.data)
        except (OSError, ValueError):  # preparing the set says what is wrong
            continue
        if why:
            found.append(MissingSet(need, why, needs.missing_supply(need, study.data)))
    return found


def needed_by(found: Sequence[MissingSet], runs: Iterable[Run]) -> list[MissingSet]:
    """Return those of missing sets that trainings, and the rows of their cells, need."""
    wanted = {str(canonical(each)) for run in runs for each in run.datasets}
    return [each for each in found if str(canonical(each.need.dataset)) in wanted]


def without(study: Study, found: Sequence[MissingSet]) -> Study:
    """Return a study that goes on without OOD test sets, given what `missing_sets` found.

    Raises UserError, a line for each, where a set of another role is missing, or an ID set keeps no OOD test set.
    """
    lines = [each.text(study.file, study.data) for each in found if not each.may_lack]
    if lines:
        raise UserError("\n".join([f"{FLAG} goes on without OOD test sets alone; these are needed", *lines]))
    whys = {str(canonical(each.need.dataset)): each.why.replace(str(study.data), "DATA") for each in found}
    missing = {
        id_: {
            name: whys[key]
            for members in setup.ood.values()
            for name, each in members.items()
            if (key := str(canonical(each))) in whys
        }
        for id_, setup in study.setups.items()
    }
    made = dataclasses.replace(study, missing={id_: names for id_, names in missing.items() if names})
    if alone := [id_.label for id_ in study.ids if not made.tested(id_)]:
        lines = [each.text(study.file, study.data) for each in found]
        raise UserError("\n".join([f"{FLAG} leaves {', '.join(alone)} no OOD test set", *lines]))
    return made


@contextmanager
def hinted(study: Study) -> Iterator[None]:
    """Let what is said of a missing set name the flag that goes on without it, where there is nothing else missing."""
    try:
        yield
    except UserError as error:
        found = missing_sets(study)
        if not any(each.label in str(error) for each in found) or not all(each.may_lack for each in found):
            raise
        names = ", ".join(each.label for each in found)
        raise UserError(f"{error}; {FLAG} goes on without the OOD test sets that are not here ({names})") from error
