"""Backbones and heads by name: shapes, widths, sizes refused with a reason, users' own."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oodbench.errors import UserError
from oodbench.study.settings import RESNETS, CifarResNet, Encoder, ImageFormat, ResNet
from oodbench.training import networks


def named(name: str, **params: Any) -> Encoder:
    return Encoder(name=name, params=asdict(RESNETS[name]()) | params if name in RESNETS else params)


# Parameters in millions of the CIFAR versions without classifier, as timm's own have with a 3 x 3 stem.
@pytest.mark.parametrize(
    ("name", "dim", "millions"),
    [
        ("resnet18", 512, 11.169),
        ("resnet34", 512, 21.277),
        ("resnet50", 2048, 23.500),
        ("wide_resnet50_3", 2048, 132.788),
        ("resnet20", 64, 0.269),
        ("resnet32", 64, 0.463),
        ("resnet44", 64, 0.658),
        ("resnet56", 64, 0.852),
        ("resnet110", 64, 1.727),
    ],
)
def test_resnets_have_the_published_sizes(name: str, dim: int, millions: float) -> None:
    with torch.device("meta"):
        network = networks.resnet(name, RESNETS[name](), 3)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)
    assert networks.feature_dim(named(name), ImageFormat(size=32, channels=3)) == dim


def test_the_imagenet_stem_is_torchvisions_resnet() -> None:
    """The same weights in torchvision's ResNet-18 give the same features."""
    from torchvision.models import resnet18

    ours, theirs = networks.resnet("resnet18", ResNet(stem="imagenet"), 3), resnet18()
    theirs.fc = nn.Identity()  # type: ignore[assignment]
    values = [v for k, v in theirs.state_dict().items() if not k.startswith("fc.")]
    names = list(ours.state_dict())
    assert [v.shape for v in ours.state_dict().values()] == [v.shape for v in values]
    ours.load_state_dict(dict(zip(names, values, strict=True)))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_the_resnets_of_cifar_are_those_of_the_paper() -> None:
    """He et al. 2016, section 4.2, as operations on the weights of ours, block by block."""
    network = networks.resnet("resnet32", CifarResNet(), 3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values)  # type: ignore[arg-type]
    given = {networks.common_name(named("resnet32"), f"encoder.{k}")[8:]: v for k, v in network.state_dict().items()}

    def convolved(x: torch.Tensor, conv: str, bn: str, stride: int) -> torch.Tensor:
        x = F.conv2d(x, given[f"{conv}.weight"], stride=stride, padding=1)
        of = [given[f"{bn}.{each}"][:, None, None] for each in ("running_mean", "running_var", "weight", "bias")]
        return (x - of[0]) / (of[1] + 1e-5).sqrt() * of[2] + of[3]

    x = torch.randn(2, 3, 32, 32)
    h = convolved(x, "conv1", "bn1", 1).relu()
    for stage, width in enumerate((16, 32, 64), 1):
        for i in range(5):
            at, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            inner = convolved(h, f"{at}.conv1", f"{at}.bn1", stride).relu()
            shortcut = torch.zeros(2, width, *inner.shape[2:])
            start = (width - h.shape[1]) // 2
            shortcut[:, start : start + h.shape[1]] = h[:, :, ::stride, ::stride]
            h = (convolved(inner, f"{at}.conv2", f"{at}.bn2", 1) + shortcut).relu()
    torch.testing.assert_close(network(x), h.mean((2, 3)))
    assert len(given) == len(network.state_dict()) == 6 * 31


@pytest.mark.parametrize("width", [1, 8, 16])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_width_and_number_of_channels(width: int, channels: int) -> None:
    image = ImageFormat(size=8, channels=channels)
    form = named("resnet18", width=width)
    network = networks.build(form, {"z": "mlp-12", "logits": "linear"}, image, classes=7)
    h, out = network(torch.randn(3, channels, 8, 8))
    assert (h.shape, out["z"].shape, out["logits"].shape) == ((3, 8 * width), (3, 12), (3, 7))
    assert networks.feature_dim(form, image) == 8 * width
    assert network.encoder[0].weight.shape == (width, channels, 3, 3)  # type: ignore[index,union-attr]


def test_asking_for_the_dimension_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    networks.feature_dim(named("resnet18"), ImageFormat(size=8, channels=1))
    assert torch.equal(torch.rand(1), first)


