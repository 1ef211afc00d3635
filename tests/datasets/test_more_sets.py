"""The field's larger sets, on tiny files in the layouts they are published in."""

from __future__ import annotations

import csv
import importlib
import inspect
import io
import itertools
import json
import math
import socket
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np
import own
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision.datasets as peers
from PIL import Image
from places import ROOT
from python2_pickles import write_py2
from scipy.io import loadmat, savemat
from sets_by_name import REGISTRY, module, plugin
from tiny import write

from oodbench.conformance.suite import conform
from oodbench.data import needs, prepare
from oodbench.data.download import fetch_set
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import source_of
from oodbench.study.settings import ImageFormat
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Folders, Place

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(256, size=shape, dtype=np.uint8)


def encoded(form: str = "PNG") -> bytes:
    """Return an image that no other is alike to."""
    return own.encoded(noise(5, 4, 3), form)


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


# ---- writers: a set in each of its forms, as it is published, with a few images -----------------------------------


def scenes(folder: str, ending: str = "png", count: int = 4) -> Callable[[Path], None]:
    """Return a writer of images in a folder of a folder, beside what a Mac leaves there."""

    def write_them(root: Path) -> None:
        for i in range(count):
            put(root / folder / "test" / f"test_{i}.{ending}", encoded("PNG" if ending == "png" else "JPEG"))
        put(root / folder / "test" / f"._test_0.{ending}", "of a Mac")
        put(root / folder / "LICENSE", "terms")

    return write_them


def classes(folder: str, names: tuple[str, ...], count: int = 2, form: str = "JPEG", under: str = ".") -> Any:
    """Return a writer of images in a folder for each class."""

    def write_them(root: Path) -> None:
        for i, name in itertools.product(range(count), names):
            put(root / folder / name / under / f"{name.rpartition('/')[2]}_{i}.{form}", encoded(form))

    return write_them


def both(*writers: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_them(root: Path) -> None:
        for each in writers:
            each(root)

    return write_them


WNIDS = ("n01443537", "n01629819", "n02085620")


def write_tiny_imagenet(root: Path) -> None:
    classes("tiny-imagenet-200/train", WNIDS, count=3, under="images")(root)
    lines = [f"val_{i}.JPEG\t{WNIDS[i * 2 % 3]}\t0\t32\t44\t62\n" for i in range(5)]
    put(root / "tiny-imagenet-200/val/val_annotations.txt", "".join(lines))
    for i in range(6):  # the last is in no list
        put(root / f"tiny-imagenet-200/val/images/val_{i}.JPEG", encoded("JPEG"))


def write_places365(root: Path) -> None:
    folder = root / "places365"
    names = [f"/{chr(97 + i % 26)}/place{i:03}" + ("/indoor" if i % 2 else "") for i in range(365)]
    put(folder / "categories_places365.txt", "".join(f"{name} {i}\n" for i, name in enumerate(names)))
    put(folder / "places365_val.txt", "".join(f"Places365_val_{i:08}.jpg {i * 7}\n" for i in range(1, 6)))
    put(folder / "places365_test.txt", "".join(f"Places365_test_{i:08}.jpg\n" for i in range(1, 4)))
    for part, i in itertools.product(("val", "test"), range(1, 6)):
        put(folder / f"{part}_256" / f"Places365_{part}_{i:08}.jpg", encoded("JPEG"))


def write_images300k(root: Path) -> None:
    root.mkdir(exist_ok=True)
    np.save(root / "300K_random_images.npy", noise(6, 32, 32, 3))


def write_dior(root: Path) -> None:
    top = root / "DIOR"
    for part, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (11726, 11727))):
        put(top / f"ImageSets/Main/{part}.txt", "".join(f"{i:05}\n" for i in numbers))
        for i in numbers:
            folder = "JPEGImages-test" if part == "test" else "JPEGImages-trainval"
            put(top / folder / f"{i:05}.jpg", own.encoded(noise(260, 300, 3), "JPEG"))
            boxes = [("airplane", 10, 20, 130, 141), ("vehicle", 5, 5, 25, 25), ("harbor", 0, 0, 150, 130 + i % 7)]
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
                "</bndbox></object>"
                for name, a, b, c, d in boxes
            )
            put(top / f"Annotations/Horizontal Bounding Boxes/{i:05}.xml", f"<annotation>{objects}</annotation>")


LESIONS = [  # lesion, diagnosis, images
    *((f"HAM_{i:07}", "nv", 1 + i % 3) for i in range(10)),
    *((f"HAM_{i:07}", "mel", 2) for i in range(10, 15)),
]


def write_ham10000(root: Path) -> None:
    table, number = io.StringIO(), 24306
    rows = csv.writer(table)
    rows.writerow(["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"])
    for lesion, diagnosis, count in LESIONS:
        for _ in range(count):
            name = f"ISIC_{number:07}"
            put(root / "HAM10000" / f"HAM10000_images_part_{1 + number % 2}" / f"{name}.jpg", encoded("JPEG"))
            rows.writerow([lesion, name, diagnosis, "histo", "45.0", "male", "back"])
            number += 1
    put(root / "HAM10000/HAM10000_metadata.csv", table.getvalue())


def write_huggingface(root: Path) -> None:
    """Write the two Parquet files of a set with named classes, as the Hub has it."""
    (root / "images").mkdir(parents=True)
    label = '{"names": ["cat", "ant"], "_type": "ClassLabel"}'
    feature = f'{{"info": {{"features": {{"image": {{"_type": "Image"}}, "label": {label}}}}}}}'
    for split, count in (("train", 6), ("test", 4)):
        images = [{"bytes": encoded(), "path": f"{i}.png"} for i in range(count)]
        table = pa.table({"image": images, "label": pa.array([i % 2 for i in range(count)], pa.int64())})
        table = table.replace_schema_metadata({"huggingface": feature})
        pq.write_table(table, root / "images" / f"{split}-00000-of-00001.parquet")


BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")
DOGS = ("n02085620-Chihuahua", "n02099267-flat-coated_retriever")
BREEDS = ("Abyssinian", "american_bulldog", "Bengal")  # numbered whatever the case
DISHES = ("apple_pie", "hot_dog", "waffles")
FLOWERS = tuple(peers.Flowers102.classes)


