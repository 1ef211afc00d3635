"""Artifacts are whole or absent, damaged ones are named and never used, locks are exclusive."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oodbench.store.artifacts import MANIFEST, Store


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, heard: list[str]) -> Store:
    return Store(tmp_path / "store", heard.append)


def fill(folder: Path) -> dict[str, Any]:
    (folder / "a.bin").write_bytes(b"0123456789")
    (folder / "b.bin").write_bytes(b"")
    return {"n": 10}


def test_what_is_written_is_read(store: Store) -> None:
    assert store.read("bank", "k") is None
    made = store.write("bank", "k", {"x": 1}, fill)
    again = Store(store.root).read("bank", "k")
    assert again == made
    assert again is not None
    assert (again.meta, again.fields, again.file("a.bin").read_bytes()) == ({"n": 10}, {"x": 1}, b"0123456789")
    assert (store.has("bank", "k"), store.keys("bank"), store.kinds()) == (True, ["k"], ["bank"])


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "a.bin").write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        store.write("bank", "k", {}, fail)
    assert list((store.root / "bank").iterdir()) == []


def cut_short(path: Path) -> None:
    (path / "a.bin").write_bytes(b"01234")


def alter(path: Path) -> None:
    (path / "a.bin").write_bytes(b"012345678X")


def remove(path: Path) -> None:
    (path / "a.bin").unlink()


def alter_manifest(path: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["meta"]["n"] = 11
    (path / MANIFEST).write_text(json.dumps(manifest))


def cut_manifest(path: Path) -> None:
    (path / MANIFEST).write_text((path / MANIFEST).read_text()[:40])


def lose_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def replace_manifest(path: Path) -> None:
    (path / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "a.bin was altered or cut short"),
        (alter, "a.bin was altered or cut short"),
        (remove, "a.bin is missing"),
        (alter_manifest, "its manifest was altered"),
        (cut_manifest, "its manifest cannot be read"),
        (lose_manifest, "its manifest cannot be read"),
        (replace_manifest, "its manifest cannot be read"),
    ],
)
def test_a_damaged_artifact_is_named_set_aside_and_made_again(
    store: Store, heard: list[str], damage: Any, said: str
) -> None:
    store.write("bank", "k", {}, fill)
    damage(store.path("bank", "k"))
    fresh = Store(store.root, heard.append)
    assert fresh.read("bank", "k") is None
    assert len(heard) == 1
    assert str(store.path("bank", "k")) in heard[0]
    assert said in heard[0]
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert fresh.write("bank", "k", {}, fill).meta == {"n": 10}


def test_an_artifact_without_a_manifest_is_among_the_keys_and_other_folders_are_not(store: Store) -> None:
    key = "0123456789abcdef"
    store.write("bank", key, {}, fill)
    (store.root / "data" / "cifar10").mkdir(parents=True)  # a folder of images, where data and store are one folder
    lose_manifest(store.path("bank", key))
    fresh = Store(store.root)
    assert (fresh.kinds(), fresh.keys("bank"), fresh.keys("data")) == (["bank"], [key], [])
    assert fresh.read("bank", key) is None
    assert fresh.kinds() == []  # set aside


def test_the_first_of_two_writers_wins(store: Store) -> None:
    store.write("bank", "k", {}, fill)
    Store(store.root).write("bank", "k", {}, lambda folder: {"n": 11})
    kept = Store(store.root).read("bank", "k")
    assert kept is not None
    assert kept.meta == {"n": 10}


def test_remove_and_size(store: Store) -> None:
    store.write("bank", "k", {}, fill)
    assert store.size("bank", "k") > 10
    store.remove("bank", "k")
    store.remove("bank", "k")
    assert store.read("bank", "k") is None
    assert store.keys("bank") == []


HOLD = """
import sys, time
from pathlib import Path
from oodbench.store.artifacts import Store
with Store(Path(sys.argv[1])).lock("run", "k") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_exclusive_and_falls_with_its_process(store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with store.lock("run", "k", wait=False) as mine:
        assert mine is False
    with store.lock("run", "other", wait=False) as mine:
        assert mine is True
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with store.lock("run", "k") as mine:
        assert mine is True
