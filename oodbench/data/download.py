"""How the files of a data set come to be there: placed by hand, taken out of archives, or downloaded with pooch.

A download is continued where a killed or broken one left off, if the server says that the file is still the same.
What is half done lies in `.part-NAME` beside the place of the file; what has another hash or size than the published
one goes, and so does what a full disk holds no more of. No server is waited for that sends next to nothing.
With OODBENCH_OFFLINE=1 nothing is downloaded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import math
import re
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from oodbench.api import Dataset, Download, Source
from oodbench.errors import of_machine
from oodbench.toolkit.offline import OFFLINE, offline
from oodbench.toolkit.raw_files import DAMAGE, RATIO, missing

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 20  # bytes read at a time
PART = ".part-"  # a folder of what is half done, beside the place of the file that it is named after
TIMEOUT = (10, 60)  # seconds to connect, and between two bytes
SLOWEST = 1000  # bytes a second over SPELL, below which a connection is given up
SPELL = 60  # seconds
LEAST = 1 << 20  # bytes that a connection brings before it breaks off, or it is a poor one
POOR = 3  # of them one after the other, after which a server is left
PAUSE = 1  # seconds before the next
Needed = Callable[[Path], Sequence[Path]]
Progress = Callable[[str, int, int | None], None]  # hears the file's name, bytes that are there, bytes in all if known

_progress: ContextVar[Progress] = ContextVar("progress", default=lambda name, done, total: None)


@contextmanager
def shown(progress: Progress) -> Iterator[None]:
    """Let a function hear of the downloads meanwhile."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def fetch_set(dataset: Dataset, root: Path) -> None:
    """Make the files of a data set be there, or raise FileNotFoundError saying which file to place where."""
    if dataset.source is not None:
        fetch(dataset.source, dataset.needed, root)


def fetch(source: Source, needed: Needed, root: Path) -> None:
    """Make the needed files be there: from archives that lie in the source's folder, else downloaded.

    Raises FileNotFoundError where a file is not there and cannot be downloaded, ValueError where an archive is damaged.
    """
    folder = root / source.folder
    done: list[Download] = []
    while lost := missing(needed(root)):  # once more where lists of files came
        wanted = [each for each in absent(source, lost, folder) if each not in done]
        if not wanted:
            names = ", ".join(each.name for each in source.downloads)
            raise FileNotFoundError(f"{source.title}: {lost[0]} is not here and not in {names}")
        failed = [(each, why) for each in wanted if (why := _get(each, folder))]
        if failed:
            (first, why), unreached = failed[0], [each for each, _ in failed]
            lost = [path for path in lost if _brings(first, path, folder)]
            raise FileNotFoundError(
                f"{source.title}: {lost[0]} is not here, {why}; {_to_place(source, unreached, folder)}"
            )
        done += wanted


def absent(source: Source, lost: Sequence[Path], folder: Path) -> list[Download]:
    """Return the downloads that bring at least one of the files that are not there."""
    return [each for each in source.downloads if any(_brings(each, path, folder) for path in lost)]


def _brings(download: Download, path: Path, folder: Path) -> bool:
    if not path.is_relative_to(folder):
        return False
    name = path.relative_to(folder).as_posix()
    if download.members is not None:
        return re.fullmatch(download.members, name) is not None
    return name in (download.name, download.name.removesuffix(".gz"))


def _to_place(source: Source, downloads: Sequence[Download], folder: Path) -> str:
    """Return what a user has to do where no program can get the files."""
    files = ", ".join(each.urls[0] if each.urls else f"{each.name} (from {source.page})" for each in downloads)
    return f"place in {folder}: {files}" + (f"; {source.by_hand}" if source.by_hand else "")


def _get(download: Download, folder: Path) -> str:
    """Put what a download holds into its folder, and return an empty string; else why it cannot be had."""
    placed, part = folder / download.name, folder / f"{PART}{download.name}"
    made = [part, *(() if folder.exists() else (folder,))]
    try:
        if placed.is_file():  # an archive, or nothing would be missing
            _check(placed, download)
            found = placed
        else:
            found = _downloaded(download, part)
        if download.members is None:
            found.replace(placed)
        else:
            _extract(found, download.members, folder, part / "taken out")
    except _UnreachedError as error:
        for each in made:  # nothing came
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
        return str(error)
    except ValueError:  # what was downloaded would be as damaged the next time
        _remove(part)
        raise
    _remove(part)
    return ""


