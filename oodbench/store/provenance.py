"""What a number was made with: package version, commit, libraries, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

LIBRARIES = (
    *("torch", "torchvision", "timm", "pillow"),
    *("numpy", "scipy", "pandas", "scikit-learn", "faiss-cpu", "faiss-gpu"),
)


@cache
def version() -> str:
    return installed_version("oodbench")


@cache
def commit() -> str:
    """Return the commit of the checkout that oodbench runs from, with `+` where it was changed since, or ""."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--", ":/oodbench", ":/methods", ":/datasets"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "") if tracked else ""


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


@cache
def libraries() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
