"""`oodbench prepare`: what is there, what is fetched, what is missing; its manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from serving import running
from tiny import write

from oodbench.api import Download
from oodbench.data import contents, needs
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import Registry

DIGITS = Registry().load("dataset", "mnist")
NAMES = [each.name for each in DIGITS().source.downloads]  # type: ignore[attr-defined]
STUDY: dict[str, Any] = {"ood": {"near": "mnist", "far": {"noise": {"count": 50, "size": 8}}}}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the network, unless a test serves the files."""
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")


def mnist() -> dict[str, bytes]:
    """Return tiny files in MNIST's format by name."""
    rng, found = np.random.default_rng(0), {}
    for name in NAMES:
        count = 30 if name.startswith("train") else 20
        shape = (count, 28, 28) if "images" in name else (count,)
        x = rng.integers(10, size=shape, dtype=np.uint8)
        head = struct.pack(f">BBBB{x.ndim}i", 0, 0, 8, x.ndim, *x.shape)
        found[name] = gzip.compress(head + x.tobytes(), mtime=0)
    return found


def place(root: Path) -> Path:
    folder = root / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in mnist().items():
        (folder / name).write_bytes(content)
    return folder


def manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "results" / "s" / "data.json").read_text())
    return found


def test_generated_sets_are_prepared_as_run_prepares_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outliers = {"blobs": {"groups": 2, "count": 30, "shift": 90.0}}
    file = write(tmp_path / "s.yaml", validation=outliers, training=["cross_entropy", "outlier_exposure"])
    done = call("prepare", file)
    assert done.exit_code == 0, done.output
    assert "generated, or comes with a library" in done.stdout
    assert "5 of 5 sets prepared" in done.stdout
    pipeline = Pipeline(reader.load(file), Options(device="cpu"), Watch())
    roles = {each["set"]: each["roles"] for each in manifest(tmp_path)["sets"]}
    assert list(roles.values()) == [["ID", "reference"], ["near"], ["far"], ["outliers"], ["validation"]]
    there = set(pipeline.store.keys("data"))
    monkeypatch.setattr("oodbench.data.prepare.prepare", None)  # what run needs is there
    runner = Runner(pipeline.study, Options(device="cpu"))
    for work in runner.plan.work:
        runner.pipeline.encoders.train_key(work.run)
        runner.bookkeeping.pending(runner.source(work))
    assert set(pipeline.store.keys("data")) == there
    assert len(there) == 6  # train and test of ID, one split of each other


def test_the_manifest_says_what_was_made_of_what(tmp_path: Path) -> None:
    folder = place(tmp_path)
    file = write(tmp_path / "s.yaml", **STUDY)
    assert call("prepare", file).exit_code == 0
    found = manifest(tmp_path)
    assert found["image"]["size"] == 8
    (near,) = (each for each in found["sets"] if each["set"] == "mnist")
    assert near["source"]["licence"] == "none stated"
    assert near["source"]["page"] == "http://yann.lecun.com/exdb/mnist/"
    assert [each["name"] for each in near["source"]["downloads"]] == NAMES
    assert near["source"]["downloads"][0]["hash"] == "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
    (test,) = near["splits"].values()
    pipeline = Pipeline(reader.load(file), Options(device="cpu"), Watch())
    prepared = pipeline.library.prepared(DIGITS(), "test")
    assert (test["content"], test["images"], test["mapped"]) == (prepared.content, 20, True)
    assert list(test["classes"].values()) == np.bincount(prepared.y, minlength=10).tolist()
    assert test["files"]["sha256"] == {
        f"MNIST/raw/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("t10k*"))
    }
    assert call("prepare", file).exit_code == 0
    again = manifest(tmp_path)
    del found["made_at"], again["made_at"]
    assert again == found


def test_hashes_are_computed_again_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(tmp_path)
    file = write(tmp_path / "s.yaml", **STUDY)
    hashed: list[str] = []
    real = contents.sha256
    monkeypatch.setattr(contents, "sha256", lambda path: hashed.append(path.name) or real(path))
    assert call("prepare", file).exit_code == 0
    assert sorted(hashed) == NAMES[2:]
    assert call("prepare", file).exit_code == 0
    assert len(hashed) == 2
    path = folder / NAMES[3]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    (tmp_path / "results" / "store" / "hashes.json").write_text("{")  # cut short: hashed anew
    assert call("prepare", file).exit_code == 0
    assert sorted(hashed[2:]) == NAMES[2:]


