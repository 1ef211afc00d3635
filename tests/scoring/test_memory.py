"""Scoring within a budget: block by block it gives the numbers that it gives at once."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oodbench.api import Plugin
from oodbench.scoring import detectors as scoring
from oodbench.store.columns import COSTS
from oodbench.study.grid import Detector
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN, Seen, Space

N, M, D, CLASSES = 3000, 700, 24, 3
SPACES = [Space(), Space(unit=True, zscore=True), Space(zscore=True, pca=5)]
CPU = torch.device("cpu")


def plugin(room: str, name: str, **params: Any) -> Any:
    cls: type[Plugin] = Registry().load(room, name)
    return cls(**params)


@pytest.fixture
def bank(tmp_path: Path) -> scoring.Bank:
    """A bank whose training features are a memory-mapped file."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(N) % CLASSES
    centers = 50 + torch.randn(CLASSES, D, generator=rng)
    np.save(tmp_path / "train.npy", (centers[y] + torch.randn(N, D, generator=rng)).numpy())
    train = torch.from_numpy(np.load(tmp_path / "train.npy", mmap_mode="c"))

    def known(scale: float, views: int = 1) -> scoring.Known:
        own = torch.arange(M) % CLASSES
        f = centers[own] + scale * torch.randn(views, M, D, generator=rng)
        return scoring.Known({Seen(views): {"penultimate": f}}, own)

    return scoring.Bank(
        fit={"penultimate": train[None]},
        y=y,
        classes=CLASSES,
        test=known(1.0),
        reference=known(1.0),
        ood={"wide": known(1.6).layers, "far": known(3.0).layers},
        validation={},
    )


def detectors() -> list[Detector]:
    clusterings = [plugin("clustering", "labels"), plugin("clustering", "kmeans", k=4, restarts=1)]
    names = ("euclidean", "cosine", "mahalanobis", "relative_mahalanobis", "local", "density")
    distances = [plugin("distance", name) for name in names]
    threshold = plugin("threshold", "pooled")
    found = [Detector(s, c, d, threshold) for s in SPACES for c in clusterings for d in distances]
    return found + [Detector(s, None, plugin("distance", "knn", k=k), threshold) for s in SPACES for k in (1, 20)]


def numbers(
    bank: scoring.Bank, memory: int, wanted: list[Detector], device: torch.device = CPU
) -> dict[tuple[Detector, str], dict[str, float]]:
    found = list(scoring.judged(wanted, bank, list(bank.ood), 0, scoring.How(device, memory)))
    assert not [each.error for each in found if each.error]
    return {(each.detector, each.ood): {k: v for k, v in each.numbers.items() if k not in COSTS} for each in found}


@pytest.mark.slow
def test_a_small_budget_changes_no_number(bank: scoring.Bank, device: str) -> None:
    where = torch.device(device)
    at_once, in_blocks = (numbers(bank, memory, detectors(), where) for memory in (10**9, 30_000))
    assert at_once.keys() == in_blocks.keys()
    for key, wanted in at_once.items():
        assert in_blocks[key] == pytest.approx(wanted, rel=1e-6), key
    assert min(each["auroc"] for each in at_once.values()) < 0.99  # a comparison of ones would say nothing


def test_a_disk_without_room_is_an_error_of_the_space_alone(
    bank: scoring.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to all the same, a mapped file that the disk cannot hold would end the process."""

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    wanted = [
        Detector(s, plugin("clustering", "one"), plugin("distance", "euclidean"), plugin("threshold", "pooled"))
        for s in (Space(), Space(unit=True))
    ]
    found = list(scoring.judged(wanted, bank, list(bank.ood), 0, scoring.How(CPU, 30_000)))
    errors = {each.detector.space: each.error for each in found}
    assert errors[Space()] == ""
    assert "no temporary file of 0.3 MB: No space left on device; set TMPDIR" in errors[Space(unit=True)]


def test_features_too_large_to_copy_are_not_copied(bank: scoring.Bank) -> None:
    plain = bank.fit["penultimate"][0]
    large = scoring.SpacedFeatures(Space(), bank, scoring.How(CPU, 30_000))
    small = scoring.SpacedFeatures(Space(), bank, scoring.How(CPU, 10**9))
    assert large.fit.data_ptr() == plain.data_ptr()
    assert small.fit.data_ptr() != plain.data_ptr()
    blocks = list(large.seen("wide", every_view=False))
    assert [len(block) for block in blocks] == [256, 256, 188]
    assert torch.equal(torch.cat(blocks), bank.ood["wide"][PLAIN]["penultimate"][0])


def test_features_that_a_plugin_spoils_stay_spoilt_where_they_are_too_large_to_copy(bank: scoring.Bank) -> None:
    for memory, spoilt in ((30_000, True), (10**9, False)):
        spaced = scoring.SpacedFeatures(Space(), bank, scoring.How(CPU, memory))
        spaced.fit.add_(1)
        with pytest.raises(ValueError, match="it changes its input in place"):
            spaced.check_unchanged("it")
        if spoilt:
            with pytest.raises(ValueError, match="changes its input in place"):
                spaced.check_unchanged("the next")
            spaced.fit.sub_(1)
        else:
            spaced.check_unchanged("the next")
