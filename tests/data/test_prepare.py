"""Images from files to a study's format: protocols, format, hashes, overlap, and what is wrong with files."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image
from tiny import write

from oodbench.api import Dataset, Images
from oodbench.data import duplicates, prepare
from oodbench.data.download import fetch_set
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import Store
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import Registry
from oodbench.study.settings import ImageFormat
from oodbench.toolkit import image_files as images
from oodbench.training.batches import HostImages


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("dataset", name)(**params)


class Fixed(Dataset):
    """Ten images of three classes."""

    lazy: bool = False

    def load(self, split: str, root: Path) -> Images:
        x = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4)
        y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])
        return Images(list(x) if self.lazy else x, y, ("ant", "bee", "cat"))


def prepared(dataset: Dataset, folder: Path, image: ImageFormat, split: Any = "train") -> prepare.Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    meta = prepare.prepare(dataset, split, image, folder / "root", folder)
    return prepare.opened(folder, meta)


SAME = ImageFormat(size=4, channels=1)


@pytest.mark.parametrize(
    ("given", "index", "classes", "y"),
    [
        ({}, list(range(10)), ("ant", "bee", "cat"), [0, 1, 2, 0, 1, 2, 0, 1, 2, 2]),
        ({"only": 1}, [1, 4, 7], ("bee",), [0, 0, 0]),
        ({"only": "cat"}, [2, 5, 8, 9], ("cat",), [0, 0, 0, 0]),
        ({"without": 1}, [0, 2, 3, 5, 6, 8, 9], ("ant", "cat"), [0, 1, 0, 1, 0, 1, 1]),
        ({"without": ("ant", 2)}, [1, 4, 7], ("bee",), [0, 0, 0]),
        ({"keep": (2, 0)}, [0, 2, 3, 5, 6, 8, 9], ("ant", "cat"), [0, 1, 0, 1, 0, 1, 1]),
    ],
)
def test_class_protocols(given: dict[str, Any], index: list[int], classes: tuple[str, ...], y: list[int]) -> None:
    found = prepare.select(Fixed(**given), Fixed().load("train", Path()))
    assert (found[0].tolist(), found[2], found[1].tolist()) == (index, classes, y)


def test_per_class_draws_the_same_images_each_time() -> None:
    images = Fixed().load("train", Path())
    first, again = (prepare.select(Fixed(per_class=2), images) for _ in range(2))
    assert np.bincount(first[1]).tolist() == [2, 2, 2]
    assert first[0].tolist() == again[0].tolist() == sorted(first[0])


def test_no_class_left_is_an_error() -> None:
    with pytest.raises(UserError, match="no class is left"):
        prepare.select(Fixed(without=(0, 1, 2)), Fixed().load("train", Path()))


def test_lazy_images_are_the_same_as_those_in_memory(tmp_path: Path) -> None:
    image = ImageFormat(size=6, channels=3)
    first = prepared(Fixed(without=0), tmp_path / "a", image)
    second = prepared(Fixed(without=0, lazy=True), tmp_path / "b", image)
    assert first.content == second.content
    assert np.array_equal(first.x, second.x)
    assert first.x.shape == (7, 6, 6, 3)


def test_content_follows_images_and_labels(tmp_path: Path) -> None:
    contents = {
        prepared(dataset, tmp_path / str(i), image).content
        for i, (dataset, image) in enumerate(
            [(Fixed(), SAME), (Fixed(only=1), SAME), (Fixed(), ImageFormat(size=5, channels=1))]
        )
    }
    assert len(contents) == 3


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
@pytest.mark.parametrize("short", [None, 19])
@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (20, 20), (16, 16), (7, 9)])
def test_resize_and_centre_crop_as_torchvision_does(resize: str, short: int | None, height: int, width: int) -> None:
    """The shorter side is resized, to the size or more, then the centre is cropped (OpenOOD's test transform)."""
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(2, height, width, 3), dtype=np.uint8)
    found = prepare.to_format(x, ImageFormat(size=16, channels=3, resize=resize, short=short))
    t = torch.from_numpy(x).permute(0, 3, 1, 2).float()
    t = TF.resize(t, [short or 16], interpolation=TF.InterpolationMode(resize), antialias=True)
    expected = TF.center_crop(t, [16, 16]).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, expected)


