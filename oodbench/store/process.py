"""What belongs to the whole process: no plugin may change it, or end the process. What one has changed is put back."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

PLUGINS = ("oodbench.methods.", "oodbench.datasets.")
SELDOM = (100_000, 50, 100)  # objects made, and collections of each generation, between two looks for garbage


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage more seldom while millions of objects are made that stay: not where tensors come and go."""
    before = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Thing(NamedTuple):
    """Something that there is one of."""

    get: Callable[[], Any]
    put: Callable[[Any], object]


class Kept:
    """What the process has now, its own functions, classes and methods included where that is asked for."""

    def __init__(self, functions: bool = False) -> None:
        self._things = {name: thing.get() for name, thing in _things().items()}
        self._attributes = {owner: dict(vars(owner)) for owner in _owners()} if functions else {}

    def put_back(self, by: str = "") -> list[str]:
        """Put back what is no longer as it was, and return what that is; `by` is the module that may have changed it.

        Functions of that module that stand in ours, which was imported since, are named, too.
        """
        changed = []
        for name, thing in _things().items():
            was, value = self._things.get(name), thing.get()
            if was is None and name in AT_FIRST:  # torch was imported since
                was = getattr(sys.modules["torch"], AT_FIRST[name])
            if was not in (None, value):
                thing.put(was)
                changed.append(name)
        for owner in _owners() if self._attributes else ():
            was = self._attributes.get(owner, {})
            for name, value in [each for each in vars(owner).items() if each[1] is not was.get(each[0])]:
                ours = was.get(name)
                if _acts(ours) or (by and _acts(value) and getattr(value, "__module__", "") == by):
                    changed.append(f"{owner.__name__}.{name}")
                if _acts(ours):
                    setattr(owner, name, ours)
        return changed


AT_FIRST = {"torch's default type": "float32"}  # what torch has when it is imported


def _things() -> dict[str, _Thing]:
    """Return what there is one of, by what a message calls it; of torch once it is imported."""
    found = {
        "the working directory": _Thing(os.getcwd, os.chdir),
        "the variables of OODBENCH": _Thing(_variables, _set_variables),
        "what numpy does about errors": _Thing(np.geterr, lambda value: np.seterr(**value)),
    }
    if torch := sys.modules.get("torch"):
        found |= {
            "torch's default type": _Thing(torch.get_default_dtype, torch.set_default_dtype),
            "the number of torch's threads": _Thing(torch.get_num_threads, torch.set_num_threads),
            "whether torch keeps gradients": _Thing(torch.is_grad_enabled, torch.set_grad_enabled),
        }
    return found


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("OODBENCH_")}


def _set_variables(value: dict[str, str]) -> None:
    for name in _variables().keys() - value:
        del os.environ[name]
    os.environ.update(value)


def _owners() -> Iterator[Any]:
    """Yield the modules and classes of oodbench itself."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "oodbench" and not name.startswith(PLUGINS):
            yield module
            yield from [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name]


def _acts(value: Any) -> bool:
    """Return whether something is a function, a class, or a property or method of one."""
    return callable(value) or hasattr(value, "__get__")


@contextmanager
def outlived() -> Iterator[None]:
    """Let `os._exit` raise SystemExit in this process, as `sys.exit` does: an end without a word helps nobody."""
    whole, this = os._exit, os.getpid()

    def refuse(code: int) -> None:
        if os.getpid() != this:  # a fork ends as it has to
            whole(code)
        raise SystemExit(code)

    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = whole
