"""Every augmentation against torchvision v2, for the same parameters, in float32."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as TF
from kernels import Kernels
from pydantic import TypeAdapter
from torch import Tensor

from oodbench.errors import UserError
from oodbench.study import recipes
from oodbench.study.settings import Augment, Interpolation
from oodbench.training import augment

N = 40


@pytest.fixture(params=[1, 3])
def images(request: pytest.FixtureRequest) -> Tensor:
    return torch.rand(N, request.param, 20, 20, generator=torch.Generator().manual_seed(0))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each(images: Tensor, function: object, *params: Tensor) -> Tensor:
    return torch.stack([function(x, *(p[i] for p in params)) for i, x in enumerate(images)])


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_resized_crop(images: Tensor, how: Interpolation) -> None:
    """Bicubic weights may be negative; what leaves [0, 1] is cut off, as it is from 8-bit images."""
    box = augment.draw_crop(N, 20, 20, Augment(crop=(0.05, 1.0)), rng())
    mode = TF.InterpolationMode(how)
    expected = each(
        images,
        lambda x, b: TF.resized_crop(x, *b.tolist(), size=[20, 20], interpolation=mode, antialias=True).clamp(0, 1),
        box,
    )
    never = torch.zeros(N, dtype=torch.bool)
    torch.testing.assert_close(augment.resized_crop(images, box, never, how), expected)


def test_flip(images: Tensor) -> None:
    flip = augment.draw(N, 0.5, rng())
    whole = torch.tensor([0, 0, 20, 20]).expand(N, 4)
    expected = each(images, lambda x, f: TF.horizontal_flip(x) if f else x, flip)
    torch.testing.assert_close(augment.resized_crop(images, whole, flip, "bilinear"), expected, atol=0, rtol=0)
    assert 0 < flip.sum() < N


def test_crop_that_is_not_square() -> None:
    x = torch.rand(3, 1, 12, 30)
    box = augment.draw_crop(3, 12, 30, Augment(), rng())
    expected = each(x, lambda a, b: TF.resized_crop(a, *b.tolist(), size=[12, 30], antialias=True), box)
    torch.testing.assert_close(augment.resized_crop(x, box, torch.zeros(3, dtype=torch.bool), "bilinear"), expected)


def test_crops_are_drawn_as_torchvision_draws_them() -> None:
    """The same distribution of areas, ratios and places: means of 4,000 draws agree within sampling error."""
    torch.manual_seed(0)
    image = torch.empty(1, 32, 32)
    crop = T.RandomResizedCrop(32, scale=(0.2, 1.0))
    drawn = [crop.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[each[name] for name in ("top", "left", "height", "width")] for each in drawn]).double()
    ours = augment.draw_crop(4000, 32, 32, Augment(crop=(0.2, 1.0)), rng()).double()
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=0.4)
    assert torch.allclose(ours.std(0), theirs.std(0), atol=0.4)


def test_boxes_lie_in_the_image() -> None:
    for crop in ((0.01, 0.02), (0.2, 1.0), (1.0, 1.0)):
        top, left, h, w = augment.draw_crop(500, 9, 31, Augment(crop=crop), rng()).unbind(1)
        assert (h >= 1).all()
        assert (w >= 1).all()
        assert ((top >= 0) & (top + h <= 9) & (left >= 0) & (left + w <= 31)).all()


THEIRS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


@pytest.mark.parametrize("kind", [augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION])
def test_brightness_contrast_saturation(images: Tensor, kind: int) -> None:
    factor = augment.uniform(N, 0.0, 2.0, rng())
    expected = each(images, lambda x, f: THEIRS[kind](x, f.item()), factor)
    torch.testing.assert_close(augment.mix(images, torch.full((N,), kind), factor), expected, atol=2e-6, rtol=1e-5)


def test_a_batch_is_mixed_at_once() -> None:
    """Each image with what is due to it: brightness, contrast or saturation."""
    x, kind, factor = torch.rand(N, 3, 8, 8), torch.arange(N) % 3, torch.rand(N)
    expected = each(x, lambda a, k, f: THEIRS[k](a, f.item()), kind, factor)
    torch.testing.assert_close(augment.mix(x, kind, factor), expected, atol=2e-6, rtol=1e-5)


def test_a_factor_of_one_changes_no_bit() -> None:
    x = torch.cat([torch.rand(N, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)])
    for kind in (augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION):
        assert torch.equal(augment.mix(x, torch.full((len(x),), kind), torch.ones(len(x))), x)


def test_hue(images: Tensor) -> None:
    factor = augment.uniform(N, -0.5, 0.5, rng())
    expected = each(images, lambda x, f: TF.adjust_hue(x, f.item()), factor)
    torch.testing.assert_close(augment.hue(images, factor), expected, atol=2e-6, rtol=1e-5)


def test_hue_of_every_corner_and_edge_of_the_colour_cube() -> None:
    """Where two channels are equal, or one is 0 or 1, hue has its corners; grey has none."""
    levels = torch.tensor([0.0, 1e-4, 0.5, 1.0])
    x = torch.cartesian_prod(levels, levels, levels).T.view(1, 3, 8, 8)
    for factor in (-0.5, -1 / 3, -0.1, 0.0, 1 / 6, 0.25, 0.5):
        expected = TF.adjust_hue(x, factor)
        torch.testing.assert_close(augment.hue(x, torch.tensor([factor])), expected, atol=2e-6, rtol=1e-5)


def test_jitter_applies_each_operation_in_its_own_order(images: Tensor) -> None:
    factors, order = augment.draw_jitter(N, (0.4, 0.4, 0.4, 0.1), rng())

    def one(x: Tensor, f: Tensor, o: Tensor) -> Tensor:
        for kind in o.tolist():
            x = THEIRS[kind](x, f[kind].item())
        return x

    expected = each(images, one, factors, order)
    place, kind, factor = augment.slots(factors, order)
    drawn = augment.Drawn(hue=factors[:, augment.HUE], place=place, kind=kind, factor=factor)
    together = augment.jitter(images, drawn, None)
    for at in range(4):
        rows = order[:, at] == augment.HUE
        found = augment.jitter(images[rows], drawn.of(rows), at)
        torch.testing.assert_close(found, expected[rows], atol=5e-6, rtol=1e-5)
        assert torch.equal(together[rows], found)
    assert len(order.unique(dim=0)) > 10


def test_jitter_factors_lie_in_torchvisions_ranges() -> None:
    factors, _ = augment.draw_jitter(2000, (0.4, 1.5, 0.0, 0.1), rng())
    low, high = factors.amin(0), factors.amax(0)
    torch.testing.assert_close(low, torch.tensor([0.6, 0.0, 1.0, -0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.4, 2.5, 1.0, 0.1]), atol=0.01, rtol=0)


def test_luma() -> None:
    x = torch.rand(5, 3, 6, 6)
    torch.testing.assert_close(augment.luma(x), TF.rgb_to_grayscale(x, num_output_channels=1))


@pytest.mark.parametrize(("share", "pixels"), [(0.1, 3), (0.3, 7), (0.15, 3)])
def test_blur(images: Tensor, share: float, pixels: int) -> None:
    """The kernel is the odd number of pixels next to a share of 20."""
    sigma = augment.uniform(N, 0.1, 2.0, rng())
    expected = each(images, lambda x, s: TF.gaussian_blur(x, [pixels, pixels], [s.item()]), sigma)
    torch.testing.assert_close(augment.blur(images, sigma, share), expected)


def test_affine(images: Tensor) -> None:
    angle = augment.uniform(N, -40, 40, rng())
    shift = augment.uniform(2 * N, -0.3, 0.3, rng()).view(N, 2)

    def one(x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        bilinear = TF.InterpolationMode.BILINEAR
        return TF.affine(x, a.item(), (20 * s).tolist(), 1.0, [0.0, 0.0], interpolation=bilinear)

    torch.testing.assert_close(
        augment.affine(images, angle, shift), each(images, one, angle, shift), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("pad", [1, 4, 25])
def test_padded_crop(images: Tensor, pad: int) -> None:
    """As RandomCrop(size, padding=pad): whole pixels, to the bit; more padding than image leaves some black."""
    window = augment.draw_all(N, 20, 20, Augment(pad=pad), rng()).window
    expected = each(images, lambda x, w: TF.crop(TF.pad(x, [pad]), *w.tolist(), 20, 20), window)
    assert torch.equal(augment.padded_crop(images, window, pad), expected)


def test_padded_crop_that_is_not_square() -> None:
    x, window = torch.rand(3, 1, 12, 30), torch.tensor([[0, 5], [6, 0], [1, 6]])
    expected = each(x, lambda a, w: TF.crop(TF.pad(a, [3]), *w.tolist(), 12, 30), window)
    assert torch.equal(augment.padded_crop(x, window, 3), expected)


def test_windows_are_drawn_as_torchvision_draws_them() -> None:
    """Every place from 0 to twice the padding equally often, top and left apart: 160 each of 4,000, within 6 sigma."""
    torch.manual_seed(0)
    crop = T.RandomCrop(8, padding=2)
    drawn = [crop.make_params([torch.empty(1, 8, 8)]) for _ in range(200)]
    window = augment.draw_all(4000, 8, 8, Augment(pad=2), rng()).window
    places, count = window.unique(dim=0, return_counts=True)
    assert {(each["top"], each["left"]) for each in drawn} == set(map(tuple, places.tolist()))
    assert len(places) == 25
    assert (count - 160).abs().max() < 6 * math.sqrt(160)


def test_a_padded_crop_changes_no_other_draw() -> None:
    without, padded = (augment.draw_all(N, 16, 16, Augment(pad=pad, erase=0.5), rng()) for pad in (0, 4))
    assert without.window is None
    for mine, other in zip(without, padded._replace(window=None), strict=True):
        assert mine is other is None or torch.equal(mine, other)


def test_crop_and_flip_of_padded_images_blur_nothing() -> None:
    """The recipe of most papers on CIFAR: the views are shifted and mirrored pixels of the image, to the bit."""
    how = Augment(crop=None, pad=4, jitter=None, gray=0)
    x, drawn = levels(N), augment.draw_all(N, 16, 16, how, rng())
    seen = each(x / 255, lambda a, w: TF.crop(TF.pad(a, [4]), *w.tolist(), 16, 16), drawn.window)
    expected = each(seen, lambda a, f: TF.horizontal_flip(a) if f else a, drawn.flip)
    assert torch.equal(augment.views(x, how, 1, rng())[0], expected)


def test_erase(images: Tensor) -> None:
    box = augment.draw_erase(N, 20, 20, rng())
    expected = each(images, lambda x, b: TF.erase(x, *b.tolist(), torch.tensor(0.0)), box)
    torch.testing.assert_close(augment.erase(images, box), expected)
    share = (box[:, 2] * box[:, 3]).double() / 400
    assert share.min() > 0.01
    assert share.max() < 0.4


def test_quarter_turns_are_counter_clockwise(images: Tensor) -> None:
    """As torchvision's rotate by 90 degrees, and on images with a corner of their own."""
    turned = augment.quarter_turns(images, (0, 1, 2, 3)).unflatten(0, (4, N))
    for turn, found in enumerate(turned):
        torch.testing.assert_close(found, TF.rotate(images, 90.0 * turn))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert augment.quarter_turns(x, (1,)).tolist() == [[[[2, 4], [1, 3]]]]


