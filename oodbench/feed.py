"""What a training is fed: the images on the device, and the augmented batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from oodbench import augment
from oodbench.api import Training
from oodbench.seeds import generator
from oodbench.spec import Recipe


class TrainingData(NamedTuple):
    """What a training sees, on the device: uint8 images (N, C, H, W) and labels (N,)."""

    x: Tensor
    y: Tensor
    classes: int
    outliers: Tensor | None = None


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
    order = torch.randperm(len(data.x), generator=generator(seed, "order", epoch)).to(device)
    outliers = outlier_order(recipe, data, seed, epoch) if training.outliers else None
    shifts = training.shifts
    for step in range(steps_per_epoch(recipe, len(data.x))):
        rng = generator(seed, "augment", epoch, step)
        index = order[step * recipe.batch : (step + 1) * recipe.batch]
        images = data.x[index]
        id_ = _views(augment.quarter_turns(images, shifts.id), training.views, recipe, rng)
        outlier = None
        if shifts.outlier:
            outlier = _views(augment.quarter_turns(images, shifts.outlier), training.views, recipe, rng)
        elif outliers is not None and data.outliers is not None:
            size = recipe.outlier_batch or len(index)
            rows = outliers[torch.arange(step * size, (step + 1) * size, device=device) % len(outliers)]
            outlier = _views(data.outliers[rows], training.views, recipe, rng)
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
    return torch.randperm(len(data.outliers), generator=generator(seed, "outliers", drawn)).to(data.x.device)


def _views(images: Tensor, count: int, recipe: Recipe, rng: torch.Generator) -> Tensor:
    return augment.views(images, recipe.augment, count, rng)
