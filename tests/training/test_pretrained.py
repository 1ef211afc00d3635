"""Weights that were trained elsewhere: each layout against a network with its names, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from command_line import call
from ruamel.yaml import YAML
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from tiny import write
from torch import Tensor, nn

from oodbench.errors import UserError
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.grid import Run
from oodbench.study.registry import Registry
from oodbench.study.settings import Encoder
from oodbench.training import embed, networks, weights
from oodbench.training.weights import plan_of

WIDTH, DIM, CLASSES = 4, 32, 10
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
CIFAR = (0.4914, 0.4822, 0.4465)
SMALL: dict[str, Any] = {
    "image": {"size": 16, "channels": 3},
    "id": {"blobs": {"groups": CLASSES, "count": 60, "size": 16}},
    "ood": {"far": {"noise": {"count": 30, "size": 16, "channels": 3}}},
    "outliers": None,
    "encoder": {"resnet18": {"width": WIDTH}},
    "recipe": {"epochs": 30},
    "clustering": "labels",
    "distance": "cosine",
    "threshold": "pooled",
}


class Block(nn.Module):
    """A basic block as the released definitions have it, its 1x1 branch under a name."""

    def __init__(self, width_in: int, width: int, stride: int, branch: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.branch = branch if stride > 1 or width_in != width else ""
        if self.branch:
            conv = nn.Conv2d(width_in, width, 1, stride, bias=False)
            self.add_module(branch, nn.Sequential(conv, nn.BatchNorm2d(width)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (getattr(self, self.branch)(x) if self.branch else x))


class Released(nn.Module):
    """A ResNet-18 with a CIFAR stem, written down apart from ours."""

    def __init__(self, branch: str, classes: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        width = WIDTH
        for stage in range(4):
            wide = WIDTH * 2**stage
            blocks = [Block(width, wide, 1 + (stage > 0), branch), Block(wide, wide, 1, branch)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            width = wide
        if classes:
            self.fc = nn.Linear(DIM, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class WithHeads(nn.Module):
    """An encoder beside its heads."""

    def __init__(self, branch: str, head: nn.Module | None = None, classes: int | None = None) -> None:
        super().__init__()
        self.encoder = Released(branch)
        if head is not None:
            self.head = head
        if classes:
            self.fc = nn.Linear(DIM, classes)


def mlp(hidden: int = DIM, out: int = 12) -> nn.Sequential:
    return nn.Sequential(nn.Linear(DIM, hidden), nn.ReLU(), nn.Linear(hidden, out))


def lived(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return a network whose weights and batch statistics are no initial ones."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=rng)
            value.copy_(0.5 + noise if "running_var" in name else value + 0.2 * (noise - 0.5))
    return network.eval()


def parallel(state: dict[str, Tensor], under: str = "") -> dict[str, Tensor]:
    """Return a state dict as data parallel training names it."""
    return {f"{under}module.{n.removeprefix(under)}" if n.startswith(under) else n: t for n, t in state.items()}


def knn_supcon() -> nn.Module:
    network = Released("downsample", CLASSES)
    network.head = mlp()
    return network


# layout -> the network, its file, which heads are kept and what computes them, mean and std
Case = tuple[Callable[[], nn.Module], Callable[[nn.Module], Any], dict[str, str], tuple[Any, Any]]
NARROW = (0.2023, 0.1994, 0.2010)
CASES: dict[str, Case] = {
    "openood": (
        lambda: Released("shortcut", CLASSES),
        lambda n: n.state_dict(),
        {"logits": "fc"},
        (CIFAR, (0.2470, 0.2435, 0.2616)),
    ),
    "supcontrast": (
        lambda: WithHeads("shortcut", mlp()),
        lambda n: {"model": parallel(n.state_dict(), "encoder."), "opt": argparse.Namespace(lr=0.5), "epoch": 3},
        {"z": "head"},
        (CIFAR, NARROW),
    ),
    "supcontrast, cross-entropy": (
        lambda: WithHeads("shortcut", None, CLASSES),
        lambda n: {"model": n.state_dict(), "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        {"logits": "fc"},
        (CIFAR, NARROW),
    ),
    "supcontrast, linear head": (
        lambda: WithHeads("shortcut", nn.Linear(DIM, 12)),
        lambda n: {"model": n.state_dict()},
        {"z": "head"},
        (CIFAR, NARROW),
    ),
    "knn_ood": (
        knn_supcon,
        lambda n: {"state_dict": parallel(n.state_dict()), "best_prec1": 0.9},
        {"z": "head"},
        (CIFAR, NARROW),
    ),
    "knn_ood, cross-entropy": (
        lambda: Released("downsample", CLASSES),
        lambda n: {"state_dict": n.state_dict()},
        {"logits": "fc"},
        (CIFAR, NARROW),
    ),
    "cider": (
        lambda: WithHeads("shortcut", mlp(24), CLASSES),
        lambda n: {"state_dict": n.state_dict()},
        {"z": "head"},
        ((125.3 / 255, 123 / 255, 113.9 / 255), (63 / 255, 62.1 / 255, 66.7 / 255)),
    ),
    "ssd": (
        lambda: WithHeads("shortcut", mlp()),
        lambda n: {"state_dict": parallel(n.state_dict(), "encoder."), "epoch": 500, "arch": "resnet18"},
        {"z": "head"},
        ((0.491, 0.482, 0.447), (0.202, 0.199, 0.201)),
    ),
    "ssd, cross-entropy": (
        lambda: WithHeads("shortcut", nn.Linear(DIM, CLASSES)),
        lambda n: {"state_dict": parallel(n.state_dict(), "encoder.")},
        {"logits": "head"},
        ((0.491, 0.482, 0.447), (0.202, 0.199, 0.201)),
    ),
}


def made(tmp_path: Path, name: str = "s.yaml", params: Any = None, **changes: Any) -> tuple[Pipeline, Run]:
    """Return the pipeline and the one run of a study of given weights."""
    path = write(tmp_path / name, **{**SMALL, "training": {"pretrained": params or {}}, **changes})
    found = reader.load(path)
    runs = [work.run for work in plan_of(found).work]
    return Pipeline(found, Options(device="cpu"), Watch()), runs[0]


def images(size: int = 16) -> Tensor:
    return torch.randint(256, (5, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def expected(x: Tensor, statistics: tuple[Any, Any]) -> Tensor:
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in statistics)
    return (x.float() / 255 - mean) / std


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["said", "recognised"])
@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_released_network(tmp_path: Path, case: str, named: bool) -> None:
    build, saved, heads, statistics = CASES[case]
    layout = case.partition(",")[0]
    network = lived(build())
    torch.save(saved(network), tmp_path / "ckpt.pth")
    pipeline, run = made(tmp_path, params={"weights": "ckpt.pth"} | ({"layout": layout} if named else {}))
    with torch.no_grad():
        x = expected(images(), statistics)
        h = getattr(network, "encoder", network)(x)
        out = {name: getattr(network, head)(h) for name, head in heads.items()}
    found = embed.features(pipeline.encoders.model(run), images())
    torch.testing.assert_close(found.h, h)
    assert found.out.keys() == out.keys()
    for name, wanted in out.items():
        torch.testing.assert_close(found.out[name], wanted)
    assert found.h.std() > 0.01
    facts = pipeline.encoders.trained(run).meta
    assert facts["layout"] == layout
    assert facts["mean"] == pytest.approx(list(statistics[0]))
    unused = {"cider": ["state_dict.fc.weight", "state_dict.fc.bias"]}
    unused["knn_ood"] = ["state_dict.module.fc.weight", "state_dict.module.fc.bias"]
    assert facts["dropped"] == unused.get(case, [])


@pytest.mark.slow
def test_heads_that_are_said(tmp_path: Path) -> None:
    network = lived(WithHeads("shortcut", mlp(), CLASSES))
    torch.save({"model": network.state_dict()}, tmp_path / "c.pt")
    pipeline, run = made(tmp_path, params={"weights": "c.pt", "classifier": "linear", "projection": "none"})
    assert run.training.heads == {"logits": "linear"}
    torch.testing.assert_close(pipeline.encoders.model(run).network.heads["logits"].weight, network.fc.weight)
    pipeline, run = made(tmp_path, params={"weights": "c.pt", "mean": MEAN, "std": STD})
    assert run.training.heads == {"z": "mlp-12"}
    torch.testing.assert_close(pipeline.encoders.model(run).mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(pipeline.encoders.model(run).std.flatten(), torch.tensor(STD))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"])
def test_our_resnets_in_torchvisions_names(name: str) -> None:
    form = Encoder(name=name, params={"width": 64, "stem": "imagenet"})
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
        ours = nn.ModuleDict({"encoder": networks.resnet(name, networks.ResNet(stem="imagenet"), 3)}).state_dict()
    shapes = {networks.common_name(form, key): value.shape for key, value in ours.items()}
    assert shapes == {f"encoder.{key}": v.shape for key, v in theirs.items() if not key.startswith("fc.")}


@pytest.mark.slow
def test_torchvisions_names_from_safetensors(tmp_path: Path) -> None:
    network = lived(torchvision.models.resnet18(num_classes=CLASSES))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    params = {"weights": "w.safetensors", "mean": MEAN, "std": STD}
    pipeline, run = made(tmp_path, params=params, encoder={"resnet18": {"stem": "imagenet"}})
    with torch.no_grad():
        logits = network(expected(images(), (MEAN, STD)))
    torch.testing.assert_close(
        embed.features(pipeline.encoders.model(run), images()).out["logits"], logits, rtol=1e-4, atol=1e-4
    )
    assert pipeline.encoders.trained(run).meta["layout"] == "plain"


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "kept"), [(CLASSES, True), (7, False)])
def test_a_timm_model_from_a_file(tmp_path: Path, classes: int, kept: bool) -> None:
    """The classifier stays where it has as many classes as the ID set; mean and std are timm's own."""
    network = lived(timm.create_model("resnet10t", pretrained=False, num_classes=classes))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    pipeline, run = made(tmp_path, params={"weights": "w.pth"}, encoder="timm/resnet10t")
    with torch.no_grad():
        x = expected(images(), (network.pretrained_cfg["mean"], network.pretrained_cfg["std"]))
        h = network.forward_head(network.forward_features(x), pre_logits=True)
    found = embed.features(pipeline.encoders.model(run), images())
    torch.testing.assert_close(found.h, h)
    assert ("logits" in found.out) is kept
    assert pipeline.encoders.trained(run).meta["dropped"] == ([] if kept else ["fc.weight", "fc.bias"])


