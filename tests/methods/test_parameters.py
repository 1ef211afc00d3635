"""Parameters of plugins are checked when an object is made, from Python as from a study."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from oodbench.api import CONTRACTS, Plugin
from oodbench.study.registry import Registry

REGISTRY = Registry()
WITHDRAWN = "tiny_images"  # made by nobody
PLUGINS = [
    pytest.param(REGISTRY.load(room, name), id=f"{room}-{name}")
    for room in CONTRACTS
    for name in REGISTRY.sources(room)
    if name != WITHDRAWN
]
NONSENSE = (object(), "no such choice!", -1e9, {"a": 1}, [[[]]])


def refused(hint: Any, value: Any) -> bool:
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("cls", PLUGINS)
def test_what_a_type_does_not_allow_is_refused(cls: Any) -> None:
    hints = get_type_hints(cls, include_extras=True)
    needed = {f.name: "x" for f in dataclasses.fields(cls) if f.default is f.default_factory}
    for field in dataclasses.fields(cls):
        value = next((each for each in NONSENSE[1:] if refused(hints[field.name], each)), None)
        if value is not None:
            with pytest.raises(ValueError, match=rf"^{cls.name}: {field.name} is "):
                cls(**needed | {field.name: value})


@pytest.mark.parametrize("cls", PLUGINS)
def test_what_an_object_says_of_itself_makes_it_again(cls: Any) -> None:
    needed = {f.name: "x" for f in dataclasses.fields(cls) if f.default is f.default_factory}
    made = cls(**needed)
    assert cls(**made.params) == made
    assert dataclasses.replace(made) == made


def made(room: str, name: str, **params: Any) -> Plugin:
    return REGISTRY.load(room, name)(**params)


def test_messages() -> None:
    with pytest.raises(ValueError, match="mahalanobis: covariance is 'nonsense', should be 'shared', 'diagonal' or"):
        made("distance", "mahalanobis", covariance="nonsense")
    with pytest.raises(TypeError, match=r"mahalanobis has no parameter 'covarance'; did you mean 'covariance'\?"):
        made("distance", "mahalanobis", covarance="shared")
    for value in (0, 1.5, "3", True, None, float("nan")):
        with pytest.raises(ValueError, match="knn: k is"):
            made("distance", "knn", k=value)
    with pytest.raises(ValueError, match="knn: k is 0"):
        dataclasses.replace(made("distance", "knn"), k=0)


def test_values_become_those_that_a_study_would_make() -> None:
    assert made("distance", "knn", k=np.int64(3)) == made("distance", "knn", k=3)
    assert made("dataset", "digits", keep=[1, 2]) == made("dataset", "digits", keep=(1, 2))
    assert made("threshold", "pooled", level=np.float64(0.5)) == made("threshold", "pooled", level=0.5)
