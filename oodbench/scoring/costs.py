"""What a detector costs: seconds of work on a device, bytes that a fitted scorer holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
QUICK, REPEATS = 0.3, 2  # seconds of work that is done so many times more: a first time warms up, others interrupt
CONTAINERS = (list, tuple, set, frozenset)


def timed(make: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Return what is made, and the seconds that it took, those of work that a device still has to do included."""
    start = time.perf_counter()
    made = make()
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.synchronize(device)
    return made, time.perf_counter() - start


def repeated(make: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Return what is made, and the seconds that it took: of what is quick the least of several times."""
    made, seconds = timed(make, device)
    for _ in range(REPEATS if seconds < QUICK else 0):
        seconds = min(seconds, timed(make, device)[1])
    return made, seconds


def held(scorer: object) -> int:
    """Return the bytes of the tensors and arrays that a scorer reaches: those of its closure, or of its attributes.

    Memory that several share counts once.
    """
    found: dict[int, int] = {}
    seen: set[int] = set()
    left: list[Any] = [scorer]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(each, np.ndarray):
            owner = each.base if isinstance(each.base, np.ndarray) else each
            found[owner.__array_interface__["data"][0]] = owner.nbytes
        else:
            left += _reached(each)
    return sum(found.values())


def _reached(of: Any) -> list[Any]:
    """Return what something that is no array holds on to."""
    if isinstance(of, type | ModuleType | str | bytes):
        return []
    if isinstance(of, Mapping):
        return list(of.values())
    if isinstance(of, CONTAINERS):
        return list(of)
    if isinstance(of, partial):
        return [of.func, *of.args, *of.keywords.values()]
    parts = [cell.cell_contents for cell in getattr(of, "__closure__", None) or ()]
    parts += getattr(of, "__defaults__", None) or ()
    return [*parts, getattr(of, "__self__", None), *getattr(of, "__dict__", {}).values()]
