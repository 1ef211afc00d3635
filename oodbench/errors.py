"""What a user is told when something they wrote cannot be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)  # but for tab, LF, CR


class UserError(Exception):
    """A mistake in a study, a plugin, a file or a command: one clear message, exit code 2, no traceback."""


class PluginError(UserError):
    """A plugin's file cannot be used; the other plugins can."""


def of_machine(error: BaseException) -> bool:
    """Return whether memory, the disk or the system failed, rather than what was read: decoders set no `errno`."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


# As torch, its libraries and faiss say it of a CUDA device.
NO_ROOM = re.compile(r"OutOfMemoryError|CUDA (?:error: )?out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED|cudaMalloc")


def no_room(error: BaseException | str) -> bool:
    """Return whether an error, or its message with its class before it, says that a device's memory is full."""
    return bool(NO_ROOM.search(error if isinstance(error, str) else f"{type(error).__name__}: {error}"))


def printable(text: str) -> str:
    """Return text whose control characters are shown, not obeyed: a name may hold what moves or colours a terminal."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def suggestion(given: object, allowed: Iterable[str]) -> str:
    """Return the nearest match and the allowed list, as the end of a message."""
    names = sorted(allowed)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), lower, n=1)
    hint = f"; did you mean '{lower[near[0]]}'?" if near else ";"
    return f"{hint} allowed: {', '.join(names) or 'nothing'}"
