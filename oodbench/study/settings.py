"""The fixed parts of a study that are no plugins: image format, encoder, recipe, space, reference.

They are fixed so that numbers stay comparable: every data set, training and detector meets the same ones.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Interval

from oodbench.api import Dataset, Fraction, Layer, Natural, NonNegative, Positive, Size
from oodbench.errors import UserError

Portion = Annotated[float, Interval(gt=0, lt=1)]
Precision = Literal["float32", "bf16", "float64", "auto"]
# Bounds that nobody needs to pass, so that a slip of the keyboard is told when a study is read.
Side = Annotated[int, Interval(ge=1, le=10_000)]
Several = Annotated[int, Interval(ge=1, le=1000)]
Epochs = Annotated[int, Interval(ge=0, le=1_000_000)]
Images = Annotated[int, Interval(ge=1, le=10_000_000)]
Interpolation = Literal["bilinear", "bicubic"]
LATER = ("short", "pad")
Jitter = tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Interval(ge=0, le=0.5)]]


class Keyed:
    """A dataclass whose fields keys hold."""

    @property
    def canonical(self) -> dict[str, Any]:
        """What keys hold: all fields but those of LATER that are not given, as they came after there were keys."""
        fields = vars(self).items()
        given = {name: value for name, value in fields if value or name not in LATER}
        return {name: value.canonical if isinstance(value, Keyed) else value for name, value in given.items()}


@dataclass(frozen=True, kw_only=True)
class ImageFormat(Keyed):
    """What every image of a study is turned into, whatever set it comes from."""

    size: Side  # pixels of each side
    channels: Several = 3  # 1 is grey
    levels: Annotated[int, Interval(ge=2, le=256)] = 256  # grey levels per channel; digits have 17
    fit: Literal["crop", "squash"] = "crop"  # resize the shorter side and crop the centre, or resize both sides
    short: Side | None = None  # pixels of the shorter side, of which the centre is cropped; default: `size`
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"  # how pixels are interpolated
    antialias: bool = True  # when an image is made smaller, as Pillow does

    def __post_init__(self) -> None:
        if self.short is not None and (self.fit != "crop" or self.short < self.size):
            raise ValueError(f"short: is {self.short}, wanted at least the size ({self.size}), with `fit: crop`")


@dataclass(frozen=True, kw_only=True)
class Augment(Keyed):
    """How a training view differs from its image; names and meanings are torchvision's."""

    crop: tuple[Fraction, Fraction] | None = (0.2, 1.0)  # area of a random resized crop; null = none
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)  # width : height of that crop
    interpolation: Interpolation = "bilinear"  # of that crop
    flip: Fraction = 0.5  # probability of a horizontal flip
    rotate: Annotated[float, Interval(ge=0, le=180)] = 0.0  # degrees, at most, either way
    translate: Fraction = 0.0  # share of the size, at most, either way
    pad: Natural = 0  # pixels, at most, either way: RandomCrop(size, padding=pad), black outside, before `crop`
    jitter: Jitter | None = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue; null = none
    jitter_p: Fraction = 0.8  # probability of that jitter
    gray: Fraction = 0.2  # probability of greyscale
    blur: Fraction = 0.0  # probability of a Gaussian blur
    sigma: tuple[Positive, Positive] = (0.1, 2.0)  # of that blur, in pixels
    kernel: Annotated[float, Interval(gt=0, le=1)] = 0.1  # size of its kernel, as a share of the image's
    erase: Fraction = 0.0  # probability of erasing a rectangle

    def __post_init__(self) -> None:
        for name in ("crop", "ratio", "sigma"):
            value = getattr(self, name)
            if value is not None and value[0] > value[1]:
                raise ValueError(f"{name}: the first of {list(value)} is the smaller one")


