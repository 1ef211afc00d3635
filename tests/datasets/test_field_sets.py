"""The field's data sets, on tiny files in their real formats; torchvision's own loaders are the oracle."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
import torchvision.datasets as peers
from PIL import Image
from python2_pickles import py2, write_py2
from scipy.io import savemat
from sets_by_name import REGISTRY, module, plugin
from tiny import write

from oodbench.api import Dataset
from oodbench.conformance.suite import conform
from oodbench.data import prepare
from oodbench.data.download import fetch_set
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.settings import ImageFormat
from oodbench.toolkit import raw_files

RNG = np.random.default_rng(0)
SUPER = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15),
    *(0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19),
    *(18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(256, size=shape, dtype=np.uint8)


# ---- pickles as Python 2 wrote them -------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_py2_writes_what_numpy_reads(order: str) -> None:
    """The writer of these tests is checked against Python's own unpickler, which torchvision uses."""
    x = np.asarray(noise(5, 7), order=order)  # type: ignore[call-overload]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = pickle.loads(
            b"\x80\x02" + py2({"data": x, "labels": [1, 70000], "é": "x" * 300}) + b".", encoding="latin1"
        )
    assert np.array_equal(found["data"], x)
    assert found["labels"] == [1, 70000]
    assert found["é"] == "x" * 300


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_pickled_reads_what_numpy_reads(tmp_path: Path, order: str) -> None:
    x = np.asarray(noise(5, 7), order=order)  # type: ignore[call-overload]
    write_py2(tmp_path / "batch", {"data": x, "labels": [1, 70000], "batch_label": "training batch 1 of 5"})
    found = raw_files.read_pickled(tmp_path / "batch")
    assert np.array_equal(found["data"], x)
    assert found["labels"] == [1, 70000]
    assert found["batch_label"] == b"training batch 1 of 5"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_pickled_reads_what_python_3_wrote(tmp_path: Path, protocol: int, order: str) -> None:
    """As people write CIFAR's form themselves: names in NumPy 2 are others, bytes are encoded, arrays are buffers."""
    x = np.asarray(noise(5, 7), order=order)  # type: ignore[call-overload]
    content = pickle.dumps({b"data": x, "fine_labels": [1, 70000], b"batch_label": b""}, protocol=protocol)
    for core in (b"numpy._core", b"numpy.core"):
        if protocol < 4:  # later ones say how long a name is
            content = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
        (tmp_path / "batch").write_bytes(content)
        found = raw_files.read_pickled(tmp_path / "batch")
        assert np.array_equal(found["data"], x)
        assert found["fine_labels"] == [1, 70000]
        assert found["batch_label"] == b""


class Evil:
    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


def evil_pickles(marker: Path) -> dict[str, bytes]:
    """Return pickles that make a folder when they are run; each does so under Python's own unpickler."""
    name = str(marker).encode()
    return {
        "reduce": pickle.dumps({"data": Evil(os.mkdir, str(marker))}, protocol=2),
        "newest protocol": pickle.dumps({"data": Evil(os.mkdir, str(marker))}, protocol=5),
        "eval": pickle.dumps({"data": Evil(eval, f"__import__('os').mkdir({str(marker)!r})")}, protocol=2),
        "inst": b"(S'" + name + b"'\nios\nmkdir\n.",
        "obj": b"(cos\nmkdir\nS'" + name + b"'\no.",
        "after a good batch": b"\x80\x02" + py2({"labels": [1]}) + b"0cos\nmkdir\n(S'" + name + b"'\ntR.",
    }


@pytest.mark.parametrize("how", evil_pickles(Path()))
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "ran"
    content = evil_pickles(marker)[how]
    pickle.loads(content)
    marker.rmdir()  # it was made: the pickle does what it is here for
    (tmp_path / "batch").write_bytes(content)
    said = r"it (names \w+\.(mkdir|eval), which is no part of|has the opcode \w+, which no array)"
    with pytest.raises(ValueError, match=rf"batch is damaged: {said}"):
        raw_files.read_pickled(tmp_path / "batch")
    assert not marker.exists()


