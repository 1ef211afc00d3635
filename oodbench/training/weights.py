"""Weights that were trained elsewhere: where they are, what is in them, and how they get into a network.

Nothing but tensors is ever read from a file: safetensors, or torch.load with weights_only. What a plan needs, names and
shapes, comes without a download.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from oodbench.api import Training, Weights
from oodbench.errors import UserError, of_machine, suggestion
from oodbench.store.artifacts import sha256
from oodbench.study.grid import Plan, plan
from oodbench.study.settings import RESNETS, TIMM, Encoder, flat
from oodbench.study.study import Study
from oodbench.toolkit.offline import OFFLINE, hub, offline
from oodbench.training import networks

TORCHVISION = "torchvision:"
HARMLESS = "num_batches_tracked"  # of batch norm, not used in evaluation; old files lack it
FIRST = "encoder.conv1.weight"  # of a ResNet
STEMS = {3: "cifar", 7: "imagenet"}  # by the side of its kernel
SHOWN = 3  # names of each kind in an error
# What a vision transformer's file has; timm's reading knows the towers by these, without what a checkpoint puts before.
POSITIONS = ("visual.class_embedding", "visual.trunk.pos_embed", "visual.pos_embed", "pos_embed")


class WeightsSource(NamedTuple):
    """Where weights come from."""

    title: str
    file: Path | None  # None: a download
    content: Callable[[], str]  # what tells them from others: a hash, or a versioned name
    shapes: Callable[[], dict[str, Tensor]]  # name -> tensor on the meta device
    tensors: Callable[[], dict[str, Tensor]]
    mean: tuple[float, ...] | None = None  # of the network's inputs, where the source tells
    std: tuple[float, ...] | None = None


def source(training: Training, form: Encoder, channels: int, folder: Path) -> WeightsSource:
    """Return where a training's weights come from; paths are relative to a folder. Raises UserError."""
    where = training.weights
    assert where is not None
    if where == TIMM:
        return _of_timm(form, channels)
    if where.startswith(TORCHVISION):
        return _of_torchvision(where.removeprefix(TORCHVISION))
    return _of_file(folder / Path(where).expanduser(), form, channels)


def plan_of(study: Study) -> Plan:
    """Return the cells of a study, in the order of its file."""
    return plan(study, bound)


def bound(training: Training, form: Encoder, channels: int, classes: int | None, folder: Path) -> Training:
    """Return a training with the heads that its weights bring for so many ID classes."""
    given = source(training, form, channels, folder)
    return _about(given, lambda: training.bound(given.shapes(), classes))


def check(training: Training, form: Encoder, channels: int, folder: Path, state: dict[str, Tensor]) -> None:
    """Raise UserError where a network's state (any device) cannot take a training's weights; downloads nothing."""
    given = source(training, form, channels, folder)
    _about(given, lambda: _placed(training.adopt(given.shapes()), form, state))
    _about(given, lambda: _statistics(given, training.adopt(given.shapes()), channels))


class Loaded(NamedTuple):
    state: dict[str, Tensor]  # of the network
    mean: tuple[float, ...]
    std: tuple[float, ...]
    facts: dict[str, Any]  # what a run's file says of them


def load(training: Training, form: Encoder, channels: int, folder: Path, state: dict[str, Tensor]) -> Loaded:
    """Return a network's state with a training's weights, and the normalisation of its inputs."""
    given = source(training, form, channels, folder)
    taken = _about(given, lambda: training.adopt(given.tensors()))
    placed = _about(given, lambda: _placed(taken, form, state))
    mean, std = _about(given, lambda: _statistics(given, taken, channels))
    facts = {"weights": given.title, "content": given.content(), "layout": taken.layout, "dropped": list(taken.dropped)}
    return Loaded(placed, mean, std, facts | {"mean": list(mean), "std": list(std)})


T = TypeVar("T")


def _about(given: WeightsSource, look: Callable[[], T]) -> T:
    try:
        return look()
    except UserError as error:
        raise UserError(f"weights {given.title}: {error}") from error