def test_very_many_files_have_one_hash_of_names_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(tmp_path)
    monkeypatch.setattr(needs, "SINGLE", 1)
    file = write(tmp_path / "s.yaml", **STUDY)
    assert call("prepare", file).exit_code == 0
    (near,) = (each for each in manifest(tmp_path)["sets"] if each["set"] == "mnist")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("t10k*"))}
    listed = "".join(f"MNIST/raw/{name}\t{size}\n" for name, size in sizes.items())
    assert near["splits"]["test"]["files"] == {
        "count": 2,
        "bytes": sum(sizes.values()),
        "sha256 of the sorted names and sizes": hashlib.sha256(listed.encode()).hexdigest(),
    }


def test_what_is_missing_is_one_line_after_all_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", ood={"near": ["mnist", {"csv": {"path": "own.csv"}}], "far": "noise"})
    done = call("prepare", file)
    assert done.exit_code == 1
    assert "2 of 4 sets prepared" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("missing: ")]
    assert [name in line for name, line in zip(("mnist", "csv"), lines, strict=True)] == [True, True]
    assert f"train-images-idx3-ubyte.gz cannot be downloaded (OODBENCH_OFFLINE is set); place in {tmp_path}" in lines[0]
    assert f"there is no file {tmp_path}/data/own.csv" in lines[1]
    problems = {each["set"]: each.get("problem", "") for each in manifest(tmp_path)["sets"]}
    assert [bool(each) for each in problems.values()] == [False, True, True, False]


@pytest.mark.parametrize(
    ("files", "is_offline", "code", "said"),
    [
        ([], True, 1, r"missing: train-images-idx3-ubyte.gz"),
        ([], False, 0, r"to download: train-images-idx3-ubyte.gz"),
        (NAMES[:3], False, 0, "to download: t10k-labels-idx1-ubyte.gz (4.5 kB)"),
        (NAMES, True, 0, "here "),
    ],
)
def test_a_dry_run_says_it_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], is_offline: bool, code: int, said: str
) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "0")
    folder = place(tmp_path)
    for name in set(NAMES) - set(files):
        (folder / name).unlink()
    before = sorted(tmp_path.rglob("*"))
    file = write(tmp_path / "s.yaml", **STUDY)
    done = call("prepare", file, "--dry-run", *["--offline"] * is_offline)
    assert done.exit_code == code
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("mnist"))
    assert said in line
    for words in ("near", "none stated", "ossci-datasets.s3.amazonaws.com"):
        assert words in line
    assert sorted(tmp_path.rglob("*")) == sorted([*before, file])


def test_a_list_that_is_damaged_and_a_module_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tmp_path / "data" / "dtd" / "dtd" / "labels"
    lists.mkdir(parents=True)
    for part in ("train", "val", "test"):
        (lists / f"{part}1.txt").write_text("../secret.jpg\n")
    monkeypatch.setattr(needs, "find_spec", lambda module: None)
    file = write(tmp_path / "s.yaml", ood={"near": "textures", "far": "parquet"})
    shown = {line.split()[0]: line for line in call("prepare", file, "--dry-run").stdout.splitlines()}
    assert "damaged" in shown["textures"]
    done = call("prepare", file)
    assert done.exit_code == 1
    assert "train1.txt is damaged: '../secret.jpg' is no image of a class" in done.stderr
    assert "parquet needs pyarrow: pip install 'oodbench[parquet]'" in done.stderr


def test_what_no_program_can_get_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = DIGITS().source._replace(downloads=(Download((), None, ".*", filename="mnist.tar"),), by_hand="ask")  # type: ignore[attr-defined]
    monkeypatch.setattr(DIGITS, "source", by_hand)
    file = write(tmp_path / "s.yaml", **STUDY)
    done = call("prepare", file, "--dry-run")
    assert done.exit_code == 1
    assert "by hand: mnist.tar (size unknown)" in done.stdout
    assert "no program can get mnist.tar; place in" in call("prepare", file).stderr


