"""What a number was made with: package version, commit, libraries, machine, time."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

LIBRARIES = (
    *("torch", "torchvision", "timm", "pillow"),
    *("numpy", "scipy", "pandas", "scikit-learn", "faiss-cpu", "faiss-gpu"),
)

BLAS = ("internal_api", "architecture")  # of what threadpoolctl tells


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


def machine(device: str) -> dict[str, str]:
    """Return what numbers depend on of a device and its machine: CPU, instruction sets of torch and BLAS, threads.

    Sums are rounded in another order where these differ; what torch uses is known once it is imported.
    """
    found = {}
    torch = sys.modules.get("torch")
    if torch and device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    found["cpu"] = _cpu()
    if torch:
        threads = torch.get_num_threads()
        found |= {"torch": torch.backends.cpu.get_cpu_capability()}
        found |= {"threads": f"{threads} thread{'s' * (threads != 1)}"}
    pools = sorted((each for each in threadpool_info() if each["user_api"] == "blas"), key=_is_not_of_numpy)
    return found | {"blas": " ".join(filter(None, map(pools[0].get, BLAS))) if pools else ""}


def _is_not_of_numpy(pool: dict[str, str]) -> bool:
    """Return whether a BLAS is one of those that are loaded or not, as other libraries are imported or not."""
    return "numpy" not in pool["filepath"]


@cache
def _cpu() -> str:
    """Return the model of the CPU where Linux names it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