LOW = struct.pack("<Q", 5)
HOSTILE = {  # each ended or held up the process, or set memory aside
    "a key that is a deep tuple": b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.",
    "a key that is a wide tuple": b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s.",
    "the same by the memo": b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"K\x01s.",
    "a frame that ends inside of a number": b"\x80\x04\x95" + LOW + b"}r\0\0\0\0M\0\x08.",
    "frames in frames": b"\x80\x04\x95" + LOW + b"\x95" + LOW + b"}.",
    "sets": b"\x80\x04" + b"\x8f" * 100_000 + b".",
    "a function that is changed": b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb0}.",
    "less than is taken": b"\x80\x02}s.",
    "a text that is encoded again and again": b"\x80\x02c_codecs\nencode\nq\x00X\x10\x27\0\0"
    + b"x" * 10_000
    + b"q\x01"
    + b"h\x00h\x01\x85R" * 2_000
    + b".",
    "keys that collide": b"\x80\x02}("
    + b"".join(pickle.dumps(k * (2**61 - 1), 2)[2:-1] + b"N" for k in range(99))
    + b"u.",
    "a key that is a number": b"\x80\x02}K\x01K\x02s.",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_pickle_is_damaged_and_nothing_else(tmp_path: Path, how: str) -> None:
    (tmp_path / "batch").write_bytes(HOSTILE[how])
    with pytest.raises(ValueError, match="batch is damaged: "):
        raw_files.read_pickled(tmp_path / "batch")


def test_a_header_of_a_mat_file_sets_no_memory_aside(tmp_path: Path) -> None:
    """184 bytes that are said to be 2**28 cells."""
    savemat(tmp_path / "f.mat", {"X": np.array([["a"], ["b"], ["c"]], object)})
    content = (tmp_path / "f.mat").read_bytes()
    (tmp_path / "f.mat").write_bytes(content.replace(struct.pack("<ii", 3, 1), struct.pack("<ii", 2**28, 1), 1))
    with pytest.raises(ValueError, match=r"f\.mat is damaged: X is said to be a cell of the shape \(268435456, 1\)"):
        raw_files.read_mat(tmp_path / "f.mat", "X")
    savemat(tmp_path / "f.mat", {"X": {"a": 1}})
    with pytest.raises(ValueError, match="X is said to be a struct"):
        raw_files.read_mat(tmp_path / "f.mat", "X")


