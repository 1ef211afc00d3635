"""ViM at several depths: our own extension of ViM, Wang et al. 2022, arXiv 2203.10807, and no paper's method.

    score: mean over depths l of alpha_l |P_l (f_l(x) - o_l)| - logsumexp(logits)

f_l are the encoder's features at a depth, mean over places, as `multi_mahalanobis` has them; a depth at which they are
the penultimate ones, as before and after the pooling of a ResNet, counts once. P_l projects on what the principal space
leaves: on the eigenvectors of the smaller half of the eigenvalues of training features about o_l (of an odd number the
larger part of them). alpha_l is the mean maximum logit of training images over the mean of these norms, as ViM matches
them (eq. 6), so that each depth gives a virtual logit of the same scale, and all count alike.

The origin o_l of the penultimate features is ViM's: minus the pseudo-inverse of the head's weights, times its bias.
Other depths have no head, and theirs is the mean of training features. Were there one depth, the penultimate, this
would be ViM with half of the dimensions for its principal space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.linear_algebra import mean, rounding, scatter
from oodbench.toolkit.pytorch_ood import weights


class MultiViM(Posthoc):
    """ViM's virtual logit, mean over the encoder's depths, plus the energy."""

    linear = True
    network = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        weight, bias = (each.double() for each in weights(head))
        layers = head.layers
        if layers is None:
            raise ValueError("multi_vim needs the network")

        @torch.no_grad()
        def seen(items: Split) -> list[Tensor]:
            if items.images is None:
                raise ValueError("multi_vim needs images")
            blocks = [layers(x) for x in items.images()]
            return [torch.cat(layer) for layer in zip(*blocks, strict=True)]

        top = float(train.logits.double().amax(1).mean())
        *earlier, penultimate = seen(train)
        origin = (-torch.linalg.pinv(weight) @ bias).to(penultimate.device)
        virtual = {
            depth: self._virtual(f, mean(f), top, depth)
            for depth, f in enumerate(earlier)
            if f.shape != penultimate.shape or not torch.allclose(f, penultimate)
        }
        virtual[len(earlier)] = self._virtual(penultimate, origin, top, len(earlier))

        def score(items: Split) -> Tensor:
            found = seen(items)
            logits = torch.stack([of(found[depth]) for depth, of in virtual.items()])
            return logits.mean(0) - items.logits.to(logits.device).double().logsumexp(1)

        return score

    def _virtual(self, f: Tensor, origin: Tensor, top: float, depth: int) -> Callable[[Tensor], Tensor]:
        """Return what gives items (M, D) a virtual logit (M,), whose mean over training features (N, D) is `top`."""
        vectors = torch.linalg.eigh(scatter(f, origin)).eigenvectors  # of ascending eigenvalues
        least = vectors[:, : f.shape[1] - f.shape[1] // 2]

        def residual(x: Tensor) -> Tensor:
            left: Tensor = (x.double() - origin) @ least
            return left.square().sum(1).sqrt()

        size = residual(f).mean()
        if size**2 <= f.shape[1] * rounding(f):
            raise ValueError(
                f"{self.label}: half of the dimensions hold all of the {f.shape[1]} features at depth {depth}"
            )
        return lambda x: top / size * residual(x)
