"""What a training is fed: the images, on the device if they fit, and the augmented batches drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from oodbench.api import Mixing, State, Training
from oodbench.data.prepare import LazyImages
from oodbench.errors import UserError
from oodbench.study.settings import Recipe
from oodbench.toolkit.seeds import generator, seed_of
from oodbench.training import augment

# ---- the processes of one training: which part of each batch one of them sees, and what it shares with the others


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

    def passes(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        """Return a model as the batches of a training pass it."""
        return cast(nn.Module, torch.compile(model)) if recipe.compile else model

    def release(self) -> None:
        """Free what passes of a training that is over have left on a device."""

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


# ---- images and batches -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostImages:
    """Images that do not fit on the device. Used like a uint8 tensor (N, C, H, W), it copies what is asked for."""

    x: NDArray[np.uint8] | LazyImages  # (M, H, W, C), in memory, a memory-mapped file, or decoded when indexed
    at: NDArray[np.int64]  # (N,) which of them
    device: torch.device

    def __len__(self) -> int:
        return len(self.at)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, height, width, channels = self.x.shape
        return len(self), channels, height, width

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return images (B, C, H, W) on the device, for positions (B,) on the CPU."""
        rows = torch.from_numpy(self.x[self.at[index.numpy()]])
        return augment.on_device(rows, self.device).permute(0, 3, 1, 2)

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[index] for index in torch.arange(len(self)).split(size))


Images = Tensor | HostImages  # uint8 (N, C, H, W)


class TrainingData(NamedTuple):
    """What a training sees: images and labels (N,), which are on the device."""

    x: Images
    y: Tensor
    classes: int
    outliers: Images | None = None
    world: World = ALONE  # of processes that share each batch


def check(recipe: Recipe, items: int) -> None:
    """Raise UserError where a training set is too small to be accumulated over."""
    if recipe.accumulate > 1 and items < recipe.batch:
        raise UserError(
            f"accumulate: {recipe.accumulate} parts of a batch of {recipe.batch} need as many images, "
            f"there are {items} to train on"
        )


@dataclass(frozen=True)
class Views:
    """A batch before the forward pass: the images that this process sees, and what is known of the whole batch."""

    id: Tensor  # (V, B, C, H, W), B and B' being this process's share
    outlier: Tensor | None  # (V, B', C, H, W)
    y: Tensor | None  # of the whole batch, as are index and shift
    index: Tensor
    shift: Tensor
    y_host: NDArray[np.int64] | None = None  # y in host memory
    target: Tensor | None = None  # (B, C) of the whole batch, where images are mixed


def steps_per_epoch(recipe: Recipe, items: int) -> int:
    """Return the number of whole batches in an epoch; a set smaller than a batch is one batch."""
    return max(1, items // recipe.batch)


def batches(
    training: Training, recipe: Recipe, data: TrainingData, seed: int, epoch: int, first: int = 0
) -> Iterator[Views]:
    """Yield this process's part of the augmented batches of an epoch, from its step `first` on.

    What is random comes from the seed, the epoch and the step, and is the same whatever the parts.
    """
    device = data.x.device
    order = torch.randperm(len(data.x), generator=generator(seed, "order", epoch))
    outliers = outlier_order(recipe, data, seed, epoch) if training.outliers else None
    shifts = training.shifts
    labels = host_labels(data.y) if training.labels else None
    for step in range(first, steps_per_epoch(recipe, len(data.x))):
        rng = generator(seed, "augment", epoch, step)
        here = order[step * recipe.batch : (step + 1) * recipe.batch]
        index = augment.on_device(here, device)
        id_ = _views(data.x, here, shifts.id, training.views, recipe, rng, data.world.part)
        outlier = None
        if shifts.outlier:
            outlier = _views(data.x, here, shifts.outlier, training.views, recipe, rng, data.world.part)
        elif outliers is not None and data.outliers is not None:
            size = recipe.outlier_batch or len(index)
            rows = outliers[torch.arange(step * size, (step + 1) * size) % len(outliers)]
            outlier = _views(data.outliers, rows, (0,), training.views, recipe, rng, data.world.part)
        turns, target = len(shifts.id), None
        y = data.y[index].repeat(turns) if training.labels else None
        if training.mixing is not None:
            assert y is not None, f"{training.name} mixes images and asks for no labels"
            id_, target = mixed(id_, y, data.classes, training.mixing, seed_of(seed, "mixing", epoch, step))
        yield Views(
            id_,
            outlier,
            y,
            index.repeat(turns),
            torch.arange(turns, device=device).repeat_interleave(len(index)),
            None if labels is None else np.tile(labels[here.numpy()], turns),
            target,
        )


def mixed(x: Tensor, y: Tensor, classes: int, how: Mixing, seed: int) -> tuple[Tensor, Tensor]:
    """Return views (V, B, C, H, W) of images mixed with the one before in the batch, and each class's share (B, K).

    All views of an image are mixed alike. A batch is in random order, so that it does not matter which image is before.
    """
    mix = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[how.how](alpha=how.alpha, num_classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found, target = mix(x.transpose(0, 1).flatten(1, 2), y)
    return found.unflatten(1, (len(x), -1)).transpose(0, 1), target.to(x.dtype)


def host_labels(y: Tensor) -> NDArray[np.int64]:
    """Return labels (N,) in host memory, for which the host waits: once an epoch."""
    return y.cpu().numpy()


def parts(views: Views, count: int) -> list[Views]:
    """Return a batch as so many equal ones; all shifts of an image stay together."""
    return [
        Views(
            views.id[:, i::count],
            None if views.outlier is None else views.outlier[:, i::count],
            None if views.y is None else views.y[i::count],
            views.index[i::count],
            views.shift[i::count],
            None if views.y_host is None else views.y_host[i::count],
            None if views.target is None else views.target[i::count],
        )
        for i in range(count)
    ]


def outlier_order(recipe: Recipe, data: TrainingData, seed: int, epoch: int) -> Tensor | None:
    if data.outliers is None:
        return None
    drawn = 0 if recipe.outlier_order == "fixed" else epoch
    return torch.randperm(len(data.outliers), generator=generator(seed, "outliers", drawn))


def _views(
    x: Images,
    index: Tensor,
    turns: tuple[int, ...],
    count: int,
    recipe: Recipe,
    rng: torch.Generator,
    part: Part,
) -> Tensor:
    """Return views (V, turns * B, C, H, W) of a part of the images of a batch, at `index` in x.

    They are turned when all else is done, the flip above all: a flip of a turned image is another turn of the flipped.
    """
    at = index[part.own(len(index))]  # on the CPU
    images = x[augment.on_device(at, x.device)] if isinstance(x, Tensor) else x[at]
    blocks = count * len(turns)
    rows = augment.Rows(part.rows(blocks, len(index)), blocks * len(index)) if part.of > 1 else None
    found = augment.views(images, recipe.augment, blocks, rng, rows)
    if any(turns):
        pairs = zip(found, turns * count, strict=True)
        found = torch.stack([augment.quarter_turns(each, (turn,)) for each, turn in pairs])
    together: Tensor = found.unflatten(0, (count, -1)).flatten(1, 2)
    return together
