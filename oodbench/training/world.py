"""The processes of one training: which part of each batch one of them sees, and what it shares with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from oodbench.api import State


class Part(NamedTuple):
    """The part of every batch that a process sees: an even share of its items, each with all its views and turns."""

    rank: int = 0
    of: int = 1  # processes

    def own(self, size: int) -> slice:
        """Return which of `size` items are this process's."""
        return slice(self.rank * size // self.of, (self.rank + 1) * size // self.of)

    def rows(self, blocks: int, size: int) -> Tensor:
        """Return the positions of this process's rows among those of the whole batch: `blocks` times `size` items."""
        return torch.arange(blocks * size).view(blocks, size)[:, self.own(size)].flatten()


class World:
    """One process that sees whole batches and shares nothing; `distributed` has the other kind."""

    part = Part()

    def parallel(self, step: nn.Module) -> Callable[..., tuple[Tensor, State]]:
        """Return a step whose backward pass leaves, in every process, the gradient of the whole batch."""
        return step

    def gathered(self, z: Tensor) -> Tensor:
        """Return the rows of all processes, (blocks, B, ...), of this one's, (blocks, B / processes, ...)."""
        return z

    def from_first(self, make: Callable[[], State]) -> State:
        """Return what the first process makes; the others do not make it."""
        return make()


ALONE = World()
