"""80 Million Tiny Images, Torralba et al. 2008: withdrawn by its authors in 2020, refused wherever it is named.

It is here so that a study that copies a paper's outliers is told what to take instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from oodbench.api import Dataset, Images

WITHDRAWN = (
    "80 Million Tiny Images is withdrawn: its authors took it offline in 2020 for offensive labels and images, and ask "
    "not to use copies; take images300k (300,000 of its images that were cleaned for outlier exposure), tiny_imagenet "
    "or cifar100 instead, and say so beside the numbers"
)


class TinyImages(Dataset):
    """80 Million Tiny Images: withdrawn, refused wherever a study names it."""

    def __post_init__(self) -> None:
        raise ValueError(WITHDRAWN)

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        raise ValueError(WITHDRAWN)
