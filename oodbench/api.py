"""The contracts that a plugin implements: the only file an author has to read.

One file is one plugin. The folder (`methods/training/`, `methods/distance/`, ...) is the axis, the
file's stem is the name, and the file defines exactly one class that derives from one of the classes
below. The class is turned into a frozen dataclass: its annotated fields are its parameters, checked
when a study is read or an object is made, hashed by the store, printed in the tables. What a plugin needs from the
harness it says by overriding a property; a plain class attribute (`views = 2`) does that too.

Letters of the shapes: N training items, M scored items, K clusters, D feature dimensions, P head
dimensions, B batch, V views. `h` are penultimate features, `f` features as a space hands them over.
Features are float32 tensors on the study's device, scores are float64. Higher score = more OOD.

Nothing here computes anything, and nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeAlias,
    dataclass_transform,
    get_type_hints,
)

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator, AllowInfNan, StringConstraints, TypeAdapter, ValidationError

from oodbench.errors import suggestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

# ---- types for parameters ---------------------------------------------------------------------

Positive = Annotated[float, Gt(0), AllowInfNan(False)]
NonNegative = Annotated[float, Ge(0), AllowInfNan(False)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Natural = Annotated[int, Interval(ge=0, le=10**9)]
Size = Annotated[int, Interval(ge=1, le=10**9)]
# A number that may be said in classes of the ID set: 10, "classes", "2*classes". The grid puts the number in.
Count = Size | Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]*\*)?classes$")]

# The form of a head: linear, linear-4, cosine, mlp-128 (linear, ReLU, linear), mlp-2048-256 (hidden size first),
# mlp_bn-128 (with batch norm before the ReLU). Without a size it has one output per class.
Head = Annotated[str, StringConstraints(pattern=r"^((linear|cosine)(-[1-9][0-9]*)?|mlp(_bn)?(-[1-9][0-9]*){1,2})$")]

# How images are made worse and, from 1 to 5, by how much: gaussian_noise-3. oodbench/data/corruptions.py makes them.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur"),
    *("pixelate", "brightness", "contrast", "jpeg"),
)


def _known_corruption(given: str) -> str:
    kind, _, severity = given.rpartition("-")
    if kind not in CORRUPTIONS or severity not in ("1", "2", "3", "4", "5"):
        named = kind or given
        hint = "" if named in CORRUPTIONS else suggestion(named, CORRUPTIONS)
        raise ValueError(f"should be KIND-SEVERITY with a severity of 1 to 5, such as {CORRUPTIONS[0]}-3{hint}")
    return given


Corruption = Annotated[str, AfterValidator(_known_corruption)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Plugin:
    """Base of all plugins: a frozen dataclass whose fields are its parameters."""

    name: ClassVar[str]  # the file's stem, or the entry point's name
    shown_as: ClassVar[str] = ""  # what a study calls it with `as:`; no parameter, and in no key of weights

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        init = cls.__init__

        @wraps(init)
        def checked(self: Plugin, **given: Any) -> None:
            init(self, **{name: _checked(type(self), name, value) for name, value in given.items()})

        cls.__init__ = checked  # type: ignore[assignment]
        if isinstance(own := vars(cls).get("label"), property):
            cls.label = property(lambda self: self.shown_as or own.__get__(self))  # type: ignore[assignment]

    def called(self, alias: str) -> Self:
        """Return it with the label that tables show in place of its own; "" = its own."""
        found = dataclasses.replace(self)  # type: ignore[type-var]
        object.__setattr__(found, "shown_as", alias)
        return found

    @property
    def params(self) -> dict[str, Any]:
        """All parameters, defaults filled in, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @property
    def requires(self) -> dict[str, str]:
        """Modules beyond the package's own dependencies that these parameters need -> how to install them."""
        return {}

    @property
    def label(self) -> str:
        """What a table shows: the alias, else the name, and each parameter that differs from its default."""
        if self.shown_as:
            return self.shown_as
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        changed = [f.name for f in fields if getattr(self, f.name) != f.default]
        shown = [f"{name}={_short(getattr(self, name))}" for name in changed]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


LONGEST = 100  # signs of a value in a label


