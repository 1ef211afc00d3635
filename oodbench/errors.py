"""What a user is told when something they wrote cannot be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a study, a plugin, a file or a command: one clear message, exit code 2, no traceback."""


class PluginError(UserError):
    """A plugin's file cannot be used; the other plugins can."""


def suggestion(given: object, allowed: Iterable[str]) -> str:
    """Return the nearest match and the allowed list, as the end of a message."""
    names = sorted(allowed)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), lower, n=1)
    hint = f"; did you mean '{lower[near[0]]}'?" if near else ";"
    return f"{hint} allowed: {', '.join(names) or 'nothing'}"