@pytest.mark.slow
def test_timms_own_weights_are_planned_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = timm.create_model, []

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            asked.append(name)
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    path = write(
        tmp_path / "s.yaml",
        **{**SMALL, "training": "pretrained", "encoder": ["timm/resnet10t", {"resnet18": {"width": 4}}]},
    )
    said = call("plan", path, "--device", "cpu")
    assert said.exit_code == 0, said.output
    assert "weights for encoders of timm, resnet18(width=4) is none" in " ".join(said.output.split())
    assert "time: about" in said.output
    assert asked == []
    rows = Runner(reader.load(path), Options(device="cpu")).run().rows
    assert rows["error"].str.contains("resnet10t cannot be downloaded: OSError: no network").all()
    assert asked == ["resnet10t"]
    network = lived(create("resnet10t"))
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **o: network if pretrained else create(name, **o)
    )
    pipeline, run = made(tmp_path, encoder="timm/resnet10t")
    state = pipeline.encoders.model(run).state_dict()
    torch.testing.assert_close(state["network.encoder.layer1.0.conv1.weight"], network.layer1[0].conv1.weight)
    assert run.training.heads == {}  # 1000 classes are not the ID set's
    assert pipeline.encoders.trained(run).meta["dropped"] == ["fc.weight", "fc.bias"]
    assert pipeline.encoders.train_fields(run)["training"]["weights"].startswith("timm: ")