@cache
def _types(cls: type[Plugin]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _checked(cls: type[Plugin], name: str, value: Any) -> Any:
    """Return a parameter's value, a list as a tuple where its type is one. Raises ValueError or TypeError."""
    types = _types(cls)  # type: ignore[arg-type]
    if name not in types:
        raise TypeError(f"{cls.name} has no parameter '{name}'{suggestion(name, types)}")
    plain = json.dumps(value, default=lambda each: each.item() if hasattr(each, "item") else str(each))
    try:
        return types[name].validate_json(plain, strict=True)
    except ValidationError as error:
        wants = " or ".join(
            dict.fromkeys(each["msg"].removeprefix("Input ").removeprefix("Value error, ") for each in error.errors())
        )
        raise ValueError(f"{cls.name}: {name} is {value!r}, {wants}") from None


def _short(value: Any) -> str:
    """Return a value as labels have it; a tuple that no column would hold as its length and a hash of it."""
    if isinstance(value, tuple):
        shown = "+".join(_short(item) for item in value)
        digest = hashlib.sha256(shown.encode()).hexdigest()[:6]
        return shown if len(shown) <= LONGEST else f"{len(value)} values #{digest}"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- training: what makes an encoder -----------------------------------------------------------

State = dict[str, "Tensor"]  # a training's own tensors (clusters, prototypes, queues); part of a checkpoint
Loss: TypeAlias = "Tensor | dict[str, Tensor]"  # a scalar, or its terms by name, of which it is the sum


class Features(NamedTuple):
    """What an encoder makes of un-augmented ID training images, in the order of the training set."""

    h: Tensor  # (N, D) penultimate features
    out: dict[str, Tensor]  # head name -> (N, P), not normalised


@dataclass(frozen=True)
class Batch:
    """What a loss sees of one forward pass over V augmented views of B items.

    Features and outputs are float32 whatever the network computes in (bf16 too), and float64 in a study of that
    precision: a loss converts nothing, and what it makes by `torch.zeros` or `torch.tensor(0.1)` is of the same type.
    """

    h: Tensor  # (V, B, D) penultimate features
    out: dict[str, Tensor]  # head name -> (V, B, P), not normalised
    y: Tensor | None  # (B,) int64 class; None unless the training asks for labels
    index: Tensor  # (B,) int64 position in the training set
    shift: Tensor  # (B,) int64 which of its declared ID shifts an item carries, 0 = the first
    outlier: dict[str, Tensor] | None  # head name -> (V, B', P) of outlier views, same forward pass
    epoch: int
    y_host: NDArray[np.int64] | None = None  # y in host memory: what depends on it is known without asking the device
    target: Tensor | None = None  # (B, C) share of each class in a mixed image; None unless the training mixes
    heads: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # each, for features (n, D) of one's own
    learned: nn.Module | None = None  # what `learned` returned
    slow: dict[str, Tensor] | None = None  # head name -> (V, B, P) of the slow copy, without a gradient


class Shifts(NamedTuple):
    """Quarter turns (0 to 3, counter-clockwise) that a training makes of each image, each augmented on its own."""

    id: tuple[int, ...] = (0,)  # each makes another ID item of the image: B = images x len(id)
    outlier: tuple[int, ...] = ()  # each makes an outlier of the image: B' = images x len(outlier)


class Mixing(NamedTuple):
    """How a training mixes each image of a batch with another one of it (torchvision's v2.MixUp, v2.CutMix)."""

    how: Literal["mixup", "cutmix"]
    alpha: float  # of Beta(alpha, alpha), of which one share for the whole batch is drawn


class Weights(NamedTuple):
    """What a training that loads its weights makes of the tensors of a source."""

    tensors: dict[str, Tensor]  # `encoder.NAME`, in torchvision's or the encoder's own names, and `heads.HEAD.NAME`
    dropped: tuple[str, ...]  # names of tensors that the network has no use for
    layout: str  # what the names were taken for
    mean: tuple[float, ...] | None  # of the network's inputs in [0, 1], by channel; None: the source tells
    std: tuple[float, ...] | None


class Training(Plugin, ABC):
    """A loss over a batch. It sees no images, no detectors, no OOD test data, no optimiser, no device.

    What it cannot be: one whose images depend on the network (adversarial ones, a generator's), one that mixes ID
    images with outliers (OpenMix), one of several losses that are optimised in turn (a GAN), one whose views differ in
    size (DINO's crops), or whose parts have learning rates of their own. Kept is the network, never its slow copy.
    """

    @property
    def views(self) -> int:
        """Augmented views per item."""
        return 1

    @property
    def labels(self) -> bool:
        """True: batches carry the class of each item."""
        return False

    @property
    def outliers(self) -> bool:
        """True: batches carry outliers from the study's `outliers:` set."""
        return False

    @property
    @abstractmethod
    def heads(self) -> dict[str, str]:
        """Head name -> its form (see `Head`). `logits` is the classifier, `z` the projection, `shift` tells shifts."""

    @property
    def shifts(self) -> Shifts:
        """Rotations that make more ID items, and those that make outliers."""
        return Shifts()

    @property
    def mixing(self) -> Mixing | None:
        """How images are mixed, after all else is done to them; needs labels, and one device."""
        return None

    @property
    def refresh_every(self) -> int:
        """Epochs between two calls of `refresh`, the first before epoch 0; 0 = never."""
        return 0

    @property
    def ordered(self) -> bool:
        """True: the loss depends on the order of a batch, as where each item in turn moves a prototype."""
        return False

    @property
    def least_epochs(self) -> int:
        """Epochs before which the training is another one: its warm-up and one more. A study with fewer is refused."""
        return 0

    @property
    def weights(self) -> str | None:
        """None: it is optimised. Else where its weights come from, and `bound` and `adopt` stand in for `loss`.

        `timm`: timm's own of the encoder; `torchvision:NAME.WEIGHTS`; else a file, relative to the study.
        """
        return None

    def bound(self, given: dict[str, Tensor], classes: int | None) -> Self:
        """Return it with the heads that weights bring (by name, on the meta device) for so many ID classes.

        classes is None where only the files of the ID set tell.
        """
        return self

    def adopt(self, given: dict[str, Tensor]) -> Weights:
        """Return what the network takes of the tensors of a source, by name (a checkpoint's: levels with dots)."""
        raise TypeError(f"{self.name} does not load weights")

    def learned(self, dim: int, classes: int) -> nn.Module | None:
        """Return what the loss learns beside the network, for penultimate features of so many dimensions, or None.

        It is optimised with the network and part of a checkpoint, and is gone when the training is over.
        """
        return None

    def slowness(self, done: float) -> float | None:
        """Return the share of itself that a slow copy of the network keeps in a step, or None: there is no copy.

        `done` is the share of all steps before it, from 0 to 1. After each step every parameter of the copy becomes
        slowness * its own + (1 - slowness) * the network's; its running statistics are of what it sees itself. It
        starts as the network, sees each batch, and is part of a checkpoint.
        """
        return None

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        """Return the state before the first step; `f` are the features of the untrained network.

        A training that overrides this gets the features computed once; y is None unless it asks for labels.
        """
        return {}

    @abstractmethod
    def loss(self, b: Batch, state: State) -> tuple[Loss, State]:
        """Return the scalar loss of a batch or its terms, and the state after it.

        What it draws of torch's own generator is the same for a seed, in every process and after a kill.
        """

    def refresh(self, f: Features, y: Tensor | None, epoch: int, seed: int, state: State) -> State:
        """Return the state after looking at the features of the whole training set."""
        return state


# ---- clustering: what groups training features --------------------------------------------------


class Clusters(NamedTuple):
    """Groups of training features. Every cluster has at least one item."""

    centroid: Tensor  # (K, D)
    assign: Tensor  # (N,) int64, -1 = noise: belongs to no cluster
    weight: Tensor | None = None  # (K,) mixture weights
    covariance: Tensor | None = None  # diag (K, D), tied (D, D), full (K, D, D)
    covariance_type: Literal["diag", "tied", "full"] | None = None


class Clustering(Plugin, ABC):
    """Groups training features. It sees no images and no OOD data; labels only if it declares them."""

    @property
    def labels(self) -> bool:
        """True: `fit` gets the classes (and is left out where there is only one)."""
        return False

    @property
    def single(self) -> bool:
        """True: it makes one cluster, so that a threshold by cluster has nothing to do."""
        return False

    @property
    def mixture(self) -> bool:
        """True: its clusters carry weights and covariances, as a distance that is a likelihood needs."""
        return False

    @abstractmethod
    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        """Return clusters of f (N, D); the same ones for the same seed."""


# ---- distance: what scores an item ---------------------------------------------------------------


class Scores(NamedTuple):
    score: Tensor  # float64 (M,), higher = more OOD
    cluster: Tensor  # int64 (M,) the cluster an item was scored against, 0 where there are none


Scorer = Callable[["Tensor"], Scores]
# shifted: of the image in each of four quarter turns one after the other, the projection and what `shift` says of it
Layer = Literal["penultimate", "projection", "logits", "shifted"]


class Distance(Plugin, ABC):
    """Fits on training features and clusters, returns what scores. It sees no labels and no OOD data."""

    @property
    def clusters(self) -> bool:
        """False: it ignores clusters, and is not multiplied by clusterings nor by per-cluster thresholds."""
        return True

    @property
    def several(self) -> bool:
        """True: it says nothing about a single cluster, and is left out for clusterings that make one."""
        return False

    @property
    def mixture(self) -> bool:
        """True: it needs clusters with weights and covariances, and is left out for clusterings without."""
        return False

    @property
    def angular(self) -> bool:
        """True: it measures angles at the origin, which the one centroid of a centred space is but for rounding."""
        return False

    @property
    def views(self) -> bool:
        """True: the scorer wants every view, (V, M, D), rather than their mean, (M, D)."""
        return False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers on which it makes sense."""
        return ("penultimate", "projection", "logits")

    @property
    def raw(self) -> bool:
        """True: it needs features as the network left them (no unit norm, z-score or PCA)."""
        return False

    @abstractmethod
    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        """Return a function from features to scores, fitted on training features f (N, D)."""

    @classmethod
    def fit_together(cls, distances: Sequence[Self], f: Tensor, c: Clusters) -> Callable[[Tensor], list[Scores]]:
        """Return a function from features to the scores of several settings of this distance, in their order.

        A distance whose settings share work (every k of k nearest neighbours) overrides this. The scores are
        those of each setting fitted alone.
        """
        scorers = [each.fit(f, c) for each in distances]
        return lambda x: [score(x) for score in scorers]

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        """Return the scores of the training items, each scored as if it were not in f.

        Only a distance that overrides this may be calibrated on its own training items (`reference: train`).
        """
        raise TypeError(f"{self.name} does not leave an item out of its own score")


# ---- threshold: what turns a score into a decision ------------------------------------------------


class Rule(NamedTuple):
    """An item is called OOD when its calibrated score is above the cut."""

    calibrate: Callable[[Scores], Tensor]  # -> float64 (M,), higher = more OOD
    cut: float


class Threshold(Plugin, ABC):
    """Calibrates scores on ID reference scores (CPU tensors) and cuts. It sees no test scores, features, labels."""

    level: Annotated[float, Interval(gt=0, lt=1)] = 0.95  # share of the ID reference that is accepted

    @property
    def clusters(self) -> bool:
        """True: it calibrates by cluster, and is left out where there are none or only one."""
        return False

    @property
    def needs_ood(self) -> bool:
        """True: `fit` gets scores of the study's declared validation OOD sets; every table says so."""
        return False

    @property
    def nominal(self) -> bool:
        """True: it aims at `level` through a model of the scores, and may accept more or less of the reference."""
        return False

    @property
    def held_out(self) -> bool:
        """True: its promise needs a reference that nothing was fitted on; it is left out under `reference: train`."""
        return False

    @abstractmethod
    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        """Return a rule that accepts at least `level` of the reference (`nominal` and `needs_ood`: about, or its own).

        `ood` are the scores of the validation OOD sets, one after the other; None unless `needs_ood`.
        """


# ---- posthoc: what scores by the classifier ------------------------------------------------------------


class Split(NamedTuple):
    """A set as a classifier sees it."""

    h: Tensor  # (M, D) penultimate features
    logits: Tensor  # (M, C)
    y: Tensor | None = None  # (M,) int64 class; of training and reference items, None of items to be scored
    # the images behind the items, in their order and in blocks of float (B, C, H, W) in [0, 1], on the
    # network's device; None unless the baseline says `network`
    images: Callable[[], Iterator[Tensor]] | None = None


class ClassifierHead(NamedTuple):
    """What turns penultimate features into logits: the training's own head, or the linear probe's."""

    apply: Callable[[Tensor], Tensor]  # h (M, D) -> logits (M, C)
    weight: Tensor | None  # (C, D), None where the head is not linear
    bias: Tensor | None  # (C,)
    # float images (B, C, H, W) in [0, 1] -> features (B, D) and logits (B, C), through which gradients flow to the
    # images; in evaluation mode; None unless the baseline says `network`
    network: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    # such images -> features (B, D_l) of the encoder at several depths, the penultimate ones last: what its direct
    # parts put out, the last of each shape, mean over places; None unless the baseline says `network`
    layers: Callable[[Tensor], list[Tensor]] | None = None
    # the same network as a module, such images -> logits (B, C), its classifier within; in evaluation mode, in which it
    # is left; its parameters take gradients, and are left without; None unless the baseline says `network`
    module: nn.Module | None = None
    parts: tuple[nn.Module, ...] = ()  # of the module: the direct parts of its encoder, what `layers` looks at


class Posthoc(Plugin, ABC):
    """A baseline that reads a classifier's logits or the features behind them. It sees no OOD data."""

    @property
    def applies(self) -> bool:
        """True: it applies the head to features, and is left out where only logits are known."""
        return False

    @property
    def linear(self) -> bool:
        """True: it needs the weights of a linear head, and is left out for heads of another form."""
        return False

    @property
    def rectified(self) -> bool:
        """True: it sums activations, and refuses features that may be negative (those not after a ReLU)."""
        return False

    @property
    def val(self) -> bool:
        """True: it is fitted on the held-out ID reference, so that no promise of a threshold holds on it."""
        return False

    @property
    def network(self) -> bool:
        """True: it passes images through the network, and is left out where features come without."""
        return False

    @abstractmethod
    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        """Return a function from a set to float64 scores (M,), higher = more OOD; val is None unless asked for."""


# ---- dataset: what reads images --------------------------------------------------------------------


class Images(NamedTuple):
    x: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]  # items (H, W) or (H, W, C), in memory or decoded when indexed
    y: NDArray[np.int64]  # (N,) class
    classes: tuple[str, ...]  # the name of each class