def write_cub(root: Path) -> None:
    top, lists = root / "CUB_200_2011", {"images": "", "image_class_labels": "", "train_test_split": ""}
    for i in range(7):
        name = f"{BIRDS[i % 3]}/{BIRDS[i % 3][4:]}_{i:04}_{900 + i}.jpg"
        put(top / "images" / name, encoded("JPEG"))
        for each, value in zip(lists, (name, i % 3 + 1, int(i < 4)), strict=True):
            lists[each] += f"{i + 1} {value}\n"
    for each, text in lists.items():
        put(top / f"{each}.txt", text)
    put(top / "classes.txt", "".join(f"{k} {name}\n" for k, name in enumerate(BIRDS, 1)))


def write_stanford_dogs(root: Path) -> None:
    top = root / "stanford_dogs"
    for part, count in (("train", 5), ("test", 3)):
        names = [f"{DOGS[i % 2]}/{DOGS[i % 2][:9]}_{i + 10 * count}.jpg" for i in range(count)]
        for name in names:
            put(top / "Images" / name, encoded("JPEG"))
        listed = np.empty((count, 1), dtype=object)
        listed[:, 0] = names
        labels = np.array([[i % 2 + 1] for i in range(count)], dtype=float)
        savemat(top / f"{part}_list.mat", {"file_list": listed, "annotation_list": listed, "labels": labels})


def write_pets(root: Path) -> None:
    top = root / "oxford-iiit-pet"
    for part, count in (("trainval", 6), ("test", 3)):
        names = [f"{BREEDS[i % 3]}_{i + 10 * count}" for i in range(count)]
        for name in names:
            put(top / "images" / f"{name}.jpg", encoded("JPEG"))
        put(top / f"annotations/{part}.txt", "".join(f"{n} {i % 3 + 1} {1 + i % 2} 1\n" for i, n in enumerate(names)))


def write_flowers102(root: Path) -> None:
    top = root / "flowers-102"
    for i in range(1, 10):
        put(top / f"jpg/image_{i:05}.jpg", encoded("JPEG"))
    savemat(top / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 102, 3, 3, 1, 50, 102]], dtype=np.uint8)})
    parts = {"trnid": [[9, 2, 4]], "valid": [[1, 3]], "tstid": [[8, 6, 5, 7]]}
    savemat(top / "setid.mat", {name: np.array(each, dtype=np.uint16) for name, each in parts.items()})


def write_food101(root: Path) -> None:
    top = root / "food-101"
    for part, count in (("train", 2), ("test", 1)):
        listed = {name: [f"{name}/{i + 10 * count}" for i in range(count)] for name in reversed(DISHES)}
        put(top / f"meta/{part}.json", json.dumps(listed))
        for each in itertools.chain(*listed.values()):
            put(top / f"images/{each}.jpg", encoded("JPEG"))


def write_test_batch(root: Path) -> None:
    batch = {"labels": [i % 10 for i in range(130)], "data": noise(130, 3072)}
    write_py2(root / "cifar-10-batches-py/test_batch", batch)


def write_cifar10_c(root: Path) -> None:
    top = root / "CIFAR-10-C"
    top.mkdir(parents=True)
    np.save(top / "labels.npy", np.tile(np.arange(12) % 10, 5))
    for kind in get_args(module("cifar10_c").Kind):
        np.save(top / f"{kind}.npy", noise(60, 32, 32, 3))


def write_caltech256(root: Path) -> None:
    top = root / "caltech256/256_ObjectCategories"
    for name, i in itertools.product(("001.ak47", "002.clutter"), (1, 2)):
        put(top / name / f"{name[:3]}_{i:04}.jpg", encoded("JPEG"))
    put(top / "002.clutter/RENAME2", "a script that was left there")


IMAGENET30 = module("imagenet30").NAMES
RAABIN = module("raabin_wbc").NAMES
NINCO = ("amphiuma_means", "caracal", "waffles")


class Case(NamedTuple):
    """A set, the parameters it is made with, how it is written, and what it is then."""

    name: str
    params: dict[str, Any]
    writer: Callable[[Path], None]
    sizes: tuple[int, int]  # of train and test; 0: there is no such split
    classes: tuple[str, ...] | int  # their names, or how many
    numbers: Mapping[str, Any] = MappingProxyType({})  # what its module or class says, for these files

    @property
    def dataset(self) -> Any:
        return plugin(self.name, **self.params)


def imagenet(names: tuple[str, ...]) -> Callable[[Path], None]:
    return both(classes("imagenet/train", names, count=2), classes("imagenet/val", names, count=1))


