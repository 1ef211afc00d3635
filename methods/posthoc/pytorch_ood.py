"""Any detector of pytorch-ood (Kirchheim et al. 2022) that reads logits or penultimate features, by its name.

    posthoc: {pytorch_ood: {detector: [NCI, PNML, LTS, VRA, GMM]}}
    posthoc: {pytorch_ood: {detector: NCI, options: {alpha: 0.01}}}

`options` are parameters of the detector's constructor. The network, its head and its weights are the harness's to give.
Feature maps are of one pixel, as after global pooling. Detectors that read gradients, layers, images or texts (ODIN,
GradNorm, Gram, MultiMahalanobis, MCM, ...), or maps of several pixels (RankFeat), are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pytorch_ood import detector as library
from torch import nn

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.errors import suggestion
from oodbench.toolkit import pytorch_ood as adapter
from oodbench.toolkit.pytorch_ood import SetScore

NETWORK = ("model", "encoder", "backbone")  # parameters of constructors: not needed where features are given
GIVEN = (*NETWORK, "head", "w", "b", "detector")  # what is no option
SUMS = ("ASH", "SCALE")  # detectors that sum activations
SEVERAL_PIXELS = ("RankFeat",)
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


def detectors() -> list[str]:
    """Return the names of the detectors of pytorch-ood that can be taken."""
    classes = {name: each for name, each in vars(library).items() if inspect.isclass(each)}
    return sorted(name for name, each in classes.items() if _fits(each) and name not in SEVERAL_PIXELS)


def _known(name: str) -> str:
    allowed = detectors()
    if name in allowed:
        return name
    if inspect.isclass(getattr(library, name, None)):
        raise ValueError(
            f"pytorch-ood's {name} reads more than logits and features; can be taken: {', '.join(allowed)}"
        )
    raise ValueError(f"pytorch-ood has no detector {name}{suggestion(name, allowed)}")


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
        self._made(ClassifierHead(lambda h: h, torch.zeros(2, 2), torch.zeros(2)))  # which looks at the values

    @property
    def label(self) -> str:
        options = [f"{name}={value}" for name, value in dict(self.options).items()]
        return f"pytorch_ood({', '.join([self.detector, *options])})"

    @property
    def _class(self) -> Any:
        return getattr(library, self.detector)

    @property
    def applies(self) -> bool:
        return not self.linear and "head" in _parameters(self._class)

    @property
    def linear(self) -> bool:
        named = _parameters(self._class)
        return "w" in named or ("head" in named and named["head"].annotation is nn.Linear)

    @property
    def rectified(self) -> bool:
        return self.detector in SUMS

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
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
        if "head" in named:
            given["head"] = adapter.linear(head) if self.linear else lambda x: head.apply(x.flatten(1))
        if "w" in named:
            given["w"], given["b"] = adapter.weights(head)
        return self._class(**given, **dict(self.options))
