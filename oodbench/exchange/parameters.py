"""From the parameters that a row states to plugins that are here: names are made of them, not taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from oodbench.errors import UserError
from oodbench.study.document import Document
from oodbench.study.grid import DETECTOR_AXES, Detector
from oodbench.study.registry import ROOMS, Registry
from oodbench.study.settings import RESNETS, Encoder, Space
from oodbench.study.values import Values


class Parameters:
    """Reads plain values as what they are parameters of; no plugin comes with a submission."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._values = Values(Document(Path("submission"), {}))
        self.detector = cache(self._detector)

    def plugin(self, room: str, given: Any) -> Any:
        """Return a plugin of its name and parameters, or None of None. Raises UserError where there is none such."""
        if given is None:
            return None
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise UserError(f"{room} is no plugin with a name")
        params = {name: value for name, value in given.items() if name != "name"}
        return self._values.one(self.registry.load(room, given["name"]), params, (room, given["name"]))

    def _detector(self, text: str) -> Detector:
        """Return the detector of a row's column of that name. Raises UserError where its plugins are not here."""
        given = json.loads(text)
        saw = tuple(map(str, given.get("saw", ())))
        threshold, posthoc = self.plugin("threshold", given["threshold"]), self.plugin("posthoc", given.get("posthoc"))
        if posthoc:
            return Detector(Space(), None, None, threshold, posthoc, str(given.get("head", "")), saw)
        space = self._values.one(Space, given["space"], ("space",))
        clustering, distance = (self.plugin(room, given[room]) for room in ("clustering", "distance"))
        return Detector(space, clustering, distance, threshold, saw=saw)

    def named(self, rows: pd.DataFrame, trained: Mapping[str, Any]) -> pd.DataFrame:
        """Return rows whose names of detectors, trainings and encoders are those of their parameters.

        Where a plugin is not here, the stated name stays.
        """
        rows, labels = rows.copy(), {}  # with its attrs
        for text in rows["detector"].unique():
            with suppress(UserError, KeyError, TypeError, ValueError):
                labels[text] = self.detector(text).labels
        known = rows["detector"].isin(labels.keys())
        for axis in (*DETECTOR_AXES, "level") if known.any() else ():
            found = rows.loc[known, "detector"].map({text: each[axis] for text, each in labels.items()})
            rows.loc[known, axis] = found.astype(rows[axis].dtype)
        for key, members in rows.groupby("train_key").groups.items():
            for axis, label in self._of_training(trained[str(key)]).items():
                rows.loc[members, axis] = label
        return rows

    def _of_training(self, given: Any) -> dict[str, str]:
        found = {}
        try:
            found["training"] = self.plugin("training", given["training"]).label
            encoder = given["encoder"]
            if encoder["name"] in RESNETS:
                self._values.one(RESNETS[encoder["name"]], encoder["params"], ("encoder",))
                found["encoder"] = Encoder(name=encoder["name"], params=encoder["params"]).label
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            return found
        return found

    def other_code(self, stated: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Return the plugins whose code, by its stated hash, is not that of the plugin of this name here."""
        every = ((room, name, of) for room, names in stated.items() for name, of in names.items())
        return sorted({name for room, name, of in every if self._hash(room, name) != of})

    def _hash(self, room: str, name: str) -> str:
        is_here = room in ROOMS and name in self.registry.sources(room)
        return self.registry.fingerprint(room, name) if is_here else ""
