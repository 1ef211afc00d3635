"""Train: from images to weights. It knows the contracts; no names, no paths, no cache."""

from __future__ import annotations

import copy
import ctypes
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from oodbench.api import Batch, Loss, State, Training
from oodbench.study.settings import Precision, Recipe
from oodbench.toolkit.seeds import seed_of
from oodbench.training import augment, batches, optim
from oodbench.training.batches import TrainingData, Views, World
from oodbench.training.embed import features
from oodbench.training.networks import Trained, in_its_arithmetic

HISTORY = "history"  # of a progress: the losses of the steps since the last whole epoch; `history/TERM` of a term's
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


class DivergedError(Exception):
    """A loss became NaN or infinite."""


class Progress(NamedTuple):
    """All that a training needs to go on after a step: everything random comes from seed, epoch and step."""

    epochs: int  # done
    losses: list[float]
    tensors: dict[str, Tensor]  # of the model, what is beside it, optimiser and state, and losses of steps, by name
    steps: int = 0  # done of the next epoch
    terms: tuple[dict[str, float], ...] = ()  # means of the terms of the loss, by epoch


class Listening:
    """Hears of a training after each epoch that leaves finite weights, and after each other step; this one is deaf."""

    def terms(self, means: dict[str, float]) -> None: ...  # of the loss of the epoch that is told next
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
    _begin(recipe, data)
    world, beside, record = data.world, Beside(training, model, data, seed), Record(recipe, data, done)
    optimised, steps = beside.optimised(model), record.steps
    optimizer = optim.optimizer(optimised, recipe)
    step_here = Step(model, training, precision, world, beside, world.passes(model, recipe))
    step_of = world.parallel(step_here)
    initial = partial(_initial, training, model, data, seed)
    state = _restored(done, model, beside, optimizer) if done else world.from_first(initial)
    for epoch in range(len(record.losses), recipe.epochs):
        first = record.begun
        if not first and training.refresh_every and epoch % training.refresh_every == 0:
            state = world.from_first(partial(_refreshed, training, model, data, epoch, seed, state))
        optimised.train()
        for step, views in enumerate(batches.batches(training, recipe, data, seed, epoch, first), first):
            optim.set_rate(optimizer, optim.learning_rate(recipe, epoch * steps + step, steps))
            optimizer.zero_grad(set_to_none=True)
            for i, part in enumerate(batches.parts(views, recipe.accumulate)):
                loss, state = step_of(part, epoch, seed_of(seed, "dropout", epoch, step, i), state)
                (loss / recipe.accumulate).backward()
                record.add(step, loss, step_here.terms)
            optim.step(optimizer, optimised, recipe)
            beside.follow(model, training.slowness((epoch + step / steps) / recipe.epochs))
            if step + 1 < steps:
                watch.step(partial(_progress, record, model, beside, optimizer, state, step + 1))
        record.close(epoch)
        _check_weights(optimised, f"epoch {epoch}, step {steps - 1}")
        watch.terms(record.terms[-1])
        watch.epoch(epoch, record.losses[-1], partial(_progress, record, model, beside, optimizer, state, 0))
    model.eval()
    return record.losses


