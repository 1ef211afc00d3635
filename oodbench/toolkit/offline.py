"""Whether anything may be downloaded: with OODBENCH_OFFLINE=1 nothing is, by whatever library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OFFLINE = "OODBENCH_OFFLINE"


def offline() -> bool:
    """Return whether nothing is to be downloaded."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


@contextmanager
def hub() -> Iterator[None]:
    """Let Hugging Face's libraries, which look at their own switch once, connect only where anything may."""
    from huggingface_hub import constants

    config = sys.modules.get("datasets.config")
    switches = [(constants, "HF_HUB_OFFLINE"), *((config, name) for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))]
    before = [(module, name, getattr(module, name)) for module, name in switches if module]
    for module, name, value in before:
        setattr(module, name, value or offline())
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
