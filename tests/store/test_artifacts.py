"""Artifacts are whole or absent, damaged ones are named and never used, locks are exclusive."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oodbench.errors import UserError
from oodbench.store.artifacts import MANIFEST, Store, digest
from oodbench.store.files import write_whole

KEY = digest({})


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
    assert store.read("bank", KEY) is None
    made = store.write("bank", digest({"x": 1}), {"x": 1}, fill)
    again = Store(store.root).read("bank", digest({"x": 1}))
    assert again == made
    assert again is not None
    assert (again.meta, again.fields, again.file("a.bin").read_bytes()) == ({"n": 10}, {"x": 1}, b"0123456789")
    assert (store.has("bank", made.path.name), store.keys("bank"), store.kinds()) == (True, [made.path.name], ["bank"])


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "a.bin").write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        store.write("bank", KEY, {}, fail)
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
    store.write("bank", KEY, {}, fill)
    damage(store.path("bank", KEY))
    fresh = Store(store.root, heard.append)
    assert fresh.read("bank", KEY) is None
    assert len(heard) == 1
    assert str(store.path("bank", KEY)) in heard[0]
    assert said in heard[0]
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert fresh.write("bank", KEY, {}, fill).meta == {"n": 10}


def test_an_artifact_without_a_manifest_is_among_the_keys_and_other_folders_are_not(store: Store) -> None:
    key = KEY
    store.write("bank", key, {}, fill)
    (store.root / "data" / "cifar10").mkdir(parents=True)  # a folder of images, where data and store are one folder
    lose_manifest(store.path("bank", key))
    fresh = Store(store.root)
    assert (fresh.kinds(), fresh.keys("bank"), fresh.keys("data")) == (["bank"], [key], [])
    assert fresh.read("bank", key) is None
    assert fresh.kinds() == []  # set aside


def test_the_first_of_two_writers_wins(store: Store) -> None:
    store.write("bank", KEY, {}, fill)
    Store(store.root).write("bank", KEY, {}, lambda folder: {"n": 11})
    kept = Store(store.root).read("bank", KEY)
    assert kept is not None
    assert kept.meta == {"n": 10}


def test_remove_and_size(store: Store) -> None:
    store.write("bank", KEY, {}, fill)
    assert store.size("bank", KEY) > 10
    store.remove("bank", KEY)
    store.remove("bank", KEY)
    assert store.read("bank", KEY) is None
    assert store.keys("bank") == []


def test_exchanged_artifacts_are_named_and_not_used(store: Store, heard: list[str]) -> None:
    """Each is whole, and another one than its folder's name says."""
    keys = [store.write("bank", digest({"x": i}), {"x": i}, fill).path.name for i in range(2)]
    store.path("bank", keys[0]).rename(store.path("bank", "aside"))
    store.path("bank", keys[1]).rename(store.path("bank", keys[0]))
    store.path("bank", "aside").rename(store.path("bank", keys[1]))
    fresh = Store(store.root, heard.append)
    assert [fresh.read("bank", key) for key in keys] == [None, None]
    assert f"its fields have the key {keys[1]}" in heard[0]
    assert f"its fields have the key {keys[0]}" in heard[1]


def test_a_copy_under_another_key_is_not_used(store: Store, heard: list[str]) -> None:
    made = store.write("bank", KEY, {}, fill)
    shutil.copytree(made.path, made.path.with_name("0" * 16))
    assert Store(store.root, heard.append).read("bank", "0" * 16) is None
    assert Store(store.root).read("bank", KEY) is not None
    assert "it is another one" in heard[0]


def test_a_key_is_the_digest_of_its_fields(store: Store) -> None:
    with pytest.raises(ValueError, match="is no key of these fields"):
        store.write("bank", KEY, {"x": 1}, fill)
    assert store.write("bank", f"{KEY}-000003", {}, fill).fields == {}


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_an_artifact_has_the_mode_that_the_umask_leaves(store: Store, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = store.write("bank", KEY, {}, fill).path
        write_whole(store.root / "rows.csv", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.iterdir()} == {0o666 & ~umask}
    assert stat.S_IMODE((store.root / "rows.csv").stat().st_mode) == 0o666 & ~umask
    assert {stat.S_IMODE(each.stat().st_mode) for each in (store.root / "locks").iterdir()} == {0o666}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_just_now_is_not_set_aside(
    store: Store, heard: list[str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is another user's, or the machine has a fault that passes: the artifact may be whole."""
    path = store.write("bank", KEY, {}, fill).path
    whole = Path.read_text

    def refuse(self: Path, **how: Any) -> str:
        if self.name == MANIFEST:
            raise OSError(number, os.strerror(number), str(self))
        return whole(self, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        with pytest.raises(UserError, match=f"{re.escape(str(path / MANIFEST))} cannot be read: {os.strerror(number)}"):
            Store(store.root, heard.append).read("bank", KEY)
    assert heard == []
    assert Store(store.root).read("bank", KEY) is not None


def test_what_killed_processes_left_half_made_goes_and_what_is_being_made_stays(store: Store) -> None:
    def fill_while_others_tidy(folder: Path) -> dict[str, Any]:
        for name in (f".{'0' * 16}-abcd", ".cifar10-x", f"{'1' * 16}"):
            folder.with_name(name).mkdir()
        other = "from pathlib import Path; import sys; from oodbench.store.artifacts import Store\n"
        other += "print(Store(Path(sys.argv[1])).tidy())"
        command = [sys.executable, "-c", other, str(store.root)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "1\n"
        return fill(folder)

    made = store.write("bank", KEY, {}, fill_while_others_tidy)
    assert Store(store.root).read("bank", KEY) == made
    assert sorted(each.name for each in made.path.parent.iterdir()) == sorted([".cifar10-x", "1" * 16, KEY])


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for root in (tmp_path / "file" / "store", tmp_path / "loop"):
        with pytest.raises(UserError, match=rf"{root}.* cannot be written"):
            Store(root).write("bank", KEY, {}, fill)
        with pytest.raises(UserError, match=rf"{root}.* cannot be written"):
            Store(root).free()


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
