"""What holds of every training, and of one that loads its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Training
from oodbench.conformance import toys
from oodbench.conformance.toys import expect
from oodbench.training import train


def _loss(training: Training, shuffled: bool = False) -> tuple[Tensor, toys.ToyNetwork]:
    net = toys.ToyNetwork(training)
    b, state = toys.batch(training, net, shuffled), toys.state(training, net)
    torch.manual_seed(0)  # as in a run
    found = training.loss(b, state)
    whole = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)
    expect(whole, f"`loss` returns the loss and the state after it, (Tensor, State), not {toys.kind(found)}")
    return train.whole_loss(found[0]), net


def is_a_loss(training: Training) -> None:
    """Its loss is a finite float32 scalar with a gradient."""
    state = toys.state(training, toys.ToyNetwork(training))
    expect(all(isinstance(each, Tensor) for each in state.values()), "its state is a dict of tensors")
    loss, net = _loss(training)
    expect(loss.shape == (), f"the loss is a scalar, not of shape {tuple(loss.shape)}")
    expect(loss.isfinite(), f"the loss is finite, not {loss.item()}")
    expect(loss.dtype == torch.float32, f"the loss is float32, not {loss.dtype}")
    loss.backward()
    weight = net.encoder.weight.grad
    expect(weight is not None and weight.abs().sum() > 0, "the loss has a gradient in the encoder")


def falls(training: Training) -> None:
    """Its loss falls."""
    net = toys.ToyNetwork(training)
    state = first = toys.state(training, net)  # a queue of what has been learned is harder than the first one
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def loss() -> float:
        return train.whole_loss(training.loss(toys.batch(training, net), first)[0]).item()

    before = loss()
    for _ in range(60):
        found, state = training.loss(toys.batch(training, net), state)
        optimizer.zero_grad()
        train.whole_loss(found).backward()
        optimizer.step()
    expect(loss() < before, f"60 steps lower the loss, not from {before:.4f} to {loss():.4f}")


def says_ordered(training: Training) -> None:
    """The order of a batch does not matter, but where it says `ordered`."""
    plain, shuffled = (_loss(training, each)[0].item() for each in (False, True))
    close = abs(plain - shuffled) < 1e-4 * max(1.0, abs(plain))
    changed = f"in another order {plain:.6f} became {shuffled:.6f}"
    expect(close or training.ordered, f"the order of a batch does not matter, but {changed}")
    expect(not close or not training.ordered, f"it says `ordered`, but {changed}")


def repeats(training: Training) -> None:
    """The same batch gives the same loss."""
    first, second = (_loss(training)[0].item() for _ in range(2))
    expect(first == second, f"the same batch gives the same loss, not {first} and {second}")


def uses_every_tensor(training: Training) -> None:
    """Every tensor is taken or named as dropped."""
    shapes = {"conv1.weight": (4, 3, 7, 7), "bn1.bias": (4,), "strange.weight": (2,)}
    given = {name: torch.ones(shape) for name, shape in shapes.items()}
    training = training.bound(given, toys.CLASSES)
    taken = training.adopt(given)
    expect(
        len(taken.tensors) + len(taken.dropped) == len(given),
        f"of {len(given)} tensors it takes {len(taken.tensors)} and drops {len(taken.dropped)}: some are gone silently",
    )
    places = ("encoder.", *(f"heads.{head}." for head in training.heads))
    lost = [name for name in taken.tensors if not name.startswith(places)]
    expect(not lost, f"tensors are named encoder.NAME or heads.HEAD.NAME, not {', '.join(lost)}")


CHECKS = (is_a_loss, falls, says_ordered, repeats)
LOADING = (uses_every_tensor,)
