"""Any detector of pytorch-ood (Kirchheim et al. 2022) that reads images alone, by its name.

    posthoc: {pytorch_ood: {detector: [NCI, PNML, LTS, VRA, GMM]}}
    posthoc: {pytorch_ood: {detector: NCI, options: {alpha: 0.01}}}
    posthoc: {pytorch_ood: {detector: [ODIN, MahalanobisODIN, GradNorm, GradUncertainty, MCD]}}
    posthoc: {pytorch_ood: {detector: [MultiMahalanobis, Gram, NACUE, RankFeat]}}

`options` are parameters of the detector's constructor. The network, its head and its weights are the harness's to give.
Detectors of logits and features (the first two lines, and others) read those that are kept; feature maps are of one
pixel then, as after global pooling.

The detectors of the last two lines pass images through the network, a block at a time: the rows' `item_seconds` say
what that costs, and they are left out where features come alone. GradNorm and GradUncertainty take gradients by all
parameters, as the library does (`gradnorm` takes those of the head, as the paper). MCD needs dropout; what it and Gram
draw is drawn with a fixed seed, and an MCD score depends on an image's place in its block. The detectors of the last
line read depths: what the encoder's direct parts put out at several places (maps, or tokens), the last of each shape,
which are the stages of a ResNet. RankFeat takes the last maps.

Refused are MCM, which reads embeddings of texts, and WeightedEBO, whose class weights no training keeps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pytorch_ood import detector as library
from torch import Tensor, nn

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.errors import suggestion
from oodbench.toolkit import pytorch_ood as adapter
from oodbench.toolkit.pytorch_ood import SetScore

NETWORK = ("model", "encoder", "backbone")  # parameters of constructors: not needed where features are given
TAKEN_APART = ("feature_layers", "layers", "num_classes", "device")  # what detectors of depths ask for, too
GIVEN = (*NETWORK, *TAKEN_APART, "head", "w", "b", "detector")  # what is no option
SUMS = ("ASH", "SCALE")  # detectors that sum activations
REFUSED = {
    "MCM": "reads embeddings of texts, which networks here have not",
    "WeightedEBO": "needs a weight of each class, which VOS learns and no training keeps; the posthoc energy has none",
}
ROWS = 32  # images at a time where each has a gradient by all parameters
SEED = 0  # of what is drawn
Value = bool | int | float | str
Options = Annotated[
    tuple[tuple[str, Value], ...] | dict[str, Value],
    AfterValidator(lambda given: tuple(sorted(dict(given).items()))),
]


class _Kind(NamedTuple):
    """How detectors that read the same are fitted, asked, and given what they read."""

    reads: str  # the end of the names of their methods
    of_set: Callable[..., SetScore]
    of: Callable[[Split], Any]


KINDS = (
    _Kind("logits", adapter.of_logits, lambda items: items.logits),
    _Kind("features", adapter.of_features, lambda items: items.h),
    _Kind("feature_maps", adapter.of_maps, lambda items: adapter.maps(items.h)),
)


def _kind(made: type) -> _Kind | None:
    return next((each for each in KINDS if hasattr(made, f"predict_{each.reads}")), None)


def _parameters(made: type) -> dict[str, inspect.Parameter]:
    named = inspect.signature(made.__init__).parameters  # type: ignore[misc]
    return {name: each for name, each in named.items() if name != "self" and each.kind is not each.VAR_KEYWORD}


def _fits(made: type) -> bool:
    """Return whether all that a constructor asks for is an option, or the harness's to give."""
    asked = [each for name, each in _parameters(made).items() if name not in GIVEN and each.default is each.empty]
    return _kind(made) is not None and all(each.annotation in (int, float, str, bool) for each in asked)