class Download(NamedTuple):
    """A file as it is published."""

    urls: tuple[str, ...]  # mirrors, tried in their order; none: no program can get it, it is placed by hand
    hash: str | None  # as it is published: "md5:..." or "sha256:..."; None: none is
    members: str | None = None  # of an archive (tar, zip): what is taken out of it, a regular expression of whole names
    size: int | None = None  # bytes, where known
    filename: str = ""  # default: the last part of the first address

    @property
    def name(self) -> str:
        """The file's name."""
        return self.filename or "".join(self.urls[:1]).rpartition("/")[2]


class Source(NamedTuple):
    """Where a data set is from."""

    title: str
    page: str  # where its authors describe it
    licence: str  # in the publisher's words; "none stated" where they state none
    downloads: tuple[Download, ...]
    folder: str = ""  # in the folder of all data: where downloads and what they hold are placed
    by_hand: str = ""  # what a user has to do where no program can get it (registration, quota, a click)


class Dataset(Plugin, ABC):
    """Reads files into images. It knows splits and class labels, not its role, transforms or methods.

    Every data set takes these class protocols; the harness applies them after `load`, and numbers the
    classes that stay 0, 1, ... in their order.
    """

    # An integer is a class's place, from 0, or its name where classes of the set have numbers for names.
    keep: tuple[int | str, ...] | None = None  # these classes only, by number or name
    only: int | str | None = None  # one class: one-vs-rest
    without: int | str | tuple[int | str, ...] | None = None  # all classes but these: leave-one-class-out
    per_class: Size | None = None  # at most so many images of each class, drawn with a fixed seed
    limit: Size | None = None  # at most so many images in all, drawn after the classes and with the same seed
    corrupt: Corruption | None = None  # each image made worse, in the study's format, as KIND-SEVERITY says

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of all classes, where they are known before anything is loaded."""
        return None

    @property
    def splits(self) -> tuple[Literal["train", "test"], ...]:
        """The splits that it has; one of test images alone cannot be an ID set, outliers or validation OOD."""
        return ("train", "test")

    @property
    def source(self) -> Source | None:
        """Where its files are from; None: a program makes it, or they are the user's own."""
        return None

    def needed(self, root: Path) -> Sequence[Path]:
        """Return every file that `load` reads, of all splits, whether it is there or not.

        Lists of files first, alone: asked again once they are there, it returns what they list, too. A file that may
        lie in one of several places: the one that is there, else where it would be put.
        """
        return ()

    def files(self, split: Literal["train", "test"], root: Path) -> Sequence[Path]:
        """Return the files that `load` reads; a change of one of them prepares the set again."""
        return ()

    @abstractmethod
    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        """Return one split; root is the folder of all downloaded data. `train` and `test` are disjoint."""


CONTRACTS: dict[str, type[Plugin]] = {
    "training": Training,
    "clustering": Clustering,
    "distance": Distance,
    "threshold": Threshold,
    "posthoc": Posthoc,
    "dataset": Dataset,
}
