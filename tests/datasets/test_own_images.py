"""A user's own images: folders, CSV files, lists, arrays, Parquet; what is read, what is drawn, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import own
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own import CLASSES, encoded, save
from PIL import Image
from tiny import write
from torchvision.datasets import ImageFolder

import oodbench
from oodbench.data import contents
from oodbench.data.prepare import opened, prepare
from oodbench.errors import UserError
from oodbench.execution import checks
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import fingerprints, reader
from oodbench.study.registry import Registry
from oodbench.study.settings import ImageFormat
from oodbench.toolkit import image_files
from oodbench.toolkit.image_files import Decoding

ALL = list(own.WRITERS)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("dataset", name)(**params)


def pairs(found: Any) -> list[tuple[bytes, str]]:
    """Return each image's pixels and class."""
    return sorted((np.asarray(x).tobytes(), found.classes[k]) for x, k in zip(found.x, found.y, strict=True))


# ---- loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_images_and_classes_are_those_written(name: str, tmp_path: Path) -> None:
    given = own.pictures()
    own.WRITERS[name](tmp_path, given)
    for split in ("train", "test"):
        found = plugin(name).load(split, tmp_path)
        assert found.classes == CLASSES
        assert pairs(found) == sorted((x.tobytes(), of) for x, of in given[split])
        assert all(path.exists() for path in plugin(name).files(split, tmp_path))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("protocol", "classes", "count"),
    [
        ({"only": "bee"}, ("bee",), 8),
        ({"keep": ("ant", 2)}, ("ant", "cat"), 16),
        ({"without": "ant"}, ("bee", "cat"), 16),
        ({"per_class": 3}, CLASSES, 9),
    ],
)
def test_class_protocols(name: str, protocol: Any, classes: tuple[str, ...], count: int, tmp_path: Path) -> None:
    own.WRITERS[name](tmp_path, own.pictures())
    (tmp_path / "out").mkdir()
    meta = prepare(plugin(name, **protocol), "train", ImageFormat(size=6, channels=1), tmp_path, tmp_path / "out")
    found = opened(tmp_path / "out", meta)
    assert (found.classes, len(found.x)) == (classes, count)
    darkest = {of: found.x[found.y == k].mean() for k, of in enumerate(found.classes)}
    assert all(80 * CLASSES.index(of) < mean < 80 * CLASSES.index(of) + 80 for of, mean in darkest.items())


def test_a_folder_is_read_as_image_folder_reads_it(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    save(tmp_path / "images" / "train" / "bee" / "deep" / "er" / "x.png", COLOUR)
    (tmp_path / "images" / "train" / "bee" / ".DS_Store").write_bytes(b"of a file manager")
    found, peer = plugin("folder").load("train", tmp_path), ImageFolder(str(tmp_path / "images" / "train"))
    assert list(found.classes) == peer.classes
    assert pairs(found) == sorted((np.asarray(x).tobytes(), peer.classes[k]) for x, k in peer)


@pytest.mark.parametrize("absolute", [True, False])
def test_paths_are_absolute_or_in_data(absolute: bool, tmp_path: Path) -> None:
    root = tmp_path / "data"
    own.write_folder(tmp_path / "data" / "mine", own.pictures())
    path = str(root / "mine" / "images") if absolute else "mine/images"
    assert len(plugin("folder", path=path).load("test", Path("/nowhere") if absolute else root).x) == 12


def test_a_csv_file_has_its_own_columns_ending_and_folder(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / "a.png", COLOUR)
    save(tmp_path / "pictures" / "b, c.png", COLOUR[::-1])
    (tmp_path / "t.tsv").write_text("﻿file\tkind\tpart\na.png\t10\tfit\nb, c.png\t9\tfit\na2.png\t2\tother\n")
    names: dict[str, Any] = {"path_column": "file", "label_column": "kind", "split_column": "part"}
    names |= {"train": "fit", "leave_out": ("other",)}
    found = plugin("csv", path="t.tsv", root="pictures", **names).load("train", tmp_path)
    assert found.classes == ("2", "9", "10")
    assert found.y.tolist() == [2, 1]
    assert np.array_equal(found.x[1], COLOUR[::-1])
    semicolons = (tmp_path / "t.tsv").read_text(encoding="utf-8-sig").replace("\t", ";")
    (tmp_path / "pictures" / "s.csv").write_text(semicolons)
    again = plugin("csv", path="pictures/s.csv", separator=";", **names).load("train", tmp_path)
    assert again.y.tolist() == [2, 1]


def test_a_list_labels_all_ood_images_alike(tmp_path: Path) -> None:
    save(tmp_path / "images" / "my dog.png", COLOUR)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "far.txt").write_text("my dog.png -1\n\n")
    found = plugin("image_list", path="lists/far.txt", root="images", test_share=1).load("test", tmp_path)
    assert (found.classes, found.y.tolist()) == (("-1",), [0])