def test_squash_keeps_the_whole_image() -> None:
    x = np.zeros((1, 8, 32), dtype=np.uint8)
    x[:, :, 16:] = 200
    found = prepare.to_format(x, ImageFormat(size=8, channels=1, fit="squash"))
    assert found.shape == (1, 8, 8, 1)
    assert (found[0, :, 0, 0] == 0).all()
    assert (found[0, :, -1, 0] == 200).all()
    cropped = prepare.to_format(x, ImageFormat(size=8, channels=1))
    assert (cropped[0, :, :4] == 0).all()
    assert (cropped[0, :, 4:] == 200).all()


def test_channels() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    colour = np.stack([grey, 2 * grey, 3 * grey], -1)
    assert np.array_equal(prepare.to_format(grey, ImageFormat(size=4, channels=3))[..., 2], grey)
    luma = np.round(0.2989 * grey + 0.587 * 2 * grey + 0.114 * 3 * grey)
    assert np.array_equal(prepare.to_format(colour, SAME)[..., 0], luma)
    alpha = np.concatenate([colour, np.full((1, 4, 4, 1), 9, np.uint8)], -1)
    assert np.array_equal(prepare.to_format(alpha, ImageFormat(size=4, channels=3)), colour)
    with pytest.raises(UserError, match="images of 3 channels cannot be turned into 5"):
        prepare.to_format(colour, ImageFormat(size=4, channels=5))


def test_levels_are_those_of_digits() -> None:
    """Requantised images have the 17 grey levels that digits have, exactly; digits themselves do not change."""
    digits = plugin("digits").load("test", Path()).x
    everything = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    found = prepare.to_format(everything, ImageFormat(size=16, channels=1, levels=17))
    assert np.array_equal(np.unique(found), np.unique(digits))
    again = prepare.to_format(digits, ImageFormat(size=8, channels=1, levels=17))
    assert np.array_equal(again[..., 0], digits)


def test_what_is_no_image() -> None:
    with pytest.raises(ValueError, match="uint8"):
        prepare.to_format(np.zeros((2, 4, 4), dtype=np.float32), SAME)  # type: ignore[arg-type]


def test_overlap_finds_equal_images() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(256, size=(2, 50, 4, 4, 1), dtype=np.uint8)
    b[[3, 40]] = a[[7, 7]]
    assert duplicates.exact(prepare.digests(a), prepare.digests(b))[1].tolist() == [3, 40]
    assert duplicates.exact(prepare.digests(b), prepare.digests(a))[1].tolist() == [7]


def test_equal_images_of_two_classes_are_warned_of(tmp_path: Path) -> None:
    class Doubtful(Dataset):
        def load(self, split: str, root: Path) -> Images:
            x = np.random.default_rng(0).integers(256, size=(30, 8, 8), dtype=np.uint8)
            x[[7, 20]], x[9], x[3] = x[4], x[4], x[6]
            y = np.arange(30) % 3
            return Images(x, y, ("ant", "bee", "cat"))  # 4 and 7 are bees, 9 an ant, 20 a cat; 3 and 6 are ants

    meta = prepare.prepare(Doubtful(), "train", ImageFormat(size=8, channels=1), tmp_path, tmp_path)
    said = "4 images are equal to one of another class of the set: image 9 (ant) is image 4 (bee)"
    assert meta["warnings"] == [said]
    alone = prepare.prepare(Doubtful(keep=("ant",)), "train", ImageFormat(size=8, channels=1), tmp_path, tmp_path)
    assert "warnings" not in alone


def test_the_held_out_split_is_by_class_and_disjoint() -> None:
    y = np.repeat([0, 1, 2], [100, 50, 3])
    fit, val = prepare.held_out_split(y, 0.1, 5)
    assert np.bincount(y[val]).tolist() == [10, 5, 1]
    assert sorted([*fit, *val]) == list(range(153))
    assert not np.array_equal(val, prepare.held_out_split(y, 0.1, 6)[1])


# ---- sets that the disk does not hold -----------------------------------------------------------------


