"""What a training may have beside its network: a slow copy, a module of its loss, mixed images, terms of a loss."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny import TINY, write
from torch import Tensor

from oodbench.api import Batch, Loss, Mixing, State, Training
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import Registry
from oodbench.study.settings import Augment, Encoder, ImageFormat, Recipe
from oodbench.training import batches, networks, train

IMAGE = ImageFormat(size=8, channels=1)
SMALL = Encoder(name="resnet18", params={"width": 2, "stem": "cifar"})
QUICK = Recipe(epochs=2, batch=8, lr=0.05, warmup=0, augment=Augment(crop=(0.5, 1.0), flip=0, jitter=None, gray=0))


def toy(n: int = 24) -> batches.TrainingData:
    y = torch.arange(n) % 3
    x = (60 * y.view(-1, 1, 1, 1) + torch.randint(40, (n, 1, 8, 8))).to(torch.uint8)
    return batches.TrainingData(x, y, 3)


class Each(train.Listening):
    """Keeps the progress of every step, an epoch's last included, and means of terms."""

    def __init__(self) -> None:
        self.kept: list[train.Progress] = []
        self.means: list[dict[str, float]] = []

    def terms(self, means: dict[str, float]) -> None:
        self.means.append(means)

    def epoch(self, epoch: int, loss: float, progress: Callable[[], train.Progress]) -> None:
        self.kept.append(progress())

    def step(self, progress: Callable[[], train.Progress]) -> None:
        self.kept.append(progress())


def trained(
    training: Training, data: batches.TrainingData, recipe: Recipe, done: train.Progress | None = None
) -> tuple[list[float], Each]:
    model, each = networks.untrained(training, SMALL, recipe, IMAGE, data, 0), Each()
    return train.train(model, training, recipe, "float32", data, 0, each, done), each


SYNTHESISED = {"start": 1, "size": 8, "drawn": 6, "kept": 2}
NEW = [
    ("vos", SYNTHESISED),
    ("npos", SYNTHESISED | {"k": 2, "boundary": 4}),
    ("moco", {"keys": 20, "momentum": 0.9}),
    ("mixup", {}),
]


@pytest.mark.parametrize(("name", "params"), NEW)
def test_what_is_beside_a_network_goes_on_as_if_it_had_not_stopped(name: str, params: dict[str, Any]) -> None:
    """Queues, prototypes, slow copy, what the loss learns, and terms: of a stop after an epoch, and within one."""
    data, training = toy(), Registry().load("training", name)(**params)
    recipe = dataclasses.replace(QUICK, epochs=3)
    losses, whole = trained(training, data, recipe)
    for done in (whole.kept[2], whole.kept[4]):
        torch.manual_seed(done.steps)
        again, rest = trained(training, data, recipe, done)
        assert again == losses
        assert rest.means == whole.means[done.epochs :]
        first, last = whole.kept[-1], rest.kept[-1]
        assert (first.losses, first.terms) == (last.losses, last.terms)
        assert first.tensors.keys() == last.tensors.keys()
        assert [key for key, value in first.tensors.items() if not torch.equal(value, last.tensors[key])] == []


@pytest.mark.parametrize(("name", "params"), NEW)
def test_parts_of_a_batch_count_as_the_whole_loss(name: str, params: dict[str, Any]) -> None:
    recipe = dataclasses.replace(QUICK, accumulate=2)
    losses, each = trained(Registry().load("training", name)(**params), toy(), recipe)
    assert all(np.isfinite(losses))
    for loss, means in zip(losses, each.means, strict=True):
        assert not means or sum(means.values()) == pytest.approx(loss, rel=1e-5)


# ---- a slow copy -----------------------------------------------------------------------------------------


class Following(Training):
    """A loss towards what a slow copy says, which moves less and less."""

    heads = {"z": "mlp_bn-4"}  # noqa: RUF012
    asked: ClassVar[list[float]] = []

    def slowness(self, done: float) -> float:
        self.asked.append(done)
        return 0.5 + 0.4 * done

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.slow is not None
        assert not b.slow["z"].requires_grad
        return (b.out["z"] - b.slow["z"] - 1).square().mean(), state