def cell(value: Any) -> np.ndarray:
    found = np.empty((1, 1), object)
    found[0, 0] = value
    return found


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_has_no_cells_in_cells_and_unpacks_to_little(
    tmp_path: Path, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them end the process; texts, numbers and empty arrays in cells are read."""
    file, good = tmp_path / "f.mat", np.array([["a.jpg"], ["bc.jpg"], [""], [np.zeros((0, 0))], [np.arange(3)]], object)
    savemat(file, {"X": np.arange(200).reshape(20, 10), "c": good, "t": "text"}, do_compression=compressed)
    x, c = raw_files.read_mat(file, "X", "c")
    assert np.array_equal(x, np.arange(200).reshape(20, 10))
    assert [str(each[0]) for each in c[:2, 0]] == ["a.jpg", "bc.jpg"]
    savemat(file, {"X": cell(cell(cell("deep")))}, do_compression=compressed)
    with pytest.raises(ValueError, match=r"f\.mat is damaged: it has a cell of something else"):
        raw_files.read_mat(file, "X")
    savemat(file, {"X": np.zeros(100_000)}, do_compression=True)
    monkeypatch.setattr(raw_files, "RATIO", 0)
    with pytest.raises(ValueError, match="it unpacks to more than"):
        raw_files.read_mat(file, "X")


@pytest.mark.parametrize("dims", [[1] * 200, [0, 2**32 - 1, 2**32 - 1, 2**32 - 1]])
def test_an_idx_file_of_impossible_dimensions_is_damaged(tmp_path: Path, dims: list[int]) -> None:
    (tmp_path / "f").write_bytes(
        b"\0\0\x08" + bytes([len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + b"x" * all(dims)
    )
    with pytest.raises(ValueError, match=f"{tmp_path / 'f'} is damaged"):
        raw_files.read_idx(tmp_path / "f")


def test_memory_that_a_file_does_not_fill_is_not_set_aside(tmp_path: Path) -> None:
    """A memo of 2**32 entries, and a bytearray of 2**40 bytes: Python's unpickler would make them first."""
    for content in (
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02Np4294967295\n.",
        b"\x80\x02\x96" + struct.pack("<Q", 2**40),
    ):
        (tmp_path / "batch").write_bytes(content)
        with pytest.raises(ValueError, match=r"batch is damaged: (it numbers|.*expected \d+ bytes)"):
            raw_files.read_pickled(tmp_path / "batch")


def test_numpy_names_that_could_run_code_are_refused(tmp_path: Path) -> None:
    for named in (b"numpy\nload", b"numpy.core.multiarray\nscalar", b"numpy\nndarray.tofile", b"builtins\ngetattr"):
        (tmp_path / "batch").write_bytes(b"\x80\x04c" + named + b"\n.")
        with pytest.raises(ValueError, match="which is no part of an array"):
            raw_files.read_pickled(tmp_path / "batch")


@pytest.mark.parametrize(
    "value",
    [{"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}, {"data": [1], "labels": [1]}, {"labels": [1]}],
)
def test_a_batch_of_something_else_is_damaged(tmp_path: Path, value: dict[str, Any]) -> None:
    write_py2(tmp_path / "batch", value)
    with pytest.raises(ValueError, match="batch is damaged"):
        raw_files.read_rows([tmp_path / "batch"], "labels", 10)


# ---- tiny sets --------------------------------------------------------------------------------------------


def write_cifar10(root: Path) -> None:
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        labels = [(i + k) % 10 for k in range(20)]
        names = [f"image_{i}_{k}.png" for k in range(20)]
        batch = {"batch_label": name, "labels": labels, "data": noise(20, 3072), "filenames": names}
        write_py2(root / "cifar-10-batches-py" / name, batch)
    write_py2(root / "cifar-10-batches-py" / "batches.meta", {"label_names": list(module("cifar10").NAMES)})


def write_cifar100(root: Path) -> None:
    for name, count in (("train", 300), ("test", 100)):
        fine = RNG.permutation(count).astype(int) % 100
        batch = {
            "filenames": [f"{k}.png" for k in range(count)],
            "batch_label": name,
            "fine_labels": fine.tolist(),
            "coarse_labels": [SUPER[k] for k in fine],
            "data": np.asfortranarray(noise(count, 3072)),
        }
        write_py2(root / "cifar-100-python" / name, batch)
    names = {"fine_label_names": list(module("cifar100").FINE), "coarse_label_names": list(module("cifar100").COARSE)}
    write_py2(root / "cifar-100-python" / "meta", names)


def write_svhn(root: Path) -> None:
    for name, count in (("train", 40), ("test", 30)):
        y = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        x = noise(32, 32, 3, count)
        root.mkdir(exist_ok=True, parents=True)
        savemat(root / f"{name}_32x32.mat", {"X": x, "y": y}, do_compression=True)


def write_mnist(root: Path) -> None:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 20)):
        for kind, array in (
            ("images-idx3", noise(count, 28, 28)),
            ("labels-idx1", (np.arange(count) * 3 % 10).astype(np.uint8)),
        ):
            head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + array.tobytes())


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for name, count in (("train", 12), ("test", 15)):
        noise(count, 3, 96, 96).tofile(folder / f"{name}_X.bin")
        (np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in module("stl10").NAMES))


