"""Every augmentation against torchvision v2, for the same parameters, in float32."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from oodbench import augment
from oodbench.errors import UserError
from oodbench.spec import Augment

N = 40


@pytest.fixture(params=[1, 3])
def images(request: pytest.FixtureRequest) -> Tensor:
    return torch.rand(N, request.param, 20, 20, generator=torch.Generator().manual_seed(0))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each(images: Tensor, function: object, *params: Tensor) -> Tensor:
    return torch.stack([function(x, *(p[i] for p in params)) for i, x in enumerate(images)])


def test_resized_crop(images: Tensor) -> None:
    box = augment.draw_crop(N, 20, 20, Augment(crop=(0.05, 1.0)), rng())
    flip = augment.draw(N, 0.5, rng())
    expected = each(images, lambda x, b: TF.resized_crop(x, *b.tolist(), size=[20, 20], antialias=True), box)
    expected = torch.where(flip[:, None, None, None], expected.flip(3), expected)
    torch.testing.assert_close(augment.resized_crop(images, box, flip), expected)
    assert 0 < flip.sum() < N


def test_crop_that_is_not_square() -> None:
    x = torch.rand(3, 1, 12, 30)
    box = augment.draw_crop(3, 12, 30, Augment(), rng())
    expected = each(x, lambda a, b: TF.resized_crop(a, *b.tolist(), size=[12, 30], antialias=True), box)
    torch.testing.assert_close(augment.resized_crop(x, box, torch.zeros(3, dtype=torch.bool)), expected)


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


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (augment.brightness, TF.adjust_brightness, 0.0, 2.0),
        (augment.contrast, TF.adjust_contrast, 0.0, 2.0),
        (augment.saturation, TF.adjust_saturation, 0.0, 2.0),
        (augment.hue, TF.adjust_hue, -0.5, 0.5),
    ],
)
def test_colour(images: Tensor, ours: object, theirs: object, low: float, high: float) -> None:
    factor = augment.uniform(N, low, high, rng())
    expected = each(images, lambda x, f: theirs(x, f.item()), factor)
    torch.testing.assert_close(ours(images, factor), expected, atol=2e-6, rtol=1e-5)


def test_colour_of_grey_black_and_white_pixels() -> None:
    x = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    factor = torch.tensor([0.3, -0.2, 0.5])
    torch.testing.assert_close(augment.hue(x, factor), x)
    torch.testing.assert_close(augment.saturation(x, factor + 1), x)


def test_jitter_applies_each_operation_in_its_own_order(images: Tensor) -> None:
    factors, order = augment.draw_jitter(N, (0.4, 0.4, 0.4, 0.1), rng())
    chosen = augment.draw(N, 0.8, rng(1))
    theirs = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)

    def one(x: Tensor, f: Tensor, o: Tensor, c: Tensor) -> Tensor:
        for kind in o.tolist() if c else []:
            x = theirs[kind](x, f[kind].item())
        return x

    expected = each(images, one, factors, order, chosen)
    torch.testing.assert_close(augment.jitter(images, factors, order, chosen), expected, atol=5e-6, rtol=1e-5)
    assert len(order.unique(dim=0)) > 10


def test_jitter_factors_lie_in_torchvisions_ranges() -> None:
    factors, _ = augment.draw_jitter(2000, (0.4, 1.5, 0.0, 0.1), rng())
    low, high = factors.amin(0), factors.amax(0)
    torch.testing.assert_close(low, torch.tensor([0.6, 0.0, 1.0, -0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.4, 2.5, 1.0, 0.1]), atol=0.01, rtol=0)


def test_grayscale() -> None:
    x = torch.rand(5, 3, 6, 6)
    torch.testing.assert_close(augment.grayscale(x), TF.rgb_to_grayscale(x, num_output_channels=3))


def test_affine(images: Tensor) -> None:
    angle = augment.uniform(N, -40, 40, rng())
    shift = augment.uniform(2 * N, -0.3, 0.3, rng()).view(N, 2)

    def one(x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        bilinear = TF.InterpolationMode.BILINEAR
        return TF.affine(x, a.item(), (20 * s).tolist(), 1.0, [0.0, 0.0], interpolation=bilinear)

    torch.testing.assert_close(
        augment.affine(images, angle, shift), each(images, one, angle, shift), atol=1e-5, rtol=1e-4
    )


def test_erase(images: Tensor) -> None:
    box = augment.draw_erase(N, 20, 20, rng())
    chosen = augment.draw(N, 0.5, rng())
    expected = each(images, lambda x, b, c: TF.erase(x, *b.tolist(), torch.tensor(0.0)) if c else x, box, chosen)
    torch.testing.assert_close(augment.erase(images, box, chosen), expected)
    share = (box[:, 2] * box[:, 3]).double() / 400
    assert share.min() > 0.01
    assert share.max() < 0.4


def test_quarter_turns_are_counter_clockwise() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    turned = augment.quarter_turns(x, (0, 1, 2))
    assert turned[:, 0].tolist() == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]]]


def test_views_are_the_same_for_the_same_seed_and_differ_from_each_other() -> None:
    x = torch.rand(6, 3, 16, 16)
    everything = Augment(rotate=20, translate=0.1, erase=0.5)
    first, again, other = (augment.views(x, everything, 2, rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (2, 6, 3, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.min() >= 0
    assert first.max() <= 1


def test_an_image_keeps_its_place_among_views() -> None:
    """View v of item i is made of item i: constant images stay constant under crops and flips."""
    x = torch.linspace(0.1, 0.9, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    seen = augment.views(x, Augment(jitter=None, gray=0), 3, rng())
    torch.testing.assert_close(seen, x.expand(3, 5, 1, 8, 8))


def test_no_augmentation_changes_nothing() -> None:
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(augment.apply(x, Augment(crop=None, flip=0, jitter=None, gray=0), rng()), x)


def test_colour_needs_one_or_three_channels() -> None:
    augment.check(Augment(), 1)
    augment.check(Augment(jitter=(0.4, 0.4, 0, 0), gray=0), 5)
    with pytest.raises(UserError, match="the study has 5"):
        augment.check(Augment(), 5)
