"""What checks share: small inputs, each of a structure that a plugin of its kind has to find, and how to expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from oodbench.api import Batch, ClassifierHead, Clusters, Features, Scores, Split, State, Training
from oodbench.scoring.metrics import auroc, curve
from oodbench.toolkit.vectors import centroids
from oodbench.training import networks

CLASSES, PER_CLASS, PIXELS, DIM = 3, 12, 10, 8
LATE = 10_000  # an epoch at which every warm-up is over


def expect(holds: object, problem: str) -> None:
    """Raise an AssertionError that says what should hold, where it does not."""
    if not bool(holds):
        raise AssertionError(problem)


def kind(value: object) -> str:
    """Return what a value is, in a word or two."""
    return f"{len(value)} values" if isinstance(value, tuple) else f"a {type(value).__name__}"


def expect_apart(near: Tensor, far: Tensor, what: str) -> None:
    """Expect the scores of far items to be higher."""
    area = auroc(curve(near.numpy(), far.numpy()))
    expect(area > 0.95, f"{what} (AUROC {area:.3f})")


def expect_alone(score: Callable[[slice], Tensor]) -> None:
    """Expect the first items to have the same scores one by one as among all; `score` takes a slice of the items."""
    alone = torch.cat([score(slice(i, i + 1)) for i in range(5)])
    close = torch.allclose(score(slice(None))[:5], alone, rtol=1e-4, atol=1e-5)
    expect(close, "an item's score does not depend on its neighbours")


class ToyNetwork(nn.Module):
    """A linear encoder of vectors, with a training's heads and what its loss learns."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Linear(PIXELS, DIM)
            heads = {name: networks.head(form, DIM, CLASSES) for name, form in training.heads.items()}
            self.learned = training.learned(DIM, CLASSES)
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.encoder(x)
        return h, {name: head(h) for name, head in self.heads.items()}


def items() -> tuple[Tensor, Tensor]:
    """Return vectors (N, PIXELS) of CLASSES groups, and their classes."""
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    return torch.randn(CLASSES, PIXELS, generator=rng)[y] * 2 + torch.randn(len(y), PIXELS, generator=rng), y


def batch(training: Training, net: ToyNetwork, shuffled: bool = False) -> Batch:
    """Return all items in each of a training's turns as one late batch, in order or shuffled."""
    x, y = items()
    rng = torch.Generator().manual_seed(2)
    views, turns = training.views, len(training.shifts.id)
    shift = torch.arange(turns).repeat_interleave(len(x))
    index = torch.arange(len(x)).repeat(turns)
    count = len(index)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3)) if shuffled else torch.arange(count)
    noise = torch.randn(views, count, PIXELS, generator=rng)
    seen = (x[index] + shift[:, None] + 0.3 * noise)[:, order]  # (V, B, PIXELS)
    strange = bool(training.outliers or training.shifts.outlier)
    if strange:
        seen = torch.cat([seen, 3 * torch.randn(views, count, PIXELS, generator=rng)], 1)
    h, flat = net(seen.flatten(0, 1))
    out = {name: z.unflatten(0, (views, -1)) for name, z in flat.items()}
    labels = y[index][order] if training.labels else None
    own, target = {name: z[:, :count] for name, z in out.items()}, None
    if training.mixing is not None:
        expect(labels is not None, "it mixes images, and asks for labels")
        shares = torch.eye(CLASSES)[labels]
        target = 0.7 * shares + 0.3 * shares.roll(1, 1)
    return Batch(
        h=h.unflatten(0, (views, -1))[:, :count],
        out=own,
        y=labels,
        index=index[order],
        shift=shift[order],
        outlier={name: z[:, count:] for name, z in out.items()} if strange else None,
        epoch=LATE,
        y_host=None if labels is None else labels.numpy(),
        target=target,
        heads=dict(net.heads.items()),
        learned=net.learned,
        slow=None if training.slowness(0.0) is None else {name: z.detach() for name, z in own.items()},
    )


def state(training: Training, net: ToyNetwork) -> State:
    """Return the state that a training has after a late refresh."""
    x, y = items()
    with torch.no_grad():
        f = Features(*net(x))
    labels = y if training.labels else None
    first = training.init(f, labels, 0)
    every = training.refresh_every
    return training.refresh(f, labels, LATE * every, 0, first) if every else first


def groups(n: int = 40, dim: int = 6, apart: float = 12.0) -> tuple[Tensor, Tensor]:
    """Return features (CLASSES * n, dim) of well separated groups of different spread, and which they belong to."""
    rng = torch.Generator().manual_seed(4)
    y = torch.arange(CLASSES).repeat_interleave(n)
    spread = torch.tensor([0.5, 1.0, 1.5])[y][:, None]
    order = torch.randperm(len(y), generator=rng)
    return (apart * torch.eye(CLASSES, dim)[y] + spread * torch.randn(len(y), dim, generator=rng))[order], y[order]


def turned_groups(turns: int = 4, dim: int = 3) -> tuple[Tensor, Tensor]:
    """Return the same, of the layer `shifted`: each of its turns, dim of projection and logits, is told from others."""
    f, y = groups(dim=turns * (dim + turns))
    f.view(len(f), turns, -1)[..., dim:] += 6 * torch.eye(turns)
    return f, y


def clusters(f: Tensor, assign: Tensor, mixture: bool) -> Clusters:
    """Return the clusters of an assignment, with the weights and covariances of a mixture where that is wanted."""
    c = Clusters(centroids(f, assign, CLASSES), assign)
    if not mixture:
        return c
    variance = torch.stack([f[assign == k].var(0) for k in range(CLASSES)])
    return c._replace(weight=torch.full((CLASSES,), 1 / CLASSES), covariance=variance, covariance_type="diag")


def reference(n: int = 400, seed: int = 6) -> Scores:
    """Return scores in four clusters, each of its own scale."""
    rng = torch.Generator().manual_seed(seed)
    cluster = torch.randint(4, (n,), generator=rng)
    return Scores(torch.rand(n, generator=rng, dtype=torch.float64) * (1 + cluster), cluster)


class Classified(NamedTuple):
    """A linear classifier on features that are never negative, what it was fitted on, and what it has to tell apart."""

    train: Split
    val: Split
    head: ClassifierHead
    known: Split
    unknown: Split


def classified(classes: int = CLASSES) -> Classified:
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

    def drawn(centers: Tensor) -> Split:
        h = (centers + noise * torch.randn(centers.shape, generator=rng)).relu()
        return Split(h, apply(h))

    y = torch.arange(classes).repeat(400)
    confused = torch.where(torch.arange(len(y)) % 10 == 0, (y + 1) % classes, y)
    strange = torch.cat([torch.full((10 * classes,), -0.3), torch.full((10,), 1.5)]).expand(len(y), -1)
    train, val = drawn(centers[y])._replace(y=y), drawn(centers[confused])._replace(y=y)
    return Classified(train, val, ClassifierHead(apply, weight, bias), drawn(centers[y]), drawn(strange))
