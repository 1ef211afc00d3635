"""Embed: from weights and images to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from oodbench.api import Features, Training
from oodbench.errors import no_room
from oodbench.study.grid import LAYER_HEAD, SHIFTED_HEADS, TURNS
from oodbench.study.settings import Recipe, Seen
from oodbench.toolkit.seeds import generator, seed_of
from oodbench.training import augment, networks
from oodbench.training.batches import Images
from oodbench.training.networks import Trained

EMBED_BATCH = 1024  # images a forward pass without gradients; views of it are drawn from one seed
HEAD_LAYER = {head: layer for layer, head in LAYER_HEAD.items()}
Layers = dict[str, Tensor]  # layer -> (V, N, D) raw features, float32, on the CPU


@networks.in_its_arithmetic
@torch.no_grad()
def features(model: Trained, x: Images, turn: int = 0) -> Features:
    """Return features of uint8 images x (N, C, H, W) after so many quarter turns, in the type of the weights.

    The network is in evaluation mode. They are where it is.
    """
    model.eval()
    parts = [_passed(model, augment.quarter_turns(rows, (turn,)) / 255) for rows in x.split(EMBED_BATCH)]
    return Features(
        torch.cat([h for h, _ in parts]),
        {name: torch.cat([out[name] for _, out in parts]) for name in parts[0].out},
    )


@networks.in_its_arithmetic
@torch.no_grad()
def embed(model: Trained, x: Images, seen: Seen, recipe: Recipe, seed: int, turn: int = 0) -> Layers:
    """Return all layers of uint8 images x (N, C, H, W): of the plain image, then of augmented views, V in all.

    With `crop` all V views are augmented, unflipped crops of just this share of the area (CSI's test-time views,
    Tack et al. 2020, arXiv 2007.08176).
    """
    model.eval()
    how = recipe.augment
    if seen.crop:
        how = dataclasses.replace(how, crop=(seen.crop, seen.crop), flip=0.0)

    def block(view: int, i: int, rows: Tensor) -> Layers:
        if view or seen.crop:
            rows = augment.views(rows, how, 1, generator(seed, "view", view, i))[0]
            rows = augment.quarter_turns(rows, (turn,))  # after a flip
        else:
            rows = augment.quarter_turns(rows, (turn,)) / 255
        return _layers(_passed(model, rows))

    found = [_joined(partial(block, view), x) for view in range(seen.views)]
    return {name: torch.stack([each[name] for each in found]) for name in found[0]}


def _joined(work: Callable[[int, Tensor], Layers], x: Images) -> Layers:
    """Return on the CPU what work makes of blocks of images: while a device is at one, the host fetches the next."""
    found: Layers = {}
    waiting: list[tuple[int, dict[str, Callable[[], Tensor]]]] = []

    def store() -> None:
        start, layers = waiting.pop()
        for name, arrived in layers.items():
            rows = arrived()
            if name not in found:
                found[name] = rows.new_empty(len(x), rows.shape[1])
            found[name][start : start + len(rows)] = rows

    for i, rows in enumerate(x.split(EMBED_BATCH)):
        leaving = {name: _leaving(z) for name, z in work(i, rows).items()}
        if waiting:
            store()
        waiting.append((i * EMBED_BATCH, leaving))
    store()
    return found


def _leaving(z: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the CPU, and return a function that waits for the copy."""
    if z.is_cpu:
        return lambda: z
    copy = torch.empty(z.shape, dtype=z.dtype, pin_memory=True).copy_(z, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(z.device))

    def arrived() -> Tensor:
        done.synchronize()
        return copy

    return arrived


def _passed(model: Trained, x: Tensor) -> Features:
    """Return features of float images (B, C, H, W); where the device has no room, of one half, then of the other."""
    try:
        return Features(*model(x))
    except RuntimeError as error:
        if len(x) == 1 or not no_room(error):
            raise
    torch.cuda.empty_cache()
    one, other = (_passed(model, half) for half in x.tensor_split(2))
    return Features(torch.cat([one.h, other.h]), {name: torch.cat([z, other.out[name]]) for name, z in one.out.items()})


def embed_shifted(model: Trained, x: Images, seen: Seen, recipe: Recipe, seed: int) -> Layers:
    """Return all layers as `embed` does, and `shifted` (V, N, 4 (P + 4)) of images x (N, C, H, W), H = W.

    It holds, for the image in each quarter turn, the projection and the logits of the turn. Views are drawn for each
    turn anew; a plain one is the turned image.
    """
    found = embed(model, x, seen, recipe, seed)
    parts: list[Tensor] = []
    for turn in TURNS:
        turned = embed(model, x, seen, recipe, seed_of(seed, "turn", turn), turn) if turn else found
        parts += [turned[HEAD_LAYER.get(head, head)] for head in SHIFTED_HEADS]
    return found | {"shifted": torch.cat(parts, -1)}


def shifted_dim(training: Training, classes: int) -> int:
    """Return the dimensions of the layer `shifted`."""
    return len(TURNS) * sum(networks.head_dim(training.heads[head], classes) for head in SHIFTED_HEADS)


def _layers(f: Features) -> Layers:
    found = {"penultimate": f.h, **{HEAD_LAYER.get(name, name): z for name, z in f.out.items()}}
    return {name: z.float() for name, z in found.items()}