def lazily(dataset: Dataset, folder: Path, image: ImageFormat) -> prepare.Prepared:
    """Return a set that is prepared for a disk with room for one byte less than it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    size = len(Fixed().load("train", Path()).y) * image.size**2 * image.channels
    meta = prepare.prepare(dataset, "train", image, folder, folder, room=size - 1)
    assert meta.pop("lazy") == size
    assert sorted(path.name for path in folder.iterdir()) == ["digest.npy", "y.npy"]
    mapped = prepare.prepare(dataset, "train", image, folder, folder, room=size)
    assert mapped == meta
    return prepare.reopened(dataset, "train", image, folder, folder, meta)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("image", [SAME, ImageFormat(size=7, channels=3), ImageFormat(size=3, channels=1, levels=17)])
def test_a_lazy_set_is_the_mapped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool, image: ImageFormat
) -> None:
    """Same pixels by any index, same labels, digests and content, whatever pieces it is decoded in."""
    whole = prepared(Fixed(lazy=lazy), tmp_path / "a", image)
    monkeypatch.setattr(prepare, "CHUNK", 3)
    found = lazily(Fixed(lazy=lazy), tmp_path / "b", image)
    assert isinstance(found.x, prepare.LazyImages)
    assert (found.x.shape, found.x.dtype, found.x.nbytes) == (whole.x.shape, whole.x.dtype, whole.x.nbytes)
    for at in (
        *(np.array([7, 0, 7, -1]), np.array([], dtype=np.int64), np.arange(10) % 3 == 1),
        *(slice(None), slice(2, 9, 3), slice(5, 5), 4, -2, np.int64(3)),
    ):
        expected = whole.x[at]
        assert np.array_equal(found.x[at], expected)
        assert found.x[at].shape == expected.shape
    assert np.array_equal(found.y, whole.y)
    assert np.array_equal(found.digest, whole.digest)
    assert (found.content, found.classes) == (whole.content, whole.classes)


def test_a_lazy_set_of_files_is_decoded_by_threads(tmp_path: Path) -> None:
    """Classes are kept and images resized; the order is that of the files."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(30)]
    for path in paths:
        Image.fromarray(rng.integers(256, size=(rng.integers(5, 20), 9, 3), dtype=np.uint8)).save(path)

    class Files(Dataset):
        """Files."""

        def load(self, split: str, root: Path) -> Images:
            return Images(images.of_files(paths), np.arange(30) % 3, ("a", "b", "c"))

    image, dataset = ImageFormat(size=6, channels=3), Files(without="b")
    (tmp_path / "out").mkdir()
    meta = prepare.prepare(dataset, "train", image, tmp_path, tmp_path / "out", room=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = prepare.reopened(dataset, "train", image, tmp_path, tmp_path / "out", meta)
        kept = [path for i, path in enumerate(paths) if i % 3 != 1]
        expected = [prepare.to_format(np.array(Image.open(path))[None], image)[0] for path in kept]
        assert np.array_equal(found.x[:], np.stack(expected))
    finally:
        torch.set_num_threads(threads)
    Image.fromarray(np.zeros((6, 6, 3), dtype=np.uint8)).save(kept[4])
    assert np.array_equal(found.x[:4], np.stack(expected[:4]))
    with pytest.raises(ValueError, match="image 4 is decoded to other pixels than when the set was prepared"):
        found.x[2:6]
    dataset = Files()  # of other labels than were prepared
    with pytest.raises(ValueError, match="it is not what was prepared; delete"):
        prepare.reopened(dataset, "train", image, tmp_path, tmp_path / "out", meta)


def test_a_disk_that_is_too_small_is_said_and_changes_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard(Watch):
        """Keeps the warnings."""

        def __init__(self) -> None:
            self.said: list[str] = []

        def warn(self, message: str) -> None:
            self.said.append(message)

    pipelines, keys = [], []
    for free in (10**9, 120 * 64):  # the bytes of its train split, of which a set may take 90 %
        monkeypatch.setattr(Store, "free", lambda self, free=free: free)
        heard = Heard()
        file = write(tmp_path / f"{free}.yaml", store=str(tmp_path / f"store{free}"), training="cross_entropy")
        pipeline = Pipeline(reader.load(file), Options(device="cpu"), heard)
        pipelines.append(pipeline)
        run = Runner(pipeline.study, Options(device="cpu")).plan.work[0].run
        keys.append(pipeline.encoders.train_key(run))
        assert len(heard.said) == (free < 10**9)
    for words in (
        "blobs(groups=3, count=120), train: ",
        "more than 90% of the free disk",
        "decoded whenever it is read",
    ):
        assert words in heard.said[0]
    assert keys[0] == keys[1]
    fit, _ = pipelines[0].encoders.split(run)
    seen = [
        pipeline.encoders.images(run.id, pipeline.library.prepared(run.id, "train"), fit, pipeline.device)
        for pipeline in pipelines
    ]
    assert isinstance(seen[1], HostImages)
    rows = torch.tensor([5, 0, 80])
    assert torch.equal(seen[0][rows], seen[1][rows])
    several = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, devices=2))
    with pytest.raises(UserError, match="does not fit on the disk, as a training on several devices needs"):
        pipelines[1].encoders._ready(several)