def _remove(part: Path) -> None:
    """Remove a folder of what is half done, if anything was written."""
    if part.is_dir():
        shutil.rmtree(part)


def _check(path: Path, download: Download) -> None:
    import pooch

    if not pooch.hashes.hash_matches(path, download.hash):
        raise ValueError(f"{path} is damaged or cut short: its hash is not {download.hash}; delete it or place it anew")


# ---- downloading ----------------------------------------------------------------------------------------


class _UnreachedError(Exception):
    """Why a file cannot be downloaded."""


def _downloaded(download: Download, folder: Path) -> Path:
    """Return a download in a folder of its own, made where it is asked for, from the first mirror that has it whole."""
    if not download.urls:
        raise _UnreachedError(f"and no program can get {download.name}")
    if offline():
        raise _UnreachedError(f"and {download.name} cannot be downloaded ({OFFLINE} is set)")
    import pooch

    reasons: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    for url in download.urls:
        fetched = partial(_resumed, size=download.size)
        try:
            found = Path(pooch.retrieve(url, download.hash, download.name, folder, downloader=fetched))
            size = found.stat().st_size
            if download.hash is None and size != (download.size or size):
                found.unlink()
                raise OSError(f"it has {size} bytes, {download.size} are published")
            return found
        except (OSError, ValueError) as error:  # ValueError: pooch, of another hash
            reason = _reason(error, url)
            reasons.append(f"{url}: {reason}" if len(download.urls) > 1 else reason)
    raise _UnreachedError(f"and {download.name} cannot be downloaded ({'; '.join(reasons)})")


def _reason(error: Exception, url: str) -> str:
    """Return why a download failed; where there is no connection, without what its library says of its inside."""
    from requests.exceptions import ConnectionError as NoConnectionError
    from requests.exceptions import SSLError, Timeout

    if isinstance(error, NoConnectionError) and not isinstance(error, SSLError | Timeout):
        return f"there is no connection to {urlsplit(url).hostname}"
    return str(error)


