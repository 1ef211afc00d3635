"""A card of 24 GB and a bank of ImageNet's shape, a thousand times smaller: every cell has its numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from card import CUDA, Card

from oodbench.api import ClassifierHead
from oodbench.errors import UserError
from oodbench.scoring import detectors as scoring
from oodbench.store.columns import COSTS
from oodbench.study import grid, reader
from oodbench.study.grid import Detector
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN, Space
from oodbench.toolkit import vectors

N, M, D, CLASSES = 16_000, 500, 256, 125  # 1,281,167 x 2,048 and 1,000 in ImageNet-1k under a ResNet-50
BANK = 4 * N * D  # bytes: 10.5 GB there
GB24, MEMORY = 24 / 10.5 * BANK, int(2 / 10.5 * BANK)


@pytest.fixture
def bank() -> scoring.Bank:
    rng = torch.Generator().manual_seed(0)
    centers = torch.randn(CLASSES, D, generator=rng)
    weight, bias = centers, -centers.square().sum(1) / 2

    def layers(y: torch.Tensor, spread: float) -> scoring.Layers:
        h = (centers[y] + spread * torch.randn(len(y), D, generator=rng)).relu()
        return {"penultimate": h[None]}

    def known(n: int, spread: float = 4.0) -> scoring.Known:
        y = torch.arange(n) % CLASSES
        return scoring.Known({PLAIN: layers(y, spread)}, y)

    train = known(N)
    return scoring.Bank(
        fit=train.layers[PLAIN],
        y=train.y,
        classes=CLASSES,
        test=known(M),
        reference=known(M),
        ood={"wide": known(M, 6.0).layers},
        validation={},
        head=ClassifierHead(lambda h: h @ weight.T + bias, weight, bias),
    )


def detectors() -> list[Detector]:
    """Return the detectors of the ImageNet study, whose kNN searches a tenth of the bank."""
    study = reader.load(Path("studies/imagenet_pretrained.yaml"))
    tenth = [
        type(each)(**each.params | {"sample": N // 10}) if each.name == "knn" else each
        for each in study.detectors.distances
    ]
    return list(grid.detectors(dataclasses.replace(study.detectors, distances=tenth), Counter()))


def scored(bank: scoring.Bank, wanted: list[Detector], device: torch.device) -> dict[Detector, scoring.Judged]:
    found = scoring.judged(wanted, bank, list(bank.ood), 0, scoring.How(device, MEMORY))
    return {each.detector: each for each in found}


def numbers(judged: scoring.Judged) -> dict[str, float]:
    return {name: each for name, each in judged.numbers.items() if name not in COSTS}


def on_host(judged: scoring.Judged) -> bool:
    return any("scored on the CPU: cuda:0 has no room for it" in each for each in judged.warnings)


@pytest.fixture(autouse=True)
def in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are to the bank as they are to ImageNet's."""
    monkeypatch.setattr(vectors, "chunk", lambda x: 256)
    monkeypatch.setattr(scoring, "HEAD_ROWS", scoring.HEAD_ROWS // 80)


def test_a_card_of_24_gb_scores_the_imagenet_study(bank: scoring.Bank) -> None:
    wanted, card = detectors(), Card(GB24)
    cpu = scored(bank, wanted, torch.device("cpu"))
    with card.there():
        found = scored(bank, wanted, CUDA)
    assert found.keys() == cpu.keys()
    assert not [each.error for each in found.values() if each.error]
    for detector, each in found.items():
        assert numbers(each) == pytest.approx(numbers(cpu[detector]), rel=1e-5), detector
    without_room = {each.scorer.name for each, judged in found.items() if on_host(judged)}
    assert without_room <= {"react", "she", "vim"}  # pytorch-ood's copy the bank as a whole
    assert card.peak > 1.5 * BANK


def test_where_a_card_has_no_room_at_all_everything_is_scored_on_the_host(bank: scoring.Bank) -> None:
    wanted = detectors()
    with Card(BANK / 2).there():
        found = scored(bank, wanted, CUDA)
    assert not [each.error for each in found.values() if each.error]
    assert all(map(on_host, found.values()))
    cpu = scored(bank, wanted, torch.device("cpu"))
    assert {each: numbers(judged) for each, judged in found.items()} == {
        each: numbers(judged) for each, judged in cpu.items()
    }


def test_what_has_no_room_keeps_the_clusters_that_the_device_made(
    bank: scoring.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three distances without room, one clustering, fitted once; whatever library says that memory is full."""
    registry, fits = Registry(), []
    kmeans, mahalanobis = registry.load("clustering", "kmeans"), registry.load("distance", "mahalanobis")
    said = iter(["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Error: cudaMalloc error out of memory"])
    fit, score = kmeans.fit, mahalanobis.fit

    def fitted(self: Any, f: torch.Tensor, *rest: Any) -> Any:
        fits.append(self.label)
        return fit(self, f, *rest)

    def full(self: Any, f: torch.Tensor, c: Any) -> Any:
        if card.holds(f):
            raise RuntimeError(next(said))
        return score(self, f, c)

    monkeypatch.setattr(kmeans, "fit", fitted)
    monkeypatch.setattr(mahalanobis, "fit", full)
    pooled = registry.load("threshold", "pooled")()
    forms = [mahalanobis(), mahalanobis(covariance="diagonal"), mahalanobis(singular="shrink")]
    wanted = [Detector(Space(), kmeans(k=5, restarts=1), each, pooled) for each in forms]
    card = Card(100 * BANK)
    with card.there():
        found = scored(bank, wanted, CUDA)
    assert all(map(on_host, found.values()))
    assert not [each.error for each in found.values() if each.error]
    assert len(fits) == 1


def test_a_host_without_room_either_is_an_error_of_these_rows_alone(
    bank: scoring.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, too: euclidean distance, which the device has room for, is scored all the same."""
    registry = Registry()
    mahalanobis, euclidean = (registry.load("distance", name) for name in ("mahalanobis", "euclidean"))
    labels, pooled = registry.load("clustering", "labels")(), registry.load("threshold", "pooled")()

    def full(self: Any, f: torch.Tensor, c: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def no_disk(rows: int, columns: int) -> Any:
        raise UserError("no temporary file")

    monkeypatch.setattr(mahalanobis, "fit", full)
    monkeypatch.setattr(scoring, "scratch", no_disk)
    unit = Space(unit=True)
    with Card(100 * BANK).there():
        found = scored(bank, [Detector(unit, labels, each(), pooled) for each in (mahalanobis, euclidean)], CUDA)
    assert [each.error for each in found.values()] == ["UserError: no temporary file", ""]
