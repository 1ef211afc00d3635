"""What every plugin of a room must hold, as checks that an author runs on one plugin (`oodbench check`).

A check is tried on the plugin's defaults and on each option of each parameter that has a fixed choice.
"""

from __future__ import annotations

import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch

from oodbench.api import Dataset, Plugin, Training
from oodbench.conformance import clustering, dataset, distance, posthoc, threshold, training
from oodbench.conformance.toys import CLASSES
from oodbench.errors import UserError
from oodbench.store.process import Kept
from oodbench.study.grid import resolved
from oodbench.study.registry import ROOMS, PluginFile, Registry, load, source_of

P = TypeVar("P", bound=Plugin)
UNLIKELY = 1_618_033  # a seed that no plugin sets
KINDS = (training, clustering, distance, threshold, posthoc, dataset)
CHECKS: dict[str, tuple[Callable[..., None], ...]] = {  # by room
    each.__name__.rpartition(".")[2]: each.CHECKS for each in KINDS
}


@dataclass(frozen=True)
class Result:
    """What a check found: nothing, or a problem."""

    check: str
    problem: str = ""
    skipped: bool = False


def find(plugin: str) -> PluginFile:
    """Return the plugin of a file, of ROOM/NAME, or of a name that only one room has."""
    if plugin.endswith(".py"):
        path = Path(plugin)
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return source_of(path)
    registry = Registry()
    room, _, name = plugin.rpartition("/")
    rooms = [room] if room else [each for each in ROOMS if name in registry.sources(each)]
    if not set(rooms) & set(ROOMS) and Path(plugin).exists():
        raise UserError(f"{plugin} is no file of a plugin, which ends with .py; a plugin by its name is ROOM/NAME")
    if room and room not in ROOMS:
        raise UserError(f"there is no room '{room}'; allowed: {', '.join(ROOMS)}")
    if len(rooms) != 1:
        where = f"is in {', '.join(rooms)}; say ROOM/{name}" if rooms else "is in no room; see `oodbench list`"
        raise UserError(f"plugin '{name}' {where}")
    return registry.source(rooms[0], name)


def conform(source: PluginFile, root: Path = Path("data")) -> list[Result]:
    """Run every check of a plugin's room; root is the folder of downloaded data."""
    dataset.loaded.cache_clear()  # files change between two calls
    cls = load(source)
    missing = [name for name, each in inspect.signature(cls).parameters.items() if each.default is each.empty]
    if missing:
        return [Result("every parameter has a default", f"without one: {', '.join(missing)}")]
    found = [Result("every parameter has a default"), Result("it says what it is", _documented(cls))]
    try:
        plugins = list(variants(cls))
    except ValueError as error:
        return [*found, Result("it can be made with its defaults and each of its options", str(error))]
    return found + [result for plugin in plugins for result in _results(source, plugin, root)]


def _results(source: PluginFile, plugin: Plugin, root: Path) -> Iterator[Result]:
    """Yield what each check found, named as its docstring says."""
    lacking = "; ".join(f"{module}: {how}" for module, how in plugin.requires.items() if find_spec(module) is None)
    loads = isinstance(plugin, Training) and plugin.weights is not None
    arguments = (resolved(plugin, CLASSES), *((root,) if source.room == "dataset" else ()))
    for check in training.LOADING if loads else CHECKS[source.room]:
        says = (check.__doc__ or "").rstrip(".")
        title = f"{plugin.label}: {says[:1].lower()}{says[1:]}"
        if lacking:
            yield Result(f"{title} (needs {lacking})", skipped=True)
            continue
        try:
            yield Result(title, _problem(source, check, *arguments))
        except FileNotFoundError as error:
            own = isinstance(plugin, Dataset) and plugin.source is None
            said = f"its data is not there: {error}"
            yield Result(f"{title} ({said})", skipped=True) if own else Result(title, said)


def _documented(cls: type[Plugin]) -> str:
    said = (cls.__doc__ or "").strip()
    return "" if said and not said.startswith(f"{cls.__name__}(") else "its class has no docstring"


def variants(cls: type[P]) -> Iterator[P]:
    """Yield a plugin with its defaults, then with each other option of each parameter of fixed choice."""
    yield cls()
    for name, hint in get_type_hints(cls, include_extras=True).items():
        options = get_args(hint) if get_origin(hint) is Literal else (True, False) if hint is bool else ()
        for option in options:
            if name in cls().params and option != cls().params[name]:
                yield cls(**{name: option})


def _problem(source: PluginFile, check: Callable[..., None], *arguments: Any) -> str:
    """Return what is wrong, and where in the plugin's file. Raises FileNotFoundError."""
    before, draws = Kept(functions=True), source.room == "training"  # losses draw: a run sees to that
    with _generators() as drawn:
        try:
            check(*arguments)
            problem = ""
        except FileNotFoundError:
            raise
        except AssertionError as error:
            problem = f"{error or 'an assertion failed'}{_place(source, error)}"
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - whatever a plugin raises is what its author has to read
            problem = f"{type(error).__name__}: {error}{_place(source, error)}"
        finally:
            changed = before.put_back()
    if changed:
        return f"it changes {', '.join(changed)}, which is not its own"
    if drawn and not problem and not draws:
        return f"it draws from, or seeds, the generator of {', '.join(drawn)}: its numbers hang on what ran before"
    return problem


def _place(source: PluginFile, error: BaseException) -> str:
    """Return the line of the plugin's file in which an error came about, else where its class begins."""
    module = sys.modules[source.module]
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == module.__file__]
    return f" ({source.path}:{lines[-1] if lines else inspect.getsourcelines(load(source))[1]})"


@contextmanager
def _generators() -> Iterator[list[str]]:
    """Yield a list that then has the generators of the whole process that were drawn from or seeded; puts them back."""
    parts: dict[str, tuple[Callable[[int], object], Callable[[], Any], Callable[[Any], object]]] = {
        "torch": (torch.manual_seed, torch.get_rng_state, torch.set_rng_state),
        "numpy": (np.random.seed, np.random.get_state, np.random.set_state),
        "Python": (random.seed, random.getstate, random.setstate),
    }
    whole = {name: get() for name, (_, get, _) in parts.items()}
    for seed, _, _ in parts.values():
        seed(UNLIKELY)
    begun = {name: _plain(get()) for name, (_, get, _) in parts.items()}
    drawn: list[str] = []
    try:
        yield drawn
    finally:
        drawn += [name for name, (_, get, _) in parts.items() if _plain(get()) != begun[name]]
        for name, (_, _, put) in parts.items():
            put(whole[name])


def _plain(state: Any) -> str:
    """Return all numbers of a generator's state."""
    parts = [state] if isinstance(state, torch.Tensor) else state
    return str([each.tolist() if hasattr(each, "tolist") else each for each in parts])
