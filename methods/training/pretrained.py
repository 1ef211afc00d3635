"""Pretrained: no training; weights of timm, of torchvision, or from a file, such as those that papers released.

A file is a state dict, or a checkpoint that holds one under `state_dict` or `model`; `module.`, which data parallel
training leaves in names, does not count. What stands beside the state dict (optimiser, epoch) is not the network's.
Layouts, as the model definitions of the repositories name their parts (B blocks of a ResNet with a CIFAR stem):

    openood      Jingkang50/OpenOOD: conv1, layerS.B.shortcut, fc = classifier
    supcontrast  HobbitLong/SupContrast: encoder.*.shortcut, head = projection, or fc = classifier; under `model`
    knn_ood      deeplearning-wisc/knn-ood: layerS.B.downsample, fc = classifier, or head = projection
    cider        deeplearning-wisc/cider: encoder.*.shortcut, head = projection, fc: there, but in no loss
    ssd          inspire-group/SSD: encoder.*.shortcut, head = projection, or a linear head = classifier
    plain        torchvision's and timm's own names, fc = classifier

Other names are mapped: `rename: {linear: fc}` takes `linear.weight` for `fc.weight`. Where a file does not fit, and its
tensors are in the network's order, the message says the map.

Where a file of knn_ood has both, its fc is taken for untrained, as with SupCon. `mean` and `std` are those of the
network's inputs in [0, 1]. Each layout's default is what its repository has for CIFAR-10 (knn_ood and cider have it
for CIFAR-100, too; the others have mean 0.5071, 0.4867, 0.4408 and std 0.2675, 0.2565, 0.2761 there, and a file
whose classifier has not 10 classes needs them said). A network without a CIFAR stem has no default here; timm and
torchvision bring their own.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator
from torch import Tensor

from oodbench.api import Batch, Fraction, Head, Positive, State, Training, Weights
from oodbench.errors import UserError

WRAPPERS = ("state_dict", "model")  # where a checkpoint keeps the network
Numbers = tuple[float, ...]
CIFAR10 = (0.4914, 0.4822, 0.4465)
NARROW = (0.2023, 0.1994, 0.2010)  # the mean over images of their own deviation, which many call CIFAR-10's
STATISTICS: dict[str, tuple[Numbers, Numbers]] = {
    "openood": (CIFAR10, (0.2470, 0.2435, 0.2616)),  # preprocessors/transform.py
    "supcontrast": (CIFAR10, NARROW),  # main_supcon.py
    "knn_ood": (CIFAR10, NARROW),  # util/data_loader.py
    "cider": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),  # utils/util.py
    "ssd": ((0.491, 0.482, 0.447), (0.202, 0.199, 0.201)),  # data.py, with its option --normalize
}
OWN_ON_100 = ("openood", "supcontrast", "ssd")  # layouts whose repository has other numbers for CIFAR-100
IN_ENCODER = ("supcontrast", "cider", "ssd")  # layouts that keep the backbone under `encoder.`


# Beginnings of names in a file -> what they are in the layout, in a study as a mapping.
Names = Annotated[
    tuple[tuple[str, str], ...] | dict[str, str],
    AfterValidator(lambda given: tuple(given.items()) if isinstance(given, dict) else given),
]


class _Parts(NamedTuple):
    """The tensors of a file by what they are for, with the names that they have there."""

    layout: str
    encoder: dict[str, Tensor]
    logits: dict[str, Tensor]
    z: dict[str, Tensor]
    names: dict[str, str]  # name of any tensor here -> its name in the file

    @property
    def classes(self) -> int | None:
        weight = self.logits.get("weight")
        return None if weight is None else len(weight)


class Pretrained(Training):
    """Pretrained: weights that were trained elsewhere, and the heads that come with them."""

    weights: str = "timm"  # or torchvision:NAME.WEIGHTS, or a file: .safetensors, or what torch.save wrote
    layout: Literal["auto", "openood", "supcontrast", "knn_ood", "cider", "ssd", "plain"] = "auto"  # auto: by names
    rename: Names = ()  # name of a module in the file -> its name here
    # auto: linear where the file has one with as many classes as the ID set; the order of classes is taken to be the
    # ID set's, which its accuracy shows
    classifier: Literal["auto", "linear", "none"] = "auto"
    projection: Head | Literal["auto", "none"] = "auto"  # auto: as in the file
    mean: tuple[Fraction, ...] | None = None  # by channel; null: what comes with the weights, or the layout's
    std: tuple[Positive, ...] | None = None  # of inputs in [0, 1], by channel; None: the source tells

    @property
    def heads(self) -> dict[str, str]:
        found = {"logits": "linear"} if self.classifier == "linear" else {}
        return found | ({} if self.projection in ("auto", "none") else {"z": self.projection})

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        raise TypeError(f"{self.name} has no loss: its weights are loaded")

    def bound(self, given: dict[str, Tensor], classes: int | None) -> Self:
        parts = self._parts(given)
        classifier, projection = self.classifier, self.projection
        if classifier == "auto":
            classifier = "linear" if parts.classes is not None and parts.classes == classes else "none"
        if projection == "auto":
            projection = _form(parts.z)
        return dataclasses.replace(self, classifier=classifier, projection=projection)

    def adopt(self, given: dict[str, Tensor]) -> Weights:
        parts = self._parts(given)
        kept = {f"encoder.{name}": t for name, t in parts.encoder.items()}
        for head, tensors in (("logits", parts.logits), ("z", parts.z)):
            if head in self.heads:
                kept |= {f"heads.{head}.{name}": t for name, t in tensors.items()}
        dropped = tuple(name for key, name in parts.names.items() if key not in kept)
        mean, std = self._statistics(parts)
        return Weights(kept, dropped, parts.layout, mean, std)

    def _statistics(self, parts: _Parts) -> tuple[Numbers | None, Numbers | None]:
        stem = parts.encoder.get("conv1.weight")
        if stem is None or stem.ndim != 4 or stem.shape[-1] != 3:  # no CIFAR stem, so these are not its numbers
            return self.mean, self.std
        mean, std = STATISTICS.get(parts.layout, (None, None))
        lacking = self.mean is None or self.std is None
        if lacking and parts.layout in OWN_ON_100 and parts.classes not in (None, 10):
            raise UserError(
                f"the classifier has {parts.classes} classes, and the mean and std of the layout {parts.layout} are "
                f"CIFAR-10's; say `mean` and `std` (for CIFAR-100 mean: [0.5071, 0.4867, 0.4408], "
                f"std: [0.2675, 0.2565, 0.2761])"
            )
        return self.mean or mean, self.std or std

    def _parts(self, given: dict[str, Tensor]) -> _Parts:
        wrapper = next((each for each in WRAPPERS if any(name.startswith(f"{each}.") for name in given)), "")
        start = f"{wrapper}." if wrapper else ""
        inside = {name.removeprefix(start): name for name in given if name.startswith(start)}
        named = {self._renamed(name): (given[old], old) for name, old in inside.items()}
        layout = "plain" if self.rename else _recognised({name: t for name, (t, _) in named.items()}, wrapper)
        layout = layout if self.layout == "auto" else self.layout
        found = _Parts(layout, {}, {}, {}, {})
        unused = layout == "cider" or (layout == "knn_ood" and any(name.startswith("head.") for name in named))
        for name, (tensor, old) in named.items():
            head, rest = _place(name, layout, named["head.weight"][0] if "head.weight" in named else None)
            if head == "logits" and unused and self.classifier != "linear":
                found.names[f"unused.{name}"] = old
                continue
            target = {"encoder": found.encoder, "logits": found.logits, "z": found.z}[head]
            target[rest] = tensor
            found.names[f"{'' if head == 'encoder' else 'heads.'}{head}.{rest}"] = old
        return found

    def _renamed(self, name: str) -> str:
        plain = re.sub(r"(^|\.)module\.", r"\1", name)
        for old, new in dict(self.rename).items():
            if f"{plain}.".startswith(f"{old}."):
                return new + plain[len(old) :]
        return plain


def _recognised(tensors: dict[str, Tensor], wrapper: str) -> str:
    """Return the layout that names tell."""
    has = {part for name in tensors for part in (name.partition(".")[0],)}
    if "encoder" in has and any(name.startswith("encoder.conv1.") for name in tensors):
        if {"fc", "head"} <= has:
            return "cider"
        return "ssd" if wrapper == "state_dict" else "supcontrast"
    if any(".shortcut." in name for name in tensors):
        return "openood"
    stem = tensors.get("conv1.weight")
    cifar = stem is not None and stem.ndim == 4 and stem.shape[-1] == 3
    return "knn_ood" if cifar and (wrapper == "state_dict" or {"fc", "head"} <= has) else "plain"


def _place(name: str, layout: str, linear: Tensor | None) -> tuple[str, str]:
    """Return where a tensor belongs (encoder, logits or z), and its name there; `linear` is a head of one layer."""
    part, _, rest = name.partition(".")
    if part == "fc":
        return "logits", rest
    if part == "head" and layout not in ("openood", "plain"):
        return ("logits" if layout == "ssd" and linear is not None else "z"), rest
    if part == "encoder" and layout in IN_ENCODER:
        name = rest
    return "encoder", name if layout == "plain" else name.replace(".shortcut.", ".downsample.")


def _form(z: dict[str, Tensor]) -> str:
    """Return the form of a projection head; `none` where there is none."""
    if "weight" in z:
        return f"linear-{len(z['weight'])}"
    if not {"0.weight", "2.weight"} <= z.keys():
        return "none"
    (hidden, dim), out = z["0.weight"].shape, len(z["2.weight"])
    return f"mlp-{out}" if hidden == dim else f"mlp-{hidden}-{out}"
