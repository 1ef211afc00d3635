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
from oodbench.store.sharing import boot, mark

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
    assert [path.name for path in (store.root / "bank").rglob("*")] == [KEY[:2]]


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
    one, other = (store.path("bank", key) for key in keys)
    one.rename(store.root / "aside")
    other.rename(one)
    (store.root / "aside").rename(other)
    fresh = Store(store.root, heard.append)
    assert [fresh.read("bank", key) for key in keys] == [None, None]
    assert f"its fields have the key {keys[1]}" in heard[0]
    assert f"its fields have the key {keys[0]}" in heard[1]


def test_a_copy_under_another_key_is_not_used(store: Store, heard: list[str]) -> None:
    made = store.write("bank", KEY, {}, fill)
    shutil.copytree(made.path, store.path("bank", "0" * 16))
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
        with store.lock("run-k"):
            pass
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


DEAD = "from oodbench.store.sharing import mark; print(mark())"


def test_what_killed_processes_left_half_made_goes_and_what_others_make_stays(store: Store) -> None:
    """Dead ones of this machine go; those of processes at work, and of other machines, stay and are told of."""
    dead = subprocess.run([sys.executable, "-c", DEAD], check=True, capture_output=True, text=True).stdout.strip()
    elsewhere = mark().replace(boot(), "01234567").replace(f"~{os.getpid()}.", "~999999.")
    reborn = f"{mark().rpartition('.')[0]}.1"  # another process had this one's number
    old = f".{KEY}-0123abcd"  # of a version that marked nothing

    def fill_while_others_tidy(folder: Path) -> dict[str, Any]:
        for name in (*(f".{KEY}{each}~00" for each in (dead, elsewhere, reborn)), old, ".cifar10-x"):
            folder.with_name(name).mkdir()
        removed, left = Store(store.root).tidy()
        assert removed == 2
        assert sorted(path.name for path in left) == sorted([folder.name, f".{KEY}{elsewhere}~00", old])
        return fill(folder)

    made = store.write("bank", KEY, {}, fill_while_others_tidy)
    assert Store(store.root).read("bank", KEY) == made
    there = [path.name for path in made.path.parent.iterdir()]
    assert sorted(there) == sorted([".cifar10-x", f".{KEY}{elsewhere}~00", old, KEY])


def test_the_faster_of_two_writers_wins_where_locks_keep_nobody_out(store: Store) -> None:
    def late(folder: Path) -> dict[str, Any]:
        Store(store.root).write("bank", KEY, {}, fill)
        return {"n": 11}

    made = store.write("bank", KEY, {}, late)
    assert made.meta == {"n": 10}
    assert made.file("a.bin").is_file()
    assert [path.name for path in made.path.parent.iterdir()] == [KEY]


def test_what_a_faster_writer_left_damaged_is_not_used(store: Store, heard: list[str]) -> None:
    def late(folder: Path) -> dict[str, Any]:
        cut_short(Store(store.root).write("bank", KEY, {}, fill).path)
        return fill(folder) | {"n": 11}

    assert store.write("bank", KEY, {}, late).meta == {"n": 11}
    assert "a.bin was altered or cut short" in heard[0]
    again = Store(store.root).read("bank", KEY)
    assert again is not None
    assert again.meta == {"n": 11}


def test_artifacts_of_older_versions_are_read_where_they_are(store: Store) -> None:
    made = store.write("bank", KEY, {}, fill)
    flat = store.root / "bank" / KEY
    made.path.rename(flat)
    fresh = Store(store.root)
    found = fresh.read("bank", KEY)
    assert found is not None
    assert (found.path, found.meta, fresh.keys("bank"), fresh.kinds()) == (flat, {"n": 10}, [KEY], ["bank"])
    assert fresh.write("bank", KEY, {}, lambda folder: {"n": 11}).meta == {"n": 10}
    fresh.remove("bank", KEY)
    assert (fresh.keys("bank"), fresh.read("bank", KEY)) == ([], None)


def test_keys_that_begin_alike(store: Store) -> None:
    keys = [f"{KEY}-000001", f"{KEY}-000002"]
    for key in (*keys, KEY):
        store.write("checkpoint", key, {}, fill)
    other = store.write("checkpoint", digest({"x": 1}), {"x": 1}, fill).path.name
    assert store.keys("checkpoint", f"{KEY}-") == keys
    assert store.keys("checkpoint") == sorted([*keys, KEY, other])


@pytest.mark.skipif(sys.platform == "win32", reason="it has no flock")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 0])
def test_a_file_system_without_locks_is_named(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses them, or as some that machines share do, lets everybody have one."""

    def flock(handle: Any, how: int) -> None:
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("oodbench.store.sharing.fcntl.flock", flock)
    why = f"flock: {os.strerror(number)}" if number else "a lock keeps nobody out"
    said = f"the file system of {store.root / 'locks'} has no locks, by which processes share work ({why}); mount it"
    with pytest.raises(UserError, match=re.escape(said)), store.lock("run-k"):
        pass
    assert list((store.root / "locks").iterdir()) == []


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
with Store(Path(sys.argv[1])).lock("run-k") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_exclusive_and_falls_with_its_process(store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with store.lock("run-k", wait=False) as mine:
        assert mine is False
    with store.lock("run-other", wait=False) as mine:
        assert mine is True
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with store.lock("run-k") as mine:
        assert mine is True
