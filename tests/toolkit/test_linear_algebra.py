"""Squared distances against float64 of the same numbers, also where clusters are much farther apart than wide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oodbench.toolkit.linear_algebra import lower, nearest_to, squared_distances_to


def clusters(apart: float) -> tuple[Tensor, Tensor]:
    """Return items (300, 8) and centers (3, 8) of width 0.02: two of them 0.2 apart, the third far away."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.zeros(3, 8)
    centers[1, 0], centers[2] = 0.2, apart
    x = centers.repeat_interleave(100, 0) + 0.02 * torch.randn(300, 8, generator=generator)
    return x, centers


@pytest.mark.parametrize("apart", [1.0, 300.0, 3e4])
@pytest.mark.parametrize("whitened", ["no", "diagonal", "full"])
def test_the_nearest_point_and_its_distance(apart: float, whitened: str) -> None:
    x, centers = clusters(apart)
    w = None
    if whitened == "diagonal":
        w = torch.linspace(1, 2, 8)
    elif whitened == "full":
        w = lower(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).float()
    turned = (lambda t: t) if w is None else (lambda t: t * w.double()) if w.ndim == 1 else (lambda t: t @ w.double())
    exact = torch.cdist(turned(x.double()), turned(centers.double()), compute_mode="donot_use_mm_for_euclid_dist")
    square, place = nearest_to(centers, w)(x)
    assert torch.equal(place, exact.argmin(1))
    torch.testing.assert_close(square, exact.min(1).values.square(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("apart", [1.0, 300.0, 3e4])
def test_squared_distances(apart: float) -> None:
    x, _ = clusters(apart)
    exact = torch.cdist(x.double(), x[::2].double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    found = squared_distances_to(x[::2])(x[1::2])
    torch.testing.assert_close(found.double(), exact[1::2], rtol=2e-2, atol=0)
