"""Downloads from a server of the test's own: broken off, resumed, changed, damaged, from the next mirror, offline."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from serving import Server, running

from oodbench.api import Dataset, Download, Images, Source
from oodbench.data import download, prepare
from oodbench.data.download import fetch_set
from oodbench.toolkit.raw_files import missing

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHUNK", 1 << 16)
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.delenv("OODBENCH_OFFLINE", raising=False)


def source(*downloads: Download, **more: Any) -> Source:
    return Source("The set", "https://example.org/set", "none stated", downloads, folder="own", **more)


def fetch(found: Source, root: Path, *names: str) -> None:
    download.fetch(found, lambda root: [root / "own" / name for name in names], root)


def killed_after(name: str, count: int) -> download.Progress:
    """Return what ends a process once so many bytes are there."""

    def progress(file: str, done: int, total: int | None) -> None:
        assert (file, total) == (name, len(CONTENT))
        if done >= count:
            raise KeyboardInterrupt

    return progress


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def half_downloaded(server: Server, root: Path, at: int = 2_000_000) -> Source:
    server.files["/a.bin"] = CONTENT
    found = source(Download((f"{server.url}/a.bin",), MD5))
    with download.shown(killed_after("a.bin", at)), pytest.raises(KeyboardInterrupt):
        fetch(found, root, "a.bin")
    server.asked.clear()
    server.sent = 0
    return found


def test_a_download_is_there_whole_and_alone(server: Server, tmp_path: Path) -> None:
    server.files["/x/a.bin"] = CONTENT
    heard: list[tuple[str, int, int | None]] = []
    with download.shown(lambda *said: heard.append(said)):
        fetch(source(Download((f"{server.url}/x/a.bin",), MD5)), tmp_path, "a.bin")
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["own/a.bin"]
    assert heard[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in heard] == sorted({done for _, done, _ in heard})


def test_what_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a").write_bytes(b"mine")
    server.files["/b.gz"] = CONTENT
    downloads = [Download((f"{server.url}/{name}.gz",), None) for name in "ab"]
    fetch(source(*downloads), tmp_path, "a", "b.gz")
    assert server.asked == [("/b.gz", None)]
    fetch(source(*downloads), tmp_path, "a", "b.gz")
    assert len(server.asked) == 1


def test_a_killed_download_goes_on(server: Server, tmp_path: Path) -> None:
    found = half_downloaded(server, tmp_path)
    ((part, there),) = ((path, path.stat().st_size) for path in tmp_path.rglob("*.part"))
    assert 2_000_000 <= there < len(CONTENT)
    assert CONTENT.startswith(part.read_bytes())
    assert not (tmp_path / "own" / "a.bin").exists()
    (part.parent / "tmpabc").write_bytes(b"left by a process that was killed")
    fetch(found, tmp_path, "a.bin")
    assert server.asked == [("/a.bin", f"bytes={there}-")]
    assert server.sent == len(CONTENT) - there
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT
    assert files(tmp_path) == ["own/a.bin"]


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.break_after = [1_000_000, 1_000_000]
    fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert server.sent == len(CONTENT)  # no byte twice


def test_a_server_that_always_breaks_off_is_left_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.break_after = [1_000_000, 0]
    found = source(Download((f"{server.url}/a.bin",), MD5))
    with pytest.raises(FileNotFoundError, match=r"a\.bin cannot be downloaded \(it broke off"):
        fetch(found, tmp_path, "a.bin")
    server.sent = 0
    fetch(found, tmp_path, "a.bin")
    assert server.sent == len(CONTENT) - 1_000_000


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_meanwhile_starts_anew(server: Server, tmp_path: Path, if_range: bool) -> None:
    """Also where the server sends the rest of the new file without a look at If-Range, and no hash would tell."""
    half_downloaded(server, tmp_path)
    server.if_range = if_range
    server.files["/a.bin"] = changed = CONTENT[::-1]
    fetch(source(Download((f"{server.url}/a.bin",), None)), tmp_path, "a.bin")
    assert (tmp_path / "own" / "a.bin").read_bytes() == changed


@pytest.mark.parametrize("how", [{"ranges": False}, {"etag": False}])
def test_without_ranges_or_a_version_it_starts_anew(server: Server, tmp_path: Path, how: dict[str, bool]) -> None:
    for name, value in how.items():
        setattr(server, name, value)
    found = half_downloaded(server, tmp_path)
    fetch(found, tmp_path, "a.bin")
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_file_that_is_whole_but_for_its_end(server: Server, tmp_path: Path) -> None:
    """Killed after the last byte: nothing is sent again."""
    found = half_downloaded(server, tmp_path, at=len(CONTENT))
    fetch(found, tmp_path, "a.bin")
    assert server.sent == 0
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT


def test_a_file_that_is_another_one_is_deleted_and_the_next_mirror_taken(server: Server, tmp_path: Path) -> None:
    server.files |= {"/bad/a.bin": b"<html>quota exceeded</html>", "/good/a.bin": CONTENT}
    urls = tuple(f"{server.url}/{each}/a.bin" for each in ("gone", "bad", "good"))
    fetch(source(Download(urls, MD5)), tmp_path, "a.bin")
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/gone/a.bin", "/bad/a.bin", "/good/a.bin"]
    assert files(tmp_path) == ["own/a.bin"]


def test_where_no_mirror_has_it_each_says_why(server: Server, tmp_path: Path) -> None:
    server.files["/bad/a.bin"] = CONTENT[:-1]
    urls = tuple(f"{server.url}/{each}/a.bin" for each in ("gone", "bad"))
    with pytest.raises(FileNotFoundError) as caught:
        fetch(source(Download(urls, MD5), by_hand="ask its authors"), tmp_path, "a.bin")
    said = str(caught.value)
    for words in ("The set: ", "a.bin is not here", "404", "does not match", f"place in {tmp_path / 'own'}", "ask its"):
        assert words in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())  # no empty folders


def test_what_no_program_can_get_is_named_after_all_the_rest(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    hand = Download((), None, filename="b.tar")
    found = source(hand, Download((f"{server.url}/a.bin",), MD5), by_hand="register first")
    with pytest.raises(FileNotFoundError) as caught:
        fetch(found, tmp_path, "b.tar", "a.bin")
    wanted = f"{tmp_path}/own/b.tar is not here, and no program can get b.tar; place in {tmp_path}/own: b.tar (from"
    assert wanted in str(caught.value)
    assert str(caught.value).endswith("; register first")
    assert files(tmp_path) == ["own/a.bin"]


@pytest.mark.parametrize("value", ["1", "yes"])
def test_offline_nothing_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", value)
    server.files["/a.bin"] = CONTENT
    with pytest.raises(FileNotFoundError, match=r"a\.bin cannot be downloaded \(OODBENCH_OFFLINE is set\); place in"):
        fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert server.asked == []
    assert not list(tmp_path.iterdir())  # no empty folders
    monkeypatch.setenv("OODBENCH_OFFLINE", "0")
    fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert files(tmp_path) == ["own/a.bin"]


def test_what_is_half_done_stays_while_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = half_downloaded(server, tmp_path)
    half = files(tmp_path)
    monkeypatch.setenv("OODBENCH_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="OODBENCH_OFFLINE is set"):
        fetch(found, tmp_path, "a.bin")
    assert files(tmp_path) == half != []


# ---- servers that mean no good ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
def test_a_file_of_another_size_than_published_is_not_taken(
    server: Server, tmp_path: Path, size: int, length: bool
) -> None:
    server.files["/a.bin"], server.length = CONTENT, length
    found = source(Download((f"{server.url}/a.bin",), None, size=size))
    with pytest.raises(FileNotFoundError, match=r"it has .* bytes.* published\)"):
        fetch(found, tmp_path, "a.bin")
    assert files(tmp_path) == []


@pytest.mark.slow
def test_a_server_that_sends_next_to_nothing_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPELL", 0.3)
    server.files["/a.bin"], server.delay = CONTENT[:2000], 0.02
    started = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"\d+ bytes came in 0 seconds"):
        fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert time.monotonic() - started < 20  # of the 40 that it would take


def test_a_server_that_sends_a_byte_a_connection_is_left(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"], server.break_after = CONTENT, [1] * 100
    with pytest.raises(FileNotFoundError, match="it broke off"):
        fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert len(server.asked) == download.POOR + 1


def test_a_disk_without_room_is_said_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a.bin"] = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(FileNotFoundError, match="3 MB are needed, 1 MB are left"):
        fetch(source(Download((f"{server.url}/a.bin",), MD5)), tmp_path, "a.bin")
    assert files(tmp_path) == []


def test_a_disk_that_becomes_full_is_not_left_full(server: Server, tmp_path: Path) -> None:
    def full(name: str, done: int, total: int | None) -> None:
        if done > 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")

    server.files["/a.bin"] = CONTENT
    found = source(Download((f"{server.url}/a.bin",), MD5))
    with download.shown(full), pytest.raises(FileNotFoundError, match="No space left on device"):
        fetch(found, tmp_path, "a.bin")
    assert files(tmp_path) == []


# ---- archives -----------------------------------------------------------------------------------------------


def tar_of(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as found:
        for name, content in members.items():
            found.writestr(name, content)
    return out.getvalue()


ARCHIVES = pytest.mark.parametrize(("pack", "name"), [(tar_of, "a.tar.gz"), (zip_of, "a.zip")])


@ARCHIVES
def test_members_are_taken_out(server: Server, tmp_path: Path, pack: Any, name: str) -> None:
    server.files[f"/{name}"] = pack(**{"x/1.png": b"one", "x/2.png": b"two", "x/readme": b"", "../out": b""})
    found = source(Download((f"{server.url}/{name}",), None, r"x/\d\.png"))
    fetch(found, tmp_path, "x/1.png", "x/2.png")
    assert files(tmp_path) == ["own/x/1.png", "own/x/2.png"]
    assert (tmp_path / "own/x/2.png").read_bytes() == b"two"


@ARCHIVES
@pytest.mark.parametrize("escape", ["../escaped", "/tmp/escaped", "x/../../../escaped"])
def test_no_member_leaves_the_folder(server: Server, tmp_path: Path, pack: Any, name: str, escape: str) -> None:
    server.files[f"/{name}"] = pack(**{"x/1.png": b"one", escape: b"evil"})
    with pytest.raises(ValueError, match="out of the folder"):
        fetch(source(Download((f"{server.url}/{name}",), None, ".*")), tmp_path, "x/1.png")
    assert files(tmp_path) == []
    assert not (tmp_path.parent / "escaped").exists()
    assert not Path("/tmp/escaped").exists()


def test_links_are_not_taken_out(server: Server, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("1.png", tarfile.SYMTYPE), ("2.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as found:
        link = zipfile.ZipInfo("1.png")
        link.external_attr = 0o120777 << 16
        found.writestr(link, "/etc/passwd")
    for content in (out.getvalue(), zipped.getvalue()):
        server.files["/a"] = content
        with pytest.raises(FileNotFoundError, match=r"1\.png is not here and not in a$"):
            fetch(source(Download((f"{server.url}/a",), None, r"\d\.png")), tmp_path, "1.png")
        assert files(tmp_path) == []


@ARCHIVES
def test_half_an_archive_gives_nothing(server: Server, tmp_path: Path, pack: Any, name: str) -> None:
    """Without a published hash; downloaded it is not kept, placed it is named."""
    whole = pack(**{"x/1.png": b"one", "x/2.png": np.random.default_rng(0).bytes(100_000)})
    server.files[f"/{name}"] = whole[:-50_000]
    found = source(Download((f"{server.url}/{name}",), None, r"x/\d\.png"))
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        fetch(found, tmp_path, "x/1.png", "x/2.png")
    assert files(tmp_path) == []
    (tmp_path / "own" / name).write_bytes(whole[:-50_000])
    with pytest.raises(ValueError, match=f"own/{name} is damaged"):
        fetch(found, tmp_path, "x/1.png", "x/2.png")
    assert files(tmp_path) == [f"own/{name}"]
    (tmp_path / "own" / name).write_bytes(whole)
    fetch(found, tmp_path, "x/1.png", "x/2.png")
    assert files(tmp_path) == [f"own/{name}", "own/x/1.png", "own/x/2.png"]  # the user's own archive stays


@pytest.mark.parametrize("names", [["a.png", "a.png/b.png"], ["a" * 300 + ".png"]])
def test_an_archive_whose_names_no_disk_takes_is_damaged(server: Server, tmp_path: Path, names: list[str]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as found:
        for name in names:
            found.writestr(name, b"x")
    server.files["/a.zip"] = out.getvalue()
    with pytest.raises(ValueError, match=r"a\.zip is damaged: "):
        fetch(source(Download((f"{server.url}/a.zip",), None, r".*\.png")), tmp_path, "a.png", "b.png")
    assert files(tmp_path) == []


@ARCHIVES
def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(
    server: Server, tmp_path: Path, pack: Any, name: str
) -> None:
    server.files[f"/{name}"] = pack(**{"x/1.png": bytes(50_000_000)})
    with pytest.raises(ValueError, match=rf"{name} is damaged: it unpacks to more than 200 times its size"):
        fetch(source(Download((f"{server.url}/{name}",), None, ".*")), tmp_path, "x/1.png")
    assert files(tmp_path) == []


def test_a_full_disk_is_no_damage(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was downloaded is kept: with more room nothing is asked for again."""
    server.files["/a"] = tar_of(**{"1.png": b"one"})
    found = source(Download((f"{server.url}/a",), None, r"\d\.png"))

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.ExFileObject, "read", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(found, tmp_path, "1.png")
    assert files(tmp_path) == ["own/.part-a/a"]
    fetch(found, tmp_path, "1.png")
    assert files(tmp_path) == ["own/1.png"]
    assert len(server.asked) == 1