def test_arrays_name_their_classes(tmp_path: Path) -> None:
    x = np.stack([GREY] * 3)
    np.savez(tmp_path / "a.npz", x=x, y=[2, 0, 2], classes=["zebra", "yak", "ox"])
    found = plugin("arrays", path="a.npz", test_share=1).load("test", tmp_path)
    assert (found.classes, found.y.tolist()) == (("zebra", "yak", "ox"), [2, 0, 2])
    np.save(tmp_path / "a.npy", x)
    found = plugin("arrays", path="a.npy", test_share=1).load("test", tmp_path)
    assert (found.classes, found.y.tolist(), found.x.shape) == (("images",), [0, 0, 0], (3, 16, 16))


def test_classes_of_both_arrays_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "images-train.npz", x=np.stack([GREY] * 3), y=[10, 9, 3])
    np.savez(tmp_path / "images-test.npz", x=np.stack([GREY] * 2), y=[10, 9])
    found = plugin("arrays").load("test", tmp_path)
    assert (found.classes, found.y.tolist()) == (("3", "9", "10"), [2, 1])


def test_parquet_has_hugging_faces_names_or_bytes(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["zebra", "yak"]}}}}
    table = pa.table({"image": [{"bytes": encoded(COLOUR), "path": None}] * 2, "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, tmp_path / "a.parquet")
    found = plugin("parquet", path="a.parquet", test_share=1).load("test", tmp_path)
    assert (found.classes, found.y.tolist()) == (("zebra", "yak"), [1, 0])
    pq.write_table(pa.table({"raw": [encoded(COLOUR)], "label": [7]}), tmp_path / "b.parquet")
    found = plugin("parquet", path="b.parquet", test_share=1, image_column="raw").load("test", tmp_path)
    assert found.classes == ("7",)
    assert np.array_equal(found.x[0], COLOUR)


def test_parquet_is_read_by_row_group_in_any_order(tmp_path: Path) -> None:
    given = own.pictures()
    own.write_parquet(tmp_path, given)
    found = plugin("parquet").load("train", tmp_path)
    for i in np.random.default_rng(0).permutation(len(found.x)):
        assert np.array_equal(found.x[int(i)], given["train"][i][0])


# ---- splits -----------------------------------------------------------------------------------------------


SHARED: dict[str, dict[str, Any]] = {
    "folder": {"path": "images/train"},
    "csv": {},
    "image_list": {"path": "images-train.txt"},
    "arrays": {"path": "images-train.npz"},
    "parquet": {"path": "images/train-*.parquet"},
}


@pytest.mark.parametrize("name", ALL)
def test_a_drawn_split_is_by_class_disjoint_and_the_same_again(name: str, tmp_path: Path) -> None:
    given = own.pictures()
    own.WRITERS[name](tmp_path, given)
    one = plugin(name, test_share=0.25, **SHARED[name])
    train, test = (one.load(split, tmp_path) for split in ("train", "test"))
    of_each = 3 if name == "csv" else 2  # 12 or 8 images of a class
    assert np.bincount(test.y).tolist() == [of_each] * 3
    everything = [*given["train"], *(given["test"] if name == "csv" else [])]
    assert sorted(pairs(train) + pairs(test)) == sorted((x.tobytes(), of) for x, of in everything)
    assert pairs(one.load("test", tmp_path)) == pairs(test)
    assert pairs(plugin(name, test_share=0.25, draw=1, **SHARED[name]).load("test", tmp_path)) != pairs(test)
    assert len(plugin(name, test_share=1, **SHARED[name]).load("test", tmp_path).x) == len(everything)
    with pytest.raises(ValueError, match="test_share=1 leaves no image for the split 'train'"):
        plugin(name, test_share=1, **SHARED[name]).load("train", tmp_path)


@pytest.mark.parametrize(("share", "counts"), [(0.01, [1, 1, 0]), (0.99, [9, 1, 0]), (0.5, [5, 1, 0])])
def test_both_splits_have_an_image_of_each_class_of_two(share: float, counts: list[int]) -> None:
    y = np.repeat([0, 1, 2], [10, 2, 1])
    test = image_files.drawn(y, share, 0, "test")
    assert np.bincount(y[test], minlength=3).tolist() == counts
    assert sorted([*test, *image_files.drawn(y, share, 0, "train")]) == list(range(13))


def test_a_folder_without_classes_is_one(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    found = plugin("folder", classes=False, test_share=1).load("test", tmp_path)
    assert (found.classes, len(found.x), found.y.max()) == (("images",), 36, 0)
    found = plugin("folder", classes=False).load("test", tmp_path)
    assert (found.classes, len(found.x)) == (("images",), 12)


@pytest.mark.parametrize("name", ["arrays", "image_list", "parquet"])
@pytest.mark.parametrize(("path", "share"), [("a", None), ("{split}", 0.5)])
def test_a_path_says_once_where_splits_are(name: str, path: str, share: float | None) -> None:
    with pytest.raises(ValueError, match="test_share"):
        plugin(name, path=path, test_share=share)


@pytest.mark.parametrize("name", ["arrays", "folder", "image_list", "parquet"])
def test_a_set_may_have_a_test_split_alone(name: str, tmp_path: Path) -> None:
    given = own.pictures()
    own.WRITERS[name](tmp_path, {"test": given["test"]})
    assert pairs(plugin(name).load("test", tmp_path)) == sorted((x.tobytes(), of) for x, of in given["test"])
    assert all(path.exists() for path in plugin(name).files("train", tmp_path))
    with pytest.raises(FileNotFoundError):
        plugin(name).load("train", tmp_path)


def test_two_sets_have_two_labels() -> None:
    labels = [plugin("folder", path=path, test_share=1).label for path in ("/a/cats", "/b/cats")]
    assert labels == ["folder(path=/a/cats, test_share=1)", "folder(path=/b/cats, test_share=1)"]


# ---- pixels -----------------------------------------------------------------------------------------------


def test_grey_stays_grey_and_colours_become_rgb() -> None:
    alpha = np.full_like(GREY, 7)
    palette = Image.fromarray(COLOUR).quantize(16)
    for x, expected in [
        (GREY, GREY),
        (np.stack([GREY, alpha], -1), GREY),
        (COLOUR, COLOUR),
        (np.dstack([COLOUR, alpha]), COLOUR),
        (np.asarray(GREY > 99), np.where(GREY > 99, 255, 0)),
        (np.asarray(palette.convert("RGB")), np.asarray(palette.convert("RGB"))),
    ]:
        found = image_files.decode(encoded(x), "x")
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)
    for options in ({}, {"transparency": bytes([0, 100])}, {"transparency": 3}):
        stream = own.io.BytesIO()
        palette.save(stream, "PNG", **options)
        assert np.array_equal(image_files.decode(stream.getvalue(), "x"), np.asarray(palette.convert("RGB")))


def deep_png(x: np.ndarray) -> bytes:
    """Return a PNG file of 16 bits of x (H, W, 2 to 4), grey with alpha or colours, which Pillow does not write."""
    height, width, channels = x.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
@pytest.mark.parametrize("ending", ["PNG", "TIFF"])
def test_16_bit_images_of_fewer_bits_are_refused_until_it_is_said(bits: int, ending: str) -> None:
    low = (GREY.astype(np.uint16) << bits - 8) + (1 << bits - 8) - 1
    low[0, 0] = 2**bits - 1
    raw = encoded(low, ending)
    with pytest.raises(
        ValueError, match=f"x cannot be decoded: it has 16 bits, of which its values fill {bits}; say `bi"
    ):
        image_files.decode(raw, "x")
    assert np.array_equal(image_files.decode(raw, "x", Decoding(bits)), low >> bits - 8)
    assert np.array_equal(image_files.decode(raw, "x", Decoding(16)), low >> 8)  # as dark as it is said to be
    for fewer in range(8, bits):
        with pytest.raises(ValueError, match=f"it has values of {bits} bits, and `bits: {fewer}` is said of it"):
            image_files.decode(raw, "x", Decoding(fewer))


def test_black_images_of_16_bits_are_black() -> None:
    assert not image_files.decode(encoded(np.zeros_like(GREY, np.uint16)), "x", Decoding(16)).any()


def test_a_tiff_of_16_bits_whose_white_is_0_is_refused() -> None:
    """Pillow turns those of 8 bits, and not these: they would be negatives."""
    out = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 257).save(out, "tiff", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="a TIFF of 16 bits whose white is 0"):
        image_files.decode(out.getvalue(), "x")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_that_fill_fewer_are_refused(channels: int) -> None:
    whole = np.dstack([GREY.astype(np.uint16) * 257] * channels)
    kept = image_files.decode(deep_png(whole), "x", Decoding(16))
    assert np.array_equal(kept, GREY if channels == 2 else np.dstack([GREY] * 3))
    with pytest.raises(
        ValueError, match=r"upper 8: `range: \[0, 65535\]` is for grey images, say `bits: 16` or save it"
    ):
        image_files.decode(deep_png(whole), "x", Decoding(range=(0, 65535)))
    for low in (whole, whole >> 4, whole >> 8):
        with pytest.raises(ValueError, match=r"it has 16 bits, of which its values fill \d+; say `bits`"):
            image_files.decode(deep_png(low), "x")
        with pytest.raises(ValueError, match=r"`bits: 12` is for grey images, say `bits: 16` or save it in 8 bits"):
            image_files.decode(deep_png(low), "x", Decoding(12))


def test_ppm_of_16_bits_is_refused_too_and_of_12_read_by_its_own_largest_value() -> None:
    low = np.dstack([np.arange(64, dtype=np.uint16).reshape(8, 8) * 65] * 3)
    body = low.astype(">u2").tobytes()
    with pytest.raises(ValueError, match=r"it has 16 bits, of which its values fill \d+; say `bits`"):
        image_files.decode(b"P6\n8 8\n65535\n" + body, "x.ppm")
    found = image_files.decode(b"P6\n8 8\n4095\n" + body, "x.ppm")
    assert np.array_equal(found, (low / 4095 * 255).round())


@pytest.mark.parametrize("name", ["folder", "csv", "image_list", "parquet"])
def test_every_set_of_own_files_takes_bits(name: str, tmp_path: Path) -> None:
    """12 bits in 16: without a word there would be 16 grey levels, and 8 bits in 16 would be black."""
    x = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65
    (tmp_path / "a" / "cat").mkdir(parents=True)
    (tmp_path / "a" / "cat" / "0.png").write_bytes(encoded(x))
    (tmp_path / "a.csv").write_text("path,label\na/cat/0.png,cat\n")
    (tmp_path / "a.txt").write_text("a/cat/0.png cat\n")
    pq.write_table(pa.table({"image": [encoded(x)], "label": ["cat"]}), tmp_path / "a.parquet")
    paths = {"folder": "a", "csv": "a.csv", "image_list": "a.txt", "parquet": "a.parquet"}
    given: dict[str, Any] = {"path": paths[name], "test_share": 1}
    found = plugin(name, **given, bits=12).load("test", tmp_path)
    assert np.array_equal(found.x[0], x >> 4)
    with pytest.raises(ValueError, match="fill 12; say `bits`"):
        plugin(name, **given).load("test", tmp_path).x[0]


def test_floats_and_wider_values_are_refused() -> None:
    message = r"x\.tif cannot be decoded: its pixels are floats; say `range: \[LOW, HIGH\]`, .*; its own are 0 to 255"
    with pytest.raises(ValueError, match=message):
        image_files.decode(encoded(GREY.astype(np.float32), "TIFF"), "x.tif")
    with pytest.raises(
        ValueError, match=r"values beyond 16 bits; say `range: \[LOW, HIGH\]`, .*; its own are -5 to 250"
    ):
        image_files.decode(encoded(GREY.astype(np.int32) - 5, "TIFF"), "x.tif")


def test_images_are_decoded_when_indexed(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", COLOUR + np.uint8(i)) for i in range(3)]
    found = image_files.of_files(paths)
    paths[1].write_bytes(b"no image")
    assert np.array_equal(found[-1], COLOUR + np.uint8(2))
    assert [x[0, 0, 0] for x in found[::2]] == [COLOUR[0, 0, 0], COLOUR[0, 0, 0] + 2]
    with pytest.raises(ValueError, match=r"1\.png is no image"):
        found[1]
    with pytest.raises(IndexError):
        found[3]


# ---- what is wrong --------------------------------------------------------------------------------------------


def said(name: str, data: Path, split: Any = "train", /, **params: Any) -> str:
    """Return what a pipeline tells the user about a data set that cannot be prepared."""
    file = write(data / "s.yaml", id={name: params}, data=str(data), image={"size": 6, "channels": 1})
    loaded = reader.load(file)
    with pytest.raises(UserError) as caught:
        Pipeline(loaded, Options(), Watch()).library.prepared(loaded.datasets[0], split)
    message = str(caught.value)
    assert message.startswith(f"data set {name}")
    assert "Error" not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ALL)
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    message = said(name, tmp_path)
    assert "there is no" in message
    assert str(tmp_path / "images") in message


@pytest.mark.parametrize(("name", "at"), [("folder", "images/train/bee/009.png"), ("csv", "files/train 009.png")])
def test_a_damaged_image_is_named(name: str, at: str, tmp_path: Path) -> None:
    own.WRITERS[name](tmp_path, own.pictures())
    (tmp_path / at).write_bytes(b"<html>")
    assert f"{tmp_path / at} is no image that Pillow can read" in said(name, tmp_path)
    (tmp_path / at).write_bytes(encoded(own.pictures()["train"][0][0])[:-40])
    assert f"{tmp_path / at} cannot be decoded: " in said(name, tmp_path)


def folder_mistakes(root: Path) -> None:
    for each in ("stray", "empty", "hollow", "text", "other"):
        save(root / each / "train" / "ant" / "a.png", COLOUR)
        save(root / each / "test" / "ant" / "a.png", COLOUR)
    save(root / "stray" / "train" / "b.png", COLOUR)
    shutil.rmtree(root / "empty" / "train" / "ant")
    (root / "hollow" / "train" / "ant" / "a.png").unlink()
    (root / "text" / "train" / "ant" / "notes.txt").write_text("hello")
    save(root / "other" / "test" / "bee" / "a.png", COLOUR)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("stray", "stray/train/b.png is in no folder of a class"),
        ("empty", "empty/train has no folder of a class"),
        ("hollow", "hollow/train/ant holds no images"),
        ("text", "text/train/ant/notes.txt is no image"),
        ("other", "differ in their classes: bee"),
        ("nowhere", "nowhere/train; for folders of classes without splits give test_share"),
    ],
)
def test_mistakes_in_folders(path: str, message: str, tmp_path: Path) -> None:
    folder_mistakes(tmp_path)
    assert message in said("folder", tmp_path, path=path)


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("path,lable,split\na.png,x,train\n", {}, "has no column 'label'; did you mean 'lable'?"),
        ("path,label\na.png,x\n", {}, "has no column 'split'; allowed: label, path"),
        ("path,label,split\na.png,,train\n", {}, "images.csv:2: the column 'label' is empty"),
        ("path,label,split\na.png,x\n", {}, "images.csv:2: the column 'split' is empty"),
        (
            "path,label,split\na.png,x,train\na.png,x,tset\n",
            {},
            "images.csv:3: there is no split 'tset'; did you mean 'test'?",
        ),
        (
            "path,label,split\na.png,x,test\n",
            {},
            "no row has the split 'train' in the column 'split'",
        ),
        (
            "path,label,split\na.png,x,trian\n",
            {},
            "images.csv:2: there is no split 'trian'; did you mean 'train'? allowed: ",
        ),
        ("path,label,split\na.png,x,train\n./a.png,y,test\n", {}, "a.png is listed twice, first in"),
        ("path,label,split\nb.png,x,train\n", {}, "images.csv:2: there is no image"),
        ("path,label,split\n", {}, "lists no images"),
        (f"path,label,split\n{'a' * 140000},x,train\n", {}, "images.csv, after line 1: field larger than field limit"),
        ("", {}, "has no column 'path'"),
        ("path,label,split\na.png,x,train\n", {"root": "elsewhere"}, "elsewhere/a.png"),
    ],
)
def test_mistakes_in_csv_files(text: str, params: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png", COLOUR)
    (tmp_path / "images.csv").write_text(text)
    assert message in said("csv", tmp_path, **params)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a.png\n", "", "images-train.txt:1: 'a.png' has no label; wanted is 'PATH LABEL'"),
        ("a.png 0\nb.png 1\n", "", "images-train.txt:2: there is no image"),
        ("a.png 0\n", "a.png 0\n", "is listed twice, first in"),
        ("\n", "a.png 0\n", "images-train.txt lists no images"),
    ],
)
def test_mistakes_in_lists(train: str, test: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png", COLOUR)
    (tmp_path / "images-train.txt").write_text(train)
    (tmp_path / "images-test.txt").write_text(test)
    assert message in said("image_list", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY[None], "y": [0]}, "has no array 'x'; allowed: images, y"),
        ({"x": GREY[None]}, "has no array 'y'"),
        ({"x": GREY[None] / 255, "y": [0]}, "'x' is float64 (1, 16, 16), wanted is uint8"),
        ({"x": COLOUR.transpose(2, 0, 1)[None], "y": [0]}, "'x' is uint8 (1, 3, 16, 16), wanted is uint8"),
        ({"x": GREY[None], "y": [0, 1]}, "1 images in 'x', 2 labels in 'y'"),
        ({"x": GREY[None], "y": [0.5]}, "'y' is float64 (1,), wanted are whole numbers or text"),
        ({"x": GREY[None], "y": [3], "classes": ["a", "b"]}, "'y' holds 3, `classes` names 0 to 1"),
        ({"x": np.array([GREY, None], dtype=object), "y": [0, 1]}, "'x' cannot be read: Object arrays"),
    ],
)
def test_mistakes_in_arrays(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "images-train.npz", **arrays)
    assert message in said("arrays", tmp_path)


