"""Seeds of the stages of a run: everything random comes from one of them."""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, *parts: object) -> int:
    """Return a seed for one stage of a run: the same for the same parts, unrelated for others."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def generator(seed: int, *parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, *parts))