def test_only_the_archives_that_are_needed_are_fetched_and_lists_are_followed(server: Server, tmp_path: Path) -> None:
    """A list from one archive names what is in the second; the third has nothing that is missing."""
    server.files |= {"/a": tar_of(list=b"1.png"), "/b": zip_of(**{"1.png": b"one"})}
    downloads = [
        Download((f"{server.url}/{name}",), None, members)
        for name, members in (("a", "list"), ("b", r"\d\.png"), ("c", "more/.*"))
    ]

    def needed(root: Path) -> list[Path]:
        listing = root / "own" / "list"
        return [listing, *([root / "own" / listing.read_text()] if listing.is_file() else [])]

    download.fetch(source(*downloads), needed, tmp_path)
    assert files(tmp_path) == ["own/1.png", "own/list"]
    assert [path for path, _ in server.asked] == ["/a", "/b"]


# ---- a set ------------------------------------------------------------------------------------------------------


class Two(Dataset):
    """A set of two files."""

    source = source(Download((), None, filename="a"), Download((), None, filename="b"), by_hand="ask")

    def needed(self, root: Path) -> list[Path]:
        return [root / "own" / name for name in "ab"]

    def load(self, split: str, root: Path) -> Images:
        raise NotImplementedError


class Made(Dataset):
    """A set that a program makes."""

    def load(self, split: str, root: Path) -> Images:
        raise NotImplementedError