@pytest.mark.parametrize(("name", "file"), [("csv", "images.csv"), ("image_list", "images-train.txt")])
def test_other_encodings_are_refused(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("path,label,split\nK\u00e4fer.png 0\n", encoding="latin-1")
    assert f"{tmp_path / file} is not UTF-8 text: invalid continuation byte at byte 18" in said(name, tmp_path)
    assert plugin(name).files("train", tmp_path) == [tmp_path / file]


def test_damaged_arrays(tmp_path: Path) -> None:
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).write_bytes(b"nothing")
        assert f"{tmp_path / name} is not a readable" in said("arrays", tmp_path, "test", path=name, test_share=1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": [b""], "label": [0]}, "has no column 'image'; did you mean 'img'?"),
        ({"image": [b""]}, "has no column 'label'"),
        ({"image": [b"x"], "label": [None]}, "row 0: the label is None"),
        ({"image": ["text"], "label": [0]}, "row 0: 'image' holds no image: wanted are bytes"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "row 0: 'image' holds no image"),
        ({"image": [encoded(GREY), b"x"], "label": [0, 0]}, "train-0.parquet, row 1 is no image that Pillow can read"),
    ],
)
def test_mistakes_in_parquet_files(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "images" / "train-0.parquet", row_group_size=1)
    assert message in said("parquet", tmp_path)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train-0.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "train-0.parquet is not a readable Parquet file: " in said("parquet", tmp_path)