CASES = {
    "lsun crop": Case("lsun", {}, scenes("LSUN"), (0, 4), ("lsun",), {"COUNT": 4}),
    "lsun resize": Case("lsun", {"form": "resize"}, scenes("LSUN_resize"), (0, 4), ("lsun",), {"COUNT": 4}),
    "lsun fix": Case("lsun", {"form": "fix"}, scenes("LSUN_fix"), (0, 4), ("lsun",), {"COUNT": 4}),
    "isun": Case("isun", {}, scenes("iSUN", "jpeg"), (0, 4), ("isun",)),
    "tiny_imagenet": Case("tiny_imagenet", {}, write_tiny_imagenet, (9, 5), WNIDS, {"TRAIN_COUNT": 9}),
    "tiny_imagenet crop": Case(
        "tiny_imagenet", {"form": "crop"}, scenes("Imagenet_crop"), (0, 4), ("tiny_imagenet",), {"COUNT": 4}
    ),
    "tiny_imagenet resize": Case(
        "tiny_imagenet", {"form": "resize"}, scenes("Imagenet_resize"), (0, 4), ("tiny_imagenet",), {"COUNT": 4}
    ),
    "tiny_imagenet fix": Case(
        "tiny_imagenet", {"form": "fix"}, scenes("Imagenet_fix"), (0, 4), ("tiny_imagenet",), {"COUNT": 4}
    ),
    "places365 val": Case("places365", {}, write_places365, (0, 5), 365),
    "places365 test": Case("places365", {"part": "test"}, write_places365, (0, 3), ("places365",)),
    "images300k": Case("images300k", {}, write_images300k, (6, 0), ("images300k",), {"COUNT": 6}),
    "imagenet30": Case(
        "imagenet30",
        {},
        both(
            classes("ImageNet/one_class_train", IMAGENET30, under="images"),
            classes("ImageNet/one_class_test", IMAGENET30, count=1),
        ),
        (60, 30),
        IMAGENET30,
    ),
    "imagenet1k": Case(
        "imagenet1k",
        {},
        imagenet(WNIDS),
        (6, 3),
        WNIDS,
        {"_wnids": lambda: WNIDS},
    ),
    "imagenet200": Case(
        "imagenet200",
        {},
        imagenet((*WNIDS, "n01440764")),  # the last is left alone
        (6, 3),
        WNIDS,
        {"class_names": WNIDS},
    ),
    "ssb_hard": Case("ssb_hard", {}, classes("ssb_hard", WNIDS), (0, 6), WNIDS),
    "ninco": Case("ninco", {}, classes("NINCO/NINCO_OOD_classes", NINCO), (0, 6), NINCO),
    "inaturalist": Case("inaturalist", {}, scenes("iNaturalist", "jpg"), (0, 4), ("inaturalist",)),
    "openimage_o": Case("openimage_o", {}, scenes("openimage_o", "jpg"), (0, 4), ("openimage_o",)),
    "huggingface": Case("huggingface", {}, write_huggingface, (6, 4), ("cat", "ant")),
    "dior": Case("dior", {}, write_dior, (6, 4), module("dior").NAMES),
    "raabin_wbc": Case(
        "raabin_wbc",
        {},
        both(classes("raabin_wbc/Train", RAABIN), classes("raabin_wbc/TestA", RAABIN, count=1)),
        (10, 5),
        RAABIN,
        {"COUNTS": {"train": 10, "test": 5}},
    ),
    "cub": Case("cub", {}, write_cub, (4, 3), BIRDS),
    "stanford_dogs": Case("stanford_dogs", {}, write_stanford_dogs, (5, 3), DOGS),
    "pets": Case("pets", {}, write_pets, (6, 3), BREEDS),
    "flowers102": Case("flowers102", {}, write_flowers102, (5, 4), FLOWERS),
    "food101": Case("food101", {}, write_food101, (6, 3), DISHES),
    "caltech256": Case(
        "caltech256",
        {},
        write_caltech256,
        (0, 4),
        ("001.ak47", "002.clutter"),
    ),
    "cifar10_interpolated": Case("cifar10_interpolated", {}, write_test_batch, (0, 130), ("cifar10_interpolated",)),
    "cifar10_c": Case("cifar10_c", {}, write_cifar10_c, (0, 12), module("cifar10").NAMES, {"EACH": 12}),
    "ham10000": Case("ham10000", {}, write_ham10000, (23, 6), module("ham10000").NAMES, {"COUNT": 29}),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")


def published(case: Case, split: str) -> int | None:
    """Return how many images a folder must hold."""
    place = case.dataset.places.get(split) if isinstance(case.dataset, Folders) else None
    return place.size if place else None


def sized() -> Iterator[tuple[Any, str, Place]]:
    """Yield the class, attribute and value that lets a folder hold as many images as those of these tests."""
    for case in CASES.values():
        cls = REGISTRY.load("dataset", case.name)
        for split, size in zip(("train", "test"), case.sizes, strict=True):
            place = getattr(cls, f"{split}_place", None)
            if isinstance(place, Place) and place.size is not None:
                yield cls, f"{split}_place", place._replace(size=size)


SIZED = list(sized())


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sets be as large as the files of these tests."""
    for case in CASES.values():
        for name, value in case.numbers.items():
            said = module(case.name)
            monkeypatch.setattr(said if hasattr(said, name) else REGISTRY.load("dataset", case.name), name, value)
    for cls, name, place in SIZED:
        monkeypatch.setattr(cls, name, place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ours = str(ROOT)  # its folder `datasets` would hide Hugging Face's package
    monkeypatch.setattr(sys, "path", [each for each in sys.path if Path(each or ".").resolve() != Path(ours)])
    if not hasattr(sys.modules.get("datasets"), "load_dataset"):
        sys.modules.pop("datasets", None)


def written(case: Case, root: Path) -> Path:
    case.writer(root)
    return root


def pixels(images: Any) -> list[np.ndarray]:
    return [np.asarray(images.x[i]) for i in range(len(images.x))]


# ---- what all have in common --------------------------------------------------------------------------------------


@pytest.mark.slow
@EACH
def test_sizes_classes_and_files(tmp_path: Path, case: Case) -> None:
    root, dataset = written(case, tmp_path), case.dataset
    fetch_set(dataset, root)
    assert dataset.splits == tuple(split for split, size in zip(("train", "test"), case.sizes, strict=True) if size)
    for split, size in zip(("train", "test"), case.sizes, strict=True):
        if not size:
            with pytest.raises(ValueError, match=f"{case.name} is published as one split, .*no {split} images"):
                dataset.load(split, root)
            continue
        found = dataset.load(split, root)
        assert len(found.x) == len(found.y) == size
        assert len(found.classes) == case.classes if isinstance(case.classes, int) else found.classes == case.classes
        assert all(x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 3 for x in pixels(found))
        files = dataset.files(split, root)
        assert files
        assert len(set(files)) == len(files)
        assert all(path.is_file() for path in files)


@EACH
def test_the_files_of_the_other_split_are_not_listed(tmp_path: Path, case: Case) -> None:
    if case.name == "huggingface" or 0 in case.sizes:
        pytest.skip("it is listed as a whole, or has no other split")
    root = written(case, tmp_path)
    train, test = (set(case.dataset.files(split, root)) for split in ("train", "test"))
    assert {path.suffix for path in train & test} <= {".csv", ".mat", ".txt"}  # lists of both


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({case.name for case in CASES.values()}))
def test_it_conforms(tmp_path: Path, name: str) -> None:
    for case in CASES.values():
        if case.name == name and case.writer not in (write_places365,):
            case.writer(tmp_path)
    if name == "places365":
        write_places365(tmp_path)
    results = conform(REGISTRY.source("dataset", name), tmp_path)
    assert not [f"{each.check}: {each.problem}" for each in results if each.problem]
    assert not any(each.skipped for each in results)


@EACH
def test_classes_are_kept_and_left_out(tmp_path: Path, case: Case) -> None:
    root, split = written(case, tmp_path), case.dataset.splits[-1]
    found = case.dataset.load(split, root)
    there = [found.classes[k] for k in sorted(set(found.y.tolist()))]
    folder = tmp_path / "out"
    folder.mkdir()
    meta = prepare.prepare(
        plugin(case.name, **case.params, keep=(there[-1],)), split, ImageFormat(size=8, channels=3), root, folder
    )
    assert meta["classes"] == [there[-1]]
    assert meta["counts"] == [int((found.y == found.classes.index(there[-1])).sum())]


@EACH
def test_missing_files_are_named(tmp_path: Path, case: Case) -> None:
    if case.name == "huggingface":
        pytest.skip("it is not fetched: see below")
    dataset = case.dataset
    assert list(dataset.files(dataset.splits[0], tmp_path)) == []
    with pytest.raises(FileNotFoundError) as caught:
        fetch_set(dataset, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{dataset.source.title}: {tmp_path}")
    assert "\n" not in message
    assert f"place in {tmp_path / dataset.source.folder}" in message
    first = dataset.source.downloads[0]
    assert first.urls[0] in message if first.urls else dataset.source.by_hand in message


@EACH
def test_a_damaged_image_is_named(tmp_path: Path, case: Case) -> None:
    if case.name in ("images300k", "huggingface", "cifar10_interpolated", "cifar10_c"):
        pytest.skip("its images are in one file: see below")
    root, split = written(case, tmp_path), case.dataset.splits[-1]
    of_images = (".png", ".jpg", ".jpeg", ".jpg", ".JPEG")
    first = next(path for path in case.dataset.files(split, root) if path.suffix in of_images)
    first.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=f"{first.name} is no image that Pillow can read"):
        pixels(case.dataset.load(split, root))


@EACH
def test_an_incomplete_set_is_refused(tmp_path: Path, case: Case) -> None:
    split = next((split for split in case.dataset.splits if published(case, split)), None)
    if split is None:
        pytest.skip("how many images it has is not known, or said by a list")
    root, dataset = written(case, tmp_path), case.dataset
    put(dataset.files(split, root)[0].with_name("another.jpg"), encoded("JPEG"))
    size = case.sizes[split == "test"]
    with pytest.raises(ValueError, match=rf"holds {size + 1} images and the set {size}: it is no whole copy"):
        dataset.load(split, root)


# ---- against other readers of the same files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [
        ("lsun crop", "LSUN", "test"),
        ("imagenet30", "ImageNet/one_class_train", "train"),
        ("imagenet1k", "imagenet/val", "test"),
        ("ninco", "NINCO/NINCO_OOD_classes", "test"),
        ("raabin_wbc", "raabin_wbc/Train", "train"),
        ("tiny_imagenet", "tiny-imagenet-200/train", "train"),
    ],
)
def test_it_loads_what_image_folder_loads(tmp_path: Path, name: str, folder: str, split: str) -> None:
    """Papers read these sets by torchvision's ImageFolder, which would also take the files that a Mac leaves."""
    root = written(CASES[name], tmp_path)
    for path in root.rglob("._*"):
        path.unlink()
    peer = peers.ImageFolder(str(root / folder))
    found = CASES[name].dataset.load(split, root)
    assert found.y.tolist() == peer.targets
    assert all(np.array_equal(x, np.asarray(image)) for x, (image, _) in zip(pixels(found), peer, strict=True))


def test_places_are_what_torchvision_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_places365(tmp_path)
    monkeypatch.setattr(
        "torchvision.datasets.places365.check_integrity", lambda *_, **__: True
    )  # hashes of the real lists
    peer = peers.Places365(str(tmp_path / "places365"), "val", small=True)
    found = plugin("places365").load("test", tmp_path)
    assert found.y.tolist() == peer.targets
    assert all(np.array_equal(x, np.asarray(image)) for x, (image, _) in zip(pixels(found), peer, strict=True))
    assert {f"/{name}": k for k, name in enumerate(found.classes)} == {
        name[2:]: k for name, k in peer.class_to_idx.items()
    }


@pytest.mark.parametrize(
    ("name", "params", "peer"),
    [
        ("flowers102", {"test": ("val",)}, lambda root: peers.Flowers102(str(root), "val")),
        ("flowers102", {}, lambda root: peers.Flowers102(str(root), "test")),
        ("food101", {}, lambda root: peers.Food101(str(root), "test")),
        ("food101", {"test": ("train",)}, lambda root: peers.Food101(str(root), "train")),
        ("pets", {}, lambda root: peers.OxfordIIITPet(str(root), "test")),
        ("pets", {"test": ("trainval",)}, lambda root: peers.OxfordIIITPet(str(root), "trainval")),
        ("caltech256", {}, lambda root: peers.Caltech256(str(root))),
    ],
)
def test_it_loads_what_torchvision_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any], peer: Callable[[Path], Any]
) -> None:
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)  # hashes of the real lists
    theirs = peer(written(CASES[name], tmp_path))
    ours = plugin(name, **params).load("test", tmp_path)
    for x, k, (image, y) in zip(pixels(ours), ours.y, theirs, strict=True):
        assert np.array_equal(x, np.asarray(image))
        assert k == y


