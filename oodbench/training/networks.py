"""Backbones, heads and normalisation: a name in a study becomes a network, which takes images of uint8."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodbench.api import Training
from oodbench.errors import UserError, suggestion
from oodbench.study.settings import RESNETS, Encoder, ImageFormat, Precision, Recipe, ResNet
from oodbench.toolkit.seeds import seed_of
from oodbench.toolkit.vectors import unit
from oodbench.training.batches import Images, TrainingData

HEAD = re.compile(r"(linear|cosine)(-[1-9][0-9]{0,4})?|mlp(_bn)?(-[1-9][0-9]{0,4}){1,2}")
LEVELS_BATCH = 1024  # images whose grey levels are counted at once


class Network(nn.Module):
    """An encoder and its heads."""

    def __init__(self, encoder: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return penultimate features (B, D) and each head's output (B, P) of images (B, C, H, W)."""
        h = self.encoder(x)
        return h, self.outputs(h)

    def outputs(self, h: Tensor) -> dict[str, Tensor]:
        """Return each head's output (B, P) of features (B, D)."""
        return {name: head(h) for name, head in self.heads.items()}


def build(encoder: Encoder, heads: dict[str, str], image: ImageFormat, classes: int) -> Network:
    """Return a network with fresh weights drawn from torch's global generator.

    Raises UserError where the encoder does not take the study's images or the name means nothing.
    """
    backbone = _backbone(encoder, image)
    dim = feature_dim(encoder, image)
    return Network(backbone, {name: head(form, dim, classes) for name, form in heads.items()})


def feature_dim(encoder: Encoder, image: ImageFormat) -> int:
    """Return the number of penultimate features, from a forward pass without data."""
    own = "cpu" if encoder.module else "meta"  # a user's network may not know torch's meta device
    with torch.device(own), torch.random.fork_rng(devices=[]), torch.no_grad():
        network = _backbone(encoder, image).eval()
        images = torch.zeros(2, image.channels, image.size, image.size)
        try:
            h = network(images)
        except Exception as error:  # whatever a network raises is its author's to read
            size = f"{image.channels} x {image.size} x {image.size}"
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"encoder {encoder.name} does not take images of {size}: {what}") from error
    if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(images):
        raise UserError(f"encoder {encoder.name} must return features of shape (batch, dimensions)")
    wanted = torch.get_default_dtype()  # float64 in a study of that precision
    if h.dtype != wanted:
        raise UserError(f"encoder {encoder.name} must return {wanted} features, not {h.dtype}: end with .to({wanted})")
    return h.shape[1]


# ---- backbones ----------------------------------------------------------------------------------


def _backbone(encoder: Encoder, image: ImageFormat) -> nn.Module:
    if encoder.name in RESNETS:
        return resnet(encoder.name, ResNet(**encoder.params), image.channels)
    if encoder.name.startswith("timm/"):
        return _timm(encoder, image)
    return _function(encoder, image)


# blocks of each stage, bottleneck or not, bottleneck width relative to ResNet-50's
_SHAPES = {
    "resnet18": ((2, 2, 2, 2), False, 1),
    "resnet34": ((3, 4, 6, 3), False, 1),
    "resnet50": ((3, 4, 6, 3), True, 1),
    "resnet101": ((3, 4, 23, 3), True, 1),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 2),
    "wide_resnet50_3": ((3, 4, 6, 3), True, 3),
} | {f"resnet{6 * n + 2}": ((n, n, n), False, 1) for n in (3, 5, 7, 9, 18)}  # CIFAR's


def common_name(encoder: Encoder, name: str) -> str:
    """Return what torchvision calls a parameter of a network: `encoder.0.weight` is `encoder.conv1.weight`.

    Names of other encoders than ours, and of heads, stay.
    """
    room, index, *rest = name.split(".")
    if room != "encoder" or encoder.name not in RESNETS:
        return name
    blocks = [f"layer{stage}.{i}" for stage, count in enumerate(_SHAPES[encoder.name][0], 1) for i in range(count)]
    stem = ["conv1", "bn1", "relu", *["maxpool"] * (ResNet(**encoder.params).stem == "imagenet")]
    return ".".join([room, [*stem, *blocks][int(index)], *rest])


