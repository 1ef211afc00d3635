"""Unit vectors: lengths, rows of zeros, gradients. Counts: shares of whole numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from oodbench.toolkit import vectors
from oodbench.toolkit.counts import least_count
from oodbench.toolkit.vectors import unit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_row_stays_zero_and_has_a_finite_gradient(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-15, 0.0]], dtype=dtype, requires_grad=True)
    u = unit(x)
    torch.testing.assert_close(u, torch.tensor([[0, 0], [0.6, 0.8], [1, 0]], dtype=dtype))
    (u * torch.tensor([1e6, -1e6], dtype=dtype)).sum().backward()
    assert x.grad is not None
    assert x.grad[:2].isfinite().all()
    expected = torch.tensor([0.8 * 1.4e6, -0.6 * 1.4e6], dtype=dtype) / 5  # (g - (g.u) u) / |x|
    torch.testing.assert_close(x.grad[1], expected)


def test_a_row_below_the_least_normal_number_has_no_direction() -> None:
    x = torch.full((1, 2), torch.finfo(torch.float32).tiny / 4, requires_grad=True)
    unit(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_sums_of_groups_are_those_of_a_loop(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By addition and by products, in blocks, with noise, and with a group that has no row."""
    x, group = torch.randn(700, 3, device=device), torch.randint(-1, 3, (700,), device=device)
    expected = torch.stack([x[group == k].double().sum(0) for k in range(5)])
    monkeypatch.setattr(vectors, "chunk", lambda x: 256)
    for add in (vectors._add, vectors._add_by_products):
        monkeypatch.setattr(vectors, "_add", add)
        sums = vectors.group_sums(x, group, 5)
        torch.testing.assert_close(sums, expected, rtol=0, atol=1e-12)
        assert torch.equal(vectors.group_sums(x, group, 5), sums)


def test_the_least_count_is_that_of_exact_numbers() -> None:
    for total in (1, 7, 100, 999, 1000):
        for hundredths in range(101):
            exact = -(-Fraction(hundredths, 100) * total // 1)
            assert least_count(hundredths / 100, total) == exact
