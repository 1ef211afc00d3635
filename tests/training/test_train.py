"""The training stage: schedule, optimiser, batches, determinism, what fails."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernels import Kernels
from torch import Tensor

from oodbench.api import Batch, Shifts, State, Training
from oodbench.study.registry import Registry
from oodbench.study.settings import Augment, Encoder, ImageFormat, Recipe, Seen
from oodbench.toolkit.seeds import generator
from oodbench.training import augment, batches, embed, networks, optim, train

IMAGE = ImageFormat(size=8, channels=1)
SMALL = Encoder(name="resnet18", params={"width": 2, "stem": "cifar"})
PLAIN = Augment(crop=None, flip=0, jitter=None, gray=0)
QUICK = Recipe(epochs=2, batch=8, lr=0.05, warmup=0, augment=dataclasses.replace(PLAIN, crop=(0.5, 1.0)))


def toy(n: int = 24, outliers: int = 0, channels: int = 1, device: str = "cpu") -> batches.TrainingData:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    x = (60 * y.view(-1, 1, 1, 1) + torch.randint(40, (n, channels, 8, 8), generator=rng)).to(torch.uint8)
    strange = torch.randint(256, (outliers, channels, 8, 8), generator=rng, dtype=torch.uint8) if outliers else None
    return batches.TrainingData(x.to(device), y.to(device), 3, None if strange is None else strange.to(device))


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("training", name)(**params)


def trained(training: Training, data: batches.TrainingData, recipe: Recipe = QUICK, seed: int = 0) -> networks.Trained:
    model = networks.untrained(training, SMALL, recipe, IMAGE, data, seed)
    train.train(model, training, recipe, "float32", data, seed)
    return model


def trained_whole(
    training: Training, recipe: Recipe, data: batches.TrainingData
) -> tuple[networks.Trained, list[float], list[train.Progress]]:
    """Return a model that is trained without a stop, the loss of each epoch, and the progress after each."""
    kept: list[train.Progress] = []
    model = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
    watch = train.EachEpoch(lambda *heard: kept.append(heard[2]()))
    return model, train.train(model, training, recipe, "float32", data, 0, watch), kept


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("simclr", {}),
        ("ccl", {"k": 3, "warmup": 2, "update_every": 2}),
        ("oecl", {"form": "self", "warmup": 2}),
        ("cider", {}),
    ],
)
def test_a_training_that_goes_on_ends_as_if_it_had_not_stopped(
    name: str, params: dict[str, Any], stop: int, optimizer: Any, device: str
) -> None:
    data, recipe = toy(device=device), dataclasses.replace(QUICK, epochs=5, optimizer=optimizer)
    training = plugin(name, **params)
    model, whole, kept = trained_whole(training, recipe, data)
    fresh = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
    assert kept[stop - 1].epochs == stop
    assert train.train(fresh, training, recipe, "float32", data, 0, done=kept[stop - 1]) == whole
    for key, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


@pytest.mark.slow
def test_a_training_that_draws_and_counts_goes_on_as_if_it_had_not_stopped() -> None:
    """A state that every loss changes, and noise from torch's own generator, whatever has been drawn meanwhile."""

    class Drifting(Training):
        heads = {"z": "mlp-4"}  # noqa: RUF012

        def init(self, f: Any, y: Tensor | None, seed: int) -> State:
            return {"mean": f.out["z"].mean(0), "steps": torch.zeros((), dtype=torch.int64)}

        def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
            z = b.out["z"][0]
            mean = 0.9 * state["mean"] + 0.1 * z.mean(0).detach()
            noise = torch.randn_like(z)
            return (z - mean - noise / (1 + state["steps"])).square().mean(), {
                "mean": mean,
                "steps": state["steps"] + 1,
            }

    data, recipe, training = toy(), dataclasses.replace(QUICK, epochs=4), Drifting()
    _, whole, kept = trained_whole(training, recipe, data)
    assert [int(each.tensors["state/steps"]) for each in kept] == [3, 6, 9, 12]
    for stop in (1, 3):
        torch.manual_seed(stop)
        fresh = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
        last: list[train.Progress] = []
        losses = train.train(
            *(fresh, training, recipe, "float32", data, 0),
            watch=train.EachEpoch(lambda epoch, loss, progress, last=last: last.append(progress())),  # type: ignore[misc]
            done=kept[stop - 1],
        )
        assert losses == whole
        assert last[-1].tensors.keys() == kept[-1].tensors.keys()
        assert all(torch.equal(value, kept[-1].tensors[name]) for name, value in last[-1].tensors.items())


