"""From pytorch-ood's three kinds of detectors (of logits, of features, of feature maps) to the contract of a baseline.

Each function takes what scores a batch and returns what scores a set: in float64, without gradients, some rows at a
time. pytorch-ood's outlier scores have our orientation (higher = more OOD); tests/methods/test_posthoc.py holds each
to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from oodbench.api import ClassifierHead, Split

ROWS = 8192  # items at a time

BatchScore = Callable[[Tensor], Tensor]  # of float64 (B, ...) -> (B,)
SetScore = Callable[[Split], Tensor]  # -> float64 (M,)


def of_logits(score: BatchScore, rows: int = ROWS) -> SetScore:
    """Return the scores of a set by what scores logits (B, C)."""
    return lambda items: _by_rows(score, items.logits, rows)


def of_features(score: BatchScore, rows: int = ROWS) -> SetScore:
    """Return the scores of a set by what scores penultimate features (B, D)."""
    return lambda items: _by_rows(score, items.h, rows)


def of_maps(score: BatchScore, rows: int = ROWS) -> SetScore:
    """Return the scores of a set by what scores feature maps, here of one pixel: (B, D, 1, 1)."""
    return of_features(lambda h: score(maps(h)), rows)


def maps(h: Tensor) -> Tensor:
    """Return penultimate features (B, D) as feature maps of one pixel (B, D, 1, 1)."""
    return h[:, :, None, None]


@torch.no_grad()
def _by_rows(score: BatchScore, x: Tensor, rows: int) -> Tensor:
    scores = [score(block.double()).double() for block in x.split(rows)]
    return torch.cat(scores)


def classifier(head: ClassifierHead) -> Callable[[Tensor], Tensor]:
    """Return a head that takes features (B, D) or maps (B, D, 1, 1) of any precision and returns float64 logits."""
    return lambda x: head.apply(x.flatten(1).float()).double()


def weights(head: ClassifierHead) -> tuple[Tensor, Tensor]:
    """Return the weight (C, D) and the bias (C,) of a linear head."""
    if head.weight is None or head.bias is None:
        raise ValueError("the head is not linear")
    return head.weight, head.bias


def linear(head: ClassifierHead) -> nn.Linear:
    """Return a linear head as a module, in float32."""
    weight, bias = weights(head)
    # nn.Linear(...) alone would draw weights from torch's global generator
    module: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    module.load_state_dict({"weight": weight, "bias": bias})
    return module


def labels(items: Split) -> Tensor:
    """Return the classes of a training or reference set."""
    if items.y is None:
        raise ValueError("the set has no labels")
    return items.y


def reference(val: Split | None) -> Split:
    """Return the held-out ID reference of a baseline that says `val = True`."""
    if val is None:
        raise ValueError("there is no ID reference")
    return val


def doubt(logits: Tensor) -> Tensor:
    """Return 1 - the maximum softmax probability (B,) of float64 logits (B, C).

    It is summed over the other classes, so that it goes on telling items apart where the maximum rounds to 1 (logits
    17 apart in float32, 37 in float64).
    """
    top = logits.max(1, keepdim=True)
    others = (logits - top.values).scatter(1, top.indices, -torch.inf).exp().sum(1)
    return others / (1 + others)


def require_rectified(h: Tensor, method: str) -> None:
    """Raise ValueError where training features are negative: sums of activations mean nothing then."""
    if (h < 0).any():
        raise ValueError(f"{method} takes features that are never negative, as after a ReLU; these reach {h.min():.3g}")