def test_addresses_and_hashes_are_torchvisions() -> None:
    def said(name: str) -> set[tuple[str, str | None]]:
        return {(each.urls[0], each.hash) for each in plugin(name).source.downloads}

    flowers = peers.Flowers102
    assert said("flowers102") == {
        (flowers._download_url_prefix + file, f"md5:{md5}") for file, md5 in flowers._file_dict.values()
    }
    assert said("food101") == {(peers.Food101._URL, f"md5:{peers.Food101._MD5}")}
    assert said("pets") == {(url, f"md5:{md5}") for url, md5 in peers.OxfordIIITPet._RESOURCES}
    ((url, md5),) = said("caltech256")
    assert all(each in inspect.getsource(peers.Caltech256) for each in (url, str(md5).removeprefix("md5:")))


def test_addresses_and_hashes_are_pytorch_oods() -> None:
    from pytorch_ood.dataset import img

    resized = {
        "lsun crop": img.LSUNCrop,
        "lsun resize": img.LSUNResize,
        "tiny_imagenet crop": img.TinyImageNetCrop,
        "tiny_imagenet resize": img.TinyImageNetResize,
    }
    for case, theirs in resized.items():
        (ours,) = CASES[case].dataset.source.downloads
        assert ours.urls == (f"{theirs.url.replace('/raw/', '/')}?dl=1",)
        assert (ours.name, ours.hash) == (theirs.filename, f"md5:{theirs.tgz_md5}")
    for name, theirs in (("openimage_o", img.OpenImagesO), ("ssb_hard", img.SSBHard)):
        assert f"https://drive.google.com/file/d/{theirs.gdrive_id}, or" in plugin(name).source.by_hand
        assert plugin(name).source.downloads[0].name == theirs.filename


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        *((name, ("train", "val", "test")) for name in ("textures", "flowers102")),
        *((name, ("train", "test")) for name in ("cub", "stanford_dogs", "food101")),
        ("pets", ("trainval", "test")),
    ],
)
def test_parts_are_those_that_are_published(name: str, parts: tuple[str, ...]) -> None:
    assert tuple(plugin(name).parts) == parts


