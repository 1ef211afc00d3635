"""What a training is fed: the images, on the device if they fit, and the augmented batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench import augment
from oodbench.api import Training
from oodbench.seeds import generator
from oodbench.spec import Recipe


@dataclass(frozen=True)
class HostImages:
    """Images that do not fit on the device. Used like a uint8 tensor (N, C, H, W), it copies what is asked for."""

    x: NDArray[np.uint8]  # (M, H, W, C), in memory or a memory-mapped file
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


@dataclass(frozen=True)
class Views:
    """A batch before the forward pass."""

    id: Tensor  # (V, B, C, H, W)
    outlier: Tensor | None  # (V, B', C, H, W)
    y: Tensor | None
    index: Tensor
    shift: Tensor


def steps_per_epoch(recipe: Recipe, items: int) -> int:
    """Return the number of whole batches in an epoch; a set smaller than a batch is one batch."""
    return max(1, items // recipe.batch)


def batches(training: Training, recipe: Recipe, data: TrainingData, seed: int, epoch: int) -> Iterator[Views]:
    """Yield the augmented batches of an epoch. What is random comes from the seed, the epoch and the step."""
    device = data.x.device
    order = torch.randperm(len(data.x), generator=generator(seed, "order", epoch))
    outliers = outlier_order(recipe, data, seed, epoch) if training.outliers else None
    shifts = training.shifts
    for step in range(steps_per_epoch(recipe, len(data.x))):
        rng = generator(seed, "augment", epoch, step)
        here = order[step * recipe.batch : (step + 1) * recipe.batch]
        index = augment.on_device(here, device)
        images = _rows(data.x, here)
        id_ = _views(augment.quarter_turns(images, shifts.id), training.views, recipe, rng)
        outlier = None
        if shifts.outlier:
            outlier = _views(augment.quarter_turns(images, shifts.outlier), training.views, recipe, rng)
        elif outliers is not None and data.outliers is not None:
            size = recipe.outlier_batch or len(index)
            rows = outliers[torch.arange(step * size, (step + 1) * size) % len(outliers)]
            outlier = _views(_rows(data.outliers, rows), training.views, recipe, rng)
        turns = len(shifts.id)
        yield Views(
            id_,
            outlier,
            data.y[index].repeat(turns) if training.labels else None,
            index.repeat(turns),
            torch.arange(turns, device=device).repeat_interleave(len(index)),
        )


def outlier_order(recipe: Recipe, data: TrainingData, seed: int, epoch: int) -> Tensor | None:
    if data.outliers is None:
        return None
    drawn = 0 if recipe.outlier_order == "fixed" else epoch
    return torch.randperm(len(data.outliers), generator=generator(seed, "outliers", drawn))


def _rows(x: Images, index: Tensor) -> Tensor:
    """Return the images at positions (B,) that are on the CPU."""
    return x[augment.on_device(index, x.device)] if isinstance(x, Tensor) else x[index]


def _views(images: Tensor, count: int, recipe: Recipe, rng: torch.Generator) -> Tensor:
    return augment.views(images, recipe.augment, count, rng)
