"""Train and embed: from images to weights to features. It knows the contracts; no names, no paths, no cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from oodbench.api import Batch, Features, Shifts, State, Training
from oodbench.study.grid import LAYER_HEAD, SHIFTED_HEADS, TURNS
from oodbench.study.settings import Encoder, ImageFormat, Precision, Recipe, Seen
from oodbench.toolkit.seeds import generator, seed_of
from oodbench.training import allocator, augment, batches, networks, optim
from oodbench.training.batches import Images, TrainingData, Views
from oodbench.training.world import World

EMBED_BATCH = 1024  # images a forward pass without gradients; views of it are drawn from one seed
HEAD_LAYER = {head: layer for layer, head in LAYER_HEAD.items()}
Layers = dict[str, Tensor]  # layer -> (V, N, D) raw features, float32, on the CPU


# ---- train: images -> weights -------------------------------------------------------------------


class DivergedError(Exception):
    """A loss became NaN or infinite."""


class Trained(nn.Module):
    """A network with the normalisation it was trained with: uint8 images in, features out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: networks.Network, channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.layout = _layout(network)
        self.to(memory_format=self.layout)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return penultimate features and head outputs of float images (B, C, H, W) in [0, 1]."""
        x = ((x - self.mean) / self.std).contiguous(memory_format=self.layout)
        h, out = self.network(x)
        return h, out


def untrained(
    training: Training, form: Encoder, recipe: Recipe, image: ImageFormat, data: TrainingData, seed: int
) -> Trained:
    """Return the network before its first step, on the device of the data."""
    model = blank(training, form, image, data.classes, seed)
    normalise(model, *_normalisation(recipe, data.x))
    return model.to(data.x.device)


def normalise(model: Trained, mean: Tensor, std: Tensor) -> None:
    """Give a model the mean (C,) and the standard deviation (C,) of its inputs in [0, 1]."""
    model.mean.copy_(mean.view_as(model.mean))
    model.std.copy_(std.view_as(model.std))


def blank(training: Training, form: Encoder, image: ImageFormat, classes: int, seed: int = 0) -> Trained:
    """Return a network with fresh weights and no normalisation, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        network = networks.build(form, training.heads, image, classes)
    return Trained(network, image.channels)


def _layout(network: nn.Module) -> torch.memory_format:
    """Return channels last, the faster layout, but for convolutions of fewer than 8 channels.

    The backward pass of these writes out of bounds on one CPU thread (oneDNN in torch 2.14, AVX2).
    """
    narrow = any(isinstance(each, nn.Conv2d) and each.out_channels < 8 for each in network.modules())
    return torch.contiguous_format if narrow else torch.channels_last


def _normalisation(recipe: Recipe, x: Images) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, in units of 255, from exact counts of grey levels."""
    if recipe.normalize != "standard":
        half = 0.5 if recipe.normalize == "half" else 0.0
        return torch.full((x.shape[1],), half), torch.full((x.shape[1],), half or 1.0)
    counts = torch.stack([_levels(rows) for rows in x.split(EMBED_BATCH)]).sum(0).cpu().double()
    share, level = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = share @ level
    std = (share * (level - mean[:, None]).square()).sum(1).sqrt()
    return mean.float(), std.clamp_min(1 / 255).float()


def _levels(x: Tensor) -> Tensor:
    """Return how often each channel has each grey level (C, 256)."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)])


class Progress(NamedTuple):
    """All that a training needs to go on after an epoch: everything random comes from seed, epoch and step."""

    epochs: int  # done
    losses: list[float]
    tensors: dict[str, Tensor]  # of the model, the optimiser and the training's state, by name


