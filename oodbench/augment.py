"""Augmented views of a batch, made on the device in a few batched tensor operations.

Random parameters are drawn per image on the CPU, from a seeded generator, so that they are the same on
every device; only these few numbers an image are copied there. The operations are torchvision's (v2, float images in
[0, 1]), in this order: affine, resized crop with flip, colour jitter in a random order of its own, grey, erase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.errors import UserError
from oodbench.spec import Augment

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's rgb_to_grayscale


def check(augment: Augment, channels: int) -> None:
    """Raise UserError where an augmentation is not defined for so many channels."""
    colour = augment.gray > 0 or (augment.jitter is not None and (augment.jitter[2] > 0 or augment.jitter[3] > 0))
    if colour and channels not in (1, 3):
        raise UserError(f"grey, saturation and hue need 1 or 3 channels, the study has {channels}; set them to 0")


class Rows(NamedTuple):
    """Which images of a larger batch are at hand: parameters are drawn for all of it, so that they are the same."""

    at: Tensor  # (n,) int64 positions in the batch
    of: int  # images of the batch


def views(x: Tensor, augment: Augment, count: int, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Return augmented views (count, B, C, H, W) of float images x (B, C, H, W) in [0, 1].

    `rows` says which count * B views of a larger batch these are; without it they are all there are.
    """
    repeated = x.expand(count, *x.shape).flatten(0, 1)  # (count * B, C, H, W)
    return apply(repeated, augment, generator, rows).view(count, *x.shape)