@pytest.mark.parametrize("name", ["cub", "stanford_dogs", "pets", "food101", "flowers102"])
def test_all_parts_may_be_the_test_split(tmp_path: Path, name: str) -> None:
    """CSI tests on images of the whole set."""
    case, whole = CASES[name], plugin(name, test=tuple(plugin(name).parts))
    root = written(case, tmp_path)
    found, parts = whole.load("test", root), [case.dataset.load(split, root) for split in ("train", "test")]
    assert len(whole.load("train", root).x) == 0
    assert sorted(x.tobytes() for x in pixels(found)) == sorted(x.tobytes() for part in parts for x in pixels(part))
    assert np.array_equal(np.sort(found.y), np.sort(np.concatenate([part.y for part in parts])))


@pytest.mark.parametrize("name", ["cub", "caltech256", "lsun", "cifar10", "mnist", "imagenet200", "places365"])
def test_a_set_of_a_shared_layout_is_known_by_its_file(name: str) -> None:
    """`oodbench check FILE` finds its room, though its class names a layout, or one that derives from another."""
    path = Path(module(name).__file__)
    found = source_of(path)
    assert (found.room, found.name) == ("dataset", name)


def test_labels_are_those_of_the_lists(tmp_path: Path) -> None:
    """CUB's split and Stanford Dogs' files, which torchvision has no reader of, read off line by line."""
    birds, dogs = (written(CASES[name], tmp_path / name) for name in ("cub", "stanford_dogs"))
    top = birds / "CUB_200_2011"
    rows = [
        [line.split()[1] for line in (top / f"{name}.txt").read_text().splitlines()]
        for name in ("images", "image_class_labels", "train_test_split")
    ]
    wanted = [(top / "images" / path, int(label) - 1) for path, label, train in zip(*rows, strict=True) if train == "0"]
    assert plugin("cub").listed("test", birds) == wanted
    for path, k in plugin("stanford_dogs").listed("train", dogs):
        assert path.parent == dogs / "stanford_dogs/Images" / DOGS[k]


def test_interpolated_images_are_means(tmp_path: Path) -> None:
    """CSI's loop over batches of 100: each is averaged with the one before it, the first stays."""
    found = plugin("cifar10_interpolated").load("test", written(CASES["cifar10_interpolated"], tmp_path))
    x, _ = raw_files.read_rows([tmp_path / "cifar-10-batches-py/test_batch"], "labels", 10)
    assert np.array_equal(found.x[:100], x[:100])
    for i in range(100, 130):
        mean = (x[i].astype(int) + x[i - 100].astype(int)) / 2
        assert np.abs(found.x[i] - mean).max() <= 0.5
        assert np.array_equal(found.x[i][mean % 1 == 0], mean[mean % 1 == 0])


def test_a_severity_of_cifar10_c_is_a_fifth_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' README: the first 10,000 images of a file are severity 1, the last 10,000 severity 5."""
    write_cifar10_c(tmp_path)
    monkeypatch.setattr(module("cifar10_c"), "EACH", 12)
    whole = np.load(tmp_path / "CIFAR-10-C/fog.npy")
    for severity in range(1, 6):
        found = plugin("cifar10_c", kind="fog", severity=severity).load("test", tmp_path)
        assert np.array_equal(found.x, whole[12 * (severity - 1) : 12 * severity])
        assert found.y.tolist() == [*range(10), 0, 1]
    monkeypatch.setattr(module("cifar10_c"), "EACH", 13)
    with pytest.raises(ValueError, match=r"fog\.npy is damaged: it holds uint8 of shape \(60, 32, 32, 3\)"):
        plugin("cifar10_c", kind="fog").load("test", tmp_path)
    (tmp_path / "CIFAR-10-C/fog.npy").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"fog\.npy is damaged"):
        plugin("cifar10_c", kind="fog").load("test", tmp_path)


def test_classes_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's, timm's and pytorch-ood's lists agree."""
    from pytorch_ood.dataset.img.imagenet200 import _load_classes  # type: ignore[attr-defined]

    monkeypatch.undo()
    wnids, words = plugin("imagenet1k").class_names, plugin("imagenet1k", names="words").class_names
    assert (len(set(wnids)), len(set(words))) == (1000, 1000)
    assert list(wnids) == sorted(wnids)
    named = dict(zip(wnids, words, strict=True))
    # Hendrycks' own table of ImageNet-30 pairs these names with these ids
    assert [named[each] for each in ("n12267677", "n03452741", "n09472597", "n01698640", "n04389033")] == [
        *("acorn", "grand piano", "volcano", "American alligator", "tank")
    ]
    assert list(plugin("imagenet200").class_names) == _load_classes()
    assert set(plugin("imagenet200").class_names) < set(wnids)


# ---- lists, boxes, lesions ----------------------------------------------------------------------------------------


def refused(name: str, root: Path, **params: Any) -> str:
    """Return the message by which a set refuses its files."""
    dataset = plugin(name, **params)
    with pytest.raises(ValueError, match=r"\S") as caught:
        dataset.load(dataset.splits[-1], root)
    return str(caught.value)


OUT = "../../../outside.jpg"


