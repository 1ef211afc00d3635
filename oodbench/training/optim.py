"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.study.settings import Recipe


def optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return a recipe's optimiser of a model's parameters, fused into one kernel on a CUDA device.

    LARS (You et al. 2017, arXiv 1708.03888) is timm's, whose factor is trust |w| / (|g| + decay |w|), 1 where |w| or
    |g| is 0; the learning rate is outside of the momentum, as in CSI's code.
    """
    groups = parameter_groups(model, recipe)
    fused = True if next(model.parameters()).is_cuda else None
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)
    momentum: dict[str, Any] = {"lr": recipe.lr, "momentum": recipe.momentum, "nesterov": recipe.nesterov}
    if recipe.optimizer == "lars":
        from timm.optim.lars import Lars

        return Lars(groups, trust_coeff=recipe.trust, eps=0.0, **momentum)
    return torch.optim.SGD(groups, fused=fused, **momentum)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return all parameters in one group, or those of one dimension, biases and norms, apart and without decay."""
    decayed: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    if recipe.optimizer == "lars":
        decayed["always_adapt"] = True  # also where the decay is 0
    parameters = list(model.parameters())
    if recipe.decay_norms:
        return [{"params": parameters, **decayed}]
    weights, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": weights, **decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay each parameter's state out in memory as the parameter: a fused step reads both in one order, unchecked."""
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape:
                state[name] = torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)


def step(optimizer: torch.optim.Optimizer, model: nn.Module, recipe: Recipe) -> None:
    """Clip the gradients where the recipe says so, and step. The host does not wait for the device."""
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step counted from the start; an epoch has so many steps."""
    warm = recipe.warmup * steps
    if step < warm:
        top = _annealed(recipe, recipe.warmup)
        return recipe.warmup_lr + (top - recipe.warmup_lr) * step / warm
    epochs = {"step": step / steps, "epoch": step // steps, "epoch_end": step // steps + 1}
    return _annealed(recipe, epochs[recipe.schedule_per])


def _annealed(recipe: Recipe, epochs: float) -> float:
    """Return the learning rate after so many epochs, whatever the warm-up."""
    if recipe.schedule == "constant":
        return recipe.lr
    start = recipe.warmup if recipe.schedule_from == "warmup" else 0
    done = (epochs - start) / max(1, recipe.epochs - start)
    low = recipe.floor * recipe.lr
    return low + (recipe.lr - low) * (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