@pytest.mark.parametrize(("name", "asked"), [("cifar10", "cifar-10"), ("cifar100", "cifar-10 cifar-100")])
def test_the_lists_of_a_suite_have_a_page_and_say_what_brings_them(tmp_path: Path, name: str, asked: str) -> None:
    without = dict.fromkeys(("id", "ood", "image", "outliers"))
    file = write(tmp_path / "s.yaml", **without, suite=f"openood/{name}", validation={"csv": {"path": "own.csv"}})
    lines = call("prepare", file, "--dry-run").stdout.splitlines()
    (near,) = (line for line in lines if line.startswith("tiny_imagenet"))
    assert [words in near for words in ("by hand", "each set's own", "https://github.com/Jingkang50/OpenOOD")] == [
        1,
        1,
        1,
    ]
    (own,) = (line for line in lines if line.startswith("csv"))
    assert ("your own files" in own, "github" in own) == (True, False)
    done = call("prepare", file)
    (missing,) = (line for line in done.stderr.splitlines() if "test_mnist.txt" in line)
    wanted = f"scripts/download/download.py --contents datasets --datasets {asked} --save_dir {tmp_path / 'data'} "
    assert wanted in missing
    (mine,) = (line for line in done.stderr.splitlines() if "own.csv" in line)
    assert "download.py" not in mine
    sources = {each["set"]: each["source"] for each in manifest(tmp_path)["sets"]}
    assert sources["svhn"] == {"page": "https://github.com/Jingkang50/OpenOOD", "licence": "each set's own"}
    assert not (tmp_path / "data").exists()


def test_shifted_sets_of_a_suite_that_are_not_here_are_said(tmp_path: Path) -> None:
    """Those of a study beside a suite are not the suite's."""
    without = dict.fromkeys(("id", "ood", "image", "outliers"))
    file = write(tmp_path / "s.yaml", **without, suite="openood/cifar10_fs")
    (line,) = (each for each in call("prepare", file, "--dry-run").stdout.splitlines() if each.startswith("cifar10_c"))
    assert [words in line for words in ("covariate", "by hand", "https://github.com/Jingkang50/OpenOOD")] == [1, 1, 1]
    (missing,) = (each for each in call("prepare", file).stderr.splitlines() if "test_cifar10c.txt" in each)
    assert f"--datasets cifar-10 misc --save_dir {tmp_path / 'data'} " in missing
    (lost,) = (each for each in call("plan", file).stdout.splitlines() if each.startswith("missing: cifar10_c "))
    assert "test_cifar10c.txt" in lost
    own = write(tmp_path / "own.yaml", **without, suite="openood/cifar10", covariate={"csv": {"path": "own.csv"}})
    (mine,) = (each for each in call("prepare", own).stderr.splitlines() if "own.csv" in each)
    assert "download.py" not in mine


def test_it_downloads_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "0")
    with running() as server:
        contents = mnist()
        server.files = {f"/{name}": content for name, content in contents.items()}
        source = DIGITS().source  # type: ignore[attr-defined]
        downloads = tuple(
            each._replace(urls=(f"{server.url}/{each.name}",), hash=f"sha256:{hashlib.sha256(content).hexdigest()}")
            for each, content in zip(source.downloads, contents.values(), strict=True)
        )
        monkeypatch.setattr(DIGITS, "source", source._replace(downloads=downloads))
        done = call("prepare", write(tmp_path / "s.yaml", **STUDY))
    assert done.exit_code == 0, done.output
    for name in NAMES:
        assert f"downloaded {name}: " in done.stderr
        assert (tmp_path / "data" / "MNIST" / "raw" / name).read_bytes() == contents[name]
    assert "3 of 3 sets prepared" in done.stdout


def test_plan_does_not_promise_to_get_a_users_own_files(tmp_path: Path) -> None:
    """Also of a folder that is not there; `prepare` gets what has a source."""
    file = write(tmp_path / "s.yaml", id="mnist", ood={"near": {"folder": {"path": "mine"}}, "far": "noise"})
    said = " ".join(call("plan", file).output.split())
    assert f"not here: mnist; oodbench prepare {file} gets them" in said
    assert "not here: folder(path=mine); no command gets your own files: place them, or mend the paths" in said