class Record:
    """The losses of a training, and their terms: of each step of the epoch at work, and means of those before."""

    def __init__(self, recipe: Recipe, data: TrainingData, done: Progress | None) -> None:
        self.steps = batches.steps_per_epoch(recipe, len(data.x))  # an epoch
        self.losses = list(done.losses) if done else []
        self.terms = list(done.terms) if done else []
        self.begun = done.steps if done else 0  # steps of the epoch at work that were done before
        self._parts = recipe.accumulate
        self._none = torch.zeros(self.steps, device=data.x.device)
        self._history: dict[str, Tensor] = {HISTORY: self._none.clone()}
        for name, values in done.tensors.items() if done else ():
            if name.partition("/")[0] == HISTORY:
                self._of(name)[: len(values)] = values.to(self._none)

    def _of(self, name: str) -> Tensor:
        return self._history.setdefault(name, self._none.clone())

    def add(self, step: int, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Count the loss of one of the parts of a batch, and its terms."""
        for name, value in {HISTORY: loss, **{f"{HISTORY}/{name}": term for name, term in terms.items()}}.items():
            self._of(name)[step] += value.detach() / self._parts

    def done(self, steps: int) -> dict[str, Tensor]:
        """Return the losses of the first steps of the epoch at work, by the names that they have in a progress."""
        return {name: values[:steps] for name, values in self._history.items()} if steps else {}

    def close(self, epoch: int) -> None:
        """End an epoch. Raises DivergedError where a loss of it was not finite."""
        self.losses.append(_finite_mean(self._history.pop(HISTORY), epoch))
        self.terms.append(
            {name.partition("/")[2]: _finite_mean(values, epoch) for name, values in self._history.items()}
        )
        self._history, self.begun = {HISTORY: self._none.clone()}, 0


class Beside(nn.Module):
    """What a training has beside its network: what its loss learns, and a slow copy of the network."""

    def __init__(self, training: Training, model: Trained, data: TrainingData, seed: int) -> None:
        super().__init__()
        self.learned = _learned(training, model, data, seed)
        self.slow = None if training.slowness(0.0) is None else copy.deepcopy(model).requires_grad_(False).train()

    def optimised(self, model: Trained) -> nn.Module:
        """Return a model with what is learned beside it."""
        return model if self.learned is None else nn.ModuleList([model, self.learned])

    @torch.no_grad()
    def follow(self, model: Trained, slowness: float | None) -> None:
        """Move the slow copy towards the model."""
        if self.slow is not None and slowness is not None:
            for own, other in zip(self.slow.parameters(), model.parameters(), strict=True):
                own.lerp_(other, 1 - slowness)


class Step(nn.Module):
    """A forward pass and its loss: what runs under distributed data parallel where there are several processes."""

    def __init__(
        self,
        model: Trained,
        method: Training,
        precision: Precision,
        world: World,
        beside: Beside | None = None,
        passes: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.precision = precision
        self.world = world
        self.beside = beside
        self.passes = model if passes is None else passes  # the model as batches pass it
        self.terms: dict[str, Tensor] = {}  # of the last loss

    def forward(self, views: Views, epoch: int, seed: int, state: State) -> tuple[Tensor, State]:
        """Return the loss of the whole batch and the state after it; dropout is drawn from the seed and the rank."""
        device = views.id.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed + self.world.part.rank)
            batch = self._passed(views, epoch)
            if self.world.part.of > 1:
                torch.manual_seed(seed)  # what a loss draws is the same in every process, and as in one alone
            found, state = self.method.loss(batch, state)  # and the same after a kill
        self.terms = {name: term.detach() for name, term in found.items()} if isinstance(found, dict) else {}
        return whole_loss(found), state

    def _passed(self, views: Views, epoch: int) -> Batch:
        """Return what the loss sees, ID and outliers having passed the network together, and its slow copy."""
        x = views.id.flatten(0, 1)
        if views.outlier is not None:
            x = torch.cat([x, views.outlier.flatten(0, 1)])
        slow = None
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            h, out = self.passes(x)
            if self.beside is not None and self.beside.slow is not None:
                with torch.no_grad():
                    slow = self.beside.slow(x)[1]
        shifts, outlier = self.method.shifts, None
        split, turns = views.id.shape[0] * views.id.shape[1], len(shifts.id)
        whole = partial(self._whole, count=views.id.shape[0])
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
            target=views.target,
            heads=dict(self.model.network.heads.items()),
            learned=None if self.beside is None else self.beside.learned,
            slow=None if slow is None else {name: whole(z[:split], turns) for name, z in slow.items()},
        )

    def _whole(self, rows: Tensor, turns: int, count: int) -> Tensor:
        """Return (V, B, P) of the whole batch from this process's rows."""
        blocks = rows.to(torch.get_default_dtype()).unflatten(0, (count * turns, -1))
        gathered: Tensor = self.world.gathered(blocks).unflatten(0, (count, turns))
        return gathered.flatten(1, 2)


def whole_loss(loss: Loss) -> Tensor:
    """Return a loss, or the sum of its terms."""
    return reduce(operator.add, loss.values()) if isinstance(loss, dict) else loss


def _begin(recipe: Recipe, data: TrainingData) -> None:
    """Raise UserError where a recipe does not fit the data; let a CPU keep the memory that it takes."""
    augment.check(recipe.augment, data.x.shape[1])
    batches.check(recipe, len(data.x))
    if data.y.device.type == "cpu":
        keep_freed_memory()


def _learned(training: Training, model: Trained, data: TrainingData, seed: int) -> nn.Module | None:
    if type(training).learned is Training.learned:
        return None
    dim = features(model, next(iter(data.x.split(64)))).h.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "learned"))
        made = training.learned(dim, data.classes)
    return None if made is None else made.to(data.x.device, non_blocking=True)


def _initial(training: Training, model: Trained, data: TrainingData, seed: int) -> State:
    if type(training).init is Training.init:
        return {}
    return training.init(features(model, data.x), data.y if training.labels else None, seed_of(seed, "init"))


def _refreshed(training: Training, model: Trained, data: TrainingData, epoch: int, seed: int, state: State) -> State:
    labels = data.y if training.labels else None
    return training.refresh(features(model, data.x), labels, epoch, seed_of(seed, "refresh", epoch), state)


def _progress(
    record: Record, model: Trained, beside: Beside, optimizer: torch.optim.Optimizer, state: State, steps: int
) -> Progress:
    """Return the progress after the epochs of a record and so many steps of the next."""
    moments = optimizer.state_dict()["state"]
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"beside/{name}": value for name, value in beside.state_dict().items()}
    tensors |= {f"optimizer/{i}/{name}": t for i, each in moments.items() for name, t in each.items() if t is not None}
    tensors |= {f"state/{name}": value for name, value in state.items()}
    tensors |= record.done(steps)
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return Progress(len(record.losses), list(record.losses), copies, steps, tuple(record.terms))


def weights_of(progress: Progress) -> dict[str, Tensor]:
    """Return the state dict of the model in a progress."""
    return under("model/", progress.tensors)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restored(done: Progress, model: Trained, beside: Beside, optimizer: torch.optim.Optimizer) -> State:
    """Put a progress back into a model, what is beside it and an optimiser, and return the training's state."""
    device = next(model.parameters()).device
    tensors = {name: value.to(device) for name, value in done.tensors.items()}
    model.load_state_dict(under("model/", tensors))
    beside.load_state_dict(under("beside/", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer/", tensors).items():
        index, _, rest = name.partition("/")
        moments.setdefault(int(index), {})[rest] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    optim.lay_out(optimizer)
    return under("state/", tensors)


def _finite_mean(history: Tensor, epoch: int) -> float:
    bad = (~history.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(f"the loss is {float(history[bad[0, 0]])} at epoch {epoch}, step {int(bad[0, 0])}")
    return float(history.mean())


def _check_weights(model: nn.Module, where: str) -> None:
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