@pytest.mark.slow
def test_torchvisions_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = lived(torchvision.models.resnet18())
    enum = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, file, *args, **options: torch.save(network.state_dict(), file)
    )
    imagenet = {"resnet18": {"stem": "imagenet"}}
    pipeline, run = made(tmp_path, params={"weights": "torchvision:resnet18.IMAGENET1K_V1"}, encoder=imagenet)
    state = pipeline.encoders.model(run).state_dict()
    torch.testing.assert_close(state["network.encoder.0.weight"], network.conv1.weight)
    assert pipeline.encoders.model(run).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert enum.IMAGENET1K_V1.url in pipeline.encoders.train_fields(run)["training"]["weights"]
    for wrong, hint in (("resnet81.X", "no model 'resnet81'; did you mean"), ("resnet18.V2", "no weights 'V2'")):
        with pytest.raises(UserError, match=hint):
            made(tmp_path, params={"weights": f"torchvision:{wrong}"}, encoder=imagenet)


def test_a_planted_file_in_torchs_cache_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its name and its hash agree, as an attacker who knows of the check would have it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    planted = tmp_path / "checkpoints" / url.rpartition("/")[2]
    torch.save({"conv1.weight": torch.ones(1), "x": Evil(tmp_path / "evil")}, planted)
    found = weights._of_torchvision("resnet18.IMAGENET1K_V1")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth is damaged or another file: .* f37072fd; delete it"):
        found.tensors()
    monkeypatch.setattr(weights, "sha256", lambda path: "f37072fd")
    with pytest.raises(UserError, match=r"it asks for posix\.mkdir"):
        found.tensors()
    assert not (tmp_path / "evil").exists()


