"""Augmented views of a batch, made on the device in a few batched tensor operations.

Random parameters are drawn per image on the CPU, from a seeded generator, so that they are the same on every device;
only these few numbers an image are copied there, all at once. The operations are torchvision's (v2, float images in
[0, 1]), in this order: affine, crop of the padded image, resized crop with flip, colour jitter in a random order of its
own, grey, blur, erase.

Brightness, contrast and saturation each mix an image with another one, so that a batch is mixed at once, whatever is
due to which image. Hue and blur are not like this. On a CPU, images that need them at the same place go together. On a
CUDA device, where starting an operation costs more than its arithmetic, all go through three mixes, hue and three
mixes, of which the idle ones mix by a factor of 1, which changes no bit; what an image does not get is taken back. So
the operations and the shapes are the same for every batch. Both ways give the same views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.data.colour import luma
from oodbench.errors import UserError
from oodbench.study.settings import Augment, Interpolation

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NO_JITTER = 4  # in place of hue's place in the order
SLOTS = 3  # mixes before hue, and after it, at most
# Share of red, green and blue at a place of the colour circle: offset + slope * |place - center|, in [0, 1].
SHARES = torch.tensor([[3 / 6, 2 / 6, 4 / 6], [6, -6, -6], [-1, 2, 2]]).view(3, 1, 3, 1, 1)
TOGETHER = 1 << 26  # values that go through the operations together on a CUDA device
CACHED = 3 << 17  # values that go through the operations together on a CPU: they and their copies stay in its cache


def check(augment: Augment, channels: int) -> None:
    """Raise UserError where an augmentation is not defined for so many channels."""
    colour = augment.gray > 0 or (augment.jitter is not None and any(augment.jitter[1:]))
    if colour and channels not in (1, 3):
        raise UserError(
            f"grey, contrast, saturation and hue need 1 or 3 channels, the study has {channels}; set them to 0"
        )


class Rows(NamedTuple):
    """Which views of a larger batch are at hand: parameters are drawn for all of it, so that they are the same."""

    at: Tensor  # (n,) int64 positions in the batch
    of: int  # views of the batch


def views(x: Tensor, augment: Augment, count: int, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Return augmented views (count, B, C, H, W) in [0, 1], of torch's default type, of uint8 images x (B, C, H, W).

    `rows` says which count * B views of a larger batch these are; without it they are all there are.
    """
    x = x.contiguous()
    with _one_thread() if alike(x.device) else nullcontext():
        drawn = draw_all(rows.of if rows else count * len(x), x.shape[2], x.shape[3], augment, generator)
    drawn = drawn.of(rows.at) if rows else drawn
    if alike(x.device):
        return _all_alike(x, drawn, augment, count)
    out = torch.empty(count * len(x), *x.shape[1:], device=x.device)
    for group in _groups(drawn, len(out), max(1, CACHED // x[0].numel())):
        images = x.index_select(0, group.rows % len(x)).to(torch.get_default_dtype()).div_(255)
        out.index_copy_(0, group.rows, _augmented(images, drawn.of(group.rows), group, augment))
    return out.view(count, *x.shape)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: to wake others can cost milliseconds, where the draws themselves cost none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def alike(device: torch.device) -> bool:
    """Return whether all images go through the same operations: where to start one costs more than its arithmetic."""
    return device.type == "cuda"


def _all_alike(x: Tensor, drawn: Drawn, augment: Augment, count: int) -> Tensor:
    """Return the views by the same operations on tensors of the same shapes for every batch of a size."""
    drawn, most = drawn.on(x.device), max(1, TOGETHER // x[0].numel())
    found = []
    for start in range(0, count * len(x), most):
        stop = min(start + most, count * len(x))
        rows = torch.arange(start, stop, device=x.device)
        images = x.index_select(0, rows % len(x)).to(torch.get_default_dtype()).div_(255)
        found.append(_augmented(images, drawn.of(slice(start, stop)), Group(rows, None, None), augment))
    return torch.cat(found).view(count, *x.shape) if len(found) > 1 else found[0].view(count, *x.shape)


class Drawn(NamedTuple):
    """The random parameters of n images; None where a recipe has no such operation."""

    angle: Tensor | None = None  # (n,) degrees
    shift: Tensor | None = None  # (n, 2) as shares of width and height
    window: Tensor | None = None  # (n, 2) top and left of the crop of the padded image
    box: Tensor | None = None  # (n, 4) top, left, height and width of the crop
    flip: Tensor | None = None  # (n,)
    hue: Tensor | None = None  # (n,) by which it is turned
    place: Tensor | None = None  # (n,) of hue among the four changes of colour
    kind: Tensor | None = None  # (n, 2 * SLOTS) of the mixes before hue and after it, each from its first slot on
    factor: Tensor | None = None  # (n, 2 * SLOTS) of each; 1 where there is none
    jitter: Tensor | None = None  # (n,) whether they are applied
    gray: Tensor | None = None  # (n,)
    sigma: Tensor | None = None  # (n,) of the blur, in pixels
    blur: Tensor | None = None  # (n,) whether it is applied
    hole: Tensor | None = None  # (n, 4) the box that is erased; of no height where none is

    def of(self, rows: Tensor | slice) -> Drawn:
        """Return the parameters of some of the images."""
        return Drawn(*(None if each is None else each[rows] for each in self))

    def on(self, device: torch.device) -> Drawn:
        """Return the parameters on a device, by one copy: whole numbers are small enough to be exact in any type."""
        there = [each.view(len(each), -1) for each in self if each is not None]
        if not there:
            return self
        packed = on_device(torch.cat([each.to(torch.get_default_dtype()) for each in there], 1), device)
        parts = iter(packed.split([each.shape[1] for each in there], 1))
        return Drawn(*(None if each is None else next(parts).reshape(each.shape).to(each.dtype) for each in self))


class Group(NamedTuple):
    """Images whose hue is changed at the same place of their order, and which are all blurred, or none is; or any."""

    rows: Tensor  # (m,)
    hue: int | None  # place, or NO_JITTER; None: each its own
    blur: bool | None  # None: some are


def _groups(drawn: Drawn, n: int, most: int) -> Iterator[Group]:
    """Yield every image once, in groups of at most so many."""
    key = torch.full((n,), 2 * NO_JITTER)
    if drawn.place is not None and drawn.jitter is not None:
        key = 2 * torch.where(drawn.jitter, drawn.place, NO_JITTER)
    if drawn.blur is not None:
        key = key + drawn.blur
    for kind in range(2 * NO_JITTER + 2):
        for rows in torch.from_numpy(np.flatnonzero(key.numpy() == kind)).split(most):
            if len(rows):
                yield Group(rows, kind // 2, bool(kind % 2))


def _augmented(x: Tensor, drawn: Drawn, group: Group, augment: Augment) -> Tensor:
    if drawn.angle is not None and drawn.shift is not None:
        x = affine(x, drawn.angle, drawn.shift)
    if drawn.window is not None:
        x = padded_crop(x, drawn.window, augment.pad)
    if drawn.box is not None and drawn.flip is not None:
        x = resized_crop(x, drawn.box, drawn.flip, augment.interpolation)
    if drawn.jitter is not None and group.hue != NO_JITTER:
        seen = jitter(x, drawn, group.hue)
        x = seen if group.hue is not None else torch.where(_per_image(drawn.jitter), seen, x)
    if drawn.gray is not None and x.shape[1] == 3:
        x = torch.lerp(x, luma(x), _per_image(drawn.gray.to(x.dtype)))
    if drawn.sigma is not None and drawn.blur is not None and group.blur is not False:
        seen = blur(x, drawn.sigma, augment.kernel)
        x = seen if group.blur else torch.where(_per_image(drawn.blur), seen, x)
    if drawn.hole is not None:
        x = erase(x, drawn.hole)
    return x


def quarter_turns(x: Tensor, turns: tuple[int, ...]) -> Tensor:
    """Return images (len(turns) * B, C, H, W): x turned counter-clockwise by each number of quarter turns."""
    return torch.cat([torch.rot90(x, turn, (-2, -1)) for turn in turns])


def on_device(t: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on a device, without waiting for it: by way of pinned memory."""
    return t.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else t.to(device)


# ---- drawing: CPU tensors, one row per image -----------------------------------------------------


def draw_all(n: int, height: int, width: int, augment: Augment, generator: torch.Generator) -> Drawn:
    found: dict[str, Tensor] = {}
    if augment.rotate or augment.translate:
        found["angle"], found["shift"] = draw_affine(n, augment, generator)
    if augment.crop or augment.flip:
        found["box"] = draw_crop(n, height, width, augment, generator)
        found["flip"] = draw(n, augment.flip, generator)
    if augment.jitter:
        found["jitter"] = draw(n, augment.jitter_p, generator)
        factors, order = draw_jitter(n, augment.jitter, generator)
        found["hue"] = factors[:, HUE]
        found["place"], found["kind"], found["factor"] = slots(factors, order)
    if augment.gray:
        found["gray"] = draw(n, augment.gray, generator)
    if augment.blur:
        found["blur"] = draw(n, augment.blur, generator)
        found["sigma"] = uniform(n, *augment.sigma, generator)
    if augment.erase:
        hole = draw_erase(n, height, width, generator)
        found["hole"] = hole * draw(n, augment.erase, generator)[:, None]
    if augment.pad:  # last, so that the rest is drawn as without it
        found["window"] = torch.randint(2 * augment.pad + 1, (n, 2), generator=generator)
    return Drawn(**found)


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


def slots(factors: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue's place (n,) in an order (n, 4), and kinds and factors (n, 2 * SLOTS) of the mixes about it.

    Each side is filled from its first slot on; what is left mixes by a factor of 1.
    """
    place = (order == HUE).int().argmax(1, keepdim=True)
    at = torch.arange(4)
    slot = torch.where(at < place, at, SLOTS + at - place - 1)
    slot = torch.where(at == place, 2 * SLOTS, slot)  # hue's own, which is dropped
    kind = torch.full((len(order), 2 * SLOTS + 1), BRIGHTNESS).scatter_(1, slot, order)
    factor = torch.ones(len(order), 2 * SLOTS + 1).scatter_(1, slot, factors.gather(1, order))
    return place[:, 0], kind[:, : 2 * SLOTS], factor[:, : 2 * SLOTS]


def draw_erase(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return boxes (n, 4) as RandomErasing draws them: area 2 to 33 %, aspect ratio 0.3 to 3.3."""
    box = Augment(crop=(0.02, 0.33), ratio=(0.3, 3.3))
    return draw_crop(n, height, width, box, generator)


# ---- operations: images x in [0, 1] (n, C, H, W), and a parameter for each on its device -------------


def _per_image(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)


def affine(x: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Return images rotated clockwise by an angle in degrees, then shifted; bilinear, black outside."""
    radians = angle.deg2rad()
    cos, sin = radians.cos(), radians.sin()
    tx, ty = -2 * shift[:, 0], -2 * shift[:, 1]  # in grid_sample's [-1, 1]
    rows = [cos, sin, cos * tx + sin * ty, -sin, cos, -sin * tx + cos * ty]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def padded_crop(x: Tensor, window: Tensor, pad: int) -> Tensor:
    """Return crops (n, C, H, W), from top and left window (n, 2) on, of images with `pad` black pixels around."""
    height, width = x.shape[2:]
    crops = F.pad(x, [pad] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (n, C, tops, lefts, H, W), a view
    return crops[torch.arange(len(x), device=x.device), :, window[:, 0], window[:, 1]]


def resized_crop(x: Tensor, box: Tensor, flip: Tensor, interpolation: Interpolation) -> Tensor:
    """Return boxes (n, 4) of images, resized to the images' size with antialias, then flipped.

    A resize is one matrix for the rows and one for the columns of each image; the flip reverses the latter. Antialias
    changes nothing, as a box is never larger than the image; but bicubic weights are those that go with it.
    """
    height, width = x.shape[2:]
    rows = _resize_matrix(box[:, 0], box[:, 2], torch.zeros_like(flip), height, interpolation)
    columns = _resize_matrix(box[:, 1], box[:, 3], flip, width, interpolation)
    seen = rows[:, None] @ (x.flatten(1, 2) @ columns.transpose(1, 2)).view_as(x)
    return seen.clamp_(0, 1) if interpolation == "bicubic" else seen


def _resize_matrix(start: Tensor, length: Tensor, flip: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Return (n, size, size): output pixels as weighted means of input pixels start ... start + length - 1."""
    pixel = torch.arange(size, device=start.device)
    output = torch.where(flip[:, None], size - 1 - pixel, pixel)  # (n, size)
    center = (output + 0.5) * (length[:, None] / size) - 0.5  # in pixels of the crop
    taps = torch.arange(-1, 3, device=start.device) if interpolation == "bicubic" else pixel[:2]
    place = center.floor() + taps[:, None, None]  # (taps, n, size)
    distance = (place - center).abs()
    weight = _cubic(distance) if interpolation == "bicubic" else 1 - distance
    weight = weight * ((place >= 0) & (place < length[:, None]))
    place = (place + start[:, None]).clamp(0, size - 1).long()
    matrix = weight.new_zeros(len(start), size, size)
    return matrix.scatter_add_(2, place.permute(1, 2, 0), (weight / weight.sum(0)).permute(1, 2, 0))


def _cubic(d: Tensor) -> Tensor:
    """Return Keys' kernel with a = -1/2, which torchvision takes with antialias, of distances of at most 2."""
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, far)


def mix(x: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Return images with another brightness, contrast or saturation: f * x + (1 - f) * black, mean grey or grey.

    kind (n,) says which, factor (n,) is f.
    """
    gray = luma(x)
    mean = gray.mean((1, 2, 3)) * ((1 - factor) * (kind == CONTRAST))
    other = gray * _per_image((1 - factor) * (kind == SATURATION)) + _per_image(mean)
    return torch.addcmul(other, x, _per_image(factor)).clamp_(0, 1)


def hue(x: Tensor, factor: Tensor) -> Tensor:
    """Return RGB images with their hue turned by a share of the colour circle.

    As in HSV, with channels = low + (high - low) * share: the shares rise and fall along the circle in sixths of it.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, 1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    # (green + blue) is high + low, low + the middle, or high + the middle: sixths from red, either way round
    sixths = (green + blue).sub_(red).sub_(low).add_(span).div_(span.clamp_min_(1e-12))
    turned = torch.add(_per_image(factor), sixths.copysign_(green - blue), alpha=1 / 6)
    turned.sub_(turned.floor())  # 0 red, 1/3 green, 2/3 blue
    center, slope, offset = _shares(x.device)
    share = torch.addcmul(offset, (turned - center).abs_(), slope).clamp_(0, 1)
    return torch.lerp(low, high, share)


@cache
def _shares(device: torch.device) -> Tensor:
    return on_device(SHARES, device)


def jitter(x: Tensor, drawn: Drawn, place: int | None) -> Tensor:
    """Return images whose brightness, contrast, saturation and hue are changed, each in its own order.

    place is that of hue in the order of all of them; None: each has its own.
    """
    assert drawn.kind is not None
    assert drawn.factor is not None
    assert drawn.hue is not None
    before, after = (SLOTS, SLOTS) if place is None else (place, SLOTS - place)
    for slot in range(before):
        x = mix(x, drawn.kind[:, slot], drawn.factor[:, slot])
    x = hue(x, drawn.hue)
    for slot in range(SLOTS, SLOTS + after):
        x = mix(x, drawn.kind[:, slot], drawn.factor[:, slot])
    return x


def blur(x: Tensor, sigma: Tensor, kernel: float) -> Tensor:
    """Return images blurred by Gaussians of sigma (n,) pixels, cut off at a kernel of a share of the image's size.

    The kernel has an odd number of pixels; outside, images are mirrored about their outermost pixels.
    """
    rows, columns = (_blur_matrix(sigma, kernel_size(kernel, size), size) for size in x.shape[2:])
    return rows[:, None] @ (x.flatten(1, 2) @ columns.transpose(1, 2)).view_as(x)


def kernel_size(share: float, size: int) -> int:
    """Return the odd number of pixels nearest to a share of an image's size, the larger of two."""
    return 2 * int(share * size / 2) + 1


def _blur_matrix(sigma: Tensor, taps: int, size: int) -> Tensor:
    """Return (n, size, size): output pixels as weighted means of the `taps` input pixels about them."""
    offset = torch.arange(taps, device=sigma.device) - taps // 2
    weight = (-0.5 * (offset / sigma[:, None]).square()).softmax(1)  # (n, taps)
    pixel = torch.arange(size, device=sigma.device)
    place = (pixel[:, None] + offset).abs()  # (size, taps), mirrored at 0
    place = size - 1 - (size - 1 - place).abs()  # and at the other end
    index = place.expand(len(sigma), size, taps)
    return weight.new_zeros(len(sigma), size, size).scatter_add_(2, index, weight[:, None].expand_as(index))


def erase(x: Tensor, box: Tensor) -> Tensor:
    """Return images whose box (n, 4) is black."""
    top, left, h, w = (_per_image(each) for each in box.unbind(1))
    rows = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)
    columns = torch.arange(x.shape[3], device=x.device).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
    return x.masked_fill(inside, 0)