# ---- into a network ------------------------------------------------------------------------------------------


def _placed(taken: Weights, form: Encoder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state with the weights in the place of its own. Raises UserError where they do not fit."""
    wanted = {networks.common_name(form, name): name for name in state}
    missing = [name for name in wanted if name not in taken.tensors and not name.endswith(HARMLESS)]
    unexpected = [name for name in taken.tensors if name not in wanted]
    other = [
        f"{name} is {tuple(t.shape)}, wanted {tuple(state[wanted[name]].shape)}"
        for name, t in taken.tensors.items()
        if name in wanted and t.shape != state[wanted[name]].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    wrong = [f"{len(each)} {kind} ({_first(each)})" for kind, each in kinds.items() if each]
    if wrong:
        renamed = _proposed(taken.tensors, unexpected, {name: state[wanted[name]] for name in missing})
        first = _stem(taken.tensors.get(FIRST), state.get(wanted.get(FIRST, "")), form)
        hint = renamed + first + _classifying(taken.tensors, state, missing, form)
        raise UserError(f"read as layout {taken.layout}, do not fit {form.label}: {'; '.join(wrong)}{hint}")
    return state | {wanted[name]: t for name, t in taken.tensors.items()}


def _classifying(given: dict[str, Tensor], state: dict[str, Tensor], missing: list[str], form: Encoder) -> str:
    """Return what to change in a user's function whose network seems to hold its classifier; else ""."""
    own, wanted = (each.get("heads.logits.weight") for each in (given, state))  # (C, D)
    logits = own is not None and wanted is not None and own.shape != wanted.shape and wanted.shape[1] == len(own)
    if not form.module or not (logits or any(name.startswith("encoder.fc.") for name in missing)):
        return ""
    returns = "as many numbers as there are classes" if logits else "what its classifier `fc` puts out"
    return f"; the function's network returns {returns}: let it return features, as by `net.fc = nn.Identity()`"


def _stem(given: Tensor | None, wanted: Tensor | None, form: Encoder) -> str:
    """Return what a study would say for the first convolution (O, C, k, k) to be that of the weights; else ""."""
    name = form.name.removeprefix(f"{TIMM}/").partition(".")[0]
    if given is None or wanted is None or given.ndim != 4 or given.shape == wanted.shape or name not in RESNETS:
        return ""
    width, channels, side = given.shape[:3]
    params = [f"stem: {STEMS[side]}"] if side in STEMS and side != wanted.shape[2] else []
    params += [f"width: {width}"] if width != wanted.shape[0] else []
    said = [f"`encoder: {{{name}: {{{', '.join(params)}}}}}`"] if params else []
    said += [f"`image: {{channels: {channels}}}`"] if channels != wanted.shape[1] else []
    return f"; their first convolution is that of {' and '.join(said)}" if said else ""


def _proposed(given: dict[str, Tensor], unexpected: list[str], missing: dict[str, Tensor]) -> str:
    """Return a map of names to say, where tensors that are left fit those that lack, in order; else ""."""
    left = [name for name in unexpected if not name.endswith(HARMLESS)]
    targets = dict(missing)
    if [given[name].ndim for name in left[len(missing) :]] == [2, 1]:  # the classifier comes last
        targets |= {f"encoder.fc.{part}": given[name] for part, name in zip(("weight", "bias"), left[-2:], strict=True)}
    if not left or [given[name].shape for name in left] != [each.shape for each in targets.values()]:
        return ""
    renamed: dict[str, str] = {}
    for old, new in zip(left, targets, strict=True):
        olds, news = (name.removeprefix("encoder.").split(".") for name in (old, new))
        if olds[-1] != news[-1]:
            return ""
        while olds[1:] and news[1:] and olds[-1] == news[-1]:
            del olds[-1], news[-1]
        renamed[".".join(olds)] = ".".join(news)
    return f"; by order and shape they are `rename: {{{', '.join(f'{old}: {new}' for old, new in renamed.items())}}}`"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _statistics(given: WeightsSource, taken: Weights, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = taken.mean or given.mean, taken.std or given.std
    if mean is None or std is None:
        raise UserError("the mean and standard deviation of its inputs are not known; say `mean` and `std`")
    for name, each in (("mean", mean), ("std", std)):
        if len(each) != channels:
            raise UserError(f"`{name}` has {len(each)} numbers, images of the study have {channels} channels")
    return mean, std


# ---- sources -------------------------------------------------------------------------------------------------


def _of_file(file: Path, form: Encoder, channels: int) -> WeightsSource:
    if not file.is_file():
        raise UserError(f"there is no weights file {file}")
    stamp = (file.stat().st_size, file.stat().st_mtime_ns)
    mean, std = _timm_statistics(form)
    return WeightsSource(
        title=file.name,
        file=file,
        content=lambda: _hash(file, *stamp),
        shapes=lambda: _renamed(_shapes(file, *stamp, form.name, tuple(form.params.items()), channels), form),
        tensors=lambda: _renamed(_for_timm(read(file), form, channels), form),
        mean=mean,
        std=std,
    )


@cache
def _hash(file: Path, size: int, changed: int) -> str:
    return sha256(file)


@cache
def _shapes(
    file: Path, size: int, changed: int, encoder: str, params: tuple[tuple[str, Any], ...], channels: int
) -> dict[str, Tensor]:
    form = Encoder(name=encoder, params=dict(params))
    return {name: t.to("meta") for name, t in _for_timm(read(file), form, channels).items()}


def _for_timm(given: dict[str, Tensor], form: Encoder, channels: int) -> dict[str, Tensor]:
    """Return the tensors of a file as timm's own loading would have them for an encoder of timm.

    Where they do not fit the network, the model's `checkpoint_filter_fn` of timm has its say: it resizes the position
    embedding to the network's grid (bicubic), and knows the names of DINOv2's and CLIP's own files.
    """
    if not form.name.startswith("timm/"):
        return given
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = networks.timm_network(form, channels)
    starts = (name.removesuffix(mark) for mark in POSITIONS for name in given if name.endswith(mark))
    start = next((each for each in starts if not each or each.endswith(".")), "")  # of a checkpoint's names
    inside = {name.removeprefix(start): t for name, t in given.items() if name.startswith(start)}
    wanted = network.state_dict()
    if all(name in inside and inside[name].shape == t.shape for name, t in wanted.items()):
        return given
    reading = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if reading is None:
        return given
    try:
        read_by_timm: dict[str, Tensor] = reading(inside, network)
    except Exception:  # noqa: BLE001 - of a file for another network; the message on names and shapes says more
        return given
    return {name: t for name, t in given.items() if not name.startswith(start)} | {
        f"{start}{name}": t for name, t in read_by_timm.items()
    }


def read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, nested ones with dots. Whatever else is in it is left, code is refused."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # argparse's plain bag of options stands in many checkpoints; it runs nothing
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(file, map_location="cpu", weights_only=True)
        tensors = flat(found) if isinstance(found, dict) else {}
    except RecursionError as error:
        raise UserError(f"{file} holds itself, or is nested too deep to be a state dict") from error
    except Exception as error:  # of many kinds, by what is wrong with the file
        if of_machine(error):
            raise
        asks = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's own advice is to read it all the same
        what = f"it asks for {asks[1]}; save its state dict alone" if asks else _told(error)
        raise UserError(f"{file} cannot be read as tensors alone: {what}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds a {type(found).__name__}, wanted a state dict, or a checkpoint with one")
    return {name: t for name, t in tensors.items() if isinstance(t, Tensor)}


def _of_timm(form: Encoder, channels: int) -> WeightsSource:
    import timm

    name = form.name.removeprefix("timm/")
    config = _timm_config(form.name)
    if not (config.get("url") or config.get("hf_hub_id")):
        raise UserError(
            f"timm has no weights of {name}{suggestion(name, timm.list_models(pretrained=True, filter=name[:4] + '*'))}"
        )

    def tensors() -> dict[str, Tensor]:
        try:
            if config.get("hf_hub_id"):
                _check_cached(config["hf_hub_id"])
            else:
                _checkpoint(config["url"])
            with hub(), _tensors_alone():
                model = timm.create_model(name, pretrained=True, in_chans=channels, **networks.timm_options(form))
        except Exception as error:  # of many kinds: no network, no such file there, a broken download
            raise _unreached(name, error) from error
        return _renamed(model.state_dict(), form)

    def shapes() -> dict[str, Tensor]:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return _renamed(networks.timm_network(form, channels, classes=None).state_dict(), form)

    mean, std = _timm_statistics(form)
    content = f"timm: {config.get('hf_hub_id') or config.get('url')}"
    return WeightsSource(
        f"{config['architecture']}.{config.get('tag') or ''} of timm", None, lambda: content, shapes, tensors, mean, std
    )


def _of_torchvision(name: str) -> WeightsSource:
    from torchvision import models

    model, _, version = name.partition(".")
    if model not in models.list_models():
        raise UserError(f"torchvision has no model '{model}'{suggestion(model, models.list_models())}")
    versions = models.get_model_weights(model).__members__
    if version not in versions:
        raise UserError(f"torchvision's {model} has no weights '{version}'{suggestion(version, versions)}")
    weights = versions[version]
    views = weights.transforms()

    def shapes() -> dict[str, Tensor]:
        with torch.device("meta"):
            found: dict[str, Tensor] = models.get_model(model, weights=None).state_dict()
        return found

    title, content = f"{name} of torchvision", f"torchvision: {weights.url}"
    mean, std = tuple(views.mean), tuple(views.std)
    return WeightsSource(title, None, lambda: content, shapes, lambda: read(_checkpoint(weights.url)), mean, std)


def _checkpoint(url: str) -> Path:
    """Return the file of an address in torch's cache, downloaded where it is not there.

    Raises UserError where it cannot be, and where it is another file than its name says, which holds the start of its
    SHA-256.
    """
    name = url.rpartition("/")[2]
    file = Path(torch.hub.get_dir(), "checkpoints", name)
    digest = torch.hub.HASH_REGEX.search(name)
    if file.is_file():
        if digest and not sha256(file).startswith(digest[1]):
            raise UserError(
                f"{file} is damaged or another file: its SHA-256 does not start with {digest[1]}; delete it"
            )
        return file
    try:
        if offline():
            raise FileNotFoundError(f"there is no {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digest[1] if digest else None, progress=False)
    except Exception as error:  # of many kinds: no network, no such file there, a broken download
        raise _unreached(name, error) from error
    return file


def _check_cached(repository: str) -> None:
    """Refuse files in Hugging Face's cache that are not what their names say, which are their SHA-256."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "blobs")
    for blob in blobs.glob("?" * 64):
        if sha256(blob) != blob.name:
            raise UserError(f"{blob} is damaged or another file: its SHA-256 is not its name; delete it")


def _unreached(name: str, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"{name} cannot be downloaded{f' ({OFFLINE} is set)' if offline() else ''}: {_told(error)}")


def _told(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let torch run nothing that comes with a file, whatever a library asks it to."""
    name, before = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


@cache
def _timm_config(form_name: str) -> dict[str, Any]:
    import timm

    name = form_name.removeprefix("timm/")
    if not timm.is_model(name.partition(".")[0]):
        raise UserError(f"timm has no model '{name}'")
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config else {}  # type: ignore[no-untyped-call]


def _timm_statistics(form: Encoder) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    config = _timm_config(form.name) if form.name.startswith("timm/") else {}
    return config.get("mean"), config.get("std")


def _renamed(tensors: dict[str, Tensor], form: Encoder) -> dict[str, Tensor]:
    """Return the weights of a timm model with its classifier, whatever it is called there, named `fc`."""
    classifier = _timm_config(form.name).get("classifier") if form.name.startswith("timm/") else None
    if not isinstance(classifier, str):
        return tensors
    start = f"{classifier}."
    return {f"fc.{name.removeprefix(start)}" if name.startswith(start) else name: t for name, t in tensors.items()}