def resnet(name: str, params: ResNet, channels: int) -> nn.Module:
    """Return a ResNet of any width, made of timm's blocks (timm's own `channels` leaves the stem at 64)."""
    from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv

    blocks, bottleneck, wide = _SHAPES[name]
    block = Bottleneck if bottleneck else BasicBlock
    layers = _stem(params, channels)
    width_in = params.width
    for stage, count in enumerate(blocks):
        width = params.width * 2**stage
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            width_out = width * block.expansion
            shortcut: nn.Module | None = None
            if len(blocks) == 3 and width_in != width_out:
                shortcut = _Padded(width_out - width_in)
            elif stride != 1 or width_in != width_out:
                shortcut = downsample_conv(width_in, width_out, kernel_size=1, stride=stride)
            options: dict[str, Any] = {"base_width": 64 * wide} if bottleneck else {}
            layers.append(block(width_in, width, stride, shortcut, **options))
            width_in = width_out
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class _Padded(nn.Module):
    """The shortcut without parameters of He et al. (2016, option A): every other pixel, and channels of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.front = channels // 2
        self.back = channels - self.front

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[..., ::2, ::2], (0, 0, 0, 0, self.front, self.back))


def _stem(params: ResNet, channels: int) -> list[nn.Module]:
    if params.stem == "cifar":
        first: list[nn.Module] = [nn.Conv2d(channels, params.width, 3, 1, 1, bias=False)]
    else:
        first = [nn.Conv2d(channels, params.width, 7, 2, 3, bias=False)]
    pool: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if params.stem == "imagenet" else []
    return [*first, nn.BatchNorm2d(params.width), nn.ReLU(inplace=True), *pool]


def _timm(encoder: Encoder, image: ImageFormat) -> nn.Module:
    network = timm_network(encoder, image.channels)
    config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    said = encoder.params.get("img_size")
    wanted = said or config.get("input_size", (3, image.size, image.size))[1]
    fixed = (said or config.get("fixed_input_size")) and not encoder.params.get("dynamic_img_size")
    if fixed and wanted != image.size:
        raise UserError(
            f"encoder {encoder.label} takes images of {wanted} x {wanted} only, the study has {image.size} x "
            f"{image.size}; set image: {{size: {wanted}}}, give it `img_size: {image.size}` or take another encoder"
        )
    return network


def timm_network(encoder: Encoder, channels: int, classes: int | None = 0) -> nn.Module:
    """Return a network of timm, by default without its classifier; `classes` None: with that of timm's own weights.

    Raises UserError where timm cannot make it.
    """
    import timm

    name = encoder.name.removeprefix("timm/")
    if not timm.is_model(name):
        nearest = suggestion(name, timm.list_models()).partition(" allowed:")[0].rstrip(";")
        raise UserError(f"timm has no model '{name}'{nearest}")
    try:
        options = timm_options(encoder)
        network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except Exception as error:  # of many kinds, by model
        said = "".join(f", {key}={value}" for key, value in encoder.params.items())
        what = str(error) or type(error).__name__  # timm asserts without a word
        raise UserError(f"timm cannot make '{name}' for {channels} channels{said}: {what}") from error
    return network


def timm_options(encoder: Encoder) -> dict[str, Any]:
    """Return what timm is told of an encoder.

    Where `global_pool` is said the last norm stays before or after pooling, as it is in the network without that word:
    timm moves and renames it, and weights that were trained with the other pooling would not fit.
    """
    if "global_pool" not in encoder.params:
        return encoder.params
    import timm

    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        plain = timm.create_model(encoder.name.removeprefix("timm/"), num_classes=0)
    has_choice = "fc_norm" in inspect.signature(type(plain).__init__).parameters
    return encoder.params | ({"fc_norm": not isinstance(plain.fc_norm, nn.Identity)} if has_choice else {})


def _function(encoder: Encoder, image: ImageFormat) -> nn.Module:
    module, _, name = encoder.name.partition(":")
    try:
        function: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module's own code raises is its author's to read
        raise UserError(f"encoder {encoder.name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        network = function(channels=image.channels, size=image.size, **encoder.params)
    except Exception as error:
        raise UserError(
            f"encoder {encoder.name} is called as {name}(channels=..., size=..., and the study's parameters): "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"encoder {encoder.name} must return a torch module, not {type(network).__name__}")
    return network


# ---- heads --------------------------------------------------------------------------------------


class CosineHead(nn.Module):
    """Cosine of a feature with a weight vector per class, times a learned positive scale that starts at 10."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, dim))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, h: Tensor) -> Tensor:
        return self.log_scale.exp() * (unit(h) @ unit(self.weight).T)


def head(form: str, dim: int, classes: int) -> nn.Module:
    """Return a head of a form such as `linear`, `cosine-4`, `mlp-128`, `mlp_bn-128` or `mlp-2048-256`."""
    kind, sizes = _parsed(form)
    out = head_dim(form, classes)
    if kind == "linear":
        return nn.Linear(dim, out)
    if kind == "cosine":
        return CosineHead(dim, out)
    hidden = sizes[0] if len(sizes) == 2 else dim
    norm = [nn.BatchNorm1d(hidden)] if kind == "mlp_bn" else []
    return nn.Sequential(nn.Linear(dim, hidden), *norm, nn.ReLU(inplace=True), nn.Linear(hidden, out))


def head_dim(form: str, classes: int) -> int:
    """Return the number of outputs of a head."""
    sizes = _parsed(form)[1]
    return sizes[-1] if sizes else classes