@dataclass(frozen=True, kw_only=True)
class Recipe(Keyed):
    """How an encoder is optimised. The defaults follow SupContrast's for CIFAR, but for batch (1024), epochs (1000) and
    the cosine, which starts at the warm-up's end and moves with each step; recipes by name are the papers' own.
    """

    epochs: Epochs = 500  # passes over ID train
    batch: Images = 512  # ID images a step, before views and shifts
    accumulate: Images = 1  # parts of a batch that pass the network one by one; losses over pairs see one part's pairs
    optimizer: Literal["sgd", "lars", "adamw"] = "sgd"  # how gradients become steps
    lr: Positive = 0.5  # the largest learning rate
    momentum: Fraction = 0.9  # of sgd and lars
    nesterov: bool = False  # momentum that looks ahead
    weight_decay: NonNegative = 1e-4  # added to the gradient; adamw takes it from the weights
    decay_norms: bool = True  # False: no decay of parameters of one dimension, biases and norms, nor LARS's factor
    trust: Positive = 0.001  # LARS's coefficient, as in CSI's code
    clip: Positive | None = None  # largest norm of all gradients together
    warmup: Epochs = 10  # epochs, linear from warmup_lr, step by step
    warmup_lr: NonNegative = 0.01  # the first learning rate of the warm-up
    schedule: Literal["cosine", "constant"] = "cosine"  # of the learning rate after the warm-up
    schedule_from: Literal["warmup", "start"] = "warmup"  # where the cosine begins; start: the warm-up ends on it
    schedule_per: Literal["step", "epoch", "epoch_end"] = "step"  # epoch: held at its beginning's; epoch_end: its end's
    floor: NonNegative = 1e-3  # the last learning rate, as a share of lr
    compile: bool = False  # the network through torch.compile: other rounding, the same names of weights
    augment: Augment = field(default_factory=Augment)  # how a training view differs from its image
    normalize: Literal["standard", "half", "none"] = "standard"  # ID train mean and std; [-1, 1]; [0, 1]
    outlier_batch: Images | None = None  # outliers a step; null = as many as `batch`
    outlier_order: Literal["fresh", "fixed"] = "fresh"  # fixed: every epoch visits the same outliers, as OECL's code
    devices: Several = 1  # processes that share each batch evenly, one a CUDA device, or several on the CPU

    def __post_init__(self) -> None:
        if self.nesterov and self.optimizer == "adamw":
            raise ValueError("nesterov: adamw has none; it is for sgd and lars")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        if self.compile and self.devices > 1:
            raise ValueError(f"compile: not with several devices ({self.devices})")
        parts = self.accumulate * self.devices
        by = " x ".join(name for name in ("accumulate", "devices") if getattr(self, name) > 1)
        for name in ("batch", "outlier_batch"):
            value = getattr(self, name)
            if parts > 1 and value is not None and value % parts:
                raise ValueError(f"{by}: {name} ({value}) cannot be cut into {parts} equal parts")

    @property
    def label(self) -> str:
        """What differs from the defaults."""
        return self.unlike(Recipe())

    def unlike(self, other: Recipe) -> str:
        """Return what differs from another recipe."""
        mine, others = flat(dataclasses.asdict(self)), flat(dataclasses.asdict(other))
        return "; ".join(f"{key}={value}" for key, value in mine.items() if value != others[key])


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """Parameters of the ResNets of ImageNet's form: resnet18, 34, 50, 101, wide_resnet50_2 and _3."""

    width: Annotated[int, Interval(ge=1, le=4096)] = 64  # channels of the stem and of the first stage
    stem: Literal["cifar", "imagenet"] = "cifar"  # 3x3, stride 1, no pooling; or 7x7, stride 2, max-pooling


@dataclass(frozen=True, kw_only=True)
class CifarResNet(ResNet):
    """Parameters of the ResNets that He et al. made for CIFAR, of three stages: resnet20, 32, 44, 56 and 110."""

    width: Annotated[int, Interval(ge=1, le=4096)] = 16


@dataclass(frozen=True, kw_only=True)
class TimmOptions:
    """Parameters of timm's networks; where nothing is said they are as timm has them."""

    img_size: Side | None = None  # pixels of each side of its images, of networks that are made for one size
    dynamic_img_size: bool = False  # images of any size: a position embedding is resized whenever one passes
    global_pool: Literal["token", "avg", "max", "avgmax", "catavgmax", "map"] | None = None  # what makes it features

    @property
    def given(self) -> dict[str, Any]:
        """What is said, by name."""
        return {name: value for name, value in vars(self).items() if value}


