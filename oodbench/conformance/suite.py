"""What every plugin of a room must hold, as checks that an author runs on one plugin (`oodbench check`).

A check is tried on the plugin's defaults and on each option of each parameter that has a fixed choice.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from oodbench.api import (
    CONTRACTS,
    Batch,
    ClassifierHead,
    Clustering,
    Clusters,
    Dataset,
    Distance,
    Features,
    Images,
    Plugin,
    Posthoc,
    Rule,
    Scores,
    Split,
    State,
    Threshold,
    Training,
)
from oodbench.data import prepare
from oodbench.data.download import fetch_set
from oodbench.errors import UserError
from oodbench.scoring.metrics import auroc, curve
from oodbench.study.grid import resolved
from oodbench.study.registry import ROOMS, PluginFile, Registry, load, source_of
from oodbench.toolkit.vectors import centroids
from oodbench.training import networks

P = TypeVar("P", bound=Plugin)
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
CLASSES, PER_CLASS, PIXELS, DIM, VIEWS = 3, 12, 10, 8, 3


@dataclass(frozen=True)
class Result:
    """What a check found: nothing, or a problem."""

    check: str
    problem: str = ""
    skipped: bool = False


def find(plugin: str) -> PluginFile:
    """Return the plugin of a file, of ROOM/NAME, or of a name that only one room has."""
    if plugin.endswith(".py"):
        path = Path(plugin)
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return source_of(path)
    registry = Registry()
    room, _, name = plugin.rpartition("/")
    if room:
        if room not in ROOMS:
            raise UserError(f"there is no room '{room}'; allowed: {', '.join(ROOMS)}")
        return registry.source(room, name)
    rooms = [each for each in ROOMS if name in registry.sources(each)]
    if len(rooms) != 1:
        where = f"is in {', '.join(rooms)}; say ROOM/{name}" if rooms else "is in no room; see `oodbench list`"
        raise UserError(f"plugin '{name}' {where}")
    return registry.source(rooms[0], name)


def conform(source: PluginFile, root: Path = Path("data")) -> list[Result]:
    """Run every check of a plugin's room; root is the folder of downloaded data."""
    _loaded.cache_clear()  # files change between two calls
    cls = load(source)
    missing = [f.name for f in dataclasses.fields(cls) if _required(f)]  # type: ignore[arg-type]
    if missing:
        return [Result("every parameter has a default", f"without one: {', '.join(missing)}")]
    found = [Result("every parameter has a default"), Result("it says what it is", _documented(cls))]
    try:
        plugins = list(variants(cls))
    except ValueError as error:
        return [*found, Result("it can be made with its defaults and each of its options", str(error))]
    for plugin in plugins:
        lacking = [f"{module}: {how}" for module, how in plugin.requires.items() if find_spec(module) is None]
        for name, check in checks(plugin, root):
            title = f"{plugin.label}: {name}"
            if lacking:
                found.append(Result(f"{title} (needs {'; '.join(lacking)})", skipped=True))
            else:
                found.append(Result(title, _problem(check)))
    return found


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _documented(cls: type[Plugin]) -> str:
    return (
        ""
        if (cls.__doc__ or "").strip() and not (cls.__doc__ or "").startswith(f"{cls.__name__}(")
        else "its class has no docstring"
    )


def variants(cls: type[P]) -> Iterator[P]:
    """Yield a plugin with its defaults, then with each other option of each parameter of fixed choice."""
    yield cls()
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for option in _options(hint):
            if name in cls().params and option != cls().params[name]:
                yield cls(**{name: option})