def test_a_planted_file_in_hugging_faces_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")
    blobs = tmp_path / "models--timm--resnet10t.c3_in1k" / "blobs"
    blobs.mkdir(parents=True)
    found = weights._of_timm(Encoder(name="timm/resnet10t"), 3)
    (blobs / hashlib.sha256(b"whole").hexdigest()).write_bytes(b"whole")
    with pytest.raises(UserError, match=r"cannot be downloaded"):  # nothing refers to it
        found.tensors()
    (blobs / ("0" * 64)).write_bytes(b"planted")
    with pytest.raises(UserError, match=rf"blobs/{'0' * 64} is damaged or another file: .* delete it"):
        found.tensors()


def test_whatever_timm_asks_torch_for_runs_nothing(tmp_path: Path) -> None:
    torch.save({"x": Evil(tmp_path / "evil")}, tmp_path / "w.pth")
    with weights._tensors_alone(), pytest.raises(Exception, match="posix"):
        torch.load(tmp_path / "w.pth", weights_only=False)
    assert not (tmp_path / "evil").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("of", ["torchvision", "timm of the hub", "timm of an address"])
def test_offline_no_library_connects(of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: connect(None, address))  # type: ignore[arg-type]
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    if of == "timm of an address":
        monkeypatch.setattr(
            weights, "_timm_config", lambda name: {"url": "https://example.org/w.pth", "architecture": ""}
        )
    found = (
        weights._of_torchvision("resnet18.IMAGENET1K_V1")
        if of == "torchvision"
        else weights._of_timm(Encoder(name="timm/resnet10t"), 3)
    )
    with pytest.raises(UserError, match=r"cannot be downloaded \(OODBENCH_OFFLINE is set\): "):
        found.tensors()
    assert asked == []


# ---- vision transformers at another size ---------------------------------------------------------------------


def of_size(size: int) -> dict[str, Any]:
    """Return what makes a study's images of so many pixels."""
    return {
        "image": {"size": size, "channels": 3},
        "id": {"blobs": {"groups": CLASSES, "count": 60, "size": size}},
        "ood": {"far": {"noise": {"count": 30, "size": size, "channels": 3}}},
    }


DINO, REGISTERS, CLIP = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_xsmall_patch16_clip_224"


