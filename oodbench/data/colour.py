"""Grey of colours."""

from __future__ import annotations

from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's rgb_to_grayscale


def luma(x: Tensor) -> Tensor:
    """Return RGB images as grey ones of one channel (n, 1, H, W); those of one channel stay themselves."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, 1)
    gray: Tensor = (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])
    return gray