def test_narrow_convolutions_are_not_laid_out_channels_last() -> None:
    narrow = networks.untrained(plugin("simclr"), SMALL, QUICK, IMAGE, toy(), 0)
    wide = networks.blank(plugin("simclr"), Encoder(name="resnet18", params={"width": 8}), IMAGE, 3)
    assert (narrow.layout, wide.layout) == (torch.contiguous_format, torch.channels_last)


def test_learning_rate_against_closed_form() -> None:
    recipe = Recipe(epochs=10, lr=0.5, warmup=2, warmup_lr=0.01, floor=0.1)
    steps = 5
    rates = [optim.learning_rate(recipe, step, steps) for step in range(50)]
    assert rates[:10] == pytest.approx([0.01 + 0.49 * k / 10 for k in range(10)])
    assert rates[10:] == pytest.approx([0.05 + 0.45 * (1 + math.cos(math.pi * k / 40)) / 2 for k in range(40)])
    constant = dataclasses.replace(recipe, schedule="constant", warmup=0)
    assert {optim.learning_rate(constant, step, steps) for step in range(50)} == {0.5}


def test_normalisation_is_that_of_the_training_images() -> None:
    data = toy(channels=3)
    image = ImageFormat(size=8, channels=3)
    model = networks.untrained(plugin("simclr"), SMALL, QUICK, image, data, 0)
    x = data.x.double() / 255
    torch.testing.assert_close(model.mean.flatten().double(), x.mean((0, 2, 3)), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model.std.flatten().double(), x.std((0, 2, 3), correction=0), atol=1e-6, rtol=1e-6)
    half = networks.untrained(plugin("simclr"), SMALL, dataclasses.replace(QUICK, normalize="half"), image, data, 0)
    assert half.mean.flatten().tolist() == half.std.flatten().tolist() == [0.5] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cross_entropy", "simclr", "supcon"])
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    data = toy()
    first, again, other = (trained(plugin(name), data, seed=seed) for seed in (0, 0, 1))
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    weight = "network.encoder.0.weight"
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_no_epochs_leave_the_network_as_it_was() -> None:
    data, recipe = toy(), dataclasses.replace(QUICK, epochs=0)
    before = networks.untrained(plugin("simclr"), SMALL, recipe, IMAGE, data, 0)
    after = trained(plugin("simclr"), data, recipe)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_one_step_of_sgd_by_hand() -> None:
    """Weights move by -lr x (gradient + weight decay x weight); the second step adds momentum x the first move."""
    data, training = toy(8), plugin("cross_entropy")
    recipe = Recipe(epochs=2, batch=8, lr=0.1, warmup=0, schedule="constant", weight_decay=0.01, augment=PLAIN)
    model = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
    head = model.network.heads["logits"]
    start = head.weight.detach().clone()
    gradients: list[Tensor] = []
    head.weight.register_hook(lambda g: gradients.append(g.clone()))
    train.train(model, training, recipe, "float32", data, 0)
    first = gradients[0] + 0.01 * start
    middle = start - 0.1 * first
    second = 0.9 * first + gradients[1] + 0.01 * middle
    torch.testing.assert_close(head.weight.detach(), middle - 0.1 * second)


class _Probe:
    """Remembers the batches that a training sees."""

    def __init__(self, **needs: Any) -> None:
        self.seen: list[Batch] = []
        self.needs = needs

    def training(self) -> Training:
        probe = self

        class Probe(Training):
            @property
            def views(self) -> int:
                return probe.needs.get("views", 1)

            @property
            def labels(self) -> bool:
                return probe.needs.get("labels", False)

            @property
            def outliers(self) -> bool:
                return probe.needs.get("outliers", False)

            @property
            def shifts(self) -> Shifts:
                return probe.needs.get("shifts", Shifts())

            @property
            def heads(self) -> dict[str, str]:
                return {"z": "mlp-4", "logits": "linear"}

            def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
                probe.seen.append(b)
                return b.out["z"].square().mean(), state

        return Probe()


def test_a_batch_holds_what_the_training_asks_for() -> None:
    probe = _Probe(views=3)
    trained(probe.training(), toy(24))
    assert len(probe.seen) == 2 * 3
    b = probe.seen[0]
    assert (b.h.shape, b.out["z"].shape, b.out["logits"].shape) == ((3, 8, 16), (3, 8, 4), (3, 8, 3))
    assert (b.y, b.outlier) == (None, None)
    assert b.shift.tolist() == [0] * 8