@pytest.mark.parametrize(
    ("name", "file", "line", "message"),
    [
        ("tiny_imagenet", "tiny-imagenet-200/val/val_annotations.txt", f"{OUT}\tn01443537\t0\t1\t2\t3", ":6: "),
        (
            "tiny_imagenet",
            "tiny-imagenet-200/val/val_annotations.txt",
            "val_1.JPEG\tn01443537",
            "is no image of a class",
        ),
        (
            "tiny_imagenet",
            "tiny-imagenet-200/val/val_annotations.txt",
            "val_5.JPEG n09999999 0 1 2 3",
            "no class n09999999",
        ),
        ("places365", "places365/places365_val.txt", f"{OUT} 3", ":6: "),
        ("places365", "places365/places365_val.txt", "Places365_val_00000009.jpg 365", "is no image of a class"),
        ("places365", "places365/places365_val.txt", "Places365_val_00000009.jpg", "is no image of a class"),
        ("places365", "places365/categories_places365.txt", "/a/another 365", "names 366 classes of 365"),
        ("places365", "places365/categories_places365.txt", "/a/another 5", "is no class, or not in its place"),
        ("dior", "DIOR/ImageSets/Main/test.txt", OUT, ":3: "),
        ("cub", "CUB_200_2011/images.txt", f"8 {OUT}", ":8: "),
        ("cub", "CUB_200_2011/images.txt", "7 001.Black/x_1.jpg", "is no line of this list, or its second"),
        ("cub", "CUB_200_2011/classes.txt", "4", ":4: "),
        ("pets", "oxford-iiit-pet/annotations/test.txt", f"{OUT} 1 1 1", ":4: "),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Bengal_9 0 1 1", "is no image of a class"),
        ("food101", "food-101/meta/test.json", "{}", "is damaged: Extra data"),
        ("ham10000", "HAM10000/HAM10000_metadata.csv", f"HAM_1,{OUT},nv", ":31: "),
        ("ham10000", "HAM10000/HAM10000_metadata.csv", "HAM_1,ISIC_0000001,flu", "'flu': no image of a class"),
        ("ham10000", "HAM10000/HAM10000_metadata.csv", "HAM_1,ISIC_0024306,nv", "ISIC_0024306 is listed twice"),
    ],
)
def test_lines_that_are_no_image_of_the_set(tmp_path: Path, name: str, file: str, line: str, message: str) -> None:
    """Among them paths that lead out of the folder."""
    written(CASES[name if name in CASES else "places365 val"], tmp_path)
    put(tmp_path / file, (tmp_path / file).read_text() + line + "\n")
    said = refused(name, tmp_path)
    assert message in said
    assert said.startswith(str(tmp_path / file))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("cub", "CUB_200_2011/image_class_labels.txt", "1 1\n", "are not of the same images"),
        (
            "cub",
            "CUB_200_2011/image_class_labels.txt",
            "".join(f"{i} 9\n" for i in range(1, 8)),
            "image_class_labels.txt: there is no class 9",
        ),
        ("stanford_dogs", "stanford_dogs/test_list.mat", "<html>", "test_list.mat is damaged"),
        ("flowers102", "flowers-102/setid.mat", "<html>", "setid.mat is damaged"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Bengal_9 1 1 1\n", "a number of its own"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "Bengal_9 5 1 1\n", "a number of its own"),
        ("food101", "food-101/meta/test.json", "{}", "the two lists differ in their classes"),
        ("food101", "food-101/meta/test.json", '{"waffles": ["../x"]}', "'../x' is no image of 'waffles'"),
        ("food101", "food-101/meta/test.json", "[]", "test.json is damaged"),
    ],
)
def test_damaged_lists(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    written(CASES[name], tmp_path)
    put(tmp_path / file, content)
    assert message in refused(name, tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("stanford_dogs/test_list.mat", {"labels": [[1], [0], [1]]}, "labels from -1 to 0"),
        ("stanford_dogs/test_list.mat", {"labels": [[1]]}, "labels of shape (1,)"),
        ("stanford_dogs/test_list.mat", {"file_list": np.array([[OUT]], dtype=object)}, "is no image of a class"),
        ("flowers-102/setid.mat", {"tstid": [[10]]}, "numbers images from 10 to 10, there are 9"),
        ("flowers-102/setid.mat", {"tstid": [[0, 1]]}, "numbers images from 0 to 1, there are 9"),
        ("flowers-102/imagelabels.mat", {"labels": [[103] * 9]}, "labels from 102 to 102 of 102 classes"),
    ],
)
def test_lists_of_other_images(tmp_path: Path, file: str, change: dict[str, Any], message: str) -> None:
    name = "stanford_dogs" if file.startswith("stanford") else "flowers102"
    path = written(CASES[name], tmp_path) / file
    savemat(path, {key: value for key, value in loadmat(path).items() if key[0] != "_"} | change)
    said = refused(name, tmp_path)
    assert message in said
    assert str(path) in said


