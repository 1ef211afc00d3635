"""Train: from images to weights. It knows the contracts; no names, no paths, no cache."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from oodbench.api import Batch, Shifts, State, Training
from oodbench.study.settings import Precision, Recipe
from oodbench.toolkit.seeds import seed_of
from oodbench.training import augment, batches, optim
from oodbench.training.batches import TrainingData, Views, World
from oodbench.training.embed import features
from oodbench.training.networks import Trained, in_its_arithmetic

HISTORY = "history"  # of a progress: the losses of the steps since the last whole epoch
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


class DivergedError(Exception):
    """A loss became NaN or infinite."""


class Progress(NamedTuple):
    """All that a training needs to go on after a step: everything random comes from seed, epoch and step."""

    epochs: int  # done
    losses: list[float]
    tensors: dict[str, Tensor]  # of the model, the optimiser and the training's state, and losses of steps, by name
    steps: int = 0  # done of the next epoch


class Listening:
    """Hears of a training after each epoch that leaves finite weights, and after each other step; this one is deaf."""

    def epoch(self, epoch: int, loss: float, progress: Callable[[], Progress]) -> None: ...
    def step(self, progress: Callable[[], Progress]) -> None: ...


@dataclass(frozen=True)
class EachEpoch(Listening):
    """Tells a function of each epoch."""

    hear: Callable[[int, float, Callable[[], Progress]], None]

    def epoch(self, epoch: int, loss: float, progress: Callable[[], Progress]) -> None:
        self.hear(epoch, loss, progress)


@in_its_arithmetic
def train(
    model: Trained,
    training: Training,
    recipe: Recipe,
    precision: Precision,
    data: TrainingData,
    seed: int,
    watch: Listening = Listening(),  # noqa: B008 - it has no state
    done: Progress | None = None,
) -> list[float]:
    """Train a model in place and return the mean loss of each epoch.

    `watch` may ask for the progress; `done` is one to go on from, with the same weights at the end as if there had
    been no interruption. Raises DivergedError, naming the step, at the end of an epoch in which a loss was not finite,
    or which leaves a weight that is not. In a world of several processes each calls this with the same arguments and
    ends with the same weights, those of one process.
    """
    world = data.world
    if data.y.device.type == "cpu":
        keep_freed_memory()
    augment.check(recipe.augment, data.x.shape[1])
    batches.check(recipe, len(data.x))
    steps = batches.steps_per_epoch(recipe, len(data.x))
    optimizer = optim.optimizer(model, recipe)
    labels = data.y if training.labels else None
    losses = list(done.losses) if done else []
    step_of = world.parallel(Step(world.passes(model, recipe), training, precision, world))
    initial = partial(_initial, training, model, data, labels, seed)
    state = _restored(done, model, optimizer) if done else world.from_first(initial)
    first, history = _begun(done, torch.zeros(steps, device=data.x.device))
    for epoch in range(len(losses), recipe.epochs):
        if not first and training.refresh_every and epoch % training.refresh_every == 0:
            state = world.from_first(partial(_refreshed, training, model, data, labels, epoch, seed, state))
        model.train()
        for step, views in enumerate(batches.batches(training, recipe, data, seed, epoch, first), first):
            optim.set_rate(optimizer, optim.learning_rate(recipe, epoch * steps + step, steps))
            optimizer.zero_grad(set_to_none=True)
            for i, part in enumerate(batches.parts(views, recipe.accumulate)):
                loss, state = step_of(part, epoch, seed_of(seed, "dropout", epoch, step, i), state)
                (loss / recipe.accumulate).backward()
                history[step] += loss.detach() / recipe.accumulate
            optim.step(optimizer, model, recipe)
            if step + 1 < steps:
                watch.step(partial(_progress, losses, model, optimizer, state, history[: step + 1]))
        losses.append(_finite_mean(history, epoch))
        _check_weights(model, f"epoch {epoch}, step {steps - 1}")
        watch.epoch(epoch, losses[-1], partial(_progress, losses, model, optimizer, state, history[:0]))
        first, history = 0, torch.zeros_like(history)
    model.eval()
    return losses


def _begun(done: Progress | None, history: Tensor) -> tuple[int, Tensor]:
    """Return how many steps of an epoch are done, and the losses of its steps, of which they fill the first."""
    if done is None or not done.steps:
        return 0, history
    history[: done.steps] = done.tensors[HISTORY].to(history)
    return done.steps, history


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
        device = views.id.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed + self.world.part.rank)
            batch = _forward(self.model, views, self.precision, epoch, self.method.shifts, self.world)
            return self.method.loss(batch, state)  # a loss that draws draws the same after a kill


def _initial(training: Training, model: Trained, data: TrainingData, labels: Tensor | None, seed: int) -> State:
    if type(training).init is Training.init:
        return {}
    return training.init(features(model, data.x), labels, seed_of(seed, "init"))


def _refreshed(
    training: Training, model: Trained, data: TrainingData, labels: Tensor | None, epoch: int, seed: int, state: State
) -> State:
    return training.refresh(features(model, data.x), labels, epoch, seed_of(seed, "refresh", epoch), state)


def _progress(
    losses: list[float], model: Trained, optimizer: torch.optim.Optimizer, state: State, history: Tensor
) -> Progress:
    """Return the progress after so many epochs, and the steps of which `history` holds the losses."""
    moments = optimizer.state_dict()["state"]
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer/{i}/{name}": t for i, each in moments.items() for name, t in each.items() if t is not None}
    tensors |= {f"state/{name}": value for name, value in state.items()}
    tensors |= {HISTORY: history} if len(history) else {}
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return Progress(len(losses), list(losses), copies, len(history))


def weights_of(progress: Progress) -> dict[str, Tensor]:
    """Return the state dict of the model in a progress."""
    return under("model/", progress.tensors)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restored(done: Progress, model: Trained, optimizer: torch.optim.Optimizer) -> State:
    """Put a progress back into a model and an optimiser, and return the training's state."""
    device = next(model.parameters()).device
    tensors = {name: value.to(device) for name, value in done.tensors.items()}
    model.load_state_dict(under("model/", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer/", tensors).items():
        index, _, rest = name.partition("/")
        moments.setdefault(int(index), {})[rest] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    optim.lay_out(optimizer)
    return under("state/", tensors)


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
        blocks = rows.to(torch.get_default_dtype()).unflatten(0, (count * turns, -1))
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


# ---- memory of the C library ------------------------------------------------------------------------------


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and return whether the C library, glibc, can do that.

    glibc returns every block above 32 MB to the kernel, and the page faults of taking it anew can cost a training on
    the CPU more than its arithmetic does. Only speed and the process's size depend on it: what was once taken stays
    with the process until it ends.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26))
    return all(set_option(option, value) == 1 for option, value in wanted)