def test_here_looks_at_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "get", None)
    assert prepare.here(Made(), tmp_path)
    assert not prepare.here(Two(), tmp_path)
    (tmp_path / "own").mkdir()
    for name in "ab":
        assert not prepare.here(Two(), tmp_path)
        (tmp_path / "own" / name).write_bytes(b"")
    assert prepare.here(Two(), tmp_path)
    fetch_set(Two(), tmp_path)
    assert not missing(Two().needed(tmp_path))


def test_a_damaged_record_of_a_download_starts_it_anew(server: Server, tmp_path: Path) -> None:
    found = half_downloaded(server, tmp_path)
    (record,) = tmp_path.rglob("*.json")
    assert json.loads(record.read_text())[0] == "ETag"
    record.write_text("[")
    fetch(found, tmp_path, "a.bin")
    assert server.sent == len(CONTENT)
    assert (tmp_path / "own" / "a.bin").read_bytes() == CONTENT


def test_where_there_is_no_connection_it_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_OFFLINE", "0")
    nobody = Source("The set", "page", "licence", (Download(("http://127.0.0.1:9/a.bin",), None),), "own")
    with pytest.raises(FileNotFoundError) as caught:
        download.fetch(nobody, lambda root: [root / "own" / "a.bin"], tmp_path)
    wanted = "a.bin cannot be downloaded (there is no connection to 127.0.0.1); place in "
    assert wanted in str(caught.value)