def write_textures(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    number = 0
    for part in ("train", "val", "test"):
        lines = []
        for name in module("textures").NAMES:
            number += 1
            path = folder / "images" / name / f"{name}_{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(6 + number % 5, 9, 3)).save(path)
            lines.append(f"{name}/{path.name}\n")
        (folder / "labels" / f"{part}1.txt").write_text("".join(lines))


WRITERS: dict[str, Callable[[Path], None]] = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "mnist": write_mnist,
    "stl10": write_stl10,
    "textures": write_textures,
}
SIZES = {
    "cifar10": (100, 20),
    "cifar100": (300, 100),
    "svhn": (40, 30),
    "mnist": (30, 20),
    "stl10": (12, 15),
    "textures": (94, 47),
}
FILES = {
    "cifar10": ("cifar-10-batches-py/data_batch_3", 5, 1),
    "cifar100": ("cifar-100-python/train", 1, 1),
    "svhn": ("train_32x32.mat", 1, 1),
    "mnist": ("MNIST/raw/train-images-idx3-ubyte", 2, 2),
    "stl10": ("stl10_binary/train_X.bin", 2, 2),
    "textures": ("dtd/dtd/labels/train1.txt", 96, 48),
}
SETS = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the network: what is downloaded comes from a server of the test's own."""
    real = requests.get

    def get(url: str, **kwargs: Any) -> requests.Response:
        if not url.startswith("http://127.0.0.1:"):
            raise requests.ConnectionError("no network")
        return real(url, **kwargs)

    monkeypatch.setattr(requests, "get", get)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


class Site(NamedTuple):
    folder: Path
    url: str


def peer(name: str, split: str, root: Path) -> tuple[list[np.ndarray], list[int]]:
    """Return images and labels as torchvision's own loader gives them; it reads the same tiny files."""
    if name in ("cifar10", "cifar100", "mnist"):
        loaded = {"cifar10": peers.CIFAR10, "cifar100": peers.CIFAR100, "mnist": peers.MNIST}[name](
            root, split == "train"
        )
    else:
        loaded = {"svhn": peers.SVHN, "stl10": peers.STL10, "textures": peers.DTD}[name](root, split)
    pairs = [loaded[i] for i in range(len(loaded))]
    return [np.asarray(x) for x, _ in pairs], [int(y) for _, y in pairs]