TIMM = "timm"  # as weights: those that timm has of an encoder timm/NAME
_OF_IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet50_3")
_OF_CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
RESNETS: dict[str, type[ResNet]] = dict.fromkeys(_OF_IMAGENET, ResNet) | dict.fromkeys(_OF_CIFAR, CifarResNet)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A backbone by name: one of RESNETS, `timm/NAME`, or `package.module:function`."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    shown_as: ClassVar[str] = ""  # what a study calls it with `as:`; in no key

    def called(self, alias: str) -> Encoder:
        """Return it with the label that tables show in place of its own; "" = its own."""
        found = dataclasses.replace(self)
        object.__setattr__(found, "shown_as", alias)
        return found

    @property
    def module(self) -> str:
        """The module of a user's function that makes it (`module:function`); "" of any other encoder."""
        module, own, _ = self.name.partition(":")
        return module if own else ""

    def check(self, image: ImageFormat) -> None:
        """Refuse a user's function that cannot be imported or takes no such parameters, before torch is there."""
        if not self.module:
            return
        name = self.name.partition(":")[2]
        try:
            function = getattr(importlib.import_module(self.module), name)
        except (Exception, SystemExit) as error:  # whatever the module's own code raises is its author's to read
            raise UserError(f"encoder {self.name} cannot be imported: {type(error).__name__}: {error}") from error
        given = {"channels": image.channels, "size": image.size, **self.params}
        try:
            with suppress(ValueError):  # builtins without a signature
                inspect.signature(function).bind(**given)
        except TypeError as error:
            said = f"called as {name}(channels=..., size=..., and the study's parameters): {error}"
            raise UserError(f"encoder {self.name} is {said}") from error

    @property
    def label(self) -> str:
        if self.shown_as:
            return self.shown_as
        defaults = dataclasses.asdict(RESNETS[self.name]()) if self.name in RESNETS else {}
        changed = [f"{key}={value}" for key, value in self.params.items() if value != defaults.get(key)]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


class Seen(NamedTuple):
    """How the items of a set are seen. By default, as they are."""

    views: int = 1
    crop: float | None = None


PLAIN = Seen()


@dataclass(frozen=True, kw_only=True)
class Space:
    """Which features a detector sees. The steps run in this order, fitted on training features only."""

    layer: Layer = "penultimate"  # shifted: of four quarter turns one after the other, for trainings that tell turns
    views: Several = 1  # the plain image and V - 1 augmented views of it
    # all V views are augmented crops of this share of the image's area, unflipped; null: the plain image is one of them
    crop: Annotated[float, Interval(gt=0, le=1)] | None = None
    unit: bool = False  # L2-normalise each feature vector
    zscore: bool = False  # subtract the mean and divide by the standard deviation of each dimension
    pca: Size | None = None  # project on so many principal components

    @property
    def seen(self) -> Seen:
        return Seen(self.views, self.crop)

    @property
    def raw(self) -> bool:
        return not (self.unit or self.zscore or self.pca)

    @property
    def centred(self) -> bool:
        """Whether the mean of training features is the origin."""
        return bool(self.zscore or self.pca)

    @property
    def label(self) -> str:
        steps = [
            self.layer,
            f"views={self.views}" if self.views > 1 else "",
            f"crop={self.crop:g}" if self.crop else "",
            "unit" if self.unit else "",
            "zscore" if self.zscore else "",
            f"pca={self.pca}" if self.pca else "",
        ]
        return " ".join(step for step in steps if step)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The ID scores that a threshold is set on."""

    kind: Literal["val", "train", "set"] = "val"  # held out of ID train, ID train itself, or a set of its own
    share: Portion = 0.1  # of ID train, by class; only for `val`
    held_out: Dataset | None = None  # whose split `test` is the reference; only for `set`

    @property
    def label(self) -> str:
        if self.held_out is not None:
            return f"set({self.held_out.label})"
        return f"val({self.share:g})" if self.kind == "val" else "train"

    @property
    def training(self) -> dict[str, Any]:
        """What it takes from ID train, which is all that weights depend on: a set elsewhere leaves it whole."""
        return {"kind": "train" if self.kind == "set" else self.kind, "share": self.share}