def test_a_slow_copy_is_the_weighted_sum_of_all_weights_before() -> None:
    """s_T = prod m_t w_0 + sum over t of (1 - m_t) prod_{u > t} m_u w_t; running statistics are its own."""
    training, data, recipe = Following(), toy(), QUICK
    start = networks.untrained(training, SMALL, recipe, IMAGE, data, 0).state_dict()
    training.asked.clear()
    _, each = trained(training, data, recipe)
    done = [t / 6 for t in range(6)]
    assert training.asked[1:] == pytest.approx(done)  # the first asks whether there is a copy
    slowness = [0.5 + 0.4 * t for t in done]
    names = [name for name in start if "running" not in name and "num_batches" not in name]
    for name in names:
        wanted = start[name] * np.prod(slowness)
        for t, progress in enumerate(each.kept):
            wanted = wanted + (1 - slowness[t]) * np.prod(slowness[t + 1 :]) * progress.tensors[f"model/{name}"]
        torch.testing.assert_close(each.kept[-1].tensors[f"beside/slow.{name}"], wanted, rtol=1e-4, atol=1e-6)
    last = each.kept[-1].tensors
    mean = "network.encoder.1.running_mean"
    assert not torch.allclose(last[f"model/{mean}"], last[f"beside/slow.{mean}"], rtol=1e-4)
    assert not torch.allclose(start[mean], last[f"beside/slow.{mean}"])
    assert not any(name.startswith("beside") for name in train.weights_of(each.kept[-1]))


def test_a_copy_that_keeps_nothing_is_the_network() -> None:
    class Twin(Training):
        heads = {"z": "linear-4"}  # noqa: RUF012
        seen: ClassVar[list[float]] = []

        def slowness(self, done: float) -> float:
            return 0.0

        def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
            assert b.slow is not None
            self.seen.append((b.out["z"] - b.slow["z"]).abs().max().item())
            return b.out["z"].square().mean(), state

    trained(Twin(), toy(), QUICK)
    assert Twin.seen == [0.0] * 6


# ---- heads and modules for features of a loss's own ------------------------------------------------------


def test_a_loss_has_its_heads_and_its_module_and_draws_by_the_seed() -> None:
    class Critic(Training):
        heads = {"z": "linear-4"}  # noqa: RUF012
        drawn: ClassVar[list[float]] = []

        def learned(self, dim: int, classes: int) -> torch.nn.Module:
            return torch.nn.Linear(dim, classes)

        def loss(self, b: Batch, state: State) -> tuple[Loss, State]:
            assert isinstance(b.learned, torch.nn.Linear)
            assert b.learned.weight.shape == (3, 16)
            torch.testing.assert_close(b.heads["z"](b.h[0]), b.out["z"][0])
            self.drawn.append(torch.rand(()).item())
            return b.learned(b.h[0]).square().mean(), state

    data = toy()
    _, each = trained(Critic(), data, QUICK)
    assert len(set(Critic.drawn)) == 6
    weights = [progress.tensors["beside/learned.weight"] for progress in each.kept]
    assert not any(torch.equal(a, b) for a, b in pairwise(weights))
    _, again = trained(Critic(), data, QUICK)
    assert torch.equal(weights[-1], again.kept[-1].tensors["beside/learned.weight"])
    assert Critic.drawn[:6] == Critic.drawn[6:]


# ---- mixed images ----------------------------------------------------------------------------------------


