"""The axes of a study: plugins by name, encoders, references and what has no names; and what is left out of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Interval
from pydantic import AfterValidator

from oodbench.api import CONTRACTS, Clustering, Dataset, Distance, Plugin, Posthoc, Threshold
from oodbench.errors import suggestion
from oodbench.study import declarations
from oodbench.study.class_protocol import class_count
from oodbench.study.document import Trail
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, Encoder, Portion, Precision, Reference, Space, TimmOptions
from oodbench.study.study import Detectors, Match, Skip, Study
from oodbench.study.values import Values, combinations, form

AXES = (
    *("id", "training", "outliers", "encoder", "recipe", "precision", "seed"),
    *("space", "clustering", "distance", "posthoc", "threshold"),
)
PLAIN: dict[str, Any] = {"seed": Annotated[int, Interval(ge=0, lt=2**63)], "precision": Precision}
DEFAULT: dict[str, Any] = {"seed": 0, "precision": "float32", "reference": "val"}  # of keys that a study may leave out
P = TypeVar("P", bound=Plugin)


CALLED = "as"  # beside parameters, the label that tables show
LONGEST = 40  # signs of a label


def one_line(label: str, most: int = LONGEST) -> str:
    """Return a label. Raises ValueError where tables, terminals or spreadsheets would take it for something else."""
    if not 0 < len(label) <= most or label != label.strip() or not label.isprintable():
        raise ValueError(f"should be 1 to {most} signs on one line, without blanks at its ends")
    if label[0] in "=+-@":
        raise ValueError("should not begin as a spreadsheet's formula does, with = + - or @")
    return label


Alias = Annotated[str, AfterValidator(partial(one_line, most=LONGEST))]


class Axes:
    """Reads the axes of a document, with the plugins that it may name."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.document, self.top, self.fail = values.document, values.top, values.fail
        self.registry = registry(values)
        self.aliases: set[str] = set()  # labels that `as:` gives

    def check_names(self) -> None:
        """Refuse what no room of detectors or trainings has, before any of their plugins is imported."""
        for room in [each for each in CONTRACTS if each in self.top]:
            for name, _, at in self.values.entries(self.top[room], (room,)):
                with self.document.blame(at):
                    self.registry.source(room, name)

    def plugins(self, contract: type[P], trail: Trail) -> list[P]:
        """Return the plugins under a key; none where a study goes without it."""
        if trail[0] not in self.top:
            return []
        entries = self.values.entries(self.values.get(trail), trail)
        room = next(room for room, each in CONTRACTS.items() if each is contract)
        found = [each for name, params, at in entries for each in self.instances(room, name, params, at)]
        return self.values.axis(found, trail)

    def instances(self, room: str, name: str, params: Any, trail: Trail) -> list[Any]:
        """Return a plugin for each combination of its parameters."""
        params, alias = self._alias(params, trail)
        made = self.values.sweep(self.plugin_class(room, name, trail), params, trail, (CALLED,))
        found = [each.called(alias) for each in made] if alias else made
        for each in found:
            if isinstance(each, Dataset):
                with self.document.blame(trail):
                    class_count(each)
        return found

    def _alias(self, params: Any, trail: Trail) -> tuple[Any, str]:
        """Return parameters without the key `as`, and what it says: a label to be shown in place of the own one."""
        if not isinstance(params, dict) or CALLED not in params:
            return params, ""
        alias = self.values.one(Alias, params[CALLED], (*trail, CALLED))
        self.aliases.add(alias)
        return {key: value for key, value in params.items() if key != CALLED}, alias

    def plugin_class(self, room: str, name: str, trail: Trail) -> type[Plugin]:
        with self.document.blame(trail):
            return self.registry.load(room, name)

    def plain(self, key: str) -> list[Any]:
        """Return an axis of plain values."""
        found = self.values.values(PLAIN[key], self.top.get(key, DEFAULT[key]), (key,))
        return self.values.axis(found, (key,))

    def precisions(self) -> list[Precision]:
        found = self.plain("precision")
        if "auto" in found and len(found) > 1:
            self.fail(("precision",), "has 'auto' in a list: on every device it is one of the others")
        return found

    def spaces(self) -> list[Space]:
        items = self.values.items(("space",)) if "space" in self.top else [(("space",), {})]
        return self.values.axis([each for at, item in items for each in self.values.sweep(Space, item, at)], ("space",))

    def encoders(self) -> list[Encoder]:
        found: list[Encoder] = []
        for name, given, trail in self.values.entries(self.values.get(("encoder",)), ("encoder",)):
            params, alias = self._alias(given, trail)
            before = len(found)
            if name in RESNETS:
                resnets = self.values.sweep(RESNETS[name], params, trail, (CALLED,))
                found += [Encoder(name=name, params=dataclasses.asdict(each)) for each in resnets]
            elif re.fullmatch(r"timm/[\w.\-]+", name):
                found += [
                    Encoder(name=name, params=each.given)
                    for each in self.values.sweep(TimmOptions, params, trail, (CALLED,))
                ]
            elif re.fullmatch(r"[\w.]+:\w+", name):
                found += self.functions(name, params, trail)
            else:
                known = suggestion(name, [*RESNETS, "timm/NAME", "package.module:function"])
                self.fail(trail, f"there is no encoder '{name}'{known}")
            found[before:] = [each.called(alias) for each in found[before:]]
        return self.values.axis(found, ("encoder",))

    def functions(self, name: str, params: Any, trail: Trail) -> list[Encoder]:
        """Return an encoder for each combination of the parameters of a user's own function."""
        options = self.values.options(None, params, trail)
        self.values.count(options, trail)
        look_beside(self.document.file)
        top = re.split(r"[.:]", name)[0]  # no code of the module's runs yet
        if not top or (top not in sys.modules and importlib.util.find_spec(top) is None):
            self.fail(trail, f"encoder {name}: there is no module '{top}', installed or beside the study")
        return [Encoder(name=name, params=each) for each in combinations(options)]

    def reference(self, trail: Trail) -> Reference:
        value = self.values.get(trail) if "reference" in self.top else DEFAULT["reference"]
        if isinstance(value, dict) and list(value) == ["val"]:
            return Reference(share=self.values.one(Portion, value["val"], (*trail, "val")))
        if isinstance(value, dict) and list(value) == ["set"]:
            trail = (*trail, "set")
            found = self.plugins(Dataset, trail)
            if len(found) != 1:
                self.fail(trail, f"is one data set, not {', '.join(each.label for each in found)}")
            return Reference(kind="set", held_out=found[0])
        if value not in ("val", "train"):
            said = f"is {value!r}, should be 'val' or 'train', {{val: share}} or {{set: data set}}"
            self.fail(trail, said + form(("reference",)))
        return self.values.one(Reference, {"kind": value}, trail)

    def detectors(self, spaces: list[Space], reference: Reference, saw: tuple[str, ...], validation: str) -> Detectors:
        """Return the axes of detectors; `saw` are the labels of the validation OOD sets, which `validation` says."""
        compat = self.top.get("compat", False)
        if not isinstance(compat, bool):
            self.fail(("compat",), f"is {compat!r}, should be true or false{form(('compat',))}")
        found = Detectors(
            registry=self.registry,
            reference=reference,
            spaces=spaces,
            clusterings=self.plugins(Clustering, ("clustering",)),
            distances=self.plugins(Distance, ("distance",)),
            posthocs=self.plugins(Posthoc, ("posthoc",)),
            thresholds=self.plugins(Threshold, ("threshold",)),
            saw=saw,
            compat=compat,
        )
        self._check(found, validation)
        return found

    def _check(self, found: Detectors, validation: str) -> None:
        needy = [each.label for each in found.distances if each.clusters]
        if needy and not found.clusterings:
            self.fail(("distance",), f"{', '.join(needy)} needs clusters; say which with the key 'clustering'")
        for each in found.thresholds:
            if each.needs_ood and each.level != type(each).level:
                self.fail(("threshold",), f"{each.name} takes no level: validation OOD sets its cut")
        needy = [each.label for each in found.thresholds if each.needs_ood]
        if needy and not found.saw:
            self.fail(("threshold",), f"{', '.join(needy)} is set on OOD; say on which: {validation}")
        if "select" in self.top and not found.saw:
            self.fail(("select",), f"chooses by validation OOD; say which: {validation}")
        if found.saw and found.reference.kind == "train":
            held_out = "`train` holds nothing out, and validation OOD stands against a held-out reference"
            self.fail(("reference",), held_out)
        select = declarations.select(self.values)
        settings = {axis: [each.name for each in plugins] for axis, plugins in found.plugins.items()}
        settings["space"] = [""] * len(found.spaces)
        if select and all(len(set(settings[axis])) == len(settings[axis]) for axis in select.over):
            self.fail(("select",), f"nothing to choose: nothing has several settings of {', '.join(select.over)}")

    def skips(self) -> list[Skip]:
        value = self.top.get("skip") or []
        if not isinstance(value, list):
            self.values.unlike(("skip",), value, "a list of mappings from axis to name")
        return [self._skip(item, ("skip", i)) for i, item in enumerate(value)]

    def _skip(self, item: Any, trail: Trail) -> Skip:
        if not isinstance(item, dict) or not item:
            self.values.unlike(trail, item, "a mapping from axis to name")
        axes = [axis for axis in AXES if axis != "recipe"]
        for axis, value in item.items():
            if axis not in axes:
                self.fail((*trail, axis), f"there is no such axis to skip by{suggestion(axis, axes)}")
            if value is None or value == []:
                self.fail((*trail, axis), "is empty")
        return Skip({axis: list(self._matches(axis, value, (*trail, axis))) for axis, value in item.items()})

    def _matches(self, axis: str, value: Any, trail: Trail) -> Iterator[Match]:
        """Yield what an axis of a skip may be: any of a list."""
        if axis in PLAIN:
            yield Match("", {axis: self.values.values(PLAIN[axis], value, trail)}, str(value))
        elif axis == "space":
            for item in value if isinstance(value, list) else [value]:
                yield Match("", self.values.options(Space, item, trail), str(item))
        else:
            for name, params, at in self.values.entries(value, trail):
                text = f"{name}({params})" if params else name
                if name in self.aliases and not params:
                    yield Match(name, {}, text)
                    continue
                yield Match(name, self.values.options(self._class(axis, name, at), params, at), text)

    def _class(self, axis: str, name: str, trail: Trail) -> type | None:
        if axis == "encoder":
            return RESNETS.get(name)
        return self.plugin_class("dataset" if axis in ("id", "outliers") else axis, name, trail)


def look_beside(file: Path) -> None:
    """Let modules be found that lie beside a study, or where the command was given: a user's own encoders."""
    for folder in (file.parent.resolve(), Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def registry(values: Values) -> Registry:
    """Return the package's plugins, and those that the document brings along; none is imported."""
    (paths,) = values.values(tuple[str, ...], values.top.get("plugins", []), ("plugins",))
    with values.document.blame(("plugins",)):
        return Registry([values.document.file.parent / path for path in paths])


def check_skips(study: Study) -> None:
    """Refuse to skip what a study does not have."""
    known: dict[str, list[Any]] = {**study.plugins, "id": study.ids, "outliers": study.outliers}
    known["encoder"] = study.encoders
    for i, skip in enumerate(study.skips):
        for axis, matches in skip.entries.items():
            names = {name for each in known.get(axis, []) for name in (each.name, each.shown_as)}
            for match in matches:
                if match.name and match.name not in names:
                    hint = suggestion(match.name, names)
                    study.document.fail(("skip", i, axis), f"the study has no {axis} '{match.name}'{hint}")
