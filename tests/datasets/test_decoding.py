"""How files of images are decoded as a set says: 16 bits and floats, EXIF's orientation, endings, damaged files."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import own
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listening import Listener
from own import encoded, save
from PIL import Image, ImageOps, UnidentifiedImageError, features
from tiny import write

from oodbench.data import needs, prepare
from oodbench.errors import UserError
from oodbench.execution import audit
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.study import reader
from oodbench.study.grid import canonical
from oodbench.study.registry import Registry
from oodbench.study.settings import ImageFormat
from oodbench.toolkit import image_files
from oodbench.toolkit.image_files import Decoding

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)[:, :10]
FILES = ["folder", "csv", "image_list", "parquet"]


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("dataset", name)(**params)


def one_file(name: str, raw: bytes, folder: Path, ending: str = "png") -> dict[str, Any]:
    """Write one image as a set of each kind has it, and return what names it."""
    (folder / "a" / "cat").mkdir(parents=True)
    (folder / "a" / "cat" / f"0.{ending}").write_bytes(raw)
    (folder / "a.csv").write_text(f"path,label\na/cat/0.{ending},cat\n")
    (folder / "a.txt").write_text(f"a/cat/0.{ending} cat\n")
    pq.write_table(pa.table({"image": [raw], "label": ["cat"]}), folder / "a.parquet")
    paths = {"folder": "a", "csv": "a.csv", "image_list": "a.txt", "parquet": "a.parquet"}
    return {"path": paths[name], "test_share": 1}


# ---- 16 bits and floats -----------------------------------------------------------------------------------


def by_loop(values: np.ndarray, low: float, high: float) -> list[int]:
    """Return round(255 (v - low) / (high - low)) in whole fractions; Python rounds halves to even."""
    span = Fraction(high) - Fraction(low)
    return [round(255 * (Fraction(v) - Fraction(low)) / span) for v in values.ravel().tolist()]


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (0, 4095), (100, 610), (0.5, 300.25)])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_stated_range_is_scaled_to_8_bits_by_the_formula(low: float, high: float, form: str) -> None:
    """Every value of the range; in 100 to 610 every second one is a half."""
    inside = np.arange(int(np.ceil(low)), int(high) + 1, dtype=np.uint16)
    x = np.resize(inside, (len(inside) // 64 + 1, 64))
    found = image_files.decode(encoded(x, form), "x", Decoding(range=(low, high)))
    assert found.ravel().tolist() == by_loop(x, low, high)
    assert found.dtype == np.uint8


def test_a_range_of_floats_is_scaled_as_numpy_says(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (9, 7)).astype(np.float32)
    found = image_files.decode(encoded(x, "TIFF"), "x", Decoding(range=(-1, 1)))
    assert np.array_equal(found, np.round((x.astype(np.float64) + 1) * 255 / 2))
    wide = image_files.decode(encoded((x * 1e6).astype(np.int32), "TIFF"), "x", Decoding(range=(-1e6, 1e6)))
    assert np.abs(wide.astype(int) - found).max() <= 1


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.array([[0, 4096]], np.uint16), r"its values are 0 to 4096, which is beyond `range: \[0, 4095\]`"),
        (np.array([[-0.5, 1]], np.float32), r"its values are -0.5 to 1, which is beyond `range: \[0, 4095\]`"),
        (np.array([[np.nan, 1]], np.float32), "it has values that are not finite"),
    ],
)
def test_values_beyond_a_range_are_refused(x: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=f"x.tif cannot be decoded: {said}") as caught:
        image_files.decode(encoded(x, "TIFF"), "x.tif", Decoding(range=(0, 4095)))
    assert not isinstance(caught.value, image_files.UndecodableError)  # so `skip_damaged` hides none


@pytest.mark.parametrize("name", FILES)
def test_every_set_of_files_refuses_16_bits_until_their_range_is_said(name: str, tmp_path: Path) -> None:
    x = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    given = one_file(name, encoded(x), tmp_path)
    found = plugin(name, **given, range=(0, 65535)).load("test", tmp_path)
    assert found.x[0].ravel().tolist() == by_loop(x, 0, 65535)
    with pytest.raises(ValueError, match=r"say `bits`, .*, or `range: \[LOW, HIGH\]`, .*; its own are 0 to 65520"):
        plugin(name, **given).load("test", tmp_path).x[0]
    with pytest.raises(ValueError, match="`bits` and `range` both say what values mean"):
        plugin(name, **given, range=(0, 65535), bits=12).load("test", tmp_path)
    with pytest.raises(ValueError, match=r"range is \(1, 0\), should be \[LOW, HIGH\], the smaller value first"):
        plugin(name, **given, range=(1, 0))


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_a_stated_range(ending: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 4096, (5, 4, 3, 3)).astype(np.uint16)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x)
    given: dict[str, Any] = {"path": f"a.{ending}", "y": None}
    found = plugin("arrays", **given, range=(0, 4095), test_share=1).load("test", tmp_path)
    assert np.stack([*found.x]).ravel().tolist() == by_loop(x, 0, 4095)
    half = plugin("arrays", **given, range=(0, 4095), test_share=0.4).load("test", tmp_path)
    assert np.stack([*half.x]).shape == (2, 4, 3, 3)
    with pytest.raises(ValueError, match=r"'x' is uint16 .*, wanted is uint8 .*; or say `range`, .* \[0, 65535\]`"):
        plugin("arrays", **given, test_share=1).load("test", tmp_path)
    beyond = plugin("arrays", **given, range=(0, 9), test_share=1).load("test", tmp_path)
    with pytest.raises(
        ValueError, match=rf"a\.{ending}, 'x', image 0: its values are .*, which is beyond `range: \[0, 9"
    ):
        beyond.x[0]
    np.save(tmp_path / "b.npy", x.astype(np.uint8))
    with pytest.raises(ValueError, match="'x' is uint8, and `range` is for whole numbers of other types and floats"):
        plugin("arrays", path="b.npy", y=None, range=(0, 1), test_share=1).load("test", tmp_path)


# ---- orientation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [COLOUR, GREY[:, :10], GREY[:, :10].astype(np.uint16) * 257], ids=["RGB", "L", "I;16"])
@pytest.mark.parametrize("orientation", range(10))
def test_images_are_turned_as_pillow_turns_them_and_only_when_asked(x: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation  # 0 and 9 are none
    raw = encoded(x, "PNG", exif=exif)
    with Image.open(image_files.io.BytesIO(raw)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    bits = 16 if x.dtype == np.uint16 else None
    high = 8 * (bits is not None)
    assert np.array_equal(image_files.decode(raw, "x", Decoding(bits, exif=True)), upright >> high)
    assert np.array_equal(image_files.decode(raw, "x", Decoding(bits)), x >> high)


@pytest.mark.parametrize("name", FILES)
def test_every_set_of_files_turns_images_when_asked(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    given = one_file(name, encoded(COLOUR, exif=exif), tmp_path)
    assert np.array_equal(plugin(name, **given, exif=True).load("test", tmp_path).x[0], np.rot90(COLOUR, -1))
    assert np.array_equal(plugin(name, **given).load("test", tmp_path).x[0], COLOUR)
    with pytest.raises(ValueError, match=f"{name}: exif is 'yes', should be a valid boolean"):
        plugin(name, **given, exif="yes")


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_said_is_in_no_key(name: str) -> None:
    """So the cells of studies that are older than these parameters keep their names."""
    new = {"range", "exif", "skip_damaged"}
    path = {"path": "a", "test_share": 1}
    assert new.isdisjoint(canonical(plugin(name, **path)) or {})
    said = canonical(plugin(name, **path, range=(0, 1), exif=True, skip_damaged=True)) or {}
    assert {key: said[key] for key in new} == {"range": (0, 1), "exif": True, "skip_damaged": True}


# ---- endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "form", "needs_"), [("jfif", "JPEG", ""), ("avif", "AVIF", "avif"), ("jp2", "JPEG2000", "jpg_2000")]
)
@pytest.mark.parametrize("upper", [False, True])
def test_a_folder_takes_files_of_every_ending_that_pillow_reads(
    ending: str, form: str, needs_: str, upper: bool, tmp_path: Path
) -> None:
    if needs_ and not features.check(needs_):
        pytest.skip(f"this Pillow has no {needs_}")
    raw = encoded(COLOUR, form)
    given = one_file("folder", raw, tmp_path, ending.upper() if upper else ending)
    found = plugin("folder", **given).load("test", tmp_path).x
    with Image.open(image_files.io.BytesIO(raw)) as image:
        assert [np.asarray(each).tolist() for each in found] == [np.asarray(image).tolist()]


@pytest.mark.parametrize(("form", "name"), [("AVIF", "avif"), ("JPEG2000", "jpg_2000")])
def test_a_format_that_this_pillow_lacks_is_said_and_is_no_damage(
    form: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = encoded(COLOUR, form)

    def refuse(stream: Any) -> None:
        raise UnidentifiedImageError

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(ValueError, match=rf"x is of a format that this Pillow was built without \({name}\)") as caught:
        image_files.decode(raw, "x")
    assert not isinstance(caught.value, image_files.UndecodableError)


# ---- damaged files ----------------------------------------------------------------------------------------


def library(folder: Path, **params: Any) -> tuple[Any, Any, Listener]:
    """Return the library of a study of a user's own images, its ID set, and what hears warnings."""
    loaded = reader.load(write(folder / "s.yaml", id=params.pop("id", {"folder": params}), data=str(folder)))
    listener = Listener()
    return Pipeline(loaded, Options(), listener), loaded.datasets[0], listener


