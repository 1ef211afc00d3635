"""Each corruption against its formula on images, and what an image's draw depends on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sets_by_name import plugin

from oodbench.api import CORRUPTIONS
from oodbench.data import prepare
from oodbench.data.corruptions import STRENGTHS, corrupted
from oodbench.errors import UserError
from oodbench.study.grid import canonical
from oodbench.study.settings import ImageFormat

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(60, 160, (40, 32, 32, 3), dtype=np.uint8)  # no noise here leaves [0, 255] but an impulse
SEVERITIES = range(1, 6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_variance(severity: int) -> None:
    """Of 122,880 values; the standard error of a standard deviation is 0.2 % of it."""
    x = IMAGES / 255
    normal, shot = (corrupted(IMAGES, f"{kind}_noise-{severity}") / 255 for kind in ("gaussian", "shot"))
    assert (normal - x).std() == pytest.approx(STRENGTHS["gaussian_noise"][severity - 1], rel=0.02)
    photons = STRENGTHS["shot_noise"][severity - 1]
    assert (shot - x).var() == pytest.approx((x / photons).mean(), rel=0.05)  # a Poisson's variance is its mean
    assert abs((shot - x).mean()) < 0.002
    impulse, share = corrupted(IMAGES, f"impulse_noise-{severity}"), STRENGTHS["impulse_noise"][severity - 1]
    changed = impulse != IMAGES
    assert changed.mean() == pytest.approx(share, rel=0.1)
    assert set(np.unique(impulse[changed])) == {0, 255}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_draws_nothing_is_its_formula(severity: int) -> None:
    bright, factor = (STRENGTHS[kind][severity - 1] for kind in ("brightness", "contrast"))
    assert np.abs(corrupted(IMAGES, f"brightness-{severity}") - (IMAGES + 255 * bright)).max() <= 0.5 + 1e-9
    for image, found in zip(IMAGES[:3], corrupted(IMAGES[:3], f"contrast-{severity}"), strict=True):
        for channel in range(3):
            mean = image[..., channel].mean()
            wanted = mean + factor * (image[..., channel] - mean)
            assert np.abs(found[..., channel] - wanted).max() <= 0.5 + 1e-9


def test_pictures_are_pillows() -> None:
    grey = IMAGES[..., :1]
    for images, image in ((IMAGES, Image.fromarray(IMAGES[0])), (grey, Image.fromarray(grey[0, ..., 0]))):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=58)
        small = image.resize((27, 27), Image.Resampling.BOX)  # 0.85 of 32
        wanted = {
            "jpeg-3": Image.open(stream),
            "gaussian_blur-3": image.filter(ImageFilter.GaussianBlur(0.7)),
            "pixelate-3": small.resize((32, 32), Image.Resampling.NEAREST),
        }
        for how, each in wanted.items():
            found = corrupted(images, how)
            assert found.shape == images.shape
            assert np.array_equal(found[0], np.asarray(each).reshape(images[0].shape))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_changes_more(kind: str) -> None:
    x = IMAGES.astype(float)
    changes = [np.abs(corrupted(IMAGES, f"{kind}-{severity}") - x).mean() for severity in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_every_kind_that_a_set_takes_is_made() -> None:
    assert {*STRENGTHS} == {*CORRUPTIONS}
    assert all(len(each) == 5 for each in STRENGTHS.values())


def test_an_image_is_the_same_however_few_are_taken() -> None:
    whole = corrupted(IMAGES, "gaussian_noise-2")
    assert np.array_equal(corrupted(IMAGES[7:9], "gaussian_noise-2"), whole[7:9])
    twice = corrupted(np.stack([IMAGES[0]] * 2), "gaussian_noise-2").astype(int)
    assert np.array_equal(*twice)
    others = [corrupted(IMAGES[:1], how).astype(int) for how in ("gaussian_noise-3", "gaussian_noise-4")]
    drawn = [(each - IMAGES[:1]).ravel() for each in (*others, whole[:1].astype(int))]
    assert np.abs(np.corrcoef(drawn)[np.triu_indices(3, 1)]).max() < 0.1  # severities draw on their own


def test_a_set_is_corrupted_in_the_study_s_format(tmp_path: Path) -> None:
    image = ImageFormat(size=16, channels=1, levels=17)
    plain, worse = (plugin("digits", corrupt=how, limit=20) for how in (None, "gaussian_noise-5"))
    assert "corrupt" not in canonical(plain)  # no key is another one that was made before there was any
    x = []
    for i, each in enumerate((plain, worse)):
        folder = tmp_path / str(i)
        folder.mkdir()
        meta = prepare.prepare(each, "test", image, tmp_path, folder)
        x.append(prepare.opened(folder, meta).x)
    assert np.array_equal(x[1], prepare.to_format(corrupted(x[0], "gaussian_noise-5"), image))
    assert len(np.unique(x[1])) <= 17
    assert "corrupt=gaussian_noise-5" in worse.label
    meta = prepare.prepare(worse, "test", image, tmp_path, tmp_path / "0", room=0)
    again = prepare.reopened(worse, "test", image, tmp_path, tmp_path / "0", meta)  # decoded when it is read
    assert np.array_equal(again.x[:], x[1])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(UserError, match=r"jpeg-1 is for images of 1 or 3 channels, image\.channels is 5"):
        corrupted(np.zeros((1, 8, 8, 5), dtype=np.uint8), "jpeg-1")
    form = "should be KIND-SEVERITY with a severity of 1 to 5, such as gaussian_noise-3"
    for how, hint in (
        ("fog-1", "; allowed: brightness"),
        ("jpeg-6", ""),
        ("jpeg", ""),
        ("contrasd-1", "; did you mean 'contrast'"),
    ):
        with pytest.raises(ValueError, match=f"digits: corrupt is .*{form}{hint}"):
            plugin("digits", corrupt=how)
