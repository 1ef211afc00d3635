"""Optimisers and learning rates against loops in float64 and closed forms; what a step does with a batch."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from oodbench.api import Batch, Shifts, State, Training
from oodbench.errors import UserError
from oodbench.study.registry import Registry
from oodbench.study.settings import Augment, Encoder, ImageFormat, Recipe
from oodbench.training import batches, networks, optim, train

IMAGE = ImageFormat(size=8, channels=1)
SMALL = Encoder(name="resnet18", params={"width": 2, "stem": "cifar"})
PLAIN = Augment(crop=None, flip=0, jitter=None, gray=0)
QUICK = Recipe(epochs=2, batch=8, lr=0.05, warmup=0, augment=PLAIN)


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("training", name)(**params)


# ---- one optimiser's steps ------------------------------------------------------------------------


def network() -> nn.Module:
    """Return parameters of one and more dimensions, one of them zero: LARS's factor is then 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    return model


def gradients(model: nn.Module, steps: int) -> list[list[Tensor]]:
    rng = torch.Generator().manual_seed(1)
    return [[torch.randn(p.shape, generator=rng) for p in model.parameters()] for _ in range(steps)]


def moved(model: nn.Module, recipe: Recipe, rates: list[float]) -> list[np.ndarray]:
    """Return the parameters after a step at each rate."""
    optimizer = optim.optimizer(model, recipe)
    for rate, grads in zip(rates, gradients(model, len(rates)), strict=True):
        for p, g in zip(model.parameters(), grads, strict=True):
            p.grad = g.clone()
        optim.set_rate(optimizer, rate)
        optim.step(optimizer, model, recipe)
    return [p.detach().double().numpy() for p in model.parameters()]


def by_hand(model: nn.Module, recipe: Recipe, rates: list[float]) -> list[np.ndarray]:
    """Return the same in numpy, parameter by parameter and step by step: SGD with momentum, and LARS."""
    found = []
    for i, parameter in enumerate(model.parameters()):
        w = parameter.detach().double().numpy().copy()
        whole = recipe.decay_norms or w.ndim > 1
        velocity = np.zeros_like(w)
        for rate, grads in zip(rates, gradients(model, len(rates)), strict=True):
            g = grads[i].double().numpy()
            if recipe.clip is not None:
                g = g * min(1.0, recipe.clip / math.sqrt(sum(each.double().square().sum().item() for each in grads)))
            decay = recipe.weight_decay if whole else 0.0
            factor = 1.0
            if recipe.optimizer == "lars" and whole and np.linalg.norm(w) > 0:
                factor = recipe.trust * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
            g = factor * (g + decay * w)
            velocity = recipe.momentum * velocity + g
            w = w - rate * (g + recipe.momentum * velocity if recipe.nesterov else velocity)
        found.append(w)
    return found


@pytest.mark.parametrize("clip", [None, 0.7, 100.0])
@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_steps_of_sgd_and_lars_by_hand(
    optimizer: Any, momentum: float, nesterov: bool, decay_norms: bool, clip: float | None
) -> None:
    recipe = Recipe(
        optimizer=optimizer,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=0.1,
        trust=0.02,
        decay_norms=decay_norms,
        clip=clip,
    )
    rates = [0.5, 0.3, 0.2]
    for mine, wanted in zip(moved(network(), recipe, rates), by_hand(network(), recipe, rates), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-6)


