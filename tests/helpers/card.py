"""A CUDA device that is not there: real numbers on the CPU, counted as if they lay in its memory, which has an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
LEAST = 4096  # bytes of a tensor that counts


class Card:
    """What was copied to `CUDA`, and what was made of that, is on the device; `room` is what it holds, in bytes."""

    def __init__(self, room: float) -> None:
        self.room = room
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    @contextmanager
    def there(self) -> Iterator[None]:
        with _Memory(self), _Copies(self):
            yield

    def holds(self, t: Tensor) -> bool:
        held = self._held.get(t.untyped_storage()._cdata)
        return held is not None and not held[0].expired()

    def take(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        if storage.nbytes() < LEAST or self.holds(t):
            return
        self._held = {key: each for key, each in self._held.items() if not each[0].expired()}
        used = storage.nbytes() + sum(size for _, size in self._held.values())
        if used > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, used)


class _Memory(TorchDispatchMode):
    """Counts what operations make of tensors on the device."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        there = any(self.card.holds(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor))
        found = func(*args, **kwargs or {})
        if there:
            for each in tree_leaves(found):
                if isinstance(each, Tensor):
                    self.card.take(each)
        return found


class _Copies(TorchFunctionMode):
    """Copies what goes to the device or comes from it, rather than ask for a device that torch does not have."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to = next((each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.device)), None)
        if func is Tensor.cpu:
            to = CPU
        if func in (Tensor.to, Tensor.cpu) and to is not None and self.card.holds(args[0]) != (to == CUDA):
            with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
                copy = args[0].detach().clone()
            if to == CUDA:
                self.card.take(copy)
            return copy
        args, kwargs = tree_map_only(torch.device, lambda _: CPU, (args, kwargs))
        return func(*args, **kwargs)
