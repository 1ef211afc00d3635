"""What holds of every baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.conformance.toys import CLASSES, Classified, classified, expect, expect_alone, expect_apart
from oodbench.toolkit.pytorch_ood import linear


def _scorer(posthoc: Posthoc, c: Classified) -> Callable[[Split], Tensor]:
    """Return a fitted baseline that got no more than what it says it needs."""
    apply = c.head.apply if posthoc.linear or posthoc.applies else _not_applied
    head = c.head if posthoc.linear else ClassifierHead(apply, None, None)
    if not posthoc.network:
        return posthoc.fit(c.train, c.val if posthoc.val else None, head)
    network = lambda x: (x.flatten(1), c.head.apply(x.flatten(1)))  # noqa: E731
    parts = (nn.Identity(), nn.Flatten())
    head = head._replace(
        network=network,
        layers=lambda x: [x.mean(1, keepdim=True).flatten(1), x.flatten(1)],
        module=nn.Sequential(*parts, linear(c.head)).eval(),
        parts=parts,
    )
    score = posthoc.fit(_pictured(c.train), _pictured(c.val) if posthoc.val else None, head)
    return lambda items: score(_pictured(items))


def _pictured(items: Split) -> Split:
    """Return items with images, which are their features: of one pixel."""
    return items._replace(images=lambda: iter(items.h[:, :, None, None].split(500)))


def _not_applied(h: Tensor) -> Tensor:
    raise ValueError("it applies the head, and does not say `applies = True`")


def orders(posthoc: Posthoc) -> None:
    """Items of no class score higher."""
    for classes in (CLASSES, 2):
        c = classified(classes)
        score = _scorer(posthoc, c)
        expect_apart(score(c.known), score(c.unknown), f"items of none of {classes} classes score higher")


def is_well_formed(posthoc: Posthoc) -> None:
    """Its scores are well formed."""
    c = classified()
    h = torch.cat([c.known.h, c.unknown.h, 0 * c.known.h[:1], 30 * c.known.h])
    score = _scorer(posthoc, c)(Split(h, c.head.apply(h)))
    expect(score.shape == (len(h),) and score.dtype == torch.float64, "the score is float64 (M,)")
    expect(score.isfinite().all(), "scores are finite, of a zero vector and of very confident items too")


def repeats(posthoc: Posthoc) -> None:
    """The same items get the same scores."""
    c = classified()
    scores = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scores.append(_scorer(posthoc, c)(c.known))
    expect(torch.equal(*scores), "it gives the same scores whatever the global seed")


def scores_alone(posthoc: Posthoc) -> None:
    """An item's score does not depend on its neighbours."""
    c = classified()
    score = _scorer(posthoc, c)
    expect_alone(lambda some: score(Split(c.known.h[some], c.known.logits[some])))


def keeps_input(posthoc: Posthoc) -> None:
    """It leaves its input as it is."""
    c, fresh = classified(), classified()
    _scorer(posthoc, c)(c.known)
    for name in ("train", "val", "known"):
        same = _same(getattr(c, name)[:3], getattr(fresh, name)[:3])  # h, logits, y
        expect(same, f"it leaves its input as it is, but changed `{name}`")
    weights = [(each.head.weight, each.head.bias) for each in (c, fresh)]
    expect(_same(*weights), "it leaves the weights of the head as they are")


def _same(found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> bool:
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    return all(torch.equal(a, b) for a, b in pairs)


CHECKS = (orders, is_well_formed, repeats, scores_alone, keeps_input)