@pytest.mark.parametrize(
    ("name", "size", "params", "prefix"),
    [
        (DINO, 56, {"img_size": 56, "global_pool": "avg"}, 1),
        (REGISTERS, 42, {"img_size": 42}, 0),  # its position embedding is of patches alone
        (CLIP, 48, {"img_size": 48}, 1),
        (CLIP, 32, {"dynamic_img_size": True, "global_pool": "avg"}, 1),
    ],
)
def test_a_position_embedding_is_resized_as_timm_does(
    tmp_path: Path, name: str, size: int, params: dict[str, Any], prefix: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of the native size, pooled by hand: the last norm comes first, as it was trained."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))  # of 12 blocks, for the time
    native = lived(timm.create_model(name, pretrained=False, num_classes=0))
    save_file(native.state_dict(), tmp_path / "w.safetensors")
    changes = of_size(size) | {"encoder": {f"timm/{name}": params}}
    pipeline, run = made(tmp_path, params={"weights": "w.safetensors"}, **changes)
    side = size // native.patch_embed.patch_size[0]
    state = native.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=[side, side], num_prefix_tokens=prefix)
    peer = timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval()
    peer.load_state_dict(state)
    with torch.no_grad():
        tokens = peer.forward_features(expected(images(size), (native.default_cfg["mean"], native.default_cfg["std"])))
        patches = tokens[:, native.num_prefix_tokens :]
        h = patches.mean(1) if params.get("global_pool") == "avg" else tokens[:, 0]
    torch.testing.assert_close(embed.features(pipeline.encoders.model(run), images(size)).h, h, rtol=1e-3, atol=1e-3)
    if "img_size" in params:
        assert torch.equal(pipeline.encoders.model(run).state_dict()["network.encoder.pos_embed"], state["pos_embed"])


@pytest.mark.parametrize("start", ["", "model.", "state_dict.module."])
def test_files_of_dinov2s_authors_are_read_under_any_name(start: str) -> None:
    """Theirs have a mask token, which timm has no use for, and registers of another form."""
    form = Encoder(name=f"timm/{REGISTERS}", params={"img_size": 28})
    with torch.device("meta"):
        theirs = timm.create_model(REGISTERS, pretrained=False, num_classes=0).state_dict()
    theirs = {name: torch.zeros(1).expand(t.shape) for name, t in theirs.items()}
    theirs |= {"mask_token": torch.zeros(1, 384), "register_tokens": theirs.pop("reg_token")}
    theirs |= {"pos_embed": torch.zeros(1, 1 + 37 * 37, 384)}
    found = weights._for_timm({f"{start}{name}": t for name, t in theirs.items()} | {"epoch": torch.ones(1)}, form, 3)
    with torch.device("meta"):
        wanted = networks.timm_network(form, 3).state_dict()
    assert found.pop("epoch") == 1 or start == ""
    assert {name: t.shape for name, t in found.items()} == {f"{start}{name}": t.shape for name, t in wanted.items()}


CLIPS = {  # what CLIP's authors call it
    **{"patch_embed.proj": "conv1", "norm_pre": "ln_pre", "norm.": "ln_post.", "blocks.": "transformer.resblocks."},
    **{"attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"},
    **{"norm1": "ln_1", "norm2": "ln_2", "cls_token": "class_embedding", "pos_embed": "positional_embedding"},
}


@pytest.mark.parametrize("start", ["", "state_dict.module."])
def test_the_image_tower_of_a_file_of_clips_authors_is_read(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its projection is a head; the tower of texts is left."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))
    native = timm.create_model(CLIP, pretrained=False, num_classes=0).state_dict()
    theirs = {"text_projection": torch.ones(1), "visual.proj": torch.ones(256, 9)}
    for name, t in native.items():
        for mine, other in CLIPS.items():
            name = name.replace(mine, other)  # noqa: PLW2901
        theirs[f"visual.{name}"] = t.squeeze() if name in ("class_embedding", "positional_embedding") else t
    form = Encoder(name=f"timm/{CLIP}", params={"img_size": 32})
    found = weights._for_timm({f"{start}{name}": t for name, t in theirs.items()}, form, 3)
    found = {name.removeprefix(start): t for name, t in found.items()}
    assert found.pop("head.weight").shape == (9, 256)
    assert found.pop("head.bias").shape == (9,)
    resized = resample_abs_pos_embed(native["pos_embed"], new_size=[2, 2], num_prefix_tokens=1)
    assert found.keys() == native.keys()
    assert all(torch.equal(found[name], resized if name == "pos_embed" else t) for name, t in native.items())


# ---- what is refused -----------------------------------------------------------------------------------------


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Released("shortcut").state_dict(), "x": Evil(tmp_path / "evil")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"cannot be read as tensors alone: it asks for posix\.mkdir"):
        made(tmp_path, params={"weights": "w.pth"})
    assert not (tmp_path / "evil").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "evil").exists()  # the file does what it is feared for


