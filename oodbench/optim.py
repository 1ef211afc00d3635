"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from oodbench.spec import Recipe


def optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step counted from the start: linear warm-up, then cosine or constant."""
    warm, total = recipe.warmup * steps, recipe.epochs * steps
    if step < warm:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warm
    if recipe.schedule == "constant":
        return recipe.lr
    done = (step - warm) / max(1, total - warm)
    low = recipe.floor * recipe.lr
    return low + (recipe.lr - low) * (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