# ---- sets -------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    train, test = (plugin("digits").load(split, Path()) for split in ("train", "test"))
    assert len(train.x) + len(test.x) == 1797
    shares = np.bincount(test.y) / (np.bincount(train.y) + np.bincount(test.y))
    assert shares.min() > 0.38
    assert shares.max() < 0.42


def test_natural_patches_of_train_and_test_come_from_different_places() -> None:
    patches = plugin("natural_patches", count=50, size=16)
    train, test = (patches.load(split, Path()).x for split in ("train", "test"))
    assert train.shape == (50, 16, 16, 3)
    assert not len(duplicates.exact(prepare.digests(train), prepare.digests(test))[1])
    assert min(np.asarray(Image.fromarray(x).convert("L")).std() for x in train) >= 20


def test_glyphs_are_letters() -> None:
    found = plugin("glyphs", letters="KX", count=40, size=12).load("train", Path())
    assert found.classes == ("K", "X")
    assert found.x.shape == (40, 12, 12)
    assert found.x.max(axis=(1, 2)).min() > 100
    means = [found.x[found.y == k].mean(0) for k in range(2)]
    assert np.abs(means[0] - means[1]).max() > 30


def test_noise_fills_all_levels() -> None:
    x = plugin("noise", count=100, size=8, channels=3).load("test", Path()).x
    assert x.shape == (100, 8, 8, 3)
    assert x.mean() == pytest.approx(127.5, abs=1)
    assert x.std() == pytest.approx(256 / np.sqrt(12), abs=1)


def test_blobs_have_the_moments_they_claim() -> None:
    blobs = plugin("blobs", count=4000, groups=2, spread=12.0, separation=100.0, shift=30.0)
    plain = plugin("blobs", count=4000, groups=2, spread=12.0, separation=100.0)
    moved, still = (each.load("train", Path()) for each in (blobs, plain))
    for k in range(2):
        difference = moved.x[moved.y == k].mean(0, dtype=float) - still.x[still.y == k].mean(0, dtype=float)
        assert np.linalg.norm(difference) == pytest.approx(30, abs=5)
        assert still.x[still.y == k].std(0).mean() == pytest.approx(np.sqrt(144 + 1 / 12), abs=0.3)


def write_idx(path: Path, array: np.ndarray, compressed: bool) -> None:
    content = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if compressed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.fixture
def fashion(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fashion-MNIST that finds no files of the machine's own and downloads nothing."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refuse)
    dataset = plugin("fashion_mnist")
    monkeypatch.setattr(type(dataset), "folders", dataset.folders[:2])
    return dataset


def write_fashion(folder: Path, compressed: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = {}
    for split, prefix, n in (("train", "train", 30), ("test", "t10k", 20)):
        x, y = rng.integers(256, size=(n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", x, compressed)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", y, compressed)
        found[split] = (x, y)
    return found


@pytest.mark.parametrize(("place", "compressed"), [("fashion_mnist", True), ("FashionMNIST/raw", False)])
def test_fashion_mnist_is_found_where_it_may_be(tmp_path: Path, fashion: Any, place: str, compressed: bool) -> None:
    written = write_fashion(tmp_path / place, compressed)
    fetch_set(fashion, tmp_path)
    for split in ("train", "test"):
        images = fashion.load(split, tmp_path)
        assert np.array_equal(images.x, written[split][0])
        assert np.array_equal(images.y, written[split][1])
    assert images.classes[9] == "Ankle boot"
    assert len(fashion.files("train", tmp_path)) == 2


def test_missing_fashion_mnist_says_what_to_place_where(tmp_path: Path, fashion: Any) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fetch_set(fashion, tmp_path)
    for words in (
        "there is no connection",
        "t10k-labels-idx1-ubyte.gz",
        str(tmp_path / "fashion_mnist"),
        "dataset-fashion-mnist",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_file_is_damaged(tmp_path: Path, fashion: Any, compressed: bool) -> None:
    write_fashion(tmp_path / "fashion_mnist", compressed)
    (path,) = (tmp_path / "fashion_mnist").glob("train-images*")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte(\.gz)? is damaged"):
        fashion.load("train", tmp_path)


def test_another_file_is_no_idx_file(tmp_path: Path, fashion: Any) -> None:
    write_fashion(tmp_path / "fashion_mnist", False)
    (tmp_path / "fashion_mnist" / "train-images-idx3-ubyte").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(ValueError, match="is not an IDX file"):
        fashion.load("train", tmp_path)
