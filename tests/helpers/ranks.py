"""What test_distributed runs in each of several processes: they import it by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from oodbench.api import Batch, Features, State, Training
from oodbench.study.registry import PluginFile, Registry, load
from oodbench.study.settings import Augment, Encoder, ImageFormat, Recipe
from oodbench.training import batches, distributed, embed, networks, train
from oodbench.training.batches import ALONE, World

IMAGE = ImageFormat(size=8, channels=3)
SMALL = Encoder(name="ranks:network")
RECIPE = Recipe(epochs=2, batch=8, lr=0.02, warmup=0, outlier_batch=6, augment=Augment(rotate=10, erase=0.5))


def network(channels: int, size: int) -> nn.Module:
    """Return an encoder with few layers, as each of their batch norms is a talk of processes on shared cores."""
    first = [nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 12, 2), nn.BatchNorm2d(12), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def plugin(name: str, **params: Any) -> Training:
    return loaded(Registry().source("training", name), **params)


def loaded(source: PluginFile, **params: Any) -> Training:
    training = load(source)(**params)
    assert isinstance(training, Training)
    return training


class Centred(Training):
    """Centred: a state that the loss reads and moves, and a head that it leaves alone."""

    heads = {"z": "linear-4", "logits": "linear"}  # noqa: RUF012

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        return {"center": f.out["z"].mean(0)}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        z = b.out["z"]  # (V, B, P)
        center = 0.9 * state["center"] + 0.1 * z.detach().mean((0, 1))
        return (z - state["center"] - 1).square().mean(), {"center": center}


TRAININGS = {
    "simclr": plugin("simclr"),
    "supcon": plugin("supcon"),
    "cross_entropy": plugin("cross_entropy"),
    "outliers": plugin("oecl", warmup=0),  # its head has a one-dimensional batch norm
    "turns": plugin("oecl", warmup=0, form="self"),
    "clusters": plugin("ccl", k=3, warmup=0, update_every=1),
    "state": Centred(),
    "slow": plugin("moco", keys=20),
    "drawn": plugin("vos", start=0, size=8, drawn=6, kept=2),  # of its learned module and its head, too
    "boundary": plugin("npos", start=0, size=8, k=2, boundary=4, drawn=6, kept=2),
}


def toy(world: World = ALONE) -> batches.TrainingData:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    x = (60 * y.view(-1, 1, 1, 1) + torch.randint(80, (24, 3, 8, 8), generator=rng)).to(torch.uint8)
    strange = torch.randint(256, (20, 3, 8, 8), generator=rng, dtype=torch.uint8)
    return batches.TrainingData(x, y, 3, strange, world)


def everything(world: World) -> dict[str, Tensor]:
    """Return what the trainings come to in a world, by name."""
    found = {}
    data = toy(world)
    for label, training in TRAININGS.items():
        first = networks.untrained(training, SMALL, RECIPE, IMAGE, data, 0)
        found |= {f"{label}/gradient/{key}": value for key, value in gradients(first, training, data).items()}
        model = networks.untrained(training, SMALL, RECIPE, IMAGE, data, 0)
        losses = train.train(model, training, RECIPE, "float32", data, 0)
        found[f"{label}/losses"] = torch.tensor(losses)
        found |= {f"{label}/weight/{key}": value for key, value in model.state_dict().items()}
    return {name: value.clone().contiguous() for name, value in found.items()}


def gradients(model: networks.Trained, training: Training, data: batches.TrainingData) -> dict[str, Tensor]:
    """Return the gradients of the first batch, and the loss."""
    state = training.init(embed.features(model, data.x), data.y if training.labels else None, 0)
    beside = train.Beside(training, model, data, 0)
    model.train()
    step = data.world.parallel(train.Step(model, training, "float32", data.world, beside))
    views = next(batches.batches(training, RECIPE, data, 0, 0))
    loss, _ = step(views, 0, 0, state)
    loss.backward()
    return {"loss": loss.detach()} | {k: v.grad for k, v in model.named_parameters() if v.grad is not None}


def main(rank: int, processes: int, folder: Path) -> None:
    """Do everything in one of several processes on the CPU, and write it down."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=processes)
    world = distributed.Ranks(rank, processes, torch.device("cpu"))
    found = everything(world) | norms(world)
    safetensors.torch.save_file(found, folder / f"rank{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


class Acting(nn.BatchNorm2d):
    """A batch norm with something of its own, as timm's."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).sin()


NORMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1d": (nn.BatchNorm1d(3), (12, 3)),
    "2d": (nn.BatchNorm2d(3), (12, 3, 4, 5)),
    "sequence": (nn.BatchNorm1d(3), (12, 3, 7)),
    "momentum": (nn.BatchNorm2d(3, momentum=None), (12, 3, 4, 5)),
    "plain": (nn.BatchNorm2d(3, affine=False, track_running_stats=False), (12, 3, 4, 5)),
    "subclass": (Acting(3), (12, 3, 4, 5)),
}


def norms(world: World) -> dict[str, Tensor]:
    """Return values, gradients and running statistics of batch norms over batches that are shared."""
    found = {}
    for label, (module, shape) in NORMS.items():
        step = world.parallel(Weighted(module, world))
        whole = 5 + 3 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        for x in whole:  # running statistics build up
            own = x[world.part.own(len(x))].clone().requires_grad_()
            loss, out = step(own, x)
            module.zero_grad()
            loss.backward()
        found |= {f"norm/{label}/loss": loss.detach(), f"norm/{label}/out": out["out"].detach()}
        assert own.grad is not None
        found[f"norm/{label}/input"] = own.grad / world.part.of  # what distributed data parallel divides by
        found |= {f"norm/{label}/state/{name}": value for name, value in module.state_dict().items()}
        found |= {f"norm/{label}/grad/{k}": v.grad for k, v in module.named_parameters() if v.grad is not None}
    return {name: value.clone().contiguous() for name, value in found.items()}


class Weighted(nn.Module):
    """A loss that no symmetry makes zero: batch norm of a batch, summed with the batch itself as weights."""

    def __init__(self, module: nn.Module, world: World) -> None:
        super().__init__()
        self.module = module
        self.world = world
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, own: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.world.gathered(self.module(own)[None])[0]
        return self.scale * (out.square() * x.cos()).sum(), {"out": out}
