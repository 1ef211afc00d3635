"""Detectors of pytorch-ood that ask the network, against the library called by hand on the same network and images."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_ood import detector as peer
from torch import Tensor, nn

from oodbench.api import ClassifierHead, Split
from oodbench.conformance import posthoc
from oodbench.scoring import costs
from oodbench.study.registry import Registry

ANY = Registry().load("posthoc", "pytorch_ood")
CLASSES, N = 3, 40


class Staged(nn.Module):
    """A network of two stages, pooling, dropout and a linear head, smooth but for the second stage's ReLU."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Tanh())
            second = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2), nn.ReLU(inplace=True))
            tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3))
            self.encoder = nn.Sequential(first, second, *tail)
            self.fc = nn.Linear(6, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.encoder(x))
        return found


MODEL = Staged()
FIRST, SECOND, *TAIL = MODEL.encoder
REST = nn.Sequential(*TAIL, MODEL.fc).eval()
DRAWN = torch.Generator().manual_seed(1)
TRAIN, TEST = (torch.rand(N, 2, 9, 9, generator=DRAWN) for _ in range(2))
Y = torch.arange(N) % CLASSES
LOADER: Any = list(zip(TRAIN.split(8), Y.split(8), strict=True))  # a DataLoader draws of the seed that Gram draws of


def split(x: Tensor, y: Tensor | None = None) -> Split:
    with torch.no_grad():
        h = MODEL.encoder(x)
        return Split(h, MODEL.fc(h), y, lambda: iter(x.split(16)))


def head() -> ClassifierHead:
    weight, bias = MODEL.fc.weight.detach(), MODEL.fc.bias.detach()
    network: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda x: (MODEL.encoder(x), MODEL(x))  # noqa: E731
    return ClassifierHead(MODEL.fc, weight, bias, network, None, MODEL, tuple(MODEL.encoder))


def fitted(name: str, **options: Any) -> Callable[[Split], Tensor]:
    found: Callable[[Split], Tensor] = ANY(detector=name, options=options).fit(split(TRAIN, Y), None, head())
    return found


def seeded(made: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made()


BY_HAND: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ODIN": (lambda **o: peer.ODIN(MODEL, **o), {"eps": 0.05, "temperature": 3.0}),
    "GradNorm": (lambda **o: peer.GradNorm(MODEL, **o), {"temperature": 2.0}),
    "GradUncertainty": (lambda **o: peer.GradUncertainty(MODEL, **o), {}),
    "MahalanobisODIN": (lambda **o: peer.MahalanobisODIN(MODEL.encoder, **o), {"eps": 0.01}),
    "MCD": (lambda **o: peer.MCD(MODEL, **o), {"samples": 5, "mode": "mean"}),
    "MultiMahalanobis": (lambda **o: peer.MultiMahalanobis([FIRST, SECOND], **o), {}),
    "Gram": (lambda **o: peer.Gram(REST, [FIRST, SECOND], CLASSES, **o), {}),
    "NACUE": (lambda **o: peer.NACUE(MODEL, [FIRST, SECOND], **o), {"m_bins": 20, "o_star": 5}),
    "RankFeat": (lambda **o: peer.RankFeat(nn.Sequential(FIRST, SECOND), REST, **o), {}),
}


def test_every_detector_is_taken_or_refused_by_name() -> None:
    module: Any = sys.modules[ANY.__module__]
    every = {name for name, each in vars(peer).items() if inspect.isclass(each)}
    taken, refused = [*module.of_features(), *module.BY_NETWORK], [*module.REFUSED]
    assert len(taken) + len(refused) == len(every)
    assert {*taken, *refused} == every
    assert {*BY_HAND} == {*module.BY_NETWORK}


@pytest.mark.parametrize("name", BY_HAND)
def test_it_scores_as_pytorch_ood_by_hand(name: str) -> None:
    make, options = BY_HAND[name]
    score = fitted(name, **options)
    found = score(split(TEST))
    theirs = make(**options)
    seeded(lambda: theirs.fit(LOADER))
    expected = seeded(lambda: torch.cat([theirs.predict(x) for x in TEST.split(16)])).detach().numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4, atol=1e-6)
    MODEL.zero_grad()
    assert (found.dtype, MODEL.training) == (torch.float64, False)


@pytest.mark.parametrize("name", BY_HAND)
def test_it_leaves_the_network_as_it_is(name: str) -> None:
    before = {key: value.clone() for key, value in MODEL.state_dict().items()}
    state = torch.get_rng_state()
    score = fitted(name)
    first = score(split(TEST))
    torch.testing.assert_close(score(split(TEST)), first, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in MODEL.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in MODEL.parameters())
    assert not any(each._forward_hooks for each in MODEL.modules())
    assert not MODEL.training


@pytest.mark.parametrize("name", BY_HAND)
def test_a_scorer_does_not_hold_what_it_was_fitted_on(name: str) -> None:
    train = split(TRAIN, Y)
    score = ANY(detector=name).fit(train, None, head())
    reached = costs.held(score)
    train.h.untyped_storage().resize_(10**7)  # a scorer that reached it would hold as many bytes
    assert costs.held(score) == reached


def test_tokens_are_maps_of_one_row() -> None:
    """As those of a vision transformer: (B, N, D); RankFeat knows maps alone."""
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(81, 7))  # (B, 2, 7): two tokens
    mean = nn.Sequential(nn.AdaptiveAvgPool2d((1, 7)), nn.Flatten())
    fc = nn.Linear(7, CLASSES)
    model = nn.Sequential(nn.Sequential(tokens, mean), fc).eval()
    given = head()._replace(module=model, parts=(tokens, mean))
    found = ANY(detector="MultiMahalanobis").fit(split(TRAIN, Y), None, given)(split(TEST)).numpy()
    theirs = peer.MultiMahalanobis([nn.Identity()])
    with torch.no_grad():
        theirs.fit_structured([tokens(TRAIN).mean(1)], Y)
        np.testing.assert_allclose(found, theirs.predict_structured([tokens(TEST).mean(1)]), rtol=1e-4)
    coverage = peer.NACUE(model, [tokens], feature_reduce=lambda z: z.mean(1)).fit(LOADER)
    found = ANY(detector="NACUE").fit(split(TRAIN, Y), None, given)(split(TEST)).numpy()
    np.testing.assert_allclose(found, coverage.predict(TEST), rtol=1e-4)
    with pytest.raises(ValueError, match="RankFeat needs an encoder whose direct parts put out maps"):
        ANY(detector="RankFeat").fit(split(TRAIN, Y), None, given)


def test_what_a_network_has_not_is_said() -> None:
    plain = nn.Sequential(FIRST, SECOND, *TAIL[:2], MODEL.fc).eval()
    with pytest.raises(ValueError, match="MCD needs dropout"):
        ANY(detector="MCD").fit(split(TRAIN, Y), None, head()._replace(module=plain))
    with pytest.raises(ValueError, match=r"pytorch_ood\(ODIN\) needs the network"):
        ANY(detector="ODIN").fit(split(TRAIN, Y), None, head()._replace(module=None))
    with pytest.raises(ValueError, match="needs images"):
        fitted("ODIN")(split(TEST)._replace(images=None))


@pytest.mark.parametrize("name", ["ODIN", "GradNorm"])
@pytest.mark.parametrize("check", posthoc.CHECKS, ids=lambda check: check.__name__)
def test_conformance_gives_the_network_as_a_module(name: str, check: Callable[[Any], None]) -> None:
    check(ANY(detector=name))