class Mixed(Training):
    how: str = "mixup"

    views = 2
    labels = True
    heads = {"logits": "linear"}  # noqa: RUF012

    @property
    def mixing(self) -> Mixing:
        return Mixing(self.how, 0.7)  # type: ignore[arg-type]

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_images_are_mixed_with_the_one_before_them(how: str) -> None:
    """Of two views alike; what share each of two images has of a mixed one is the share of their classes."""
    data, training = toy(), Mixed(how=how)

    class Plain(Mixed):
        mixing = None  # type: ignore[assignment]

    pairs = zip(batches.batches(Plain(), QUICK, data, 0, 0), batches.batches(training, QUICK, data, 0, 0), strict=True)
    shares = []
    for before, after in pairs:
        assert before.target is None
        assert after.target is not None
        x, found, y = before.id, after.id, before.y
        assert y is not None
        assert torch.equal(after.y, y)  # type: ignore[arg-type]
        i = next(i for i in range(8) if y[i] != y[i - 1])
        own = after.target[i, y[i]].item()
        shares.append(own)
        for i in range(8):
            wanted = own * torch.eye(3)[y[i]] + (1 - own) * torch.eye(3)[y[i - 1]]
            torch.testing.assert_close(after.target[i], wanted)
            if how == "mixup":
                torch.testing.assert_close(found[:, i], own * x[:, i] + (1 - own) * x[:, i - 1])
                continue
            here, there = (torch.isclose(found[:, i], x[:, j]).all(0)[0] for j in (i, i - 1))
            assert (here | there).all()
            rows, columns = (~here).nonzero(as_tuple=True)
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) if len(rows) else 0
            assert own == pytest.approx(1 - int(box) / 64, abs=0.03)  # but where both images have one value
    assert len(set(shares)) > 1
    again = [views.id for views in batches.batches(training, QUICK, data, 0, 0)]
    assert torch.equal(again[-1], found)


def test_mixing_over_several_devices_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", training="mixup", recipe=TINY["recipe"] | {"devices": 2})
    with pytest.raises(UserError, match="mixup mixes images of a batch, which 2 devices share"):
        reader.load(file)


# ---- terms -----------------------------------------------------------------------------------------------


def test_terms_are_means_over_an_epoch() -> None:
    class Terms(Training):
        heads = {"z": "linear-4"}  # noqa: RUF012
        seen: ClassVar[list[tuple[float, float]]] = []

        def loss(self, b: Batch, state: State) -> tuple[Loss, State]:
            terms = {"size": b.out["z"].square().mean()} | ({"late": 2 * b.h.mean()} if b.epoch else {})
            self.seen.append((terms["size"].item(), terms["late"].item() if b.epoch else 0.0))
            return terms, state

    losses, each = trained(Terms(), toy(), QUICK)
    first, second = np.array(Terms.seen).reshape(2, 3, 2).mean(1)
    assert each.means == [
        pytest.approx({"size": first[0]}, rel=1e-5),
        pytest.approx({"size": second[0], "late": second[1]}, rel=1e-5),
    ]
    assert losses == pytest.approx([first.sum(), second.sum()], rel=1e-5)


class Heard(Watch):
    def __init__(self) -> None:
        self.means: list[dict[str, float]] = []

    def terms(self, means: dict[str, float]) -> None:
        self.means.append(means)


@pytest.mark.slow
def test_a_run_records_terms_and_goes_on_with_them(tmp_path: Path) -> None:
    """Through a store: the record of the training, the weights without what is beside them, and a checkpoint."""

    class Stopping(Heard):
        def epoch(self, epoch: int, epochs: int, loss: float) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    recipe = TINY["recipe"] | {"epochs": 3}
    vos = {"vos": SYNTHESISED}
    file = write(tmp_path / "s.yaml", training=vos, recipe=recipe, outliers=None, posthoc="energy")
    options = Options(device="cpu", checkpoint_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        Runner(reader.load(file), options, Stopping()).run()
    watch = Heard()
    runner = Runner(reader.load(file), options, watch)
    outcome = runner.run()
    assert (outcome.failed, outcome.trained) == (0, 1)
    (path,) = (tmp_path / "results").rglob("runs/*.json")
    facts = json.loads(path.read_text())
    assert [list(each) for each in facts["terms"]] == [["cross_entropy"], *[["cross_entropy", "uncertainty"]] * 2]
    assert facts["terms"][facts["resumed_at_epoch"] :] == watch.means
    assert [sum(each.values()) for each in facts["terms"]] == pytest.approx(facts["losses"], rel=1e-5)
    model = runner.pipeline.encoders.model(runner.plan.work[0].run)
    assert {name.partition(".")[0] for name in model.state_dict()} == {"network", "mean", "std"}