def damage(folder: Path, *names: str) -> list[Path]:
    """Damage images of own.write_folder in turn: a page of HTML, nothing at all, half a file."""
    paths = [folder / "images" / "train" / name for name in names]
    for i, path in enumerate(paths):
        path.write_bytes([b"<html>", b"", path.read_bytes()[: path.stat().st_size // 2]][i % 3])
    return paths


def test_damaged_files_are_left_out_counted_and_recorded(tmp_path: Path) -> None:
    given = own.pictures()
    own.write_folder(tmp_path, given)
    damaged = damage(tmp_path, "ant/002.png", "bee/009.png", "bee/011.png", "cat/023.png")
    pipeline, dataset, listener = library(tmp_path, skip_damaged=True)
    found = pipeline.library.prepared(dataset, "train")
    assert np.bincount(found.y).tolist() == [7, 6, 7]
    assert found.damaged == (2, 9, 11, 23)
    left = [x for i, (x, _) in enumerate(given["train"]) if i not in found.damaged]
    image = ImageFormat(size=8, channels=1)
    assert np.array_equal(found.x, np.concatenate([prepare.to_format(x[None], image) for x in left]))
    said = "4 of 24 images cannot be decoded and are left out (`skip_damaged`): "
    first = f"{said}{damaged[0]} is no image that Pillow can read; {damaged[1]} is no image that Pillow can read; "
    assert found.warnings[0].startswith(f"{first}{damaged[2]} cannot be decoded: ")
    assert found.warnings[0].endswith("; ...")
    assert listener.warnings == [f"folder(skip_damaged=True), train: {found.warnings[0]}"]
    wanted = [each for each in needs.needs(pipeline.study) if each.dataset is dataset]
    assert [*needs.prepare(pipeline.library, wanted)] == []
    facts = json.loads((pipeline.study.results / needs.FILE).read_text())["sets"][0]["splits"]
    assert (facts["train"]["damaged"], facts["train"]["images"]) == (4, 20)
    assert "damaged" not in facts["test"]


def test_damaged_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    (damaged,) = damage(tmp_path, "bee/009.png")
    pipeline, dataset, _ = library(tmp_path)
    with pytest.raises(UserError, match="is no image that Pillow can read; `skip_damaged: true` leaves such") as caught:
        pipeline.library.prepared(dataset, "train")
    assert str(damaged) in str(caught.value)


def test_what_is_drawn_is_drawn_of_whole_images_wherever_they_are_decoded(tmp_path: Path) -> None:
    """A set that is decoded whenever it is read, and an audit, know the same positions."""
    own.write_folder(tmp_path, own.pictures())
    damage(tmp_path, "ant/002.png", "cat/016.png", "cat/017.png", "cat/018.png")
    pipeline, dataset, _ = library(tmp_path, skip_damaged=True, per_class=5, without="bee")
    found = pipeline.library.prepared(dataset, "train")
    assert np.bincount(found.y).tolist() == [5, 5]
    assert found.damaged == (2, 16, 17, 18)
    at = audit._original(pipeline, audit.Side(audit.ID_TRAIN, dataset, "train"))
    assert set(at[found.y == 1]) == {19, 20, 21, 22, 23}
    (tmp_path / "out").mkdir()
    image = ImageFormat(size=8, channels=1)
    meta = prepare.prepare(dataset, "train", image, tmp_path, tmp_path / "out", room=0)
    lazy = prepare.reopened(dataset, "train", image, tmp_path, tmp_path / "out", meta)
    assert np.array_equal(lazy.x[:], found.x)
    assert lazy.damaged == found.damaged


def test_a_class_of_damaged_images_alone_is_refused(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    damage(tmp_path, *(f"bee/{i:03}.png" for i in range(8, 16)))
    pipeline, dataset, _ = library(tmp_path, skip_damaged=True)
    with pytest.raises(UserError, match="split train has no image of the class 'bee' that can be decoded"):
        pipeline.library.prepared(dataset, "train")


@pytest.mark.parametrize("name", ["csv", "image_list", "parquet"])
def test_every_set_of_files_goes_without_damaged_ones(name: str, tmp_path: Path) -> None:
    own.WRITERS[name](tmp_path, own.pictures())
    for file in ("files/train 003.png", "train/003.png"):
        if (tmp_path / file).is_file():
            (tmp_path / file).write_bytes(b"junk")
    if name == "parquet":
        file = tmp_path / "images" / "train-00000-of-00002.parquet"
        table = pq.read_table(file).to_pylist()
        table[3]["image"]["bytes"] = b"junk"
        pq.write_table(pa.Table.from_pylist(table), file)
    (tmp_path / "out").mkdir()
    image = ImageFormat(size=8, channels=1)
    meta = prepare.prepare(plugin(name, skip_damaged=True), "train", image, tmp_path, tmp_path / "out")
    assert (meta["damaged"], sum(meta["counts"])) == ([3], 23)
    with pytest.raises(ValueError, match="is no image that Pillow can read; `skip_damaged: true`"):
        prepare.prepare(plugin(name), "train", image, tmp_path, tmp_path / "out")


def test_an_image_of_unsaid_values_is_no_damaged_one(tmp_path: Path) -> None:
    own.write_folder(tmp_path, own.pictures())
    save(tmp_path / "images" / "train" / "bee" / "009.png", GREY.astype(np.uint16) * 257)
    pipeline, dataset, _ = library(tmp_path, skip_damaged=True)
    with pytest.raises(UserError, match=r"009\.png cannot be decoded: it has 16 bits"):
        pipeline.library.prepared(dataset, "train")
