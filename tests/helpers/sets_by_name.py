"""Data sets of the package by name, and the modules that they are in."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from oodbench.study.registry import Registry

REGISTRY = Registry()


def plugin(name: str, **params: Any) -> Any:
    return REGISTRY.load("dataset", name)(**params)


def module(name: str) -> ModuleType:
    return import_module(f"oodbench.datasets.{name}")
