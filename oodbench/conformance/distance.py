"""What holds of every distance."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Distance, Scorer, Scores
from oodbench.conformance import toys
from oodbench.conformance.toys import expect, expect_alone, expect_apart

VIEWS = 3


def _items(distance: Distance) -> tuple[Tensor, Tensor]:
    """Return features of separated groups, and which they belong to."""
    return toys.turned_groups() if distance.layers == ("shifted",) else toys.groups()


def _new_items(distance: Distance) -> tuple[Tensor, Tensor]:
    """Return items like the training ones, and far ones: for a distance of raw features, short ones, turned back."""
    rng = torch.Generator().manual_seed(5)
    f, _ = _items(distance)
    near = f + 0.1 * torch.randn(f.shape, generator=rng)
    return near, -0.1 * near if distance.raw else -6 - 6 * torch.rand(f.shape, generator=rng)


def _scorer(distance: Distance, f: Tensor, assign: Tensor) -> Scorer:
    """Return a fitted distance of items (M, D), of which it sees as many views as it wants, all alike."""
    fitted = distance.fit(f, toys.clusters(f, assign, distance.mixture))

    def score(x: Tensor) -> Scores:
        found = fitted(x.expand(VIEWS, *x.shape) if distance.views else x)
        expect(isinstance(found, Scores), f"what scores returns Scores, not {toys.kind(found)}")
        expect(not found.score.requires_grad, "scores have no gradient")
        return found

    return score


def orders(distance: Distance) -> None:
    """Far items score higher."""
    score = _scorer(distance, *_items(distance))
    near, far = (score(x).score for x in _new_items(distance))
    expect_apart(near, far, "far items score higher than near ones")


def is_well_formed(distance: Distance) -> None:
    """Its scores are well formed."""
    near, far = _new_items(distance)
    x = torch.cat([near, far, torch.zeros_like(near[:1])])
    s = _scorer(distance, *_items(distance))(x)
    expect(s.score.shape == (len(x),) and s.score.dtype == torch.float64, "score is float64 (M,)")
    expect(s.score.isfinite().all(), "scores are finite, that of a zero vector too")
    expect(s.cluster.shape == (len(x),) and s.cluster.dtype == torch.int64, "cluster is int64 (M,)")
    expect(s.cluster.min() >= 0 and s.cluster.max() < toys.CLASSES, "cluster is between 0 and K - 1")


def scores_alone(distance: Distance) -> None:
    """An item's score does not depend on its neighbours."""
    score = _scorer(distance, *_items(distance))
    near = _new_items(distance)[0][:5]
    expect_alone(lambda some: score(near[some]).score)


def takes_noise(distance: Distance) -> None:
    """It takes items of no cluster."""
    f, y = _items(distance)
    y[::7] = -1
    near, _ = _new_items(distance)
    expect(_scorer(distance, f, y)(near).score.isfinite().all(), "items of no cluster (-1) are allowed")


def leaves_one_out(distance: Distance) -> None:
    """Leave_one_out, where there is one, leaves the item out."""
    if type(distance).leave_one_out is Distance.leave_one_out:
        return
    f, y = _items(distance)
    scores = distance.leave_one_out(f, toys.clusters(f, y, distance.mixture)).score
    for i in (0, 17, len(f) - 1):
        rest = torch.arange(len(f)) != i
        alone = _scorer(distance, f[rest], y[rest])(f[i : i + 1]).score[0]
        expect(abs(float(scores[i] - alone)) < 1e-4 * max(1, abs(float(alone))), "leave_one_out leaves the item out")


def keeps_input(distance: Distance) -> None:
    """It leaves its input as it is."""
    (f, y), (near, _) = _items(distance), _new_items(distance)
    c = toys.clusters(f, y, distance.mixture)
    given = [f, near, *(each for each in c if isinstance(each, Tensor))]
    before = [each.clone() for each in given]
    fitted = distance.fit(f, c)
    fitted(near.expand(VIEWS, *near.shape).clone() if distance.views else near)
    expect(all(map(torch.equal, given, before)), "it leaves the features and clusters it is given as they are")


CHECKS = (orders, is_well_formed, scores_alone, takes_noise, leaves_one_out, keeps_input)