def test_a_module_that_is_not_installed_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    path = write(tmp_path / "s.yaml", ood={"far": {"parquet": {"path": "a.parquet", "test_share": 1}}})
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'oodbench\[parquet\]'"):
        Runner(reader.load(path), Options(), Watch()).checks.check()


# ---- studies --------------------------------------------------------------------------------------------------


def own_study(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    given = own.pictures()
    more = own.pictures(1)
    given["train"] += more["train"] + own.pictures(2)["train"]
    own.write_folder(root, given)
    np.savez(root / "far.npz", x=255 - np.stack([x for x, _ in more["test"]]))
    sets = {"far": {"arrays": {"path": "far.npz", "y": None, "test_share": 1}}}
    return write(tmp_path / "s.yaml", id="folder", ood=sets, outliers=None, training=["cross_entropy"])


@pytest.mark.slow
def test_a_study_of_own_images(tmp_path: Path) -> None:
    path = own_study(tmp_path)
    outcome = Runner(reader.load(path), Options(), Watch()).run()
    assert (outcome.trained, outcome.failed, outcome.missing) == (1, 0, 0)
    assert set(outcome.rows["id"]) == {"folder"}
    assert set(outcome.rows["ood"]) == {"arrays(path=far.npz, y=None, test_share=1)"}
    assert (outcome.rows["n_id"] == 12).all()
    assert (outcome.rows["n_ood"] == 12).all()
    again = Runner(reader.load(path), Options(), Watch()).run()
    assert (again.trained, again.scored) == (0, 0)
    assert again.rows.equals(oodbench.rows(path))


@pytest.mark.parametrize("change", ["overwrite", "add", "remove", "rename", "class"])
def test_a_changed_folder_is_prepared_again(change: str, tmp_path: Path) -> None:
    root = tmp_path / "images"
    own.write_folder(tmp_path, own.pictures())
    for path in [root, *root.rglob("*")]:
        os.utime(path, (0, 0))
    loaded = reader.load(write(tmp_path / "s.yaml", id="folder", data=str(tmp_path)))
    before = Pipeline(loaded, Options(), Watch()).library.data_fields(loaded.datasets[0], "train")
    first = root / "train" / "bee" / "009.png"
    if change == "overwrite":
        save(first, COLOUR)
    elif change == "add":
        save(first.with_name("new.png"), COLOUR)
    elif change == "remove":
        first.unlink()
    elif change == "rename":
        first.rename(root / "train" / "cat" / "moved.png")
    else:
        (root / "train" / "bee").rename(root / "train" / "bumblebee")  # its images stay in their places
    assert Pipeline(loaded, Options(), Watch()).library.data_fields(loaded.datasets[0], "train") != before


def test_the_key_of_a_folder_is_of_names_and_contents_wherever_it_lies(tmp_path: Path) -> None:
    """Another folder whose files have the same sizes and times has another key, a copy has the same."""
    rng = np.random.default_rng(0)
    fields = {}
    for place, flip in (("one", 0), ("two", 1), ("renamed", 0), ("copy", 0)):
        for i, name in enumerate("ab"):
            folder = tmp_path / place / "images" / "train" / (name + "c" * (place == "renamed"))
            folder.mkdir(parents=True)
            image = np.full((8, 8), 50 * i + 10 * flip, dtype=np.uint8)
            (folder / "0.bmp").write_bytes(own.encoded(image, "BMP"))
            os.utime(folder / "0.bmp", (rng.integers(9), 0) if place == "copy" else (0, 0))
        file = write(tmp_path / f"{place}.yaml", id="folder", data=str(tmp_path / place))
        loaded = reader.load(file)
        fields[place] = Pipeline(loaded, Options(), Watch()).library.data_fields(loaded.datasets[0], "train")
    assert fields["one"] == fields["copy"]
    assert fields["two"] != fields["one"] != fields["renamed"]


def test_a_file_that_is_exchanged_keeping_its_size_and_time_is_read_anew(tmp_path: Path) -> None:
    found, file = contents.Contents(tmp_path), tmp_path / "x"
    file.write_bytes(b"one")
    os.utime(file, (0, 0))
    before = found.of([file])
    (tmp_path / "y").write_bytes(b"two")
    os.utime(tmp_path / "y", (0, 0))
    (tmp_path / "y").rename(file)
    assert found.of([file]) != before


@pytest.mark.parametrize("many", [False, True])
def test_a_pipe_among_the_images_is_refused_rather_than_waited_for(
    many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SINGLE", 3 if many else 100)
    own.write_folder(tmp_path, own.pictures())
    os.mkfifo(tmp_path / "images" / "train" / "bee" / "pipe.png")
    loaded = reader.load(write(tmp_path / "s.yaml", id="folder", data=str(tmp_path)))
    with pytest.raises(UserError, match=r"pipe\.png is neither a file nor a folder"):
        Pipeline(loaded, Options(), Watch()).library.prepared(loaded.datasets[0], "train")


@pytest.mark.parametrize(
    ("training", "said"),
    [(name, "needs labels") for name in ("cross_entropy", "logitnorm", "outlier_exposure", "supcon", "cider")]
    + [("ccl", "makes as many clusters as classes")],
)
def test_a_loss_over_classes_is_refused_where_the_files_turn_out_to_have_one(
    training: str, said: str, tmp_path: Path
) -> None:
    """Its loss would be 0, or depend on nothing, and its rows look like any others."""
    for split in ("train", "test"):
        for i in range(12):
            (tmp_path / "data" / "images" / split / "cat").mkdir(parents=True, exist_ok=True)
            image = np.random.default_rng([i, split == "test"]).integers(256, size=(8, 8), dtype=np.uint8)
            save(tmp_path / "data" / "images" / split / "cat" / f"{i}.png", image)
    given: dict[str, Any] = {"id": "folder", "data": str(tmp_path / "data"), "training": training, "clustering": "one"}
    given |= {"recipe": {"epochs": 21, "batch": 4}, "distance": "euclidean", "threshold": "pooled"}
    runner = Runner(reader.load(write(tmp_path / "s.yaml", **given)), Options())
    with pytest.raises(UserError, match=rf"training: {training} {said}, folder has one class \(cat\)"):
        runner.checks.check()
    write(tmp_path / "s.yaml", **given | {"training": "simclr"})
    Runner(reader.load(tmp_path / "s.yaml"), Options()).checks.check()


def test_a_list_of_which_one_split_is_known_and_with_the_line_ends_of_windows(tmp_path: Path) -> None:
    save(tmp_path / "0.png", COLOUR)
    (tmp_path / "a-train.txt").write_bytes(b"0.png cat\r\n")
    meant = hashlib.sha256(b"0.png cat\n").hexdigest()
    known: dict[str, Any] = {"path": "a-{split}.txt", "count": (1, None)}
    assert len(plugin("image_list", **known, sha256=(meant, None)).load("train", tmp_path).x) == 1
    with pytest.raises(ValueError, match="another list than the one that is meant"):
        plugin("image_list", **known, sha256=(64 * "0", None)).load("train", tmp_path)


@pytest.mark.parametrize("to", [".", "..", "../.."])
def test_a_link_that_leads_back_up_is_refused(to: str, tmp_path: Path) -> None:
    """Its images would be read some forty times."""
    own.write_folder(tmp_path, own.pictures())
    (tmp_path / "images" / "train" / "bee" / "back").symlink_to(to)
    with pytest.raises(ValueError, match=r"bee/back is a link to a folder that it is in"):
        plugin("folder").load("train", tmp_path)


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    before = len(plugin("folder").load("train", tmp_path).x)
    (tmp_path / "more").mkdir()
    save(tmp_path / "more" / "x.png", COLOUR)
    (tmp_path / "images" / "train" / "bee" / "more").symlink_to(tmp_path / "more")
    assert len(plugin("folder").load("train", tmp_path).x) == before + 1


def test_code_that_reads_images_counts_as_the_sets_own() -> None:
    source = Registry().source("dataset", "folder")
    assert Path(image_files.__file__) in fingerprints.modules(source.module, source.path).values()