def _is_of(value: Value, annotation: Any) -> bool:
    try:
        TypeAdapter(Any if annotation is inspect.Parameter.empty else annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def of_features() -> list[str]:
    """Return the names of the detectors of pytorch-ood that read logits, features or a head."""
    classes = {name: each for name, each in vars(library).items() if inspect.isclass(each)}
    return sorted(name for name, each in classes.items() if _fits(each) and name not in BY_NETWORK)


def _known(name: str) -> str:
    allowed = sorted([*of_features(), *BY_NETWORK])
    if name in allowed:
        return name
    if inspect.isclass(getattr(library, name, None)):
        why = REFUSED.get(name, "reads what is not known here")
        raise ValueError(f"pytorch-ood's {name} {why}; can be taken: {', '.join(allowed)}")
    raise ValueError(f"pytorch-ood has no detector {name}{suggestion(name, allowed)}")


# ---- detectors that ask the network ---------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A detector that asks the network, before it is made, and what it asks."""

    kind: Any
    options: dict[str, Value]
    module: nn.Module  # images (B, C, H, W) -> logits (B, C)
    network: Callable[[Tensor], tuple[Tensor, Tensor]]  # -> features (B, D) and logits
    parts: tuple[nn.Module, ...]  # of the module: those of the encoder
    train: Split

    @property
    def device(self) -> torch.device:
        return next(_blocks(self.train)).device

    def make(self, **given: Any) -> Any:
        return self.kind(**given, **self.options)


def _blocks(items: Split, rows: int | None = None) -> Iterator[Tensor]:
    if items.images is None:
        raise ValueError("a detector that asks the network needs images")
    for block in items.images():
        yield from block.split(rows or len(block))


def _by_block(score: Callable[[Tensor], Tensor], rows: int | None = None) -> SetScore:
    """Return the scores of a set by what scores images (B, C, H, W)."""
    return lambda items: torch.cat([score(x).detach().double() for x in _blocks(items, rows)])


class _Loader:
    """Training images and classes, as the library's `fit` iterates over them."""

    def __init__(self, items: Split) -> None:
        self.items, self.y = items, adapter.labels(items).cpu()

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for x in _blocks(self.items):
            yield x.detach().requires_grad_(), self.y[done : done + len(x)]
            done += len(x)


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        yield


def _odin(asked: _Asked) -> SetScore:
    return _by_block(asked.make(model=asked.module).predict)


def _by_parameters(asked: _Asked) -> SetScore:
    return _by_block(asked.make(model=asked.module).predict, ROWS)


def _mahalanobis_odin(asked: _Asked) -> SetScore:
    module, network = asked.module, asked.network
    made = asked.make(encoder=lambda x: network(x)[0])
    made.fit_features(asked.train.h.to(asked.device), adapter.labels(asked.train))

    def score(x: Tensor) -> Tensor:
        own = [each for each in module.parameters() if each.requires_grad]
        module.requires_grad_(False)  # the library calls backward(), which would leave gradients in them
        try:
            found: Tensor = made.predict(x)
        finally:
            for each in own:
                each.requires_grad_(True)
        return found

    return _by_block(score)


def _mcd(asked: _Asked) -> SetScore:
    module, device = asked.module, asked.device
    made = asked.make(model=module)

    def drawn(score: Callable[[], Tensor]) -> Tensor:
        try:
            with _seeded(device):
                return score()
        finally:
            module.eval()  # which the library leaves it in, unless a pass fails

    first = next(_blocks(asked.train))
    if not drawn(lambda: library.MCD.run(module, first, 2)[1]).any():
        raise ValueError("MCD needs dropout: two passes of this network are the same in training mode, too")
    of_set = _by_block(made.predict)
    return lambda items: drawn(lambda: of_set(items))


# ---- and its depths -------------------------------------------------------------------------------------------------


@torch.no_grad()
def _depths(asked: _Asked, dims: tuple[int, ...] = (3, 4)) -> list[nn.Module]:
    """Return the encoder's parts that put out maps (4 dims) or tokens (3) of several places, the last of each shape."""
    last: dict[torch.Size, nn.Module] = {}

    def hear(part: nn.Module, given: Any, put: Any) -> None:
        if isinstance(put, Tensor) and put.ndim in dims and _map(put)[0, 0].numel() > 1:
            last[put.shape] = part

    _heard(asked.module, next(_blocks(asked.train))[:2], asked.parts, hear)
    if not last:
        raise ValueError(f"{asked.kind.__name__} needs an encoder whose direct parts put out maps of several places")
    return list(last.values())


def _heard(module: nn.Module, x: Tensor, parts: Iterable[nn.Module], hear: Callable[..., Any]) -> Tensor:
    """Return the logits of images; what parts put out on the way is heard, and replaced by what the hearer returns."""
    hooks = [part.register_forward_hook(hear) for part in parts]
    try:
        logits: Tensor = module(x)
    finally:
        for each in hooks:
            each.remove()
    return logits


def _map(put: Tensor) -> Tensor:
    """Return maps (B, D, H, W) as they are, tokens (B, N, D) as (B, D, N)."""
    return (put.transpose(1, 2) if put.ndim == 3 else put).float().contiguous()


def _pooled(maps: Tensor) -> Tensor:
    """Return the mean (B, D) over places of what `_map` returns."""
    return maps.flatten(2).mean(2)


@torch.no_grad()
def _seen(module: nn.Module, depths: list[nn.Module], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits (B, C) of images and the maps at each depth, whatever is done to these in their place later."""
    found: dict[nn.Module, Tensor] = {}

    def hear(part: nn.Module, given: Any, put: Tensor) -> None:
        found[part] = _map(put).clone()

    logits = _heard(module, x, depths, hear)
    return logits, [found[each] for each in depths]


def _multi_mahalanobis(asked: _Asked) -> SetScore:
    module, depths = asked.module, _depths(asked)
    made = asked.make(model=[nn.Identity() for _ in depths])  # it is asked by features

    def pooled(x: Tensor) -> list[Tensor]:
        return [_pooled(each) for each in _seen(module, depths, x)[1]]

    blocks = [pooled(x) for x in _blocks(asked.train)]
    made.fit_structured([torch.cat(each) for each in zip(*blocks, strict=True)], adapter.labels(asked.train))
    return _by_block(lambda x: made.predict_structured(pooled(x)))


def _gram(asked: _Asked) -> SetScore:
    module, depths = asked.module, _depths(asked)
    passed: list[Tensor] = []  # maps of the depths that are not asked for yet, then the logits

    def first(x: Tensor) -> Tensor:
        logits, found = _seen(module, depths, x)
        passed[:] = [*found, logits]
        return passed.pop(0)

    steps = [first, *[lambda _: passed.pop(0)] * len(depths)]  # the library calls them one after the other
    made = asked.make(head=steps[-1], feature_layers=steps[:-1], num_classes=asked.train.logits.shape[1])
    with _seeded(asked.device):
        made.to(asked.device).fit(_Loader(asked.train))
    made.to(asked.device)
    return _by_block(lambda x: made.predict_structured(*_seen(module, depths, x)))


def _nacue(asked: _Asked) -> SetScore:
    made = asked.make(model=asked.module, layers=_depths(asked), feature_reduce=lambda put: _pooled(_map(put)))
    made.fit(_Loader(asked.train))
    return _by_block(lambda x: made.predict(x.detach().requires_grad_()))


def _rank_feat(asked: _Asked) -> SetScore:
    module, make, last = asked.module, partial(asked.kind, **asked.options), _depths(asked, (4,))[-1:]

    @torch.no_grad()
    def score(x: Tensor) -> Tensor:
        def rest(maps: Tensor) -> Tensor:
            return _heard(module, x, last, lambda part, given, put: maps.to(put.dtype))

        found: Tensor = make(backbone=None, head=rest).predict_feature_maps(_seen(module, last, x)[1][0])
        return found

    return _by_block(score)


BY_NETWORK: dict[str, Callable[[_Asked], SetScore]] = {
    "ODIN": _odin,
    "GradNorm": _by_parameters,
    "GradUncertainty": _by_parameters,
    "MahalanobisODIN": _mahalanobis_odin,
    "MCD": _mcd,
    "MultiMahalanobis": _multi_mahalanobis,
    "Gram": _gram,
    "NACUE": _nacue,
    "RankFeat": _rank_feat,
}


class PytorchOOD(Posthoc):
    """A detector of pytorch-ood, by its name and the parameters of its constructor."""

    detector: Annotated[str, AfterValidator(_known)] = "NCI"  # the name of its class in pytorch-ood
    options: Options = ()  # parameters of its constructor, by name

    def __post_init__(self) -> None:
        allowed = {name: each for name, each in _parameters(self._class).items() if name not in GIVEN}
        for name, value in dict(self.options).items():
            if name not in allowed:
                raise ValueError(f"{self.detector} has no option {name}{suggestion(name, allowed)}")
            kind = allowed[name].annotation
            if not _is_of(value, kind):
                raise ValueError(f"{self.detector}: {name} is {value!r}, allowed is {inspect.formatannotation(kind)}")
        needed = [name for name, each in allowed.items() if each.default is each.empty]
        if lacking := [name for name in needed if name not in dict(self.options)]:
            raise ValueError(f"{self.detector} needs the option {lacking[0]}")
        try:  # which looks at the values
            self._made(ClassifierHead(lambda h: h, torch.zeros(2, 2), torch.zeros(2)))
        except AssertionError as error:
            raise ValueError(f"{self.detector} does not take {dict(self.options)}") from error

    @property
    def label(self) -> str:
        options = [f"{name}={value}" for name, value in dict(self.options).items()]
        return f"pytorch_ood({', '.join([self.detector, *options])})"

    @property
    def _class(self) -> Any:
        return getattr(library, self.detector)

    @property
    def applies(self) -> bool:
        return not self.linear and not self.network and "head" in _parameters(self._class)

    @property
    def linear(self) -> bool:
        named = _parameters(self._class)
        return "w" in named or ("head" in named and named["head"].annotation is nn.Linear)

    @property
    def rectified(self) -> bool:
        return self.detector in SUMS

    @property
    def network(self) -> bool:
        return self.detector in BY_NETWORK

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        if self.network:
            if head.module is None or head.network is None:
                raise ValueError(f"{self.label} needs the network")
            asked = _Asked(self._class, dict(self.options), head.module, head.network, head.parts, train)
            return BY_NETWORK[self.detector](asked)
        if self.rectified:
            adapter.require_rectified(train.h, self.label)
        kind = _kind(self._class)
        assert kind is not None
        made = self._made(head)
        getattr(made, f"fit_{kind.reads}")(kind.of(train), adapter.labels(train))
        score = getattr(made, f"predict_{kind.reads}")
        return kind.of_set(lambda x: score(x.float()))  # as the library has it, which mixes no precisions

    def _made(self, head: ClassifierHead) -> Any:
        named = _parameters(self._class)
        given: dict[str, Any] = {name: None for name in NETWORK if name in named}
        if self.network:
            blank = nn.Sequential(nn.Identity())
            given = {name: blank for name in (*NETWORK, "head", "layers", "feature_layers") if name in named}
            given |= {"num_classes": 2} if "num_classes" in named else {}
        elif "head" in named:
            given["head"] = adapter.linear(head) if self.linear else lambda x: head.apply(x.flatten(1))
        if "w" in named:
            given["w"], given["b"] = adapter.weights(head)
        return self._class(**given, **dict(self.options))