def _options(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return (True, False) if hint is bool else ()


def _problem(check: Callable[[], None]) -> str:
    try:
        check()
    except FileNotFoundError as error:
        return f"its data is not there: {error}"
    except AssertionError as error:
        return str(error) or "an assertion failed"
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is what its author has to read
        return f"{type(error).__name__}: {error}"
    return ""


def checks(plugin: Plugin, root: Path) -> list[tuple[str, Callable[[], None]]]:
    """Return the checks of a plugin by name. A check raises where the plugin does not hold it."""
    suites: dict[type[Plugin], dict[str, Callable[..., None]]] = {
        Training: TRAINING,
        Clustering: CLUSTERING,
        Distance: DISTANCE,
        Threshold: THRESHOLD,
        Posthoc: POSTHOC,
        Dataset: DATASET,
    }
    contract = next(each for each in CONTRACTS.values() if isinstance(plugin, each))
    extra = (root,) if contract is Dataset else ()
    loads = isinstance(plugin, Training) and plugin.weights is not None
    suite = LOADING if loads else suites[contract]
    return [(name, functools.partial(check, resolved(plugin, CLASSES), *extra)) for name, check in suite.items()]


def _expect(holds: object, problem: str) -> None:
    if not bool(holds):
        raise AssertionError(problem)


# ---- training ------------------------------------------------------------------------------------------


class _Toy(nn.Module):
    """A linear encoder with a training's heads, on vectors."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(PIXELS, DIM)
        self.heads = nn.ModuleDict({name: networks.head(form, DIM, CLASSES) for name, form in training.heads.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.encoder(x)
        return h, {name: head(h) for name, head in self.heads.items()}


def _items() -> tuple[Tensor, Tensor]:
    """Return vectors (N, PIXELS) of CLASSES groups, and their classes."""
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    return torch.randn(CLASSES, PIXELS, generator=rng)[y] * 2 + torch.randn(len(y), PIXELS, generator=rng), y


def _batch(training: Training, net: _Toy, order: Tensor | None = None, epoch: int = 10_000) -> Batch:
    """Return all items as one batch, in an order; late enough for every warm-up to be over."""
    x, y = _items()
    rng = torch.Generator().manual_seed(2)
    turns = len(training.shifts.id)
    shift = torch.arange(turns).repeat_interleave(len(x))
    index = torch.arange(len(x)).repeat(turns)
    order = torch.arange(len(index)) if order is None else order
    noise = torch.randn(training.views, len(index), PIXELS, generator=rng)
    views = (x[index] + shift[:, None] + 0.3 * noise)[:, order]  # (V, B, PIXELS)
    strange = None
    if training.outliers or training.shifts.outlier:
        strange = 3 * torch.randn(training.views, len(index), PIXELS, generator=rng)
    seen = views if strange is None else torch.cat([views, strange], 1)
    h, out = net(seen.flatten(0, 1))
    split, labels = len(index), y[index][order] if training.labels else None
    h, out = (
        h.view(training.views, -1, DIM),
        {name: z.view(training.views, h.shape[0] // training.views, -1) for name, z in out.items()},
    )
    return Batch(
        h=h[:, :split],
        out={name: z[:, :split] for name, z in out.items()},
        y=labels,
        index=index[order],
        shift=shift[order],
        outlier=None if strange is None else {name: z[:, split:] for name, z in out.items()},
        epoch=epoch,
        y_host=None if labels is None else labels.numpy(),
    )


def _state(training: Training, net: _Toy) -> State:
    """Return the state a training has after its first refresh."""
    x, y = _items()
    with torch.no_grad():
        h, out = net(x)
    f, labels = Features(h, out), y if training.labels else None
    state = training.init(f, labels, 0)
    if training.refresh_every:
        state = training.refresh(f, labels, 10_000 * training.refresh_every, 0, state)
    _expect(all(isinstance(each, Tensor) for each in state.values()), "its state is a dict of tensors")
    return state


def _training_is_a_loss(training: Training) -> None:
    net = _Toy(training)
    loss, _ = training.loss(_batch(training, net), _state(training, net))
    _expect(loss.shape == (), f"the loss is a scalar, not of shape {tuple(loss.shape)}")
    _expect(loss.isfinite(), f"the loss is finite, not {loss.item()}")
    _expect(loss.dtype == torch.float32, f"the loss is float32, not {loss.dtype}")
    loss.backward()
    weight = net.encoder.weight.grad
    _expect(weight is not None and weight.abs().sum() > 0, "the loss has a gradient in the encoder")


def _training_falls(training: Training) -> None:
    net = _Toy(training)
    state = _state(training, net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss, state = training.loss(_batch(training, net), state)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    _expect(losses[-1] < losses[0], f"60 steps lower the loss, not from {losses[0]:.4f} to {losses[-1]:.4f}")


def _training_says_ordered(training: Training) -> None:
    net = _Toy(training)
    state = _state(training, net)
    plain = _batch(training, net)
    order = torch.randperm(len(plain.index), generator=torch.Generator().manual_seed(3))
    losses = [training.loss(batch, state)[0].item() for batch in (plain, _batch(training, net, order))]
    close = abs(losses[0] - losses[1]) < 1e-4 * max(1.0, abs(losses[0]))
    changed = f"in another order {losses[0]:.6f} became {losses[1]:.6f}"
    _expect(close or training.ordered, f"the order of a batch does not matter, but {changed}")
    _expect(not close or not training.ordered, f"it says `ordered`, but {changed}")


def _training_repeats(training: Training) -> None:
    net = _Toy(training)
    first, second = (training.loss(_batch(training, net), _state(training, net))[0].item() for _ in range(2))
    _expect(first == second, f"the same batch gives the same loss, not {first} and {second}")


TRAINING: dict[str, Callable[..., None]] = {
    "its loss is a finite float32 scalar with a gradient": _training_is_a_loss,
    "its loss falls": _training_falls,
    "the order of a batch does not matter, but where it says `ordered`": _training_says_ordered,
    "the same batch gives the same loss": _training_repeats,
}


def _training_uses_every_tensor(training: Training) -> None:
    shapes = {"conv1.weight": (4, 3, 7, 7), "bn1.bias": (4,), "strange.weight": (2,)}
    given = {name: torch.ones(shape) for name, shape in shapes.items()}
    training = training.bound(given, CLASSES)
    taken = training.adopt(given)
    _expect(
        len(taken.tensors) + len(taken.dropped) == len(given),
        f"of {len(given)} tensors it takes {len(taken.tensors)} and drops {len(taken.dropped)}: some are gone silently",
    )
    rooms = {f"heads.{head}." for head in training.heads} | {"encoder."}
    lost = [name for name in taken.tensors if not name.startswith(tuple(rooms))]
    _expect(not lost, f"tensors are named encoder.NAME or heads.HEAD.NAME, not {', '.join(lost)}")


LOADING: dict[str, Callable[..., None]] = {"every tensor is taken or named as dropped": _training_uses_every_tensor}


# ---- clustering -----------------------------------------------------------------------------------------


def _groups(n: int = 40, dim: int = 6, apart: float = 12.0) -> tuple[Tensor, Tensor]:
    """Return features (CLASSES * n, dim) of well separated groups of different spread, and which they belong to."""
    rng = torch.Generator().manual_seed(4)
    y = torch.arange(CLASSES).repeat_interleave(n)
    centers = apart * torch.eye(CLASSES, dim)
    spread = torch.tensor([0.5, 1.0, 1.5])[y][:, None]
    order = torch.randperm(len(y), generator=rng)
    return (centers[y] + spread * torch.randn(len(y), dim, generator=rng))[order], y[order]


def _fitted(clustering: Clustering, f: Tensor, y: Tensor) -> Clusters:
    return clustering.fit(f, y if clustering.labels else None, 0)


def _clustering_is_well_formed(clustering: Clustering) -> None:
    f, y = _groups()
    c = _fitted(clustering, f, y)
    k = len(c.centroid)
    _expect(c.assign.shape == (len(f),) and c.assign.dtype == torch.int64, "assign is int64 (N,)")
    _expect(c.assign.min() >= -1 and c.assign.max() < k, "assign is between -1 and K - 1")
    _expect(len(c.assign[c.assign >= 0].unique()) == k, "every cluster has an item")
    _expect(c.centroid.shape == (k, f.shape[1]) and c.centroid.dtype == torch.float32, "centroid is float32 (K, D)")
    _expect(c.centroid.isfinite().all(), "centroids are finite")
    shapes = {None: None, "diag": (k, f.shape[1]), "tied": (f.shape[1],) * 2, "full": (k, f.shape[1], f.shape[1])}
    shape = None if c.covariance is None else tuple(c.covariance.shape)
    _expect(shape == shapes[c.covariance_type], f"covariance of type {c.covariance_type} has shape {shape}")
    _expect(c.weight is None or c.weight.shape == (k,), "weight is (K,)")
    whole = c.weight is not None and c.covariance is not None
    _expect(clustering.mixture == whole, "it says `mixture` where it gives weights and covariances, and only there")


def _clustering_repeats(clustering: Clustering) -> None:
    f, y = _groups()
    first, second = (_fitted(clustering, f, y) for _ in range(2))
    same = torch.equal(first.assign, second.assign) and torch.equal(first.centroid, second.centroid)
    _expect(same, "the same seed gives the same clusters")


def _clustering_separates(clustering: Clustering) -> None:
    f, y = _groups()
    c = _fitted(clustering, f, y)
    if clustering.single or len(c.centroid) < CLASSES:
        return
    mixed = [k for k in range(len(c.centroid)) if len(y[c.assign == k].unique()) > 1]
    _expect(not mixed, f"groups far apart stay apart, but clusters {mixed} mix them")


def _clustering_keeps_input(clustering: Clustering) -> None:
    f, y = _groups()
    kept = f.clone()
    _fitted(clustering, f, y)
    _expect(torch.equal(f, kept), "it leaves the features it is given as they are")


CLUSTERING: dict[str, Callable[..., None]] = {
    "its clusters are well formed": _clustering_is_well_formed,
    "the same seed gives the same clusters": _clustering_repeats,
    "groups far apart stay apart": _clustering_separates,
    "it leaves its input as it is": _clustering_keeps_input,
}


# ---- distance -------------------------------------------------------------------------------------------------


def _fit_items(distance: Distance) -> tuple[Tensor, Tensor]:
    """Return features of separated groups; of the layer `shifted`, such that each turn is told from the others."""
    if distance.layers != ("shifted",):
        return _groups()
    turns, dim = 4, 3  # dimensions of the projection
    f, y = _groups(dim=turns * (dim + turns))
    f.view(len(f), turns, -1)[..., dim:] += 6 * torch.eye(turns)
    return f, y


def _clusters_of(distance: Distance, f: Tensor, assign: Tensor) -> Clusters:
    """Return the clusters of an assignment; for a distance that needs a mixture, with weights and covariances."""
    c = Clusters(centroids(f, assign, CLASSES), assign)
    if not distance.mixture:
        return c
    variance = torch.stack([f[assign == k].var(0) for k in range(CLASSES)])
    weight = torch.full((CLASSES,), 1 / CLASSES)
    return c._replace(weight=weight, covariance=variance, covariance_type="diag")


def _new_items(distance: Distance) -> tuple[Tensor, Tensor]:
    """Return items like the training ones, and far ones: for a distance of raw features, short ones, turned back."""
    rng = torch.Generator().manual_seed(5)
    f, _ = _fit_items(distance)
    near = f + 0.1 * torch.randn(f.shape, generator=rng)
    far = -0.1 * near if distance.raw else -6 - 6 * torch.rand(f.shape, generator=rng)
    return near, far


def _seen(distance: Distance, x: Tensor) -> Tensor:
    return x.expand(VIEWS, *x.shape) if distance.views else x


def _distance_orders(distance: Distance) -> None:
    f, y = _fit_items(distance)
    scorer = distance.fit(f, _clusters_of(distance, f, y))
    near, far = (scorer(_seen(distance, x)).score for x in _new_items(distance))
    area = auroc(curve(near.numpy(), far.numpy()))
    _expect(area > 0.95, f"far items score higher than near ones (AUROC {area:.3f})")


def _distance_is_well_formed(distance: Distance) -> None:
    f, y = _fit_items(distance)
    near, far = _new_items(distance)
    x = torch.cat([near, far, torch.zeros_like(near[:1])])
    s = distance.fit(f, _clusters_of(distance, f, y))(_seen(distance, x))
    _expect(s.score.shape == (len(x),) and s.score.dtype == torch.float64, "score is float64 (M,)")
    _expect(s.score.isfinite().all(), "scores are finite, that of a zero vector too")
    _expect(s.cluster.shape == (len(x),) and s.cluster.dtype == torch.int64, "cluster is int64 (M,)")
    _expect(s.cluster.min() >= 0 and s.cluster.max() < CLASSES, "cluster is between 0 and K - 1")


def _distance_scores_alone(distance: Distance) -> None:
    f, y = _fit_items(distance)
    scorer = distance.fit(f, _clusters_of(distance, f, y))
    near, _ = _new_items(distance)
    together = scorer(_seen(distance, near[:5])).score
    alone = torch.cat([scorer(_seen(distance, near[i : i + 1])).score for i in range(5)])
    _expect(torch.allclose(together, alone, rtol=1e-4, atol=1e-5), "an item's score does not depend on its neighbours")


def _distance_takes_noise(distance: Distance) -> None:
    f, y = _fit_items(distance)
    y[::7] = -1
    near, _ = _new_items(distance)
    s = distance.fit(f, _clusters_of(distance, f, y))(_seen(distance, near))
    _expect(s.score.isfinite().all(), "items of no cluster (-1) are allowed")


def _distance_leaves_one_out(distance: Distance) -> None:
    if type(distance).leave_one_out is Distance.leave_one_out:
        return
    f, y = _fit_items(distance)
    scores = distance.leave_one_out(f, _clusters_of(distance, f, y)).score
    for i in (0, 17, len(f) - 1):
        rest = torch.arange(len(f)) != i
        alone = distance.fit(f[rest], _clusters_of(distance, f[rest], y[rest]))(_seen(distance, f[i : i + 1])).score[0]
        _expect(abs(float(scores[i] - alone)) < 1e-4 * max(1, abs(float(alone))), "leave_one_out leaves the item out")


DISTANCE: dict[str, Callable[..., None]] = {
    "far items score higher": _distance_orders,
    "its scores are well formed": _distance_is_well_formed,
    "an item's score does not depend on its neighbours": _distance_scores_alone,
    "it takes items of no cluster": _distance_takes_noise,
    "leave_one_out, where there is one, leaves the item out": _distance_leaves_one_out,
}


# ---- threshold --------------------------------------------------------------------------------------------------


def _reference(n: int = 400, seed: int = 6) -> Scores:
    rng = torch.Generator().manual_seed(seed)
    cluster = torch.randint(4, (n,), generator=rng)
    score = torch.rand(n, generator=rng, dtype=torch.float64) * (1 + cluster)
    return Scores(score, cluster)


def _far(ref: Scores) -> Scores:
    """Return scores in the same clusters that lie above all of a reference."""
    return Scores(ref.score + 10, ref.cluster)


def _rule(threshold: Threshold, ref: Scores) -> Rule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a note for the rows is no mistake
        return threshold.fit(ref, _far(ref) if threshold.needs_ood else None)


def _accepted(rule: Rule, scores: Scores) -> float:
    return float((rule.calibrate(scores) <= rule.cut).double().mean())


def _threshold_accepts(threshold: Threshold) -> None:
    if threshold.needs_ood or threshold.nominal:
        return
    ref = _reference()
    share = _accepted(_rule(threshold, ref), ref)
    most = threshold.level + 5 / len(ref.score) * (4 if threshold.clusters else 1)
    _expect(threshold.level <= share <= most, f"it accepts {threshold.level:g} of its reference, not {share:.4f}")


def _threshold_models(threshold: Threshold) -> None:
    if not threshold.nominal:
        return
    rng = np.random.default_rng(7)
    bells = {"normal": rng.normal(10, 1, 20_000), "Gamma-distributed": rng.gamma(16, 1, 20_000)}
    for name, drawn in bells.items():
        ref = Scores(torch.as_tensor(drawn), torch.arange(len(drawn)) % 4)
        share = _accepted(_rule(threshold, ref), ref)
        close = abs(share - threshold.level) < 0.03
        _expect(close, f"it accepts about {threshold.level:g} of many {name} scores, not {share:.4f}")


def _threshold_separates(threshold: Threshold) -> None:
    if not threshold.needs_ood:
        return
    rule, new = _rule(threshold, _reference()), _reference(seed=8)
    kept, missed = _accepted(rule, new), _accepted(rule, _far(new))
    _expect(kept > 0.9, f"of ID far below the OOD it accepts more than 0.9, not {kept:.4f}")
    _expect(missed < 0.1, f"of OOD far above the ID it accepts less than 0.1, not {missed:.4f}")


def _threshold_is_monotone(threshold: Threshold) -> None:
    rule = _rule(threshold, _reference())
    score = torch.linspace(-1, 8, 200, dtype=torch.float64)
    for k in range(5 if threshold.clusters else 1):  # the last cluster has no reference
        calibrated = rule.calibrate(Scores(score, torch.full((200,), k)))
        _expect(calibrated.dtype == torch.float64, "calibrated scores are float64")
        _expect(calibrated.isfinite().all(), "calibrated scores are finite, far outside the reference too")
        _expect((calibrated.diff() >= 0).all(), "in a cluster, a higher score is never calibrated lower")


def _threshold_follows_level(threshold: Threshold) -> None:
    if threshold.needs_ood:  # it has another aim
        return
    ref = _reference()
    shares = [_accepted(_rule(dataclasses.replace(threshold, level=level), ref), ref) for level in (0.5, 0.9, 0.99)]
    _expect(shares == sorted(shares) and shares[0] < shares[-1], f"a higher level accepts more, not {shares}")


THRESHOLD: dict[str, Callable[..., None]] = {
    "where that is its promise, it accepts `level` of its reference": _threshold_accepts,
    "where it models scores, it accepts about `level` of bell-shaped ones": _threshold_models,
    "where it sees OOD scores, it tells separated ones apart": _threshold_separates,
    "it keeps the order of a cluster": _threshold_is_monotone,
    "where it has a level, a higher one accepts more": _threshold_follows_level,
}


# ---- posthoc ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Classified:
    """A linear classifier on features that are never negative, what it was fitted on, and what it has to tell apart."""

    train: Split
    val: Split
    head: ClassifierHead
    known: Split
    unknown: Split


def _classified(classes: int = CLASSES) -> _Classified:
    """Return classes that each have ten features of their own; items of no class have ten others.

    A tenth of the reference is labelled wrong: no classifier is right about everything it is fitted on.
    """
    rng = torch.Generator().manual_seed(7)
    own = torch.eye(classes).repeat_interleave(10, 1)  # (C, 10 C)
    centers = torch.cat([2 * own, torch.zeros(classes, 10)], 1)
    noise = torch.cat([torch.full((10 * classes,), 0.5), torch.full((10,), 0.1)])
    weight = 0.4 * (centers - centers.mean(0))
    bias = 0.1 * torch.arange(classes)

    def apply(h: Tensor) -> Tensor:
        return h @ weight.T + bias

    def items(centers: Tensor) -> Split:
        h = (centers + noise * torch.randn(centers.shape, generator=rng)).relu()
        return Split(h, apply(h))

    y = torch.arange(classes).repeat(400)
    confused = torch.where(torch.arange(len(y)) % 10 == 0, (y + 1) % classes, y)
    strange = torch.cat([torch.full((10 * classes,), -0.3), torch.full((10,), 1.5)]).expand(len(y), -1)
    train, val = items(centers[y])._replace(y=y), items(centers[confused])._replace(y=y)
    return _Classified(train, val, ClassifierHead(apply, weight, bias), items(centers[y]), items(strange))


def _scorer(posthoc: Posthoc, c: _Classified) -> Callable[[Split], Tensor]:
    """Return a fitted baseline that got no more than what it says it needs."""
    apply = c.head.apply if posthoc.linear or posthoc.applies else _not_applied
    head = c.head if posthoc.linear else ClassifierHead(apply, None, None)
    return posthoc.fit(c.train, c.val if posthoc.val else None, head)


def _not_applied(h: Tensor) -> Tensor:
    raise ValueError("it applies the head, and does not say `applies = True`")


def _rows(items: Split, rows: slice) -> Split:
    return Split(items.h[rows], items.logits[rows])


def _posthoc_orders(posthoc: Posthoc) -> None:
    for classes in (CLASSES, 2):
        c = _classified(classes)
        score = _scorer(posthoc, c)
        area = auroc(curve(score(c.known).numpy(), score(c.unknown).numpy()))
        _expect(area > 0.95, f"items of none of {classes} classes score higher (AUROC {area:.3f})")


def _posthoc_is_well_formed(posthoc: Posthoc) -> None:
    c = _classified()
    h = torch.cat([c.known.h, c.unknown.h, 0 * c.known.h[:1], 30 * c.known.h])
    score = _scorer(posthoc, c)(Split(h, c.head.apply(h)))
    _expect(score.shape == (len(h),) and score.dtype == torch.float64, "the score is float64 (M,)")
    _expect(score.isfinite().all(), "scores are finite, of a zero vector and of very confident items too")


def _posthoc_repeats(posthoc: Posthoc) -> None:
    c = _classified()
    scores = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scores.append(_scorer(posthoc, c)(c.known))
    _expect(torch.equal(scores[0], scores[1]), "it gives the same scores whatever the global seed")


def _posthoc_scores_alone(posthoc: Posthoc) -> None:
    c = _classified()
    score = _scorer(posthoc, c)
    together = score(c.known)[:5]
    alone = torch.cat([score(_rows(c.known, slice(i, i + 1))) for i in range(5)])
    _expect(torch.allclose(together, alone, rtol=1e-4, atol=1e-5), "an item's score does not depend on its neighbours")


def _posthoc_keeps_input(posthoc: Posthoc) -> None:
    c = _classified()
    _scorer(posthoc, c)(c.known)
    fresh = _classified()
    for name in ("train", "val", "known"):
        same = _same(getattr(c, name), getattr(fresh, name))
        _expect(same, f"it leaves its input as it is, but changed `{name}`")
    _expect(_same(c.head[1:], fresh.head[1:]), "it leaves the weights of the head as they are")


def _same(found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> bool:
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    return all(torch.equal(a, b) for a, b in pairs)


POSTHOC: dict[str, Callable[..., None]] = {
    "items of no class score higher": _posthoc_orders,
    "its scores are well formed": _posthoc_is_well_formed,
    "the same items get the same scores": _posthoc_repeats,
    "an item's score does not depend on its neighbours": _posthoc_scores_alone,
    "it leaves its input as it is": _posthoc_keeps_input,
}


# ---- dataset -------------------------------------------------------------------------------------------------------


def _dataset_says_where_it_is_from(dataset: Dataset, root: Path) -> None:
    source = dataset.source
    if source is None:
        _expect(not dataset.needed(root), "a set that needs files says where they are from")
        return
    for text in ("title", "page", "licence"):
        _expect(getattr(source, text), f"its source has a {text}")
    _expect(_inside(source.folder), f"its folder '{source.folder}' is in the folder of all data")
    names = [each.name for each in source.downloads]
    _expect(names and len(set(names)) == len(names), f"its downloads have a name each, not {names}")
    for each in source.downloads:
        _expect(each.name and _inside(each.name), f"'{each.name}' names a file")
        known = each.hash is None or re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", each.hash)
        _expect(known, f"the hash of {each.name} is md5:... or sha256:..., not {each.hash}")
        _expect(each.urls or source.by_hand, f"by_hand says how to get {each.name}, as no program can")
        re.compile(each.members or "")
    _expect(dataset.needed(root), "a set with a source names the files that it needs")


def _inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _dataset_names_its_files(dataset: Dataset, root: Path) -> None:
    fetch_set(dataset, root)
    needed = list(dataset.needed(root))
    lost = [str(path) for path in needed if not path.is_file()]
    _expect(not lost, f"what it needs is there once it is fetched, but not {', '.join(lost[:3])}")
    if dataset.source is not None:
        read = {path for split in SPLITS for path in dataset.files(split, root)}
        more = sorted(str(path) for path in read - set(needed))
        _expect(not more, f"what it reads is among what it needs, but not {', '.join(more[:3])}")


@functools.lru_cache(maxsize=2)
def _loaded(dataset: Dataset, split: Literal["train", "test"], root: Path) -> Images:
    """Return a split, which takes its time where it is generated: once for all checks."""
    fetch_set(dataset, root)
    return dataset.load(split, root)


def _dataset_is_well_formed(dataset: Dataset, root: Path) -> None:
    for split in dataset.splits:
        images = _loaded(dataset, split, root)
        _expect(len(images.x) == len(images.y) > 0, f"{split}: as many labels as images")
        first = np.asarray(images.x[0])
        _expect(first.dtype == np.uint8 and first.ndim in (2, 3), f"{split}: images are uint8 (H, W) or (H, W, C)")
        _expect(images.y.dtype == np.int64, f"{split}: labels are int64")
        _expect(images.y.min() >= 0 and images.y.max() < len(images.classes), f"{split}: labels number the classes")
        known = dataset.class_names
        _expect(known is None or known == images.classes, f"{split}: class_names are the names of the classes")


def _dataset_repeats(dataset: Dataset, root: Path) -> None:
    split = dataset.splits[-1]
    first, second = _loaded(dataset, split, root), dataset.load(split, root)
    same = np.array_equal(first.y, second.y) and np.array_equal(np.asarray(first.x[0]), np.asarray(second.x[0]))
    _expect(same, "loading it twice gives the same images")


def _dataset_is_split(dataset: Dataset, root: Path) -> None:
    if len(dataset.splits) < 2:
        return
    seen = []
    for split in ("train", "test"):
        x = _loaded(dataset, split, root).x
        some = range(0, len(x), max(1, len(x) // 20_000))
        seen.append(prepare.digests([np.asarray(x[i]) for i in some]))  # type: ignore[arg-type]
    shared = len(prepare.overlap(*seen)) / len(seen[1])
    _expect(shared < 0.01, f"train and test are disjoint, but {100 * shared:.1f} % of test is in train")


DATASET: dict[str, Callable[..., None]] = {
    "it says where it is from": _dataset_says_where_it_is_from,
    "it names the files that it needs": _dataset_names_its_files,
    "its images and labels are well formed": _dataset_is_well_formed,
    "loading it twice gives the same": _dataset_repeats,
    "train and test are disjoint": _dataset_is_split,
}