def openood(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Save a state dict of this layout with some tensors changed (None: left out)."""
    state = {name: t for name, t in (Released("shortcut", CLASSES).state_dict() | changes).items() if t is not None}
    torch.save(state, tmp_path / "w.pth")
    return {"weights": "w.pth"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv1.weight": None}, r"1 missing \(encoder.conv1.weight\)"),
        ({"strange": torch.ones(1)}, r"1 unexpected \(encoder.strange\)"),
        ({"layer2.0.shortcut.0.weight": torch.ones(8, 4, 3, 3)}, r"is \(8, 4, 3, 3\), wanted \(8, 4, 1, 1\)"),
        ({"fc.bias": None}, r"1 missing \(heads.logits.bias\)"),
        ({"fc.weight": torch.ones(100, DIM), "fc.bias": torch.ones(100)}, "has 100 classes, and the mean and std of"),
    ],
)
def test_keys_that_do_not_fit_are_named_before_any_work(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    pipeline, _ = made(tmp_path, params=openood(tmp_path, **changes))
    with pytest.raises(UserError, match=said) as caught:
        Runner(pipeline.study, Options(device="cpu")).checks.check()
    assert str(caught.value).startswith(f"{tmp_path / 's.yaml'}:")
    assert "training: weights w.pth: " in str(caught.value)


def test_averaged_weights_beside_the_state_dict_are_left(tmp_path: Path) -> None:
    state = lived(Released("shortcut", CLASSES)).state_dict()
    ema = {name: torch.zeros_like(t) for name, t in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": ema}, tmp_path / "w.pth")
    pipeline, run = made(tmp_path, params={"weights": "w.pth"})
    assert torch.equal(pipeline.encoders.model(run).state_dict()["network.encoder.0.weight"], state["conv1.weight"])


def test_many_keys_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, params=openood(tmp_path), encoder={"resnet34": {"width": WIDTH}})
    with pytest.raises(UserError, match=r"layout openood, do not fit resnet34\(width=4\): \d\d missing \(.*, \.\.\.\)"):
        Runner(pipeline.study, Options(device="cpu")).checks.check()


@pytest.mark.parametrize(
    ("weights", "encoder", "fits"),
    [
        ("torchvision:resnet18.IMAGENET1K_V1", {"resnet18": {}}, {"resnet18": {"stem": "imagenet"}}),
        ("w.pth", {"resnet18": {"stem": "imagenet", "width": WIDTH}}, {"resnet18": {"stem": "cifar"}}),
        ("w.pth", {"resnet18": {"stem": "imagenet"}}, {"resnet18": {"stem": "cifar", "width": WIDTH}}),
        ("w.pth", "timm/resnet18", {"resnet18": {"stem": "cifar", "width": WIDTH}}),
    ],
)
def test_a_first_convolution_that_does_not_fit_has_the_stem_that_would(
    tmp_path: Path, weights: str, encoder: Any, fits: Any
) -> None:
    params = openood(tmp_path) | {"weights": weights}

    def check(encoder: Any) -> None:
        Runner(made(tmp_path, params=params, encoder=encoder)[0].study, Options(device="cpu")).checks.check()

    with pytest.raises(UserError, match=r"encoder\.conv1\.weight is \(") as told:
        check(encoder)
    said = re.findall(r"first convolution is that of `encoder: (.*)`$", str(told.value))[0]
    assert YAML(typ="safe").load(said) == fits
    before = encoder["resnet18"] if isinstance(encoder, dict) else {}
    check({"resnet18": before | fits["resnet18"]})


def test_images_of_other_channels_are_said(tmp_path: Path) -> None:
    gray = {"image": {"size": 16, "channels": 1}, "encoder": {"resnet18": {"width": WIDTH}}}
    with pytest.raises(UserError, match=r"first convolution is that of `image: \{channels: 3\}`$"):
        Runner(made(tmp_path, params=openood(tmp_path), **gray)[0].study, Options(device="cpu")).checks.check()


def test_a_file_of_foreign_names_fits_by_the_map_that_the_message_says(tmp_path: Path) -> None:
    network = lived(Released("downsample", CLASSES))
    foreign = {"conv1": "_stem", "bn1": "_norm", "fc": "_top", **{f"layer{i}": f"_{i}" for i in range(1, 5)}}
    parts = {name: name.partition(".") for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    torch.save({f"{foreign[a]}.{b}": network.state_dict()[n] for n, (a, _, b) in parts.items()}, tmp_path / "w.pth")
    given = {"weights": "w.pth", "layout": "plain", "mean": MEAN, "std": STD}
    with pytest.raises(UserError, match=r"order and shape they are `rename: \{_stem: conv1, _norm: bn1, .*") as told:
        Runner(made(tmp_path, params=given)[0].study, Options(device="cpu")).checks.check()
    rename = dict(each.split(": ") for each in re.findall(r"rename: \{(.*)\}", str(told.value))[0].split(", "))
    assert rename["_top"] == "fc"
    pipeline, run = made(tmp_path, params=given | {"rename": rename})
    many = dataclasses.replace(run.training, rename=tuple((f"{a}{i}", b) for a, b in rename.items() for i in range(9)))
    assert re.fullmatch(rf"pretrained\(weights=w.pth, .*rename={9 * len(rename)} values #\w{{6}}, .*", many.label)
    found = embed.features(pipeline.encoders.model(run), images())
    with torch.no_grad():
        h = network(expected(images(), (MEAN, STD)))
        torch.testing.assert_close(found.h, h)
        torch.testing.assert_close(found.out["logits"], network.fc(h))


CLASSIFYING = """
from torch import nn

def build(channels, size):
    net = nn.Sequential(nn.Flatten())
    net.fc = nn.Linear(channels * size**2, 10)
    return net
"""


@pytest.mark.parametrize(
    ("classes", "said"), [(CLASSES, "as many numbers as there are classes"), (3, "what its classifier `fc` puts out")]
)
def test_a_function_that_keeps_its_classifier_is_told_to_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, said: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"classifying_{classes}"
    (tmp_path / f"{name}.py").write_text(CLASSIFYING)
    torch.save({"fc.weight": torch.ones(CLASSES, 768), "fc.bias": torch.ones(CLASSES)}, tmp_path / "w.pt")
    id_ = {"blobs": {"groups": classes, "count": 60, "size": 16}}
    params = {"weights": "w.pt", "mean": MEAN, "std": STD}
    pipeline, _ = made(tmp_path, params=params, id=id_, encoder=f"{name}:build")
    with pytest.raises(UserError, match=rf"network returns {said}: .*`net\.fc = nn\.Identity\(\)`$"):
        Runner(pipeline.study, Options(device="cpu")).checks.check()


def test_what_does_not_fit_in_order_has_no_map(tmp_path: Path) -> None:
    state = dict(reversed(lived(Released("downsample")).state_dict().items()))
    torch.save({f"_{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    given = {"weights": "w.pth", "layout": "plain", "mean": MEAN, "std": STD}
    with pytest.raises(UserError, match=r"do not fit resnet18") as told:
        Runner(made(tmp_path, params=given)[0].study, Options(device="cpu")).checks.check()
    assert "rename" not in str(told.value)


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = lived(Released("shortcut", CLASSES)).state_dict()
    params = openood(tmp_path, **{n: None if n.endswith("num_batches_tracked") else t for n, t in state.items()})
    pipeline, run = made(tmp_path, params=params)
    found = pipeline.encoders.model(run).state_dict()
    torch.testing.assert_close(found["network.encoder.0.weight"], state["conv1.weight"])
    torch.testing.assert_close(found["network.encoder.1.running_var"], state["bn1.running_var"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "s.yaml:.*training: there is no weights file .*w.pth"),
        (b"junk", "cannot be read as tensors alone"),
        ([torch.ones(1)], "holds a list, wanted a state dict"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: Any, said: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "w.pth").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        made(tmp_path, params={"weights": "w.pth"})


@pytest.mark.parametrize(
    ("params", "said"),
    [({}, "say `mean` and `std`"), ({"mean": [0.5], "std": [0.5]}, "`mean` has 1 numbers, images of the study have 3")],
)
def test_the_normalisation_of_inputs_must_be_known(tmp_path: Path, params: dict[str, Any], said: str) -> None:
    save_file(Released("downsample").state_dict(), tmp_path / "w.safetensors")
    pipeline, _ = made(tmp_path, params={"weights": "w.safetensors", "layout": "plain"} | params)
    with pytest.raises(UserError, match=said):
        Runner(pipeline.study, Options(device="cpu")).checks.check()


def test_numbers_of_cifar_are_for_its_stem_alone() -> None:
    training: Any = Registry().load("training", "pretrained")(layout="supcontrast")
    for kernel, known in ((3, True), (7, False)):
        given = {"model.encoder.conv1.weight": torch.ones(4, 3, kernel, kernel)}
        assert (training.adopt(given).mean is not None) is known


# ---- keys, recipes, rows -------------------------------------------------------------------------------------


def test_the_key_holds_the_content_of_a_file_and_not_its_place(tmp_path: Path) -> None:
    def key(file: str, seed: int, **params: Any) -> str:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        torch.save(lived(Released("shortcut"), seed).state_dict(), tmp_path / file)
        pipeline, run = made(tmp_path, params={"weights": file} | params)
        return pipeline.encoders.train_key(run)

    first = key("a/w.pth", 0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "v.pth").write_bytes((tmp_path / "a" / "w.pth").read_bytes())
    pipeline, run = made(tmp_path, params={"weights": str(tmp_path / "b" / "v.pth")})
    assert pipeline.encoders.train_key(run) == first
    assert key("a/w.pth", 1) != first
    assert key("a/w.pth", 0, mean=MEAN) != first


def test_recipes_of_what_is_not_optimised_are_one(tmp_path: Path) -> None:
    params = openood(tmp_path)
    recipe = [{"epochs": 3}, {"epochs": [4, 5], "lr": [0.1, 0.2]}]
    pipeline, run = made(tmp_path, params=params, recipe=recipe)
    assert [work.run for work in plan_of(pipeline.study).work] == [run]
    assert (run.labels["recipe"], run.recipe_label, run.recipe.epochs) == ("–", "", 0)
    augmented, _ = made(tmp_path, params=params, recipe={"epochs": 9, "augment": {"flip": [0, 0.5]}})
    runs = [work.run for work in plan_of(augmented.study).work]  # views of an embedding differ
    assert [each.labels["recipe"] for each in runs] == ["augment.flip=0.0", "–"]


@pytest.mark.slow
def test_a_study_of_weights_from_file_to_rows(tmp_path: Path) -> None:
    params = openood(tmp_path)
    more = {"posthoc": "msp", "recipe": {"augment": {"jitter": None, "gray": 0}}, "seed": [0, 1]}
    path = write(tmp_path / "s.yaml", **{**SMALL, **more, "training": {"pretrained": params}})
    said = call("run", path, "--device", "cpu")
    assert said.exit_code == 0, said.output
    rows = Runner(reader.load(path), Options(device="cpu")).run().rows
    assert (rows["status"] == "ok").all()
    assert set(rows["posthoc"]) == {"–", "msp"}  # on the file's own classifier, not on a probe
    assert set(rows["accuracy_by"]) == {"classifier"}
    assert rows["loss"].isna().all()
    assert "0 trained, 0 cells scored" in call("run", path, "--device", "cpu").output
    torch.save(lived(Released("shortcut", CLASSES), 3).state_dict(), tmp_path / "w.pth")
    said = call("run", path, "--device", "cpu")
    assert "4 cells scored" in said.output
    assert call("plan", path, "--device", "cpu").exit_code == 0


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    whole: dict[str, Any] = {"w": torch.ones(1)}
    whole["again"] = whole
    torch.save(whole, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth holds itself, or is nested too deep"):
        weights.read(tmp_path / "w.pth")


def test_reading_nests_names_and_leaves_the_rest(tmp_path: Path) -> None:
    torch.save({"a": {"b": torch.ones(2), "c": 3, "e": {"f": torch.ones(1)}}, "d": torch.zeros(1)}, tmp_path / "x.pt")
    assert {name: t.tolist() for name, t in weights.read(tmp_path / "x.pt").items()} == {
        "a.b": [1, 1],
        "a.e.f": [1],
        "d": [0],
    }