@SETS
def test_it_loads_what_torchvision_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Same images, channels, order and labels; for DTD's train split torchvision has two parts."""
    for module_ in ("cifar", "svhn", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module_}.check_integrity", lambda *_: True)  # of the real files
    WRITERS[name](tmp_path)
    dataset = plugin(name)
    fetch_set(dataset, tmp_path)
    for split, parts in (("train", ["train", "val"] if name == "textures" else ["train"]), ("test", ["test"])):
        found = dataset.load(split, tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core in the pickles
            warnings.simplefilter("ignore", ResourceWarning)
            expected = [peer(name, part, tmp_path) for part in parts]
        x = [image for each, _ in expected for image in each]
        y = [label for _, each in expected for label in each]
        assert found.y.tolist() == y
        assert len(found.x) == len(x)
        assert all(np.array_equal(found.x[i], x[i]) for i in range(len(x)))
        assert len(set(y)) > 1


@SETS
def test_sizes_splits_and_files(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    dataset = plugin(name)
    sizes = tuple(len(dataset.load(split, tmp_path).x) for split in ("train", "test"))
    assert sizes == SIZES[name]
    file, train, test = FILES[name]
    assert tmp_path / file in dataset.files("train", tmp_path)
    assert tmp_path / file not in dataset.files("test", tmp_path)
    assert (len(dataset.files("train", tmp_path)), len(dataset.files("test", tmp_path))) == (train, test)


@SETS
def test_nothing_is_listed_where_nothing_is(tmp_path: Path, name: str) -> None:
    assert list(plugin(name).files("train", tmp_path)) == []


@pytest.mark.slow
@SETS
def test_it_conforms(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    results = conform(REGISTRY.source("dataset", name), tmp_path)
    assert not [f"{each.check}: {each.problem}" for each in results if each.problem]
    assert not any(each.skipped for each in results)


@SETS
def test_classes_are_kept_and_left_out_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    image = ImageFormat(size=8, channels=3)
    names = plugin(name).class_names
    labels = plugin(name).load("test", tmp_path).y
    for i, (given, kept) in enumerate(
        [
            ({"keep": (names[3], 1)}, [1, 3]),
            ({"only": names[2]}, [2]),
            ({"without": 0}, list(range(1, len(names)))),
        ]
    ):
        folder = tmp_path / f"out{i}"
        folder.mkdir()
        meta = prepare.prepare(plugin(name, **given), "test", image, tmp_path, folder)
        assert meta["classes"] == [names[k] for k in kept]
        assert meta["counts"] == [int((labels == k).sum()) for k in kept]
        assert prepare.opened(folder, meta).x.shape == (sum(meta["counts"]), 8, 8, 3)


# ---- CIFAR-100's super-classes, DTD's parts ------------------------------------------------------------------


def test_super_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    fine, coarse = plugin("cifar100"), plugin("cifar100", coarse=True)
    assert (len(set(fine.class_names)), len(set(coarse.class_names))) == (100, 20)
    assert list(fine.class_names) == sorted(fine.class_names)
    of_fine, of_coarse = (each.load("train", tmp_path) for each in (fine, coarse))
    assert np.array_equal(of_fine.x, of_coarse.x)
    members = {
        name: {fine.class_names[k] for k in of_fine.y[of_coarse.y == i]} for i, name in enumerate(coarse.class_names)
    }
    assert {len(each) for each in members.values()} == {5}
    assert members["fish"] == {"aquarium_fish", "flatfish", "ray", "shark", "trout"}
    assert members["trees"] == {"maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"}
    assert members["medium_mammals"] == {"fox", "porcupine", "possum", "raccoon", "skunk"}
    assert members["vehicles_2"] == {"lawn_mower", "rocket", "streetcar", "tank", "tractor"}


def test_parts_of_textures(tmp_path: Path) -> None:
    write_textures(tmp_path)
    whole = plugin("textures", test=("train", "val", "test"))
    found = whole.load("test", tmp_path)
    assert np.bincount(found.y).tolist() == [3] * 47
    assert len(whole.load("train", tmp_path).x) == 0
    parts = [{x.tobytes() for x in plugin("textures").load(split, tmp_path).x} for split in ("train", "test")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {x.tobytes() for x in found.x}
    assert len({image.shape for image in found.x}) == 5  # decoded one by one, as they are
    assert np.array_equal(found.x[3:5][1], found.x[4])


# ---- what is wrong with files ------------------------------------------------------------------------------------


def read_all(dataset: Dataset, root: Path) -> None:
    fetch_set(dataset, root)
    x = dataset.load("train", root).x
    for i in range(len(x)):
        np.asarray(x[i])


@SETS
def test_a_cut_file_is_named(tmp_path: Path, name: str) -> None:
    """Cut anywhere, also where a whole number of images is left."""
    WRITERS[name](tmp_path)
    path = tmp_path / FILES[name][0]
    content = path.read_bytes()
    if name == "textures":
        path = tmp_path / "dtd/dtd/images/dotted/dotted_0011.jpg"
        content = path.read_bytes()
    whole = 3 * 96 * 96 if name == "stl10" else 28 * 28
    for length in (0, 1, 7, 100, len(content) // 2, len(content) - whole, len(content) - 9):
        path.write_bytes(content[: max(length, 0)])
        with pytest.raises(ValueError, match=path.stem if name != "stl10" else r"train_[Xy]\.bin"):
            read_all(plugin(name), tmp_path)


@SETS
def test_another_file_is_named(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / FILES[name][0]
    for content in (b"<html>quota exceeded</html>", RNG.bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            read_all(plugin(name), tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_no_damage_leads_to_another_error(tmp_path: Path, name: str) -> None:
    """Bytes changed anywhere in a structured file: it loads, or the error is one that names the file."""
    WRITERS[name](tmp_path)
    path = tmp_path / FILES[name][0]
    content = path.read_bytes()
    rng, refused = np.random.default_rng(1), []
    for _ in range(150):
        changed = bytearray(content)
        for place in rng.integers(min(len(content), 400), size=3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            plugin(name).load("train", tmp_path)
        except ValueError as error:
            refused += [str(error)]
    assert len(refused) > 20
    assert all(path.name in message for message in refused)


@pytest.mark.parametrize(
    ("name", "file", "index"),
    [
        ("svhn", "train_32x32.mat", None),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", -1),
        ("stl10", "stl10_binary/train_y.bin", 0),
    ],
)
def test_labels_of_no_class_are_refused(tmp_path: Path, name: str, file: str, index: int | None) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / file
    for label in (11, 0):
        if index is None:
            savemat(path, {"X": noise(32, 32, 3, 2), "y": np.array([[1], [label]], dtype=np.uint8)})
        else:
            content = bytearray(path.read_bytes())
            content[index] = label
            path.write_bytes(content)
        if (name, label) == ("mnist", 0):
            continue  # a digit
        with pytest.raises(ValueError, match=path.name):
            plugin(name).load("train", tmp_path)


@pytest.mark.parametrize("line", ["../../secret.jpg", "dotted/../../../secret.jpg", "nothing/x.jpg", "dotted", ""])
def test_a_list_names_images_of_classes_only(tmp_path: Path, line: str) -> None:
    write_textures(tmp_path)
    path = tmp_path / "dtd/dtd/labels/val1.txt"
    path.write_text(f"dotted/dotted_0001.jpg\n{line}\n")
    with pytest.raises(ValueError, match=r"val1\.txt is damaged"):
        plugin("textures").load("train", tmp_path)


# ---- fetching ----------------------------------------------------------------------------------------------------


@SETS
def test_what_is_missing_and_cannot_be_downloaded(tmp_path: Path, name: str) -> None:
    """One message: the file, where it is from, where to place it. One missing file of all is enough."""
    WRITERS[name](tmp_path / "full")
    (tmp_path / "full" / FILES[name][0]).unlink()
    for root in (tmp_path / "nothing", tmp_path / "full"):
        with pytest.raises(FileNotFoundError, match="there is no connection to") as caught:
            fetch_set(plugin(name), root)
        download = DOWNLOADS[name][0]
        for words in (download.name, download.urls[0], str(root)):
            assert words in str(caught.value)
        assert not [path for path in root.rglob("*") if path.name.startswith(".part-")]


DOWNLOADS = {name: plugin(name).source.downloads for name in WRITERS}


def test_addresses_and_hashes_are_torchvisions() -> None:
    for name, cls in (("cifar10", peers.CIFAR10), ("cifar100", peers.CIFAR100), ("stl10", peers.STL10)):
        (archive,) = DOWNLOADS[name]
        assert (archive.urls, archive.name, archive.hash) == ((cls.url,), cls.filename, f"md5:{cls.tgz_md5}")
        files = [cls.base_folder + "/" + file for file, _ in cls.train_list[:2] + cls.test_list]
        assert all(re.fullmatch(archive.members, file) for file in files)
    (archive,) = DOWNLOADS["textures"]
    assert (archive.urls, archive.hash) == ((peers.DTD._URL,), f"md5:{peers.DTD._MD5}")
    for split, each in zip(("train", "test"), DOWNLOADS["svhn"], strict=True):
        url, name, md5 = peers.SVHN.split_list[split]
        assert (each.urls[0], each.name, each.hash) == (url, name, f"md5:{md5}")
    for name, cls in (("mnist", peers.MNIST), ("fashion_mnist", peers.FashionMNIST)):
        downloads = plugin(name).source.downloads
        assert {(each.name, each.hash) for each in downloads} == {(file, f"md5:{md5}") for file, md5 in cls.resources}
        assert {url.rpartition("/")[0] + "/" for each in downloads for url in each.urls} == set(cls.mirrors)


def publish(name: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Put a tiny set on the site, in the form in which the real one is published."""
    WRITERS[name](site.folder / "files")
    published = []
    for each in DOWNLOADS[name]:
        path = site.folder / each.name
        if each.members is not None:
            start = site.folder / "files" / ("dtd" if name == "textures" else "")
            with tarfile.open(path, "w:gz") as tar:
                for child in sorted(start.iterdir()):
                    tar.add(child, arcname=child.name)
                for other in ("../escaped", "unlabeled_X.bin"):
                    tar.addfile(tarfile.TarInfo(other), io.BytesIO())
        elif name == "mnist":
            path.write_bytes(
                gzip.compress((site.folder / "files/MNIST/raw" / each.name.removesuffix(".gz")).read_bytes())
            )
        else:
            path.write_bytes((site.folder / "files" / each.name).read_bytes())
        published.append(path)
    made = tuple(
        each._replace(
            urls=(f"{site.url}/away/{each.name}", f"{site.url}/{each.name}"),
            hash=f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}",
        )
        for each, path in zip(DOWNLOADS[name], published, strict=True)
    )
    cls = REGISTRY.load("dataset", name)
    monkeypatch.setattr(cls, "source", plugin(name).source._replace(downloads=made))
    return published


def loads_the_same(name: str, root: Path, site: Site) -> bool:
    a, b = (plugin(name).load("test", where) for where in (root, site.folder / "files"))
    return bool(np.array_equal(a.y, b.y)) and all(np.array_equal(a.x[i], b.x[i]) for i in range(len(b.x)))


@SETS
def test_it_is_downloaded_where_torchvision_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, name: str
) -> None:
    """The second mirror is taken where the first fails; nothing but the set's own files is left."""
    publish(name, site, monkeypatch)
    root = tmp_path / "data"
    fetch_set(plugin(name), root)
    assert loads_the_same(name, root, site)
    files = {path for path in root.rglob("*") if path.is_file()}
    assert files == {path for split in ("train", "test") for path in plugin(name).files(split, root)}
    assert not (tmp_path / "escaped").exists()


@SETS
def test_half_a_set_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, name: str) -> None:
    publish(name, site, monkeypatch)
    root = tmp_path / "data"
    fetch_set(plugin(name), root)
    next(iter(plugin(name).files("test", root))).unlink()
    fetch_set(plugin(name), root)
    assert loads_the_same(name, root, site)


@SETS
def test_half_a_download_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, name: str) -> None:
    """What arrives cut short does not have the published hash: nothing of it is left in the folder."""
    for path in publish(name, site, monkeypatch):
        path.write_bytes(path.read_bytes()[:-100])
    root = tmp_path / "data"
    with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
        fetch_set(plugin(name), root)
    assert not [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "textures"])
def test_an_archive_that_was_placed_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, name: str
) -> None:
    (archive,) = publish(name, site, monkeypatch)
    root = tmp_path / "data"
    folder = root / "dtd" if name == "textures" else root
    folder.mkdir(parents=True)
    placed = folder / archive.name
    archive.replace(placed)
    content = placed.read_bytes()
    placed.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=f"{archive.name} is damaged or cut short"):
        fetch_set(plugin(name), root)
    assert [path for path in root.rglob("*") if path.is_file()] == [placed]
    placed.write_bytes(content)
    fetch_set(plugin(name), root)
    assert loads_the_same(name, root, site)


def test_svhn_is_found_where_torchvision_has_it_and_in_its_own_folder(tmp_path: Path) -> None:
    write_svhn(tmp_path / "a")
    write_svhn(tmp_path / "b" / "svhn")
    for root in (tmp_path / "a", tmp_path / "b"):
        fetch_set(plugin("svhn"), root)
        assert len(plugin("svhn").load("train", root).x) == 40


def test_svhn_may_lie_in_both_places(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    (tmp_path / "svhn").mkdir()
    (tmp_path / "test_32x32.mat").rename(tmp_path / "svhn/test_32x32.mat")
    assert plugin("svhn").needed(tmp_path) == [tmp_path / "train_32x32.mat", tmp_path / "svhn/test_32x32.mat"]
    assert [len(plugin("svhn").load(split, tmp_path).x) for split in ("train", "test")] == [40, 30]


def test_the_first_images_of_each_digit_are_svhns_selected_ones(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    whole, some = (plugin("svhn", **given).load("test", tmp_path) for given in ({}, {"first": 2}))
    seen: dict[int, int] = {}
    kept = []
    for i, k in enumerate(whole.y.tolist()):
        seen[k] = seen.get(k, 0) + 1
        kept += [i] if seen[k] <= 2 else []
    assert 0 < len(kept) < len(whole.y)
    assert some.y.tolist() == whole.y[kept].tolist()
    assert np.array_equal(some.x, whole.x[kept])


def test_a_folder_without_all_idx_files_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first folder that has all four is read; where none has, all are wanted in the first of all."""
    dataset = plugin("fashion_mnist")
    monkeypatch.setattr(type(dataset), "folders", dataset.folders[:2])  # not the machine's own
    write_mnist(tmp_path)
    own, whole = (tmp_path / folder for folder in dataset.folders)
    whole.parent.mkdir()
    (tmp_path / "MNIST/raw").rename(whole)
    own.mkdir()
    (own / "train-images-idx3-ubyte").write_bytes(b"of another download")
    assert {path.parent for path in dataset.needed(tmp_path)} == {whole}
    assert len(dataset.load("train", tmp_path).x) == 30
    (whole / "t10k-labels-idx1-ubyte").unlink()
    assert [path.relative_to(own).as_posix() for path in dataset.needed(tmp_path)] == [
        *("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    ]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_images_have_one_size(tmp_path: Path, name: str) -> None:
    folder = tmp_path / plugin(name).folders[0]
    folder.mkdir(parents=True)
    for kind, array in (("images-idx3", noise(2, 8, 9)), ("labels-idx1", noise(2) % 10)):
        for prefix in ("train", "t10k"):
            head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + array.tobytes())
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte holds items of shape \(8, 9\), not \(28, 28\)"):
        plugin(name).load("train", tmp_path)


def test_gzipped_mnist_is_the_same(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    plain = plugin("mnist").load("train", tmp_path)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    fetch_set(plugin("mnist"), tmp_path)
    assert np.array_equal(plain.x, plugin("mnist").load("train", tmp_path).x)


# ---- in a study ----------------------------------------------------------------------------------------------------

STUDY: dict[str, Any] = {
    "image": {"size": 8, "channels": 3},
    "id": {"cifar100": {"coarse": True, "keep": ["fish", "trees", "people"]}},
    "ood": {
        "near": {"cifar100": {"coarse": True, "keep": ["reptiles"]}},
        "far": ["mnist", "svhn", {"textures": {"test": ["train", "val", "test"]}}],
    },
    "outliers": None,
    "training": "cross_entropy",
    "clustering": "labels",
    "distance": "euclidean",
    "threshold": "pooled",
}


@pytest.mark.slow
def test_a_study_of_them(tmp_path: Path) -> None:
    """Sets of other sizes, channels and places meet in one study; textures are all of them, in the test split."""
    for name in ("cifar100", "mnist", "svhn", "textures"):
        WRITERS[name](tmp_path / "data")
    file = write(tmp_path / "study.yaml", data=str(tmp_path / "data"), **STUDY)
    outcome = Runner(reader.load(file), Options(device="cpu"), Watch()).run()
    assert not outcome.failed
    sets = {row["ood"]: row["n_ood"] for row in outcome.rows.to_dict("records")}
    assert sets["textures(test=train+val+test)"] == 141
    assert (sets["mnist"], sets["svhn"]) == (20, 30)


def test_a_study_whose_files_are_missing_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "study.yaml", data=str(tmp_path / "data"), **STUDY)
    with pytest.raises(
        UserError, match=r"cifar-100-python\.tar\.gz cannot be downloaded \(there is no connection to .*\); place in"
    ):
        Runner(reader.load(file), Options(device="cpu"), Watch()).run()