def _resumed(url: str, output: str, _: object, size: int | None) -> None:
    """Download a file for pooch; go on where an earlier attempt broke off, and after a break as long as much comes."""
    folder = Path(output).parent
    for stale in set(folder.glob("tmp*")) - {Path(output)}:  # pooch's, of a process that was killed
        stale.unlink()
    part = _Part(folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part")  # one for each mirror
    poor = 0
    while True:
        before = part.size
        try:
            _stream(url, part, folder.name.removeprefix(PART), size)
            break
        except OSError as error:
            if isinstance(error, _OtherFileError) or error.errno == errno.ENOSPC:
                part.remove()
            poor = poor + 1 if part.size < before + LEAST else 0
            if part.size <= before or poor > POOR:
                raise
            time.sleep(PAUSE)
    part.path.replace(output)
    part.remove()


class _OtherFileError(OSError):
    """What a server sends is not the file that was published."""


class _Part:
    """What is there of a download, and the header by which its server tells whether the file is still the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts = path.with_suffix(".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> tuple[str, str]:
        """Name and value of the header; empty where there is none."""
        try:
            name, value = json.loads(self.facts.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return "", ""
        return name, value

    def remove(self) -> None:
        for each in (self.path, self.facts):
            each.unlink(missing_ok=True)

    def start_anew(self, validator: tuple[str, str]) -> None:
        self.path.write_bytes(b"")
        self.facts.write_text(json.dumps(validator), encoding="utf-8")


def _stream(url: str, part: _Part, name: str, size: int | None) -> None:
    """Add the rest of a file to what is there of it, or all of it where the server has another one by now."""
    import requests

    header, value = part.validator
    start = part.size if value else 0
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-", "If-Range": value} if start else {})
    with requests.get(url, headers=asked, stream=True, timeout=TIMEOUT) as response:
        first, total = _extent(response)
        goes_on = first is not None and (first, response.headers.get(header, value)) == (start, value)
        if first == 0:  # also where the file has changed, or the server knows no ranges
            response.raise_for_status()
            part.start_anew(_validator(response))
        if first == 0 or (start and goes_on):
            if first != total:
                _append(response, part, total, name, most=size)
            return
    if not start:
        raise OSError("the server sends a part of it that was not asked for")
    part.start_anew(("", ""))  # another file, of a server that does not look at If-Range
    _stream(url, part, name, size)


def _extent(response: Response) -> tuple[int | None, int | None]:
    """Return the first byte that a response brings, and the size of the file, where it says so."""
    said = response.headers.get("Content-Range", "")
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        match = re.fullmatch(r"bytes \*/(\d+)", said)
        return (int(match[1]), int(match[1])) if match else (None, None)
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said)
        return (int(match[1]), None if match[2] == "*" else int(match[2])) if match else (None, None)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: Response) -> tuple[str, str]:
    """Return name and value of the header that tells whether a file has changed; empty where there is none."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return "ETag", etag
    changed = response.headers.get("Last-Modified", "")
    return ("Last-Modified", changed) if changed else ("", "")


def _append(response: Response, part: _Part, total: int | None, name: str, most: int | None) -> None:
    """Write what a response brings as it is: a server that calls a .gz file an encoding must not have it unpacked."""
    from urllib3.exceptions import HTTPError

    progress, limit = _progress.get(), math.inf if most is None else most
    if (total or 0) > limit:
        raise _OtherFileError(f"it has {total} bytes on the server, {most} are published")
    _check_room(part.path.parent, (total or 0) - part.size)
    with part.path.open("ab") as out:
        since, there = time.monotonic(), out.tell()
        try:
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                out.write(chunk)
                progress(name, out.tell(), total)
                if out.tell() > limit:
                    raise _OtherFileError(f"it has more than the {most} bytes that are published")
                if (spent := time.monotonic() - since) > SPELL:
                    if out.tell() - there < SLOWEST * spent:
                        raise OSError(f"{out.tell() - there} bytes came in {spent:.0f} seconds")
                    since, there = time.monotonic(), out.tell()
        except HTTPError as error:
            raise OSError(f"it broke off: {error}") from error
    if total is not None and part.size != total:
        raise OSError(f"it broke off after {part.size} of {total} bytes")


def _check_room(folder: Path, wanted: int) -> None:
    """Raise OSError where the disk of a folder has not so many bytes left, before any of them is written."""
    if wanted > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"{wanted / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are left", str(folder))


# ---- archives -------------------------------------------------------------------------------------------


def _extract(archive: Path, members: str, folder: Path, done: Path) -> None:
    """Take the members out of an archive, all of them or, where it is damaged or the disk full, none.

    Raises ValueError where it unpacks to more than RATIO times its size.
    """
    most = RATIO * max(CHUNK, archive.stat().st_size)
    _remove(done)  # of a process that was killed
    try:
        with _reading(archive):
            for name, stream in _members(archive, members):
                target = done / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with stream, target.open("wb") as out:
                    while chunk := stream.read(CHUNK):
                        most -= out.write(chunk)
                        if most < 0:
                            raise ValueError(f"it unpacks to more than {RATIO} times its size")
        for path in sorted(each for each in done.rglob("*") if each.is_file()):
            target = folder / path.relative_to(done)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        _remove(done)


def _members(archive: Path, members: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each file in an archive whose whole name fits; links are no files."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as found:
            for info in found.infolist():
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16) and _fits(members, info.filename):
                    yield info.filename, found.open(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            stream = tar.extractfile(member) if member.isfile() and _fits(members, name) else None
            if stream is not None:
                yield name, stream


def _fits(members: str, name: str) -> bool:
    if not re.fullmatch(members, name):
        return False
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"it has a file {name}, which would be out of the folder")
    return True


OF_NAMES = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}  # that an archive gives


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Raise ValueError with the name of the archive for what its bytes lead to, but not for a full disk."""
    try:
        yield
    except (*DAMAGE, RuntimeError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError) as error:
        if of_machine(error) and getattr(error, "errno", None) not in OF_NAMES:
            raise
        raise ValueError(f"{archive} is damaged: {error}") from error
