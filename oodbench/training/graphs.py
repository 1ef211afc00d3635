"""The forward and backward pass of an encoder as two CUDA graphs: all of their kernels are launched at once.

Launched one by one, the few hundred kernels of a small network take the host longer than a card takes to run them. The
kernels are the same, and so are the numbers. Heads and losses stay as they are: a loss may do anything.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from oodbench.study.settings import Encoder, Recipe
from oodbench.training.batches import World
from oodbench.training.networks import Trained


def wanted(recipe: Recipe, encoder: Encoder, device: torch.device) -> bool:
    """Return whether a training's passes are captured.

    They are on a CUDA device, but for what torch has compiled, several devices, accumulated gradients (a graph writes
    each over the one before), and a user's own encoder: what its Python decides anew in each step would be frozen.
    """
    alone = recipe.devices == recipe.accumulate == 1
    return device.type == "cuda" and alone and not recipe.compile and ":" not in encoder.name


class Card(World):
    """A CUDA device on which the passes of an encoder are captured with the first batch; all batches have its shape.

    Where they cannot be captured, `warn` hears why, and their kernels are launched one by one.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.captured = False

    def passes(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return _Graphed(cast(Trained, model), self)

    def release(self) -> None:
        """Free the memory of graphs that nothing uses any more; torch leaves them in circles of references."""
        gc.collect()


class _Graphed(nn.Module):
    def __init__(self, model: Trained, card: Card) -> None:
        super().__init__()
        self.model = model
        self._card = card
        self._passes: nn.Module | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the model returns of float images (B, C, H, W) in [0, 1]."""
        if self._passes is None:
            self._passes = self._capture(x)
        h = self._passes(x).clone()  # the next batch is written over it, and a loss may keep features
        return h, self.model.network.outputs(h)

    def _capture(self, x: Tensor) -> nn.Module:
        self._card.release()  # of a training that failed
        passes = _Passes(self.model)
        buffers = [(each, each.clone()) for each in self.model.buffers()]  # running means count what warms up
        try:
            with _undisturbed(x), passes.parted():
                torch.cuda.make_graphed_callables(passes, (x.clone(),))
            self._card.captured = True
        except (RuntimeError, AssertionError) as error:
            if x.is_cuda:  # torch's generator of the device still counts for the capture
                generator = torch.cuda.default_generators[x.get_device()]
                generator.graphsafe_set_state(generator.clone_state())
            why = str(error).partition("\n")[0]
            singly = "the passes of the encoder cannot be captured as CUDA graphs, kernels are launched singly"
            self._card.warn(f"{singly}, as by --no-graph: {why}")
        with torch.no_grad():
            for each, before in buffers:
                each.copy_(before)
        return passes


@contextmanager
def _undisturbed(x: Tensor) -> Iterator[None]:
    """Let what warms up and is captured on the device of x draw nothing, and keep no stream; autocast keeps no copy."""
    kind, at = x.device.type, x.get_device()  # -1 on the CPU
    with ExitStack() as stack:
        if x.is_cuda:
            stack.enter_context(torch.cuda.device(at))
            stack.enter_context(torch.cuda.stream(torch.cuda.current_stream(at)))  # a failed capture leaves its own
        stack.enter_context(torch.random.fork_rng([at] if x.is_cuda else []))
        enabled = torch.is_autocast_enabled(kind)
        stack.enter_context(torch.autocast(kind, torch.get_autocast_dtype(kind), enabled, cache_enabled=False))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")  # of torch's own warming up
        yield


class _Passes(nn.Module):
    def __init__(self, model: Trained) -> None:
        super().__init__()
        self.encoder = model.network.encoder
        self._normalised = model.normalised
        self._outputs: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.encoder(self._normalised(x))
        if self._outputs is not None:
            h = h.clone()  # no view, which cannot be detached
            self._outputs[:] = [h]
        return h

    @contextmanager
    def parted(self) -> Iterator[None]:
        """Detach, in the end, the last output from the weights.

        As long as an output leads to a weight, autograd adds up the weight's gradients on the stream of that output.
        """
        outputs: list[Tensor] = []
        self._outputs = outputs
        try:
            yield
        finally:
            self._outputs = None
            for each in outputs:
                each.detach_()
