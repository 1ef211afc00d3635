"""ODIN, Liang, Li & Srikant 2018, arXiv 1706.02690, eq. 1 to 3: softmax at a temperature, of a perturbed image.

    x' = x - epsilon sign(-d log S_y(x; T) / dx), y the predicted class; score: 1 - max softmax(f(x') / T)

Each image passes the network twice, and once backwards: the rows' `item_seconds` say what that costs. Epsilon is in
units of pixels in [0, 1], before the network normalises them, and pixels are not clipped, as in the authors' code. The
defaults are the paper's for CIFAR-10; both were chosen on OOD data there, for which a study has `select`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.api import ClassifierHead, NonNegative, Positive, Posthoc, Split
from oodbench.toolkit.pytorch_ood import doubt

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


class ODIN(Posthoc):
    """ODIN: 1 - the maximum softmax probability at a temperature, of an image moved towards its predicted class."""

    temperature: Positive = 1000.0  # that logits are divided by
    epsilon: NonNegative = 0.0014  # how far each value of a pixel in [0, 1] is moved

    network = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        network = head.network
        if network is None:
            raise ValueError("odin needs the network")

        def score(items: Split) -> Tensor:
            if items.images is None:
                raise ValueError("odin needs images")
            return torch.cat([self._of_block(network, x) for x in items.images()])

        return score

    def _of_block(self, network: Network, x: Tensor) -> Tensor:
        """Return the scores (B,) of images (B, C, H, W)."""
        moved = x - self.epsilon * _gradient(network, x, self.temperature).sign() if self.epsilon else x
        with torch.no_grad():
            return doubt(network(moved)[1].double() / self.temperature)


@torch.enable_grad()
def _gradient(network: Network, x: Tensor, temperature: float) -> Tensor:
    """Return the gradient by images (B, C, H, W) of minus the log-probability of the class that each is taken for."""
    x = x.detach().requires_grad_()
    logits = network(x)[1] / temperature
    loss = F.cross_entropy(logits, logits.argmax(1).detach(), reduction="sum")
    (found,) = torch.autograd.grad(loss, x)
    return found
