"""Images made worse in eight ways, each in five severities, as a covariate shift of any set.

Kinds and strengths follow what Hendrycks & Dietterich 2019 (arXiv 1903.12261) chose for CIFAR-10-C. They are made anew
by numpy and Pillow, from images in the study's format, and are not the published files: numbers of the two are not to
be held against each other. Brightness is added to channels rather than to HSV's value, and blur is Pillow's. Strengths
are those for 32 x 32 pixels: larger images suffer less than ImageNet-C's do. What is drawn for an image depends on its
pixels, kind and severity alone, so that it is the same in every study and however few of the set are taken.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from oodbench.errors import UserError

NUMBER = 1  # to be raised when the arithmetic changes
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
STRENGTHS: dict[str, tuple[float, ...]] = {  # by severity, from 1 on
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation, of values in [0, 1]
    "shot_noise": (500, 250, 100, 75, 50),  # photons of a white pixel
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of values that become 0 or 1
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation, in pixels
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # share of each side's pixels that is left
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to values in [0, 1]
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor on what differs from the mean of a channel
    "jpeg": (80, 65, 58, 50, 40),  # quality
}


def corrupted(x: Pixels, how: str) -> Pixels:
    """Return images (B, H, W, C) made worse as KIND-SEVERITY says; UserError: Pillow has no such channels."""
    kind, _, severity = how.rpartition("-")
    strength = STRENGTHS[kind][int(severity) - 1]
    if kind in _PICTURES:
        if x.shape[3] not in (1, 3):
            raise UserError(f"corrupt: {how} is for images of 1 or 3 channels, image.channels is {x.shape[3]}")
        return np.stack([_of_picture(each, _PICTURES[kind], strength) for each in x])
    changed = [_VALUES[kind](each / 255, strength, _rng(each, how)) for each in x]
    return np.rint(255 * np.clip(np.stack(changed), 0, 1)).astype(np.uint8)


def _rng(image: Pixels, how: str) -> np.random.Generator:
    """Return what draws for an image; no two images nor corruptions share it."""
    found = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, person=how.encode()[:16])
    return np.random.default_rng(int.from_bytes(found.digest(), "little"))


def _of_picture(image: Pixels, change: Callable[[Image.Image, float], Image.Image], strength: float) -> Pixels:
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    return np.asarray(change(picture, strength), dtype=np.uint8).reshape(image.shape)


def _gaussian_noise(x: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    return x + rng.normal(0, sigma, x.shape)


def _shot_noise(x: Floats, photons: float, rng: np.random.Generator) -> Floats:
    return np.asarray(rng.poisson(x * photons) / photons)


def _impulse_noise(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(x.shape) < share, rng.integers(2, size=x.shape), x)


def _brightness(x: Floats, added: float, rng: np.random.Generator) -> Floats:
    return x + added


def _contrast(x: Floats, factor: float, rng: np.random.Generator) -> Floats:
    mean = x.mean((0, 1))
    return np.asarray(mean + factor * (x - mean))


def _gaussian_blur(picture: Image.Image, sigma: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def _pixelate(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    small = picture.resize((max(1, int(share * width)), max(1, int(share * height))), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.NEAREST)


def _jpeg(picture: Image.Image, quality: float) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(quality))
    return Image.open(stream)


_VALUES: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    **{"gaussian_noise": _gaussian_noise, "shot_noise": _shot_noise, "impulse_noise": _impulse_noise},
    **{"brightness": _brightness, "contrast": _contrast},
}
_PICTURES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    **{"gaussian_blur": _gaussian_blur, "pixelate": _pixelate, "jpeg": _jpeg},
}
