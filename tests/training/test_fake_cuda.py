"""A step of every training on a CUDA device that is not there: all on one device, and the host never waits for it.

Tensors on the device have a shape, a type and a place, and no numbers (torch's fake tensors); those on the CPU are
real. A number that the host would read from the device cannot be had, nor a shape that depends on one; two devices in
one operation are an error, as on a real one. The backward pass is not here: torch has none without a driver.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oodbench.api import Features
from oodbench.study.registry import Registry
from oodbench.study.settings import Augment, Recipe
from oodbench.training import batches, networks, train

CUDA = torch.device("cuda", 0)
COUNT, SIZE, CLASSES = 4, 8, 3
EVERYTHING = Augment(rotate=10, translate=0.1, pad=1, jitter_p=1, blur=1, erase=0.5, interpolation="bicubic")
LOSSES = [name for name in Registry().sources("training") if Registry().load("training", name)().weights is None]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # parameters, and what is special in the recipe
    **{name: ({}, {}) for name in LOSSES},
    "ccl": ({"k": 3, "warmup": 0}, {}),
    "cross_entropy": ({"head": "cosine"}, {"augment": EVERYTHING}),
    "csi": ({}, {"optimizer": "lars", "decay_norms": False}),
    "csi, labels": ({"labels": True}, {}),
    "logitnorm": ({}, {"accumulate": 2}),
    "oecl": ({"warmup": 0}, {"outlier_batch": 2}),
    "oecl, self": ({"form": "self", "warmup": 0}, {}),
    "outlier_exposure": ({}, {"clip": 1.0}),
    "simclr": ({}, {"optimizer": "adamw"}),
    "moco": ({"keys": 20}, {}),
    "mixup, cutmix": ({"form": "cutmix"}, {}),
    "npos": ({"start": 0, "size": 8, "k": 2, "boundary": 4, "drawn": 6, "kept": 2}, {}),
    "vos": ({"start": 0, "size": 8, "drawn": 6, "kept": 2}, {}),
}


class HostWaitsError(Exception):
    """A copy for which the host waits."""


class Device(TorchDispatchMode):
    """What is on the device is fake, what is on the CPU is real; a copy between them must not make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)

    @contextmanager
    def there(self) -> Iterator[None]:
        with self.fake, self:
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        device = kwargs.get("device")
        if not any(map(_fake, tensors)) and (device is None or torch.device(device).type == "cpu"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        _check_copied(func, tensors, kwargs)
        if "_fused_" in str(func):  # an optimiser's step, in place: torch has no fake of it
            assert {each.device for each in tensors} == {CUDA}
            return None
        found = func(*args, **kwargs)
        if any(_fake(each) and each.device.type == "cpu" for each in tree_leaves(found)):
            raise HostWaitsError(f"{func} to the CPU")
        return found


def _fake(value: Any) -> bool:
    return isinstance(value, FakeTensor)


def _check_copied(func: Any, tensors: list[Tensor], kwargs: dict[str, Any]) -> None:
    host = [each for each in tensors if not _fake(each) and each.ndim]
    copied = func is torch.ops.aten._to_copy.default and kwargs.get("non_blocking")
    if host and not copied:
        raise HostWaitsError(f"{func} of a tensor {tuple(host[0].shape)} on the CPU")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Return a device, of which torch is told that it is there."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(Tensor, "pin_memory", lambda t: t)
    return Device()


WAITS = {
    "reads a number": lambda t: int(t.sum()),
    "asks": lambda t: bool((t > 0).all()),
    "selects": lambda t: t[t > 0],
    "fetches": lambda t: t.cpu(),
    "copies from unpinned memory": lambda t: t + torch.ones(3).to(CUDA),
    "looks up by an index on the CPU": lambda t: t[torch.tensor([0, 1])],
    "makes of a list": lambda t: t * torch.tensor([1.0, 2.0, 3.0], device=CUDA),
    "mixes devices": lambda t: t + torch.ones(3),
}


@pytest.mark.parametrize("what", WAITS)
def test_the_device_notices_what_makes_the_host_wait(what: str, device: Device) -> None:
    with device.there(), pytest.raises((HostWaitsError, RuntimeError)):
        WAITS[what](torch.zeros(3, device=CUDA))


def network(training: Any, device: Device) -> networks.Trained:
    """Return a small network whose parameters are on the device."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    heads = {name: networks.head(form, 8, CLASSES) for name, form in training.heads.items()}
    model = networks.Trained(networks.Network(body, heads), 3)
    with device.there():
        for module in model.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(p.to(CUDA, non_blocking=True)))
            for name, value in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, value.to(CUDA, non_blocking=True))
    return model


def images(host: bool) -> batches.Images:
    if host:
        return batches.HostImages(np.zeros((COUNT, SIZE, SIZE, 3), np.uint8), np.arange(COUNT), CUDA)
    return torch.zeros(COUNT, 3, SIZE, SIZE, dtype=torch.uint8, device=CUDA)


def state_of(training: Any) -> dict[str, Tensor]:
    """Return the state that a training makes of features on the CPU, its first refresh included."""
    h = torch.randn(COUNT, 8)
    f = Features(h, {name: networks.head(form, 8, CLASSES)(h).detach() for name, form in training.heads.items()})
    y = torch.arange(COUNT) % CLASSES if training.labels else None
    state = training.init(f, y, 0)
    return training.refresh(f, y, 0, 0, state) if training.refresh_every else state


def trained(name: str, device: Device, monkeypatch: pytest.MonkeyPatch, host: bool = False) -> list[Tensor]:
    """Return the losses, one for each part of a batch, of the one step of an epoch in bf16."""
    params, special = CASES[name]
    training = Registry().load("training", name.partition(",")[0])(**params)
    recipe = Recipe(**{"epochs": 1, "batch": COUNT, "warmup": 0, "augment": Augment(jitter=None)} | special)
    model, losses, state = network(training, device), [], state_of(training)

    def on_the_device(*_: object) -> dict[str, Tensor]:
        return {name: torch.zeros(each.shape, dtype=each.dtype, device=CUDA) for name, each in state.items()}

    def backward(loss: Tensor) -> None:
        losses.append(loss)
        for p in model.parameters():
            p.grad = torch.empty_like(p)

    monkeypatch.setattr(copy, "deepcopy", lambda model: network(training, device))  # fake tensors cannot be copied
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(train, "_initial", on_the_device)
    monkeypatch.setattr(train, "_refreshed", lambda *arguments: arguments[-1])
    monkeypatch.setattr(
        batches, "host_labels", lambda _: np.arange(COUNT) % CLASSES
    )  # the beginning of an epoch may wait
    monkeypatch.setattr(train, "_finite_mean", lambda *_: 0.0)  # the end of an epoch may wait
    monkeypatch.setattr(train, "_check_weights", lambda *_: None)
    with device.there():
        y = torch.zeros(COUNT, dtype=torch.int64, device=CUDA)
        outliers = images(host) if training.outliers else None
        train.train(model, training, recipe, "bf16", batches.TrainingData(images(host), y, CLASSES, outliers), 0)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_step_is_on_one_device_and_never_makes_the_host_wait(
    name: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = trained(name, device, monkeypatch)
    assert len(losses) == CASES[name][1].get("accumulate", 1)
    assert {(each.device, each.dtype, each.ndim) for each in losses} == {(CUDA, torch.float32, 0)}


def test_a_step_on_images_in_host_memory_never_makes_the_host_wait(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(trained("outlier_exposure", device, monkeypatch, host=True)) == 1