def on_host(x: Tensor) -> batches.HostImages:
    """Return images as every other one of a memory map would be: among others, channels last."""
    among = torch.stack([x, 255 - x], 1).flatten(0, 1)
    return batches.HostImages(among.permute(0, 2, 3, 1).numpy(), 2 * np.arange(len(x)), torch.device("cpu"))


def test_images_that_stay_on_the_host_give_the_same_batches() -> None:
    data = toy(24, outliers=20, channels=3)
    assert data.outliers is not None
    host = data._replace(x=on_host(data.x), outliers=on_host(data.outliers))
    training = plugin("oecl")
    for epoch in (0, 1):
        pairs = zip(
            *(batches.batches(training, QUICK, each, seed=3, epoch=epoch) for each in (data, host)),
            strict=True,
        )
        for here, there in pairs:
            assert torch.equal(here.id, there.id)
            assert torch.equal(here.outlier, there.outlier)
            assert torch.equal(here.index, there.index)


def test_images_that_stay_on_the_host_train_and_embed_the_same() -> None:
    """Their mean and deviation, what a training starts from and refreshes by, and their features."""
    data = toy(24)
    host = data._replace(x=on_host(data.x))
    training = plugin("ccl", k=3, warmup=0, update_every=1)
    first, again = (trained(training, each) for each in (data, host))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    here, there = (embed.embed(first, each.x, Seen(2), QUICK, 0) for each in (data, host))
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_every_item_is_seen_once_an_epoch_in_a_new_order() -> None:
    probe = _Probe(labels=True)
    data = toy(24)
    trained(probe.training(), data)
    orders = [torch.cat([b.index for b in probe.seen if b.epoch == epoch]) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(24)) for order in orders)
    assert not torch.equal(*orders)
    assert all(torch.equal(b.y, data.y[b.index]) for b in probe.seen)  # type: ignore[arg-type]


def test_shifts_multiply_items_and_make_outliers() -> None:
    probe = _Probe(views=2, labels=True, shifts=Shifts(id=(0, 1), outlier=(2, 3, 3)))
    data = toy(24)
    trained(probe.training(), data)
    b = probe.seen[0]
    assert b.h.shape == (2, 16, 16)
    assert b.outlier is not None
    assert b.outlier["z"].shape == (2, 24, 4)
    assert b.shift.tolist() == [0] * 8 + [1] * 8
    assert b.index[:8].tolist() == b.index[8:].tolist()
    assert torch.equal(b.y, data.y[b.index])  # type: ignore[arg-type]


def test_images_are_turned_after_the_flip() -> None:
    """A flip of a turned image is the other quarter turn of the flipped one: no classifier could tell 90 from 270."""
    recipe = dataclasses.replace(QUICK, augment=dataclasses.replace(PLAIN, flip=1))
    data, probe = toy(16), _Probe(views=2, shifts=Shifts(id=(0, 1), outlier=(2, 3)))
    views = next(batches.batches(probe.training(), recipe, data, 0, 0))
    mirrored = data.x[views.index[:8]].flip(-1).numpy() / np.float32(255)
    for found, turns in ((views.id, (0, 1)), (views.outlier, (2, 3))):
        wanted = torch.from_numpy(np.concatenate([np.rot90(mirrored, turn, (2, 3)) for turn in turns]))
        torch.testing.assert_close(found, wanted.expand(2, -1, -1, -1, -1))


def test_id_and_outliers_pass_the_network_together() -> None:
    """Batch norm sees both: the ID features of a batch depend on the outliers beside it."""
    probe = _Probe(outliers=True)
    data = toy(24, outliers=50)
    recipe = dataclasses.replace(QUICK, augment=PLAIN, epochs=1, outlier_batch=5)
    trained(probe.training(), data, recipe)
    assert probe.seen[0].outlier is not None
    assert probe.seen[0].outlier["z"].shape == (1, 5, 4)
    alone = _Probe()
    trained(alone.training(), data, recipe)
    assert alone.seen[0].outlier is None
    assert torch.equal(alone.seen[0].index, probe.seen[0].index)
    assert not torch.allclose(alone.seen[0].h, probe.seen[0].h)