def apply(x: Tensor, augment: Augment, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Return each image of x (B, C, H, W) augmented with random parameters of its own."""
    drawn = draw_all(rows.of if rows else len(x), x.shape[1:], augment, generator)
    if rows:
        drawn = Drawn(*(None if step is None else tuple(each[rows.at] for each in step) for step in drawn))
    if drawn.affine:
        x = affine(x, *drawn.affine)
    if drawn.crop:
        x = resized_crop(x, *drawn.crop)
    if drawn.jitter:
        x = jitter(x, *drawn.jitter)
    if drawn.gray:
        x = torch.where(_on(drawn.gray[0], x), grayscale(x), x)
    if drawn.erase:
        x = erase(x, *drawn.erase)
    return x


def quarter_turns(x: Tensor, turns: tuple[int, ...]) -> Tensor:
    """Return images (len(turns) * B, C, H, W): x turned counter-clockwise by each number of quarter turns."""
    return torch.cat([torch.rot90(x, turn, (-2, -1)) for turn in turns])


# ---- drawing: CPU tensors, one row per image -----------------------------------------------------


class Drawn(NamedTuple):
    """The parameters of each operation, in the order of its arguments; None where it is not done."""

    affine: tuple[Tensor, ...] | None = None  # angle, shift
    crop: tuple[Tensor, ...] | None = None  # box, flip
    jitter: tuple[Tensor, ...] | None = None  # factors, order, chosen
    gray: tuple[Tensor, ...] | None = None  # chosen
    erase: tuple[Tensor, ...] | None = None  # box, chosen


def draw_all(n: int, shape: Sequence[int], augment: Augment, generator: torch.Generator) -> Drawn:
    """Return the parameters of n images of a shape (C, H, W)."""
    channels, height, width = shape
    drawn = Drawn()
    if augment.rotate or augment.translate:
        drawn = drawn._replace(affine=draw_affine(n, augment, generator))
    if augment.crop or augment.flip:
        box = draw_crop(n, height, width, augment, generator)
        drawn = drawn._replace(crop=(box, draw(n, augment.flip, generator)))
    if augment.jitter:
        chosen = draw(n, augment.jitter_p, generator)
        drawn = drawn._replace(jitter=(*draw_jitter(n, augment.jitter, generator), chosen))
    if augment.gray and channels == 3:
        drawn = drawn._replace(gray=(draw(n, augment.gray, generator),))
    if augment.erase:
        box = draw_erase(n, height, width, generator)
        drawn = drawn._replace(erase=(box, draw(n, augment.erase, generator)))
    return drawn


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def draw(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Return bool (n,), each True with probability p."""
    return torch.rand(n, generator=generator) < p


def draw_affine(n: int, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return angles (n,) in degrees and shifts (n, 2) as shares of width and height."""
    angle = uniform(n, -augment.rotate, augment.rotate, generator)
    return angle, uniform(2 * n, -augment.translate, augment.translate, generator).view(n, 2)


def draw_crop(n: int, height: int, width: int, augment: Augment, generator: torch.Generator) -> Tensor:
    """Return int64 boxes (n, 4) of top, left, height, width, drawn as RandomResizedCrop draws them.

    Ten tries each at an area and an aspect ratio that fit into the image; else the largest centred box of
    an allowed ratio.
    """
    if augment.crop is None:
        return torch.tensor([0, 0, height, width]).expand(n, 4)
    tries = 10
    area = uniform(n * tries, *augment.crop, generator).view(n, tries) * height * width
    log_ratio = [math.log(each) for each in augment.ratio]
    ratio = uniform(n * tries, log_ratio[0], log_ratio[1], generator).view(n, tries).exp()
    w = (area * ratio).sqrt().round().long()
    h = (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)  # 0 where none fits
    fallback_w, fallback_h = _largest_box(height, width, augment.ratio)
    any_fits = fits.any(1)
    w = torch.where(any_fits, w.gather(1, first)[:, 0], fallback_w)
    h = torch.where(any_fits, h.gather(1, first)[:, 0], fallback_h)
    top = (torch.rand(n, generator=generator) * (height - h + 1)).long()
    left = (torch.rand(n, generator=generator) * (width - w + 1)).long()
    top = torch.where(any_fits, top, (height - h) // 2)
    left = torch.where(any_fits, left, (width - w) // 2)
    return torch.stack([top, left, h, w], 1)


def _largest_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if width / height < min(ratio):
        return width, round(width / min(ratio))
    if width / height > max(ratio):
        return round(height * max(ratio)), height
    return width, height


def draw_jitter(
    n: int, strength: tuple[float, float, float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return factors (n, 4) of brightness, contrast, saturation and hue, and the order (n, 4) they are applied in."""
    factors = [uniform(n, max(0.0, 1 - s), 1 + s, generator) for s in strength[:3]]
    factors.append(uniform(n, -strength[3], strength[3], generator))
    return torch.stack(factors, 1), torch.rand(n, 4, generator=generator).argsort(1)


def draw_erase(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return boxes (n, 4) as RandomErasing draws them: area 2 to 33 %, aspect ratio 0.3 to 3.3."""
    box = Augment(crop=(0.02, 0.33), ratio=(0.3, 3.3))
    return draw_crop(n, height, width, box, generator)


# ---- operations ----------------------------------------------------------------------------------


def _on(row: Tensor, x: Tensor) -> Tensor:
    """Return a parameter (n,) on the device of x, shaped (n, 1, 1, 1)."""
    return row.to(x.device, non_blocking=True).view(-1, 1, 1, 1)


def affine(x: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Return images rotated clockwise by an angle in degrees, then shifted; bilinear, black outside."""
    radians = angle.deg2rad()
    cos, sin = radians.cos(), radians.sin()
    tx, ty = -2 * shift[:, 0], -2 * shift[:, 1]  # in grid_sample's [-1, 1]
    rows = [cos, sin, cos * tx + sin * ty, -sin, cos, -sin * tx + cos * ty]
    matrix = torch.stack(rows, 1).view(-1, 2, 3).to(x.device, non_blocking=True)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def resized_crop(x: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """Return boxes (n, 4) of images, resized to the images' size, bilinear with antialias, then flipped.

    A resize is one matrix for the rows and one for the columns of each image; the flip reverses the latter.
    """
    _, _, height, width = x.shape
    box, flip = box.to(x.device, non_blocking=True), flip.to(x.device, non_blocking=True)
    rows = _resize_matrix(box[:, 0], box[:, 2], height)
    columns = _resize_matrix(box[:, 1], box[:, 3], width)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ (x @ columns.transpose(1, 2)[:, None])


def _resize_matrix(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return (n, size, size): output pixels as weighted means of input pixels start ... start + length - 1."""
    scale = length[:, None, None] / size  # input pixels per output pixel
    pixel = torch.arange(size, device=start.device)
    center = scale * (pixel[:, None] + 0.5)  # (n, size, 1)
    place = pixel - start[:, None, None]  # (n, 1, size)
    weight = (1 - ((place + 0.5 - center) / scale.clamp_min(1)).abs()).clamp_min(0)
    weight = weight * ((place >= 0) & (place < length[:, None, None]))
    return weight / weight.sum(2, keepdim=True)


def grayscale(x: Tensor) -> Tensor:
    """Return RGB images (n, 3, H, W) as grey ones with three equal channels; one channel stays itself."""
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor(GRAY, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(x)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * _on(factor, x)).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, grayscale(x).mean((1, 2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else _blend(x, grayscale(x), factor)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    share = _on(factor, x)
    return (share * x + (1 - share) * other).clamp(0, 1)


def hue(x: Tensor, factor: Tensor) -> Tensor:
    """Return RGB images with their hue turned by a share of the colour circle."""
    if x.shape[1] == 1:
        return x
    high, low = x.amax(1), x.amin(1)
    span = high - low
    safe = torch.where(span == 0, 1.0, span)
    red, green, blue = ((high[:, None] - x) / safe[:, None]).unbind(1)
    r, g, _ = x.unbind(1)
    sector = torch.where(high == r, blue - green, torch.where(high == g, 2 + red - blue, 4 + green - red))
    turned = torch.where(span == 0, 0.0, sector / 6) + _on(factor, x)[:, 0]
    return _from_hue(turned, high, torch.where(high == 0, 0.0, span / torch.where(high == 0, 1.0, high)))


def _from_hue(h: Tensor, value: Tensor, sat: Tensor) -> Tensor:
    """Return RGB from hue (any real, in turns), value and saturation, each (n, H, W)."""
    channels = []
    for offset in (5, 3, 1):
        place = (offset + 6 * h) % 6
        channels.append(value - value * sat * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, 1).clamp(0, 1)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def jitter(x: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Return images whose brightness, contrast, saturation and hue are changed, each in its own order.

    factors (n, 4) and order (n, 4) are as `draw_jitter` makes them; images not chosen (n,) stay as they are.
    """
    colour = 2 if x.shape[1] == 1 else 4  # saturation and hue do nothing to grey images
    out = x.clone()
    for place in range(4):
        for kind, operation in enumerate(OPERATIONS[:colour]):
            at = (chosen & (order[:, place] == kind)).nonzero()[:, 0]  # on the CPU: no wait for the device
            if len(at):
                there = at.to(x.device, non_blocking=True)
                out[there] = operation(out[there], factors[at, kind])
    return out


def erase(x: Tensor, box: Tensor, chosen: Tensor) -> Tensor:
    """Return images whose box (n, 4) is black where chosen (n,)."""
    top, left, h, w = (_on(each, x) for each in box.unbind(1))
    rows = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)
    columns = torch.arange(x.shape[3], device=x.device).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
    return x.masked_fill(inside & _on(chosen, x), 0)