def test_timm_models() -> None:
    image = ImageFormat(size=32, channels=1)
    assert networks.feature_dim(named("timm/resnet10t"), image) == 512
    network = networks.build(named("timm/resnet10t"), {"z": "linear-4"}, image, classes=2)
    assert network(torch.randn(2, 1, 32, 32))[1]["z"].shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "params", "size", "said"),
    [
        (
            "vit_tiny_patch16_224",
            {"img_size": 64},
            32,
            r"vit_tiny_patch16_224\(img_size=64\) takes images of 64 x 64 only, .* or take another",
        ),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 40, r"height \(40\) should be divisible by patch size"),
        ("resnet10t", {"img_size": 32}, 32, "for 3 channels, img_size=32: .* unexpected keyword argument 'img_size'"),
        ("resnet10t", {"global_pool": "token"}, 32, "global_pool=token: Invalid pool type: token"),
    ],
)
def test_what_timm_does_not_take_is_said(name: str, params: dict[str, Any], size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        networks.feature_dim(Encoder(name=f"timm/{name}", params=params), ImageFormat(size=size, channels=3))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        (
            "timm/vit_tiny_patch16_224",
            32,
            "takes images of 224 x 224 only, the study has 32 x 32; set image: {size: 224}",
        ),
        ("timm/resnet19", 32, "timm has no model 'resnet19'; did you mean 'resnet"),
        ("no_such_package:net", 32, "cannot be imported"),
        ("oodbench.training.networks:no_such", 32, "cannot be imported"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_reason(name: str, size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        networks.feature_dim(named(name), ImageFormat(size=size, channels=3))


OWN = """
from torch import nn


def flat(channels, size, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 9, bias=bias))


def map_(channels, size):
    return nn.Conv2d(channels, 4, 3)


def picky(channels, size):
    return nn.Linear(17, 3)


class Ending(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return eval(self.how)(x.flatten(1))


def ending(channels, size, how):
    return Ending(how)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)


@pytest.mark.usefixtures("own")
def test_a_users_function() -> None:
    assert networks.feature_dim(named("own_nets:flat", bias=False), ImageFormat(size=8, channels=2)) == 9


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("form", "said"),
    [
        (named("own_nets:flat", depth=3), "unexpected keyword argument 'depth'"),
        (named("own_nets:map_"), "must return features of shape"),
        (named("own_nets:picky"), "does not take images of 1 x 8 x 8"),
        (
            named("own_nets:ending", how="lambda h: h.double()"),
            r"float32 features, not torch\.float64: end",
        ),
        (named("own_nets:ending", how="lambda h: h.half()"), r"float32 features, not torch\.float16"),
        (named("own_nets:ending", how="lambda h: h.long()"), r"float32 features, not torch\.int64"),
        (named("own_nets:ending", how="lambda h: h.view(1, -1)"), "must return features of shape"),
    ],
)
def test_a_users_mistake_is_named(form: Encoder, said: str) -> None:
    with pytest.raises(UserError, match=said):
        networks.feature_dim(form, ImageFormat(size=8, channels=1))


@pytest.mark.parametrize(
    ("form", "out", "layers"),
    [
        ("linear", 7, ["Linear"]),
        ("linear-4", 4, ["Linear"]),
        ("cosine", 7, ["CosineHead"]),
        ("mlp-5", 5, ["Linear", "ReLU", "Linear"]),
        ("mlp_bn-5", 5, ["Linear", "BatchNorm1d", "ReLU", "Linear"]),
        ("mlp-20-5", 5, ["Linear", "ReLU", "Linear"]),
    ],
)
def test_heads(form: str, out: int, layers: list[str]) -> None:
    head = networks.head(form, dim=6, classes=7)
    assert head(torch.randn(3, 6)).shape == (3, out)
    assert networks.head_dim(form, 7) == out
    parts = list(head) if isinstance(head, nn.Sequential) else [head]
    assert [type(part).__name__ for part in parts] == layers
    if form == "mlp-20-5":
        assert parts[0].out_features == 20


@pytest.mark.parametrize(
    "form", ["mlp", "linear-1-2", "conv-3", "mlp-a", "linear-", "linear-0", "linear-100000", "mlp-٣"]
)
def test_what_is_no_head(form: str) -> None:
    with pytest.raises(UserError, match="there is no head"):
        networks.head(form, 6, 7)


def test_cosine_head_is_scale_times_cosine() -> None:
    head = networks.CosineHead(4, 3)
    h = torch.randn(5, 4)
    cos = nn.functional.cosine_similarity(h[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(h), 10 * cos)
    torch.testing.assert_close(head(3 * h), head(h))