@pytest.mark.parametrize(("order", "same"), [("fixed", True), ("fresh", False)])
def test_outliers_are_visited_in_a_fixed_or_a_fresh_order(order: str, same: bool) -> None:
    data, recipe = toy(24, outliers=40), dataclasses.replace(QUICK, outlier_order=order)
    first, second = (batches.outlier_order(recipe, data, 0, epoch) for epoch in (0, 1))
    assert first is not None
    assert second is not None
    assert sorted(first.tolist()) == list(range(40))
    assert torch.equal(first, second) is same


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    probe = _Probe()
    trained(probe.training(), toy(5))
    assert [len(b.index) for b in probe.seen] == [5, 5]


def test_divergence_names_its_step() -> None:
    class Diverging(Training):
        heads = {"z": "mlp-4"}  # noqa: RUF012

        def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
            bad = b.epoch == 1 and not b.index.eq(b.index[0]).all()
            return b.out["z"].sum() * (float("nan") if bad else 1.0), state

    with pytest.raises(train.DivergedError, match="nan at epoch 1, step 0"):
        trained(Diverging(), toy())


def test_weights_that_overflow_are_divergence_before_anything_is_kept() -> None:
    """The loss of the last step is finite, the step after it is not: no later loss of the epoch tells."""

    class Overflowing(Training):
        heads = {"z": "mlp-4"}  # noqa: RUF012

        def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
            seen = state.get("n", torch.zeros(())) + 1
            z = b.out["z"].square().mean()
            if seen == 6:
                z.register_hook(lambda g: g * float("inf"))
            return z, {"n": seen}

    heard: list[int] = []
    training, data = Overflowing(), toy()
    model = networks.untrained(training, SMALL, QUICK, IMAGE, data, 0)
    with pytest.raises(train.DivergedError, match="a weight is NaN or infinite after epoch 1, step 2"):
        train.train(
            model,
            training,
            QUICK,
            "float32",
            data,
            0,
            train.EachEpoch(lambda *found: heard.append(found[0])),
        )
    assert heard == [0]


def test_state_is_initialised_refreshed_and_handed_on() -> None:
    calls: list[tuple[str, int]] = []

    class Stateful(Training):
        heads = {"z": "mlp-4"}  # noqa: RUF012
        refresh_every = 2

        def init(self, f: Any, y: Tensor | None, seed: int) -> State:
            calls.append(("init", len(f.h)))
            return {"n": torch.zeros(())}

        def refresh(self, f: Any, y: Tensor | None, epoch: int, seed: int, state: State) -> State:
            calls.append(("refresh", epoch))
            return state

        def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
            return b.out["z"].square().mean(), {"n": state["n"] + 1}

    trained(Stateful(), toy(24), dataclasses.replace(QUICK, epochs=5))
    assert calls == [("init", 24), ("refresh", 0), ("refresh", 2), ("refresh", 4)]


def test_bf16_trains_with_float32_losses() -> None:
    probe = _Probe(views=2)
    data = toy()
    model = networks.untrained(probe.training(), SMALL, QUICK, IMAGE, data, 0)
    losses = train.train(model, probe.training(), QUICK, "bf16", data, 0)
    assert all(math.isfinite(loss) for loss in losses)
    assert probe.seen[0].out["z"].dtype == probe.seen[0].h.dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32


def test_views_of_an_embedding_begin_with_the_plain_image() -> None:
    data = toy()
    model = trained(plugin("cross_entropy"), data)
    plain = embed.embed(model, data.x, Seen(1), QUICK, 0)
    several = embed.embed(model, data.x, Seen(3), QUICK, 0)
    again = embed.embed(model, data.x, Seen(3), QUICK, 0)
    assert plain["penultimate"].shape == (1, 24, 16)
    assert plain["logits"].shape == (1, 24, 3)
    assert torch.equal(several["penultimate"][0], plain["penultimate"][0])
    assert not torch.equal(several["penultimate"][1], several["penultimate"][2])
    assert all(torch.equal(several[name], again[name]) for name in several)


def test_views_of_fixed_crops() -> None:
    """All views are crops of the area, and a space's mean view is that of a loop over them."""
    data = toy(channels=3)
    model = networks.untrained(plugin("simclr"), SMALL, QUICK, ImageFormat(size=8, channels=3), data, 0)
    plain, whole, half = (embed.embed(model, data.x, Seen(3, crop), QUICK, 0) for crop in (None, 1.0, 0.5))
    assert half["penultimate"].shape == (3, 24, 16)
    for view in range(3):
        torch.testing.assert_close(whole["penultimate"][view], plain["penultimate"][0])  # the whole area: the image
        assert not torch.allclose(half["penultimate"][view], plain["penultimate"][0])
        assert not torch.allclose(half["penultimate"][view], half["penultimate"][view - 1])
    again, other = (embed.embed(model, data.x, Seen(3, 0.5), QUICK, seed) for seed in (0, 1))
    assert torch.equal(half["penultimate"], again["penultimate"])
    assert not torch.equal(half["penultimate"], other["penultimate"])
    how = dataclasses.replace(QUICK.augment, crop=(0.5, 0.5))
    mean = torch.zeros(24, 16)
    for view in range(3):
        seen = augment.views(data.x, how, 1, generator(0, "view", view, 0))[0]
        with torch.no_grad():
            mean += model.eval()(seen)[0] / 3
    torch.testing.assert_close(half["penultimate"].mean(0), mean)