EVERYTHING = Augment(rotate=20, translate=0.1, pad=3, blur=0.5, kernel=0.3, erase=0.5)


def levels(n: int, channels: int = 3, size: int = 16) -> Tensor:
    return torch.randint(256, (n, channels, size, size), generator=rng(), dtype=torch.uint8)


def one_by_one(x: Tensor, drawn: augment.Drawn, i: int) -> Tensor:
    """Return image x (C, H, W) under the parameters that were drawn for view i, by torchvision."""
    size = list(x.shape[1:])
    angle, shift = drawn.angle[i].item(), (size[0] * drawn.shift[i]).tolist()
    x = TF.affine(x, angle, shift, 1.0, [0.0, 0.0], interpolation=TF.InterpolationMode.BILINEAR)
    x = TF.crop(TF.pad(x, [3]), *drawn.window[i].tolist(), *size)
    x = TF.resized_crop(x, *drawn.box[i].tolist(), size=size, antialias=True)
    x = TF.horizontal_flip(x) if drawn.flip[i] else x
    before, mixes = int(drawn.place[i]), [*zip(drawn.kind[i].tolist(), drawn.factor[i].tolist(), strict=True)]
    colours = [*mixes[:before], (augment.HUE, drawn.hue[i].item()), *mixes[3 : 6 - before]]
    for kind, factor in colours if drawn.jitter[i] else []:
        x = THEIRS[kind](x, factor)
    x = TF.rgb_to_grayscale(x, num_output_channels=3) if drawn.gray[i] and len(x) == 3 else x
    x = TF.gaussian_blur(x, [5, 5], [drawn.sigma[i].item()]) if drawn.blur[i] else x
    return TF.erase(x, *drawn.hole[i].tolist(), torch.tensor(0.0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cached", [1, 10**4, 10**9])
def test_views_are_torchvisions_one_by_one(channels: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All operations in their order, whatever the size of the parts that go through them together."""
    monkeypatch.setattr(augment, "CACHED", cached)
    x = levels(N, channels)
    seen = augment.views(x, EVERYTHING, 2, rng())
    drawn = augment.draw_all(2 * N, 16, 16, EVERYTHING, rng())
    expected = torch.stack([one_by_one(x[i % N] / 255, drawn, i) for i in range(2 * N)])
    torch.testing.assert_close(seen.flatten(0, 1), expected, atol=2e-5, rtol=1e-4)
    assert 0 < drawn.jitter.sum() < 2 * N
    assert 0 < drawn.blur.sum() < 2 * N
    assert 0 < drawn.gray.sum() < 2 * N
    assert 0 < (drawn.hole[:, 2] > 0).sum() < 2 * N


def all_alike(patch: pytest.MonkeyPatch) -> list[Tensor]:
    """Let views be made as on a CUDA device; return what is copied there."""
    copied: list[Tensor] = []
    patch.setattr(augment, "alike", lambda device: True)
    patch.setattr(augment, "on_device", lambda t, device: copied.append(t) or t.clone())
    return copied


def shipped() -> dict[str, Augment]:
    said = {name: each.values["augment"] for name, each in recipes.book().items()}
    return {"everything": EVERYTHING} | {
        name: TypeAdapter(Augment).validate_python(each) for name, each in said.items()
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", shipped())
def test_views_of_a_cuda_device_are_those_of_a_cpu(name: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, for the recipes that are shipped; in parts, too."""
    how = shipped()[name]
    expected = augment.views(levels(N, channels), how, 2, rng())
    all_alike(monkeypatch)
    assert torch.equal(augment.views(levels(N, channels), how, 2, rng()), expected)
    monkeypatch.setattr(augment, "TOGETHER", 5 * channels * 16 * 16)
    assert torch.equal(augment.views(levels(N, channels), how, 2, rng()), expected)


@pytest.mark.parametrize(("how", "most"), [(Augment(), 300), (Augment(blur=0.5), 340)])
def test_a_cuda_device_has_few_operations_of_fixed_shapes(
    how: Augment, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = all_alike(monkeypatch)
    counts = [Kernels(), Kernels()]
    for seed, count in enumerate(counts):
        x = levels(32)
        augment.views(x, how, 2, rng(seed))  # what is made once
        copied.clear()
        with count:
            augment.views(x, how, 2, rng(seed + 10))
        assert len(copied) <= 2
    assert len(counts[0].made) <= most
    assert counts[0].made == counts[1].made


def test_views_are_the_same_for_the_same_seed_and_differ_from_each_other() -> None:
    first, again, other = (augment.views(levels(6), EVERYTHING, 2, rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (2, 6, 3, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6


def test_images_laid_out_channels_last_have_the_same_views() -> None:
    x = levels(6)
    expected = augment.views(x, EVERYTHING, 2, rng())
    assert torch.equal(augment.views(x.to(memory_format=torch.channels_last), EVERYTHING, 2, rng()), expected)


def test_an_image_keeps_its_place_among_views() -> None:
    """View v of item i is made of item i: constant images stay constant under crops and flips."""
    x = torch.tensor([20, 60, 100, 140, 250], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    seen = augment.views(x, Augment(jitter=None, gray=0), 3, rng())
    torch.testing.assert_close(seen, (x / 255).expand(3, 5, 1, 8, 8))


def test_no_augmentation_changes_nothing() -> None:
    x = levels(4)
    plain = Augment(crop=None, flip=0, jitter=None, gray=0)
    assert torch.equal(augment.views(x, plain, 1, rng())[0], x / 255)


def test_colour_needs_one_or_three_channels() -> None:
    augment.check(Augment(), 1)
    augment.check(Augment(jitter=(0.4, 0, 0, 0), gray=0), 5)
    with pytest.raises(UserError, match="the study has 5"):
        augment.check(Augment(), 5)
