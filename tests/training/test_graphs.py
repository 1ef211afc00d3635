"""The passes of an encoder as CUDA graphs: the same weights to the last bit; on the CPU, of what stands in for a graph.

The stand-in does what a graph does that a plain call does not: it warms up on the model's own running means and draws,
and it writes every output and every gradient into the memory of the one before.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oodbench.api import Batch, State, Training
from oodbench.study.registry import Registry
from oodbench.study.settings import Encoder, Precision, Recipe
from oodbench.training import graphs, networks, train
from oodbench.training.batches import TrainingData

CLASSES, DIM = 3, 16
RECIPE = Recipe(epochs=2, batch=12, warmup=0, clip=1.0)


def stand_in(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
    """Return what torch.cuda.make_graphed_callables returns, on the CPU."""
    parameters = list(module.parameters())
    for _ in range(3):
        out = module(*samples)
        gradients = torch.autograd.grad(out, parameters, torch.ones_like(out))
    static_out, static_gradients = torch.empty_like(out), [torch.empty_like(each) for each in gradients]
    plain, held = module.forward, []

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
            samples[0].copy_(x)
            with torch.enable_grad():
                held[:] = [plain(samples[0])]
            return static_out.copy_(held[0].detach()).detach()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            for static, each in zip(static_gradients, torch.autograd.grad(held[0], parameters, gradient), strict=True):
                static.copy_(each)
            return None, *(each.detach() for each in static_gradients)

    def replay(x: Tensor) -> Tensor:
        found: Tensor = Replayed.apply(x, *parameters)
        return found

    module.forward = replay  # type: ignore[assignment]
    return module


class Remembering(Training):
    """A loss that keeps features from one batch to the next."""

    heads = {}  # noqa: RUF012

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        before = state.get("before", torch.zeros_like(b.h))
        return (b.h - before).square().mean() + b.h.square().mean(), {"before": b.h.detach()}


class Resting(Training):
    """A loss that does not use its head: the head has no gradient, and the optimiser leaves it alone."""

    heads = {"z": "mlp-4"}  # noqa: RUF012

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        return b.h.square().mean(), state


TRAININGS = {
    "supcon": Registry().load("training", "supcon")(),
    "cross_entropy": Registry().load("training", "cross_entropy")(),
    "cider": Registry().load("training", "cider")(),
    "remembering": Remembering(),
    "resting": Resting(),
}


class Asking(nn.Module):
    """Asks the device for a number, which is not permitted while it is captured."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.detach().mean()) > 0 else 2 * x


def trained(
    method: Training, precision: Precision, device: str, graph: bool, *more: nn.Module
) -> tuple[networks.Trained, list[str]]:
    """Return a network after two epochs, and what was warned of."""
    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Conv2d(3, DIM, 3), nn.BatchNorm2d(DIM), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1)),
        *(*more, nn.Flatten()),
    )
    heads = {name: networks.head(form, DIM, CLASSES) for name, form in method.heads.items()}
    model = networks.Trained(networks.Network(body, heads), 3).to(device)
    data = TrainingData(
        torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8).to(device),
        (torch.arange(40) % CLASSES).to(device),
        CLASSES,
    )
    warned: list[str] = []
    card = graphs.Card(warned.append)
    train.train(model, method, RECIPE, precision, data._replace(world=card) if graph else data, 0)
    assert card.captured == (graph and not warned)
    return model, warned


def assert_equal(one: networks.Trained, other: networks.Trained) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_captured_passes_leave_the_same_weights(
    name: str, precision: Precision, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", stand_in)
    plain, _ = trained(TRAININGS[name], precision, device, graph=False)
    captured, warned = trained(TRAININGS[name], precision, device, graph=True)
    assert not warned
    assert_equal(captured, plain)


def test_graphs_go_with_their_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold a card's memory, and lie in circles of references, which Python looks for when it likes."""
    held: list[weakref.ref[nn.Module]] = []

    def kept(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
        held.append(weakref.ref(module))
        return stand_in(module, samples)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", kept)
    gc.disable()
    try:
        for _ in range(2):
            trained(TRAININGS["supcon"], "float32", "cpu", graph=True)
        assert held[0]() is None  # the second training's capture has freed it
        assert held[1]() is not None
        graphs.Card(print).release()
        assert held[1]() is None
    finally:
        gc.enable()


def test_what_cannot_be_captured_is_launched_singly_and_said_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
        module(*samples)
        raise RuntimeError("operation not permitted when stream is capturing\nat a line")

    if device == "cpu":
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    plain, _ = trained(TRAININGS["supcon"], "float32", device, False, Asking())
    tried, (warned,) = trained(TRAININGS["supcon"], "float32", device, True, Asking())
    begin = (
        "the passes of the encoder cannot be captured as CUDA graphs, kernels are launched singly, as by --no-graph: "
    )
    assert warned.startswith(begin)
    assert "captur" in warned.removeprefix(begin)
    assert "\n" not in warned
    assert_equal(tried, plain)
    again, warned_again = trained(TRAININGS["supcon"], "float32", device, True)  # the device is as it was
    assert len(warned_again) == (device == "cpu")
    assert_equal(again, trained(TRAININGS["supcon"], "float32", device, False)[0])


@pytest.mark.parametrize(
    ("recipe", "encoder", "device", "wanted"),
    [
        ({}, "resnet18", "cuda", True),
        ({}, "timm/resnet18", "cuda:1", True),
        ({}, "resnet18", "cpu", False),
        ({"accumulate": 2}, "resnet18", "cuda", False),
        ({"compile": True}, "resnet18", "cuda", False),
        ({"devices": 2}, "resnet18", "cuda", False),
        ({}, "own:network", "cuda", False),
    ],
)
def test_what_is_captured(recipe: dict[str, Any], encoder: str, device: str, wanted: bool) -> None:
    found = graphs.wanted(Recipe(**{"batch": 8} | recipe), Encoder(name=encoder), torch.device(device))
    assert found == wanted