def test_embedding_is_in_evaluation_mode_whatever_the_batch() -> None:
    data = toy()
    model = trained(plugin("simclr"), data)
    whole = embed.features(model, data.x).h
    parts = torch.cat([embed.features(model, rows).h for rows in data.x.split(5)])
    torch.testing.assert_close(whole, parts)


@pytest.mark.slow
def test_cross_entropy_learns_the_toy() -> None:
    data = toy(60)
    model = trained(plugin("cross_entropy"), data, dataclasses.replace(QUICK, epochs=20, augment=PLAIN))
    logits = embed.features(model, data.x).out["logits"]
    assert (logits.argmax(1) == data.y).double().mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("outlier_exposure", {}),
        ("logitnorm", {"temperature": 0.5}),
        ("cider", {}),
        ("csi", {}),
        ("csi", {"labels": True}),
    ],
)
def test_the_loss_falls_on_the_toy(name: str, params: dict[str, Any]) -> None:
    data, recipe = toy(outliers=20), dataclasses.replace(QUICK, epochs=15, augment=PLAIN)
    training = plugin(name, **params)
    model = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
    losses = train.train(model, training, recipe, "float32", data, 0)
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


@pytest.mark.slow
@pytest.mark.parametrize(("params", "same"), [({}, True), ({"labels": True}, False)])
def test_labels_do_not_reach_a_training_that_does_not_ask_for_them(params: dict[str, Any], same: bool) -> None:
    data = toy()
    first, other = (trained(plugin("csi", **params), each) for each in (data, data._replace(y=torch.arange(24) // 8)))
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) is same


def test_shifted_features_are_both_heads_of_the_image_in_each_quarter_turn() -> None:
    """By hand: the image turned by numpy, embedded alone. Further views are another draw for each turn."""
    data = toy()
    model = trained(plugin("csi"), data)
    found = embed.embed_shifted(model, data.x, Seen(2), QUICK, 0)
    assert found["shifted"].shape == (2, 24, 4 * (128 + 4))
    assert embed.shifted_dim(plugin("csi"), 3) == 4 * (128 + 4)
    blocks = found["shifted"].unflatten(-1, (4, 132))
    for turn in range(4):
        turned = torch.from_numpy(np.rot90(data.x.numpy(), turn, (2, 3)).copy())
        f = embed.features(model, turned)
        torch.testing.assert_close(blocks[0, :, turn], torch.cat([f.out["z"], f.out["shift"]], 1))
    plain = embed.embed(model, data.x, Seen(2), QUICK, 0)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert torch.equal(blocks[:, :, 0, :128], plain["projection"])
    assert not torch.allclose(blocks[0], blocks[1])


# ---- float64 ------------------------------------------------------------------------------------


def converted(loss: Tensor) -> list[str]:
    """Return the conversions from one type to another between a loss and the weights."""
    seen, queue = set(), [loss.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None and node not in seen:
            seen.add(node)
            queue += [each for each, _ in node.next_functions]
    return [node.name() for node in seen if "ToCopy" in node.name()]


TRAININGS = [name for name in Registry().sources("training") if not name.startswith("pretrained")]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_float64_training_is_float64_from_the_image_to_the_loss(name: str) -> None:
    """One rounding to float32 would bring back what the precision is for: see tests/cli/test_lesser_cpu.py."""
    data = toy(outliers=24)
    early = {"ccl": {"k": 3, "warmup": 0}, "oecl": {"warmup": 0}, "vos": {"start": 0}, "npos": {"start": 0}}
    training = plugin(name, **early.get(name, {}))
    model = networks.untrained(training, SMALL, QUICK, IMAGE, data, 0, "float64")
    with networks.arithmetic(torch.float64):
        views = next(batches.batches(training, QUICK, data, 0, 0))
        features = embed.features(model, data.x)
        state = training.refresh(features, data.y, 0, 0, training.init(features, data.y, 0))
        beside = train.Beside(training, model, data, 0)
        loss, after = train.Step(model, training, "float64", batches.World(), beside)(views, 0, 0, state)
    assert loss.dtype == views.id.dtype == torch.float64
    assert not converted(loss)
    assert not [each for each in after.values() if each.dtype == torch.float32]
    assert {each.dtype for each in embed.embed(model, data.x, Seen(2), QUICK, 0).values()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32


def test_an_eager_step_is_few_operations() -> None:
    """A card's host launches each: SupCon on a ResNet-18, from views that are there to gradients."""
    recipe, image = Recipe(epochs=1, batch=8, warmup=0), ImageFormat(size=16)
    data = batches.TrainingData(torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8) % 3, 3)
    training = plugin("supcon")
    model = networks.untrained(training, Encoder(name="resnet18", params={"width": 8}), recipe, image, data, 0).train()
    step, views = (
        train.Step(model, training, "bf16", batches.ALONE),
        next(batches.batches(training, recipe, data, 0, 0)),
    )
    with Kernels() as count:
        loss, _ = step(views, 0, 0, {})
        loss.backward()
    assert len(count.made) <= 300


def test_ciders_prototypes_move_by_few_operations() -> None:
    """Its moves wait for each other: on a card each of their operations is time that nothing hides."""
    z, y = torch.randn(2, 64, 16, requires_grad=True), torch.arange(64) % 4
    cider = plugin("cider")
    state = {"prototype": torch.nn.functional.normalize(torch.randn(4, 16), dim=1)}
    b = Batch(z.detach(), {"z": z}, y, torch.arange(64), torch.zeros_like(y), None, 0, y.numpy())
    with Kernels() as count:
        cider.loss(b, state)[0].backward()
    moves = 2 * 64 // 4
    assert len(count.made) <= 12 * moves + 150


def test_features_come_back_in_order_whatever_the_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy(23, device=device)
    model = trained(plugin("cross_entropy"), data)
    at_once = embed.embed(model, data.x, Seen(1), QUICK, 0)
    monkeypatch.setattr(embed, "EMBED_BATCH", 5)
    in_blocks = embed.embed(model, data.x, Seen(1), QUICK, 0)
    assert {each.device.type for each in in_blocks.values()} == {"cpu"}
    for name, f in at_once.items():
        torch.testing.assert_close(in_blocks[name], f)


@pytest.mark.parametrize(
    "said", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")]
)
def test_a_block_without_room_is_embedded_in_parts(said: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy(23)
    model = trained(plugin("cross_entropy"), data)
    expected, passes, most = embed.embed(model, data.x, Seen(2), QUICK, 0), model.forward, 6

    def narrow(x: Tensor) -> Any:
        if len(x) > most:
            raise said
        return passes(x)

    monkeypatch.setattr(model, "forward", narrow)
    for name, f in embed.embed(model, data.x, Seen(2), QUICK, 0).items():
        torch.testing.assert_close(f, expected[name])
    most = 0
    with pytest.raises(type(said), match=str(said)):
        embed.embed(model, data.x, Seen(2), QUICK, 0)


@dataclasses.dataclass(frozen=True)
class EachStep(train.Listening):
    """Keeps the progress of each step that is no epoch's last."""

    kept: list[train.Progress]

    def step(self, progress: Callable[[], train.Progress]) -> None:
        self.kept.append(progress())


@pytest.mark.parametrize(("name", "params"), [("cross_entropy", {}), ("ccl", {"k": 3, "warmup": 1, "update_every": 1})])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_that_goes_on_within_an_epoch_ends_as_if_it_had_not_stopped(
    name: str, params: dict[str, Any], optimizer: Any
) -> None:
    """What is made at the beginning of an epoch is not made again, and losses of its first steps count."""
    data, recipe, training = toy(), dataclasses.replace(QUICK, epochs=3, optimizer=optimizer), plugin(name, **params)
    kept: list[train.Progress] = []
    model = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
    whole = train.train(model, training, recipe, "float32", data, 0, EachStep(kept))
    assert [(each.epochs, each.steps) for each in kept] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    for done in (kept[0], kept[3]):
        fresh = networks.untrained(training, SMALL, recipe, IMAGE, data, 0)
        assert train.train(fresh, training, recipe, "float32", data, 0, done=done) == whole
        for one, other in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
            assert torch.equal(one, other)