def test_a_count_that_is_not_confirmed_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept with what is prepared, whether the images are in memory or decoded when they are read."""
    case = CASES["raabin_wbc"]
    root, image = written(case, tmp_path / "data"), ImageFormat(size=8, channels=3)
    for room, kept in ((math.inf, "opened"), (0, "reopened")):
        folder = tmp_path / kept
        folder.mkdir()
        monkeypatch.setitem(module(case.name).COUNTS, "test", 6)
        meta = prepare.prepare(case.dataset, "test", image, root, folder, room)
        assert meta["warnings"] == [f"{root / 'raabin_wbc/TestA'} holds 5 images, expected were 6"]
        again = (
            prepare.opened(folder, meta) if room else prepare.reopened(case.dataset, "test", image, root, folder, meta)
        )
        assert list(again.warnings) == meta["warnings"]
        monkeypatch.setitem(module(case.name).COUNTS, "test", 5)
    (tmp_path / "whole").mkdir()
    assert "warnings" not in prepare.prepare(case.dataset, "test", image, root, tmp_path / "whole")


@pytest.mark.slow
def test_rows_and_manifest_have_what_a_set_warns_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(CASES["raabin_wbc"], tmp_path / "data")
    monkeypatch.setitem(module("raabin_wbc").COUNTS, "test", 6)
    note, image = f"{tmp_path / 'data/raabin_wbc/TestA'} holds 5 images, expected were 6", {"size": 8, "channels": 1}
    given = {"image": image, "ood": {"far": ["raabin_wbc", {"noise": {"count": 20, "size": 8}}]}}
    few = {"training": "cross_entropy", "clustering": "one", "distance": "cosine", "threshold": "pooled"}
    made = reader.load(write(tmp_path / "study.yaml", data=str(tmp_path / "data"), **given, **few))
    watch = Watch()
    heard: list[str] = []
    monkeypatch.setattr(watch, "warn", heard.append)
    runner = Runner(made, Options(device="cpu"), watch)
    rows = runner.run().rows
    assert {ood: note in warned for ood, warned in rows[["ood", "warnings"]].itertuples(index=False)} == {
        "raabin_wbc": True,
        "noise(count=20, size=8)": False,
    }
    assert heard.count(f"raabin_wbc, test: {note}") == 1
    assert list(needs.prepare(runner.pipeline.library, needs.needs(made))) == []
    sets = json.loads((made.results / needs.FILE).read_text())["sets"]
    assert [s["splits"]["test"]["warnings"] for s in sets if s["set"] == "raabin_wbc"] == [[note]]


def test_a_subset_of_places(tmp_path: Path) -> None:
    """The lists of the KNN papers name test images; a folder before the name is left out, what follows it, too."""
    write_places365(tmp_path)
    put(tmp_path / "list.txt", "test_subset/Places365_test_00000003.jpg\nPlaces365_test_00000001.jpg 0\n")
    dataset = plugin("places365", part="test", subset="list.txt")
    every = pixels(plugin("places365", part="test").load("test", tmp_path))
    found = pixels(dataset.load("test", tmp_path))
    assert [x.tobytes() for x in found] == [every[2].tobytes(), every[0].tobytes()]
    assert tmp_path / "list.txt" in dataset.files("test", tmp_path)
    for line, message in (("Places365_val_00000001.jpg", "there is no image Places365_val"), ("", "lists no images")):
        put(tmp_path / "list.txt", line + "\n")
        assert message in refused("places365", tmp_path, part="test", subset="list.txt")
    put(tmp_path / "list.txt", "Places365_test_00000003.jpg\n" * 2)
    assert "listed twice" in refused("places365", tmp_path, part="test", subset="list.txt")


def test_boxes_are_cut_out(tmp_path: Path) -> None:
    write_dior(tmp_path)
    found = plugin("dior").load("test", tmp_path)
    photograph = np.asarray(Image.open(tmp_path / "DIOR/JPEGImages-test/11726.jpg"))
    names = [found.classes[k] for k in found.y]
    assert names == ["airplane", "harbor", "airplane", "harbor"]
    assert np.array_equal(found.x[0], photograph[20:141, 10:130])
    assert np.array_equal(found.x[1], photograph[: 130 + 11726 % 7, :150])
    assert [x.shape[:2] for x in found.x[2:]] == [(121, 120), (130 + 11727 % 7, 150)]
    assert len(plugin("dior", least=20).load("test", tmp_path).x) == 6
    assert "no box has sides of 500 pixels" in refused("dior", tmp_path, least=500)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>harbor", "<name>harbour", "there is no class 'harbour'"),
        ("<xmax>150", "<xmax>-3", "a box from 0, 0 to -3"),
        ("<xmax>150", "<xmax>301", "is 300 x 260, a box of it ends at 301"),
        ("<xmax>150", "<xmax>wide", "is damaged: invalid literal"),
        ("</annotation>", "", "is damaged: no element found"),
    ],
)
def test_damaged_boxes(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_dior(tmp_path)
    path = tmp_path / "DIOR/Annotations/Horizontal Bounding Boxes/11726.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match="11726") as caught:
        pixels(plugin("dior").load("test", tmp_path))
    assert message in str(caught.value)


def test_no_lesion_is_in_both_splits(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    table = csv.DictReader((tmp_path / "HAM10000/HAM10000_metadata.csv").read_text().splitlines())
    lesion = {
        own.encoded(np.asarray(Image.open(path))): row["lesion_id"]
        for row in table
        for path in tmp_path.rglob(f"{row['image_id']}.jpg")
    }
    drawn = []
    for seed in range(3):
        sets = [
            {
                lesion[own.encoded(x)]
                for x in pixels(plugin("ham10000", draw=seed, test_share=0.4).load(split, tmp_path))
            }
            for split in ("train", "test")
        ]
        assert not sets[0] & sets[1]
        assert sets[0] | sets[1] == {name for name, _, _ in LESIONS}
        assert sum(name < "HAM_0000010" for name in sets[1]) == 4  # of 10 nevi
        assert len(sets[1]) == 6
        drawn.append(sets[1])
    assert drawn[0] != drawn[1] or drawn[0] != drawn[2]


def test_damaged_random_images(tmp_path: Path) -> None:
    path = tmp_path / "300K_random_images.npy"
    np.save(path, noise(5, 32, 32, 3))
    assert "300K_random_images.npy is damaged: uint8 (5, 32, 32, 3), the set is uint8 (6, 32, 32, 3)" in refused(
        "images300k", tmp_path
    )
    path.write_bytes(path.read_bytes()[:-100])
    assert "300K_random_images.npy is damaged: " in refused("images300k", tmp_path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "300K_random_images.npy is damaged: " in refused("images300k", tmp_path)


# ---- archives that were placed by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lsun fix", "tiny_imagenet fix", "openimage_o", "ssb_hard"])
def test_an_archive_that_was_placed_is_unpacked(tmp_path: Path, name: str) -> None:
    """Where no hash is published any archive is taken; what a Mac leaves in it is not."""
    case, root = CASES[name], tmp_path / "data"
    case.writer(tmp_path / "given")
    source = case.dataset.source
    (root / source.folder).mkdir(parents=True)
    target, given = root / source.folder / source.downloads[0].name, tmp_path / "given" / source.folder
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in given.rglob("*"):
                archive.write(path, path.relative_to(given))
    else:
        with tarfile.open(target, "w:gz") as archive:
            archive.add(given, source.folder)
    fetch_set(case.dataset, root)
    assert len(case.dataset.load("test", root).x) == case.sizes[1]
    assert not list(root.rglob("._*"))
    assert not list(root.rglob("LICENSE"))


@pytest.mark.parametrize(
    "name", ["lsun crop", "isun", "tiny_imagenet", "places365 val", "ninco", "inaturalist", "cub", "caltech256", "pets"]
)
def test_another_archive_than_the_published_one_is_refused(tmp_path: Path, name: str) -> None:
    source = CASES[name].dataset.source
    put(tmp_path / source.folder / source.downloads[0].name, "something else")
    with pytest.raises(ValueError, match="is damaged or cut short: its hash is not md5"):
        fetch_set(CASES[name].dataset, tmp_path)


# ---- sets of one split, and one that is withdrawn -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"outliers": "lsun"},
            "data set lsun: it has no train images, and cannot be ID set, outliers or validation OOD",
        ),
        (
            {"ood": {"far": ["images300k"]}},
            "data set images300k: it has no test images, and cannot be ID set or OOD test",
        ),
        ({"outliers": "tiny_images"}, "80 Million Tiny Images is withdrawn: "),
    ],
)
def test_what_a_set_cannot_be(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(
        tmp_path / "s.yaml", **({"training": ["outlier_exposure"]} | changed if "outliers" in changed else changed)
    )
    with pytest.raises(UserError) as caught:
        Runner(reader.load(path), Options(), Watch()).checks.check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_withdrawn_set_is_no_traceback_for_check() -> None:
    problems = [each.problem for each in conform(REGISTRY.source("dataset", "tiny_images")) if each.problem]
    assert len(problems) == 1
    assert "take images300k" in problems[0]


# ---- Hugging Face -------------------------------------------------------------------------------------------------


def test_hugging_face_reads_what_our_parquet_reader_reads(tmp_path: Path) -> None:
    write_huggingface(tmp_path)
    for split in ("train", "test"):
        found = plugin("huggingface").load(split, tmp_path)
        expected = plugin("parquet").load(split, tmp_path)
        assert found.classes == expected.classes == ("cat", "ant")
        assert found.y.tolist() == expected.y.tolist()
        assert all(np.array_equal(a, b) for a, b in zip(pixels(found), pixels(expected), strict=True))


def test_a_set_saved_by_hugging_face(tmp_path: Path) -> None:
    """16-bit and transparent images become what our own decoder makes of them; labels may be text or missing."""
    import datasets as library

    deep = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    clear = noise(8, 8, 4)
    cells = [{"bytes": own.encoded(x), "path": None} for x in (deep, clear, noise(8, 8, 3))]
    table = library.Dataset.from_dict(
        {"image": cells, "kind": ["bee", "ant", "bee"]},
        features=library.Features({"image": library.Image(), "kind": library.Value("string")}),
    )
    library.DatasetDict({"train": table, "validation": table.select([0, 1])}).save_to_disk(str(tmp_path / "mine"))
    given = {"path": "mine", "test": "validation"}
    found = plugin("huggingface", **given, label_column="kind", bits=16).load("test", tmp_path)
    assert found.classes == ("ant", "bee")
    assert found.y.tolist() == [1, 0]
    assert np.array_equal(found.x[0], (deep >> 8).astype(np.uint8))
    scaled = plugin("huggingface", **given, label_column="kind", range=(0, 65535), exif=True).load("test", tmp_path)
    assert np.array_equal(scaled.x[0], np.round(deep.astype(float) * 255 / 65535))
    assert np.array_equal(found.x[1], clear[..., :3])
    with pytest.raises(ValueError, match="row 0 cannot be decoded: it has values of 16 bits, and `bits: 12` is said"):
        plugin("huggingface", **given, label_column="kind", bits=12).load("test", tmp_path).x[0]
    alone = plugin("huggingface", **given, label_column=None, train=None)
    assert alone.splits == ("test",)
    assert alone.load("test", tmp_path).classes == ("images",)
    assert len(alone.files("test", tmp_path)) > 3
    with pytest.raises(
        ValueError, match=r"validation, row 0 cannot be decoded: it has 16 bits, .* say `bits`, .*`range: "
    ):
        plugin("huggingface", **given, label_column=None).load("test", tmp_path).x[0]
    assert "has no column 'label'; allowed: image, kind" in refused("huggingface", tmp_path, **given)
    assert "has no split 'test'; allowed: train, validation" in refused("huggingface", tmp_path, path="mine")


def test_a_split_that_is_saved_alone_is_test_images(tmp_path: Path) -> None:
    library = importlib.import_module("datasets")
    content = {"image": [{"bytes": encoded(), "path": None} for _ in range(3)], "label": ["b", "a", "b"]}
    library.Dataset.from_dict(content).save_to_disk(str(tmp_path / "mine"))
    found = plugin("huggingface", path="mine", train=None).load("test", tmp_path)
    assert (found.classes, found.y.tolist(), len(pixels(found))) == (("a", "b"), [1, 0, 1], 3)
    assert "mine is one split alone; `train: null` takes it" in refused("huggingface", tmp_path, path="mine")


def test_a_folder_of_save_to_disk_goes_without_damaged_images(tmp_path: Path) -> None:
    library = importlib.import_module("datasets")
    cells = [{"bytes": each, "path": None} for each in (encoded(), b"junk", encoded())]
    library.Dataset.from_dict({"image": cells}).save_to_disk(str(tmp_path / "mine"))
    (tmp_path / "out").mkdir()
    given = {"path": "mine", "train": None, "label_column": None}
    to = (ImageFormat(size=8, channels=1), tmp_path, tmp_path / "out")
    meta = prepare.prepare(plugin("huggingface", **given, skip_damaged=True), "test", *to)
    assert (meta["damaged"], meta["counts"]) == ([1], [2])
    assert "mine, test, row 1 is no image that Pillow can read" in meta["warnings"][0]
    with pytest.raises(
        ValueError, match=r"mine, test, row 1 is no image .*; `skip_damaged: true` leaves such images out"
    ):
        prepare.prepare(plugin("huggingface", **given), "test", *to)


def test_offline_a_set_of_the_hub_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("datasets")
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")
    for place in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", False)
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: asked.append(address))
    with pytest.raises(Exception, match=r"offline|Offline|cache"):
        plugin("huggingface", path="ylecun/mnist", revision=40 * "0").load("test", tmp_path)
    assert asked == []
    assert not sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE  # as it was


def test_a_set_of_the_hub_needs_a_revision(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*mnist; a set of the Hub needs `revision`"):
        plugin("huggingface", path="ylecun/mnist").load("test", tmp_path)
    study_ = write(tmp_path / "s.yaml", id={"huggingface": {"path": "ylecun/mnist", "revision": "main"}})
    with pytest.raises(UserError, match="revision"):
        reader.load(study_)


def test_another_package_of_that_name_is_not_taken_for_hugging_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "datasets/__init__.py", "")
    write_huggingface(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    with pytest.raises(ValueError, match=r"`datasets` is .*/datasets here, and not Hugging Face's package"):
        plugin("huggingface").load("test", tmp_path)
    sys.modules.pop("datasets")