def test_a_step_of_lars_in_numbers() -> None:
    """|w| = 5, |g| = 1, decay 0.2: the factor is 0.1 x 5 / (1 + 0.2 x 5) = 0.25, of g + 0.2 w = (1.6, 0.8)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    model.weight.grad = torch.tensor([[1.0, 0.0]])
    recipe = Recipe(optimizer="lars", lr=2.0, momentum=0.9, weight_decay=0.2, trust=0.1)
    optim.step(optim.optimizer(model, recipe), model, recipe)
    assert model.weight.tolist() == [pytest.approx([3 - 2 * 0.25 * 1.6, 4 - 2 * 0.25 * 0.8])]


def test_adamw_is_torchs_but_for_the_decay_of_norms() -> None:
    recipe = Recipe(optimizer="adamw", weight_decay=0.1, decay_norms=False)
    model, rates = network(), [0.01, 0.02]
    found = moved(model, recipe, rates)
    for whole in (True, False):
        other = network()
        wanted = moved(other, dataclasses.replace(recipe, decay_norms=True, weight_decay=0.1 if whole else 0.0), rates)
        for mine, each in zip(found, wanted, strict=True):
            assert np.array_equal(mine, each) or (mine.ndim > 1) is not whole


def test_parameters_without_decay_are_those_of_one_dimension() -> None:
    model = networks.build(SMALL, {"z": "mlp-4"}, IMAGE, 3)
    decayed, others = optim.parameter_groups(model, Recipe(decay_norms=False))
    names = {id(p): name for name, p in model.named_parameters()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert others["weight_decay"] == 0
    for name in (names[id(p)] for p in decayed["params"]):
        assert name.endswith(".weight")
        assert kinds[name.removesuffix(".weight")] in (nn.Conv2d, nn.Linear)
    assert len(decayed["params"]) + len(others["params"]) == len(names)


# ---- learning rates -----------------------------------------------------------------------------------


def rates(recipe: Recipe, steps: int = 5) -> list[float]:
    return [optim.learning_rate(recipe, step, steps) for step in range(recipe.epochs * steps)]


def test_supcontrasts_schedule() -> None:
    """Its `adjust_learning_rate`: epochs from 1, cosine over all of them; `warmup_learning_rate`: linear to there."""
    recipe = Recipe(
        epochs=10, lr=0.5, warmup=3, warmup_lr=0.01, floor=1e-3, schedule_from="start", schedule_per="epoch_end"
    )

    def cosine(epoch: int) -> float:
        return 0.0005 + (0.5 - 0.0005) * (1 + math.cos(math.pi * epoch / 10)) / 2

    wanted = []
    for epoch in range(1, 11):
        for step in range(5):
            p = (step + (epoch - 1) * 5) / (3 * 5)
            wanted.append(0.01 + p * (cosine(3) - 0.01) if epoch <= 3 else cosine(epoch))
    assert rates(recipe) == pytest.approx(wanted)


def test_the_cosine_by_epoch_is_torchs() -> None:
    recipe = Recipe(epochs=10, lr=0.5, warmup=0, floor=0.01, schedule_per="epoch")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, 0.005)
    for epoch in range(10):
        assert rates(recipe)[5 * epoch : 5 * epoch + 5] == pytest.approx([scheduler.get_last_lr()[0]] * 5)
        optimizer.step()
        scheduler.step()


def test_the_cosine_by_step_begins_where_it_is_told() -> None:
    recipe = Recipe(epochs=10, lr=0.5, warmup=2, warmup_lr=0.0, floor=0.0)
    after = [0.5 * (1 + math.cos(math.pi * k / 40)) / 2 for k in range(40)]
    assert rates(recipe)[10:] == pytest.approx(after)
    whole = [0.5 * (1 + math.cos(math.pi * k / 50)) / 2 for k in range(50)]
    found = rates(dataclasses.replace(recipe, schedule_from="start"))
    assert found[10:] == pytest.approx(whole[10:])
    assert found[:10] == pytest.approx([whole[10] * k / 10 for k in range(10)])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"optimizer": "adamw", "nesterov": True}, "nesterov: adamw has none"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov: needs a momentum"),
        ({"batch": 10, "accumulate": 4}, r"accumulate: batch \(10\) cannot be cut into 4"),
        ({"batch": 8, "outlier_batch": 6, "accumulate": 4}, r"accumulate: outlier_batch \(6\) cannot be cut into 4"),
    ],
)
def test_recipes_that_make_no_sense(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe(**params)


# ---- a step of a training -------------------------------------------------------------------------------


def toy(n: int = 24) -> batches.TrainingData:
    rng = torch.Generator().manual_seed(0)
    return batches.TrainingData(
        torch.randint(256, (n, 1, 8, 8), generator=rng, dtype=torch.uint8),
        torch.arange(n) % 3,
        3,
        torch.randint(256, (n, 1, 8, 8), generator=rng, dtype=torch.uint8),
    )


class Flat(nn.Module):
    """A network in which no item sees another: no batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.heads = nn.Linear(64, 5), nn.ModuleDict({"logits": nn.Linear(5, 3)})

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.hidden(x.flatten(1)).relu()
        return h, {"logits": self.heads["logits"](h)}