def train(
    model: Trained,
    training: Training,
    recipe: Recipe,
    precision: Precision,
    data: TrainingData,
    seed: int,
    watch: Callable[[int, float, Callable[[], Progress]], None] = lambda epoch, loss, progress: None,
    done: Progress | None = None,
) -> list[float]:
    """Train a model in place and return the mean loss of each epoch.

    After each epoch that leaves finite weights `watch` hears of it and may ask for the progress; `done` is one to go
    on from, with the same weights at the end as if there had been no interruption. Raises DivergedError, naming the
    step, at the end of an epoch in which a loss was not finite, or which leaves a weight that is not. In a world of
    several processes each calls this with the same arguments and ends with the same weights, those of one process.
    """
    world = data.world
    if data.y.device.type == "cpu":
        allocator.keep_freed_memory()
    augment.check(recipe.augment, data.x.shape[1])
    batches.check(recipe, len(data.x))
    forward = cast(nn.Module, torch.compile(model)) if recipe.compile else model
    steps = batches.steps_per_epoch(recipe, len(data.x))
    optimizer = optim.optimizer(model, recipe)
    labels = data.y if training.labels else None
    losses = list(done.losses) if done else []
    step_of = world.parallel(Step(forward, training, precision, world))
    if done:
        state = _restored(done, model, optimizer)
    else:
        state = world.from_first(partial(_initial, training, model, data, labels, seed))
    for epoch in range(len(losses), recipe.epochs):
        if training.refresh_every and epoch % training.refresh_every == 0:
            state = world.from_first(partial(_refreshed, training, model, data, labels, epoch, seed, state))
        model.train()
        history = torch.zeros(steps, device=data.x.device)
        for step, views in enumerate(batches.batches(training, recipe, data, seed, epoch)):
            optim.set_rate(optimizer, optim.learning_rate(recipe, epoch * steps + step, steps))
            optimizer.zero_grad(set_to_none=True)
            for i, part in enumerate(batches.parts(views, recipe.accumulate)):
                loss, state = step_of(part, epoch, seed_of(seed, "dropout", epoch, step, i), state)
                (loss / recipe.accumulate).backward()
                history[step] += loss.detach() / recipe.accumulate
            optim.step(optimizer, model, recipe)
        losses.append(_finite_mean(history, epoch))
        _check_weights(model, f"epoch {epoch}, step {steps - 1}")
        watch(epoch, losses[-1], partial(_progress, losses, model, optimizer, state))
    model.eval()
    return losses


class Step(nn.Module):
    """A forward pass and its loss: what runs under distributed data parallel where there are several processes."""

    def __init__(self, model: nn.Module, method: Training, precision: Precision, world: World) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.precision = precision
        self.world = world

    def forward(self, views: Views, epoch: int, seed: int, state: State) -> tuple[Tensor, State]:
        """Return the loss of the whole batch and the state after it; dropout is drawn from the seed and the rank."""
        with torch.random.fork_rng(_cuda_devices(views.id.device)):
            torch.manual_seed(seed + self.world.part.rank)
            batch = _forward(self.model, views, self.precision, epoch, self.method.shifts, self.world)
            return self.method.loss(batch, state)  # a loss that draws draws the same after a kill


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _initial(training: Training, model: Trained, data: TrainingData, labels: Tensor | None, seed: int) -> State:
    if type(training).init is Training.init:
        return {}
    return training.init(features(model, data.x), labels, seed_of(seed, "init"))


def _refreshed(
    training: Training, model: Trained, data: TrainingData, labels: Tensor | None, epoch: int, seed: int, state: State
) -> State:
    return training.refresh(features(model, data.x), labels, epoch, seed_of(seed, "refresh", epoch), state)


def _progress(losses: list[float], model: Trained, optimizer: torch.optim.Optimizer, state: State) -> Progress:
    moments = optimizer.state_dict()["state"]
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer/{i}/{name}": t for i, each in moments.items() for name, t in each.items() if t is not None}
    tensors |= {f"state/{name}": value for name, value in state.items()}
    return Progress(len(losses), list(losses), {name: _copied(t) for name, t in tensors.items()})


def weights_of(progress: Progress) -> dict[str, Tensor]:
    """Return the state dict of the model in a progress."""
    return under("model/", progress.tensors)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _copied(t: Tensor) -> Tensor:
    return t.detach().to("cpu", copy=True).contiguous()


