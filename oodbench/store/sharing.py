"""What processes need that share a folder, on one machine or on several: locks, and marks that tell whose a thing is.

A lock is `flock` of an open file. It falls with its process, whatever ends that, and holds between machines as far as
their file system carries it from one to the other; where it does not, two of them make one thing twice.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from oodbench.errors import UserError
from oodbench.store.files import writing

if sys.platform != "win32":
    import fcntl

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_MARK = re.compile(r"~(?P<host>[^~]*)~(?P<boot>[0-9a-f]{8})~(?P<pid>\d+)\.(?P<born>\d*)")


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file; yields False where another process has it and `wait` is off.

    A process that has the lock may take it again. Raises UserError where the file system has no locks.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_locks(file.parent)
        lock = FileLock(file, mode=0o666, is_singleton=True)  # another user may lock it, too
        with suppress(Timeout):
            lock.acquire(blocking=wait)
    if not lock.is_locked:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@cache
def _check_locks(folder: Path) -> None:
    """Raise UserError where a lock in a folder is refused, or keeps nobody out."""
    if sys.platform == "win32":
        return
    path = folder / f".flock{mark()}"
    try:
        with path.open("wb") as one, path.open("wb") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        raise _without_locks(folder, "a lock keeps nobody out")
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise _without_locks(folder, f"flock: {error.strerror}") from error
        raise
    finally:
        path.unlink(missing_ok=True)


def _without_locks(folder: Path, why: str) -> UserError:
    how = "mount it with locks (Lustre: flock; NFS: without nolock), or set OODBENCH_STORE and OODBENCH_RESULTS"
    return UserError(f"the file system of {folder} has no locks, by which processes share work ({why}); {how}")


def mark() -> str:
    """Return what the name of a half-made thing ends with: host, its boot, and the process that makes it."""
    host = re.sub(r"[^A-Za-z0-9._-]", "_", platform.node())[:64]
    return f"~{host}~{boot()}~{os.getpid()}.{born(os.getpid())}"


def is_dead(name: str) -> bool:
    """Return whether the process is gone that marked a name; of another machine, or without a mark, nobody knows."""
    found = _MARK.search(name)
    return bool(found and found["boot"] == boot() and not lives(int(found["pid"]), found["born"]))


@cache
def boot() -> str:
    """Return what tells this run of this machine's system, and the processes that see each other in it."""
    known = [platform.node()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):  # containers of one host may count their processes apart
        known.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(known).encode()).hexdigest()[:8]


def born(pid: int) -> str:
    """Return when a process began, in ticks of its system; empty where Linux does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def lives(pid: int, since: str) -> bool:
    """Return whether a process of this system that began then is still there."""
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return born(pid) == since