def flat() -> networks.Trained:
    torch.manual_seed(3)
    return networks.Trained(Flat(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulated_gradients_are_those_of_the_whole_batch(clip: float | None) -> None:
    whole, parts = flat(), flat()
    recipe = dataclasses.replace(QUICK, batch=12, clip=clip)
    training = plugin("cross_entropy")
    losses = train.train(whole, training, recipe, "float32", toy(), 0)
    again = train.train(parts, training, dataclasses.replace(recipe, accumulate=4), "float32", toy(), 0)
    assert again == pytest.approx(losses)
    for mine, wanted in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted)
    assert not torch.equal(whole.network.hidden.weight, flat().network.hidden.weight)  # type: ignore[union-attr,arg-type]


class _Seen(Training):
    """Remembers what it sees; each image is two ID items and two outliers, turned."""

    heads = {"z": "mlp-4"}  # noqa: RUF012
    views = 2
    labels = True
    shifts = Shifts(id=(0, 1), outlier=(2, 3))

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        SEEN.append(b)
        return b.out["z"].square().mean(), {"calls": state.get("calls", torch.zeros(())) + 1}


SEEN: list[Batch] = []


def test_a_part_of_a_batch_holds_all_shifts_of_its_images() -> None:
    SEEN.clear()
    data, recipe = toy(), dataclasses.replace(QUICK, epochs=1, batch=12, accumulate=3)
    model = networks.untrained(_Seen(), SMALL, recipe, IMAGE, data, 0)
    train.train(model, _Seen(), recipe, "float32", data, 0)
    assert len(SEEN) == 2 * 3
    for b in SEEN:
        assert b.h.shape == (2, 8, 16)
        assert b.outlier is not None
        assert b.outlier["z"].shape == (2, 8, 4)
        assert b.index[:4].tolist() == b.index[4:].tolist()
        assert b.shift.tolist() == [0] * 4 + [1] * 4
        assert torch.equal(b.y, data.y[b.index])  # type: ignore[arg-type]
        assert b.y_host.tolist() == b.y.tolist()  # type: ignore[union-attr]
    seen = torch.cat([b.index[:4] for b in SEEN])
    assert sorted(seen.tolist()) == list(range(24))


def test_parts_of_a_batch_are_cut_from_the_same_views() -> None:
    data, recipe = toy(), dataclasses.replace(QUICK, batch=12, augment=dataclasses.replace(PLAIN, crop=(0.3, 1.0)))
    (views, *_) = batches.batches(_Seen(), recipe, data, 0, 0)
    parts = batches.parts(views, 3)
    for name in ("id", "outlier"):
        whole = torch.cat([getattr(part, name) for part in parts], 1)
        order = torch.cat([torch.arange(24)[i::3] for i in range(3)])
        assert torch.equal(whole, getattr(views, name)[:, order])


def test_a_set_smaller_than_an_accumulated_batch_is_refused() -> None:
    recipe = dataclasses.replace(QUICK, batch=64, accumulate=2)
    with pytest.raises(UserError, match="2 parts of a batch of 64 need as many images, there are 24"):
        train.train(flat(), plugin("cross_entropy"), recipe, "float32", toy(), 0)


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_restored_is_laid_out_as_its_parameter(fused: bool) -> None:
    """A fused step takes the memory of parameter, gradient and momentum in one order, whatever their strides say."""
    rng = torch.Generator().manual_seed(0)
    start, *grads = (torch.randn(4, 3, 2, 2, generator=rng) for _ in range(3))
    ends = []
    for restored in (False, True):
        p = nn.Parameter(start.clone(memory_format=torch.channels_last))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, fused=fused)
        for grad in grads:
            p.grad = grad.clone(memory_format=torch.channels_last)
            optimizer.step()
            if restored:
                optimizer.state[p]["momentum_buffer"] = optimizer.state[p]["momentum_buffer"].contiguous()
                optim.lay_out(optimizer)
                assert optimizer.state[p]["momentum_buffer"].stride() == p.stride()
        ends.append(p.detach())
    assert torch.equal(*ends)


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: reading a number, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waiting = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += func in waiting
        return func(*args, **kwargs or {})


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_no_step_waits_for_the_device(optimizer: Any) -> None:
    """As many waits in an epoch of two steps as in one of twelve."""
    recipe = dataclasses.replace(
        QUICK, epochs=1, batch=4, accumulate=2, clip=0.1, optimizer=optimizer, decay_norms=False
    )
    counts = []
    for items in (8, 48):
        model = networks.untrained(plugin("simclr"), SMALL, recipe, IMAGE, toy(items), 0)
        with _Waits() as waits:
            train.train(model, plugin("simclr"), recipe, "float32", toy(items), 0)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_a_training_in_two_groups_goes_on_as_if_it_had_not_stopped(optimizer: Any) -> None:
    recipe = dataclasses.replace(QUICK, epochs=4, optimizer=optimizer, decay_norms=False, clip=1.0, accumulate=2)
    data, training, kept = toy(), plugin("simclr"), []
    whole, fresh = (networks.untrained(training, SMALL, recipe, IMAGE, data, 0) for _ in range(2))
    losses = train.train(
        whole,
        training,
        recipe,
        "float32",
        data,
        0,
        train.EachEpoch(lambda *heard: kept.append(heard[2]())),
    )
    assert train.train(fresh, training, recipe, "float32", data, 0, done=kept[1]) == losses
    for name, value in whole.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, and its graphs run as they are: the call is compiled, and the weights keep their names."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    data, training = toy(), plugin("cross_entropy")
    plain, traced, resumed = flat(), flat(), flat()
    losses = train.train(plain, training, QUICK, "float32", data, 0)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    recipe, kept = dataclasses.replace(QUICK, compile=True), []
    again = train.train(
        traced,
        training,
        recipe,
        "float32",
        data,
        0,
        train.EachEpoch(lambda *heard: kept.append(heard[2]())),
    )
    assert graphs
    assert again == pytest.approx(losses, rel=1e-5)
    assert list(traced.state_dict()) == list(plain.state_dict())
    assert train.train(resumed, training, recipe, "float32", data, 0, done=kept[0]) == again