def _parsed(form: str) -> tuple[str, list[int]]:
    if not HEAD.fullmatch(form):
        raise UserError(
            f"there is no head '{form}'; allowed: linear[-N], cosine[-N], mlp-[HIDDEN-]N, mlp_bn-[HIDDEN-]N, "
            "N and HIDDEN below 100000"
        )
    kind, *sizes = form.split("-")
    return kind, [int(size) for size in sizes]


# ---- networks with the normalisation of their inputs ------------------------------------------------------------


class Trained(nn.Module):
    """A network with the normalisation it was trained with: uint8 images in, features out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.layout = _layout(network)
        self.to(memory_format=self.layout)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return penultimate features and head outputs of float images (B, C, H, W) in [0, 1]."""
        h, out = self.network(self.normalised(x))
        return h, out

    def normalised(self, x: Tensor) -> Tensor:
        """Return images as the network takes them."""
        return ((x - self.mean) / self.std).contiguous(memory_format=self.layout)


def at_depths(model: Trained) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from images (B, C, H, W) in [0, 1] to features at several depths, the penultimate ones last.

    They are what the encoder's direct parts put out, the last of each shape: maps (B, D, H, W) or tokens (B, N, D),
    float32 (B, D), mean over places. Gradients flow through them.
    """

    def passed(x: Tensor) -> list[Tensor]:
        found: dict[torch.Size, Tensor] = {}

        def hear(part: nn.Module, given: Any, put: Any) -> None:
            if isinstance(put, Tensor) and put.ndim in (3, 4):
                found[put.shape] = put.float().flatten(2).mean(2) if put.ndim == 4 else put.float().mean(1)

        heard = [part.register_forward_hook(hear) for part in model.network.encoder.children()]
        try:
            h = model(x)[0]
        finally:
            for each in heard:
                each.remove()
        return [*found.values(), h.float()]

    return passed


def untrained(
    training: Training,
    form: Encoder,
    recipe: Recipe,
    image: ImageFormat,
    data: TrainingData,
    seed: int,
    precision: Precision = "float32",
) -> Trained:
    """Return the network before its first step, on the device of the data."""
    model = blank(training, form, image, data.classes, seed, precision)
    normalise(model, *_normalisation(recipe, data.x))
    return model.to(data.x.device)


def normalise(model: Trained, mean: Tensor, std: Tensor) -> None:
    """Give a model the mean (C,) and the standard deviation (C,) of its inputs in [0, 1]."""
    model.mean.copy_(mean.view_as(model.mean))
    model.std.copy_(std.view_as(model.std))


def blank(
    training: Training,
    form: Encoder,
    image: ImageFormat,
    classes: int,
    seed: int = 0,
    precision: Precision = "float32",
) -> Trained:
    """Return a network with fresh weights and no normalisation, on the CPU; its weights are float32 for bf16, too."""
    with torch.random.fork_rng(devices=[]), arithmetic(torch.float64 if precision == "float64" else torch.float32):
        torch.manual_seed(seed_of(seed, "weights"))
        return Trained(build(form, training.heads, image, classes), image.channels)


@contextmanager
def arithmetic(dtype: torch.dtype) -> Iterator[None]:
    """Let weights, draws and views that are made meanwhile be of a type: torch's default one, in this process."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


P = ParamSpec("P")
R = TypeVar("R")


def in_its_arithmetic(work: Callable[Concatenate[Trained, P], R]) -> Callable[Concatenate[Trained, P], R]:
    """Return work on a network that makes its tensors of the type of the network's weights."""

    @wraps(work)
    def done(model: Trained, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with arithmetic(model.mean.dtype):
            return work(model, *args, **kwargs)

    return done


def _layout(network: nn.Module) -> torch.memory_format:
    """Return channels last, the faster layout, but for convolutions of fewer than 8 channels.

    The backward pass of these writes out of bounds on one CPU thread (oneDNN in torch 2.14, AVX2).
    """
    narrow = any(isinstance(each, nn.Conv2d) and each.out_channels < 8 for each in network.modules())
    return torch.contiguous_format if narrow else torch.channels_last


def _normalisation(recipe: Recipe, x: Images) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, in units of 255, from exact counts of grey levels."""
    if recipe.normalize != "standard":
        half = 0.5 if recipe.normalize == "half" else 0.0
        return torch.full((x.shape[1],), half), torch.full((x.shape[1],), half or 1.0)
    counts = torch.stack([_levels(rows) for rows in x.split(LEVELS_BATCH)]).sum(0).cpu().double()
    share, level = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = share @ level
    std = (share * (level - mean[:, None]).square()).sum(1).sqrt()
    return mean, std.clamp_min(1 / 255)


def _levels(x: Tensor) -> Tensor:
    """Return how often each channel has each grey level (C, 256)."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)])