def _restored(done: Progress, model: Trained, optimizer: torch.optim.Optimizer) -> State:
    """Put a progress back into a model and an optimiser, and return the training's state."""
    device = next(model.parameters()).device
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "state": {}}
    for name, value in done.tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value.to(device)
    model.load_state_dict(parts["model"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, rest = name.partition("/")
        moments.setdefault(int(index), {})[rest] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    optim.lay_out(optimizer)
    return parts["state"]


def _forward(model: nn.Module, views: Views, precision: Precision, epoch: int, shifts: Shifts, world: World) -> Batch:
    """Return what the loss sees, ID and outliers having passed the network together."""
    x = views.id.flatten(0, 1)
    if views.outlier is not None:
        x = torch.cat([x, views.outlier.flatten(0, 1)])
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        h, out = model(x)
    count, items = views.id.shape[:2]

    def whole(rows: Tensor, turns: int) -> Tensor:
        """Return (V, B, P) of the whole batch from this process's rows."""
        blocks = rows.float().unflatten(0, (count * turns, -1))
        gathered: Tensor = world.gathered(blocks).unflatten(0, (count, turns))
        return gathered.flatten(1, 2)

    split, turns = count * items, len(shifts.id)
    outlier = None
    if views.outlier is not None:
        outlier = {name: whole(z[split:], len(shifts.outlier) or 1) for name, z in out.items()}
    return Batch(
        h=whole(h[:split], turns),
        out={name: whole(z[:split], turns) for name, z in out.items()},
        y=views.y,
        index=views.index,
        shift=views.shift,
        outlier=outlier,
        epoch=epoch,
        y_host=views.y_host,
    )


def _finite_mean(history: Tensor, epoch: int) -> float:
    bad = (~history.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(f"the loss is {float(history[bad[0, 0]])} at epoch {epoch}, step {int(bad[0, 0])}")
    return float(history.mean())


def _check_weights(model: Trained, where: str) -> None:
    """Raise DivergedError where a weight or a running mean is not finite: a later loss need not show it."""
    if not torch.stack([value.isfinite().all() for value in model.state_dict().values()]).all():
        raise DivergedError(f"a weight is NaN or infinite after {where}")


# ---- embed: weights and images -> features ----------------------------------------------------------


@torch.no_grad()
def features(model: Trained, x: Images, turn: int = 0) -> Features:
    """Return float32 features of uint8 images x (N, C, H, W) after so many quarter turns, in evaluation mode."""
    model.eval()
    parts = [model(augment.quarter_turns(rows, (turn,)).float() / 255) for rows in x.split(EMBED_BATCH)]
    return Features(
        torch.cat([h for h, _ in parts]),
        {name: torch.cat([out[name] for _, out in parts]) for name in parts[0][1]},
    )


@torch.no_grad()
def embed(model: Trained, x: Images, seen: Seen, recipe: Recipe, seed: int, turn: int = 0) -> Layers:
    """Return all layers of uint8 images x (N, C, H, W): of the plain image, then of augmented views, V in all.

    With `crop` all V views are augmented, unflipped crops of just this share of the area (CSI's test-time views,
    Tack et al. 2020, arXiv 2007.08176).
    """
    found = [] if seen.crop else [_layers(features(model, x, turn))]
    how = recipe.augment
    if seen.crop:
        how = dataclasses.replace(how, crop=(seen.crop, seen.crop), flip=0.0)
    for view in range(len(found), seen.views):
        parts = []
        for i, rows in enumerate(x.split(EMBED_BATCH)):
            views = augment.views(rows, how, 1, generator(seed, "view", view, i))
            parts.append(_layers(Features(*model(augment.quarter_turns(views[0], (turn,))))))  # after a flip
        found.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return {name: torch.stack([each[name] for each in found]) for name in found[0]}


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
    return {"penultimate": f.h.cpu()} | {HEAD_LAYER.get(name, name): z.cpu() for name, z in f.out.items()}
