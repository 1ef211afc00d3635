"""More processes on one study: each takes the trainings that no other is at. The store's locks do the sharing.

Small networks do not fill the cores of a CPU: the default study took 239 s in two processes of one thread, 381 s in
one process of two threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from oodbench.errors import UserError

AUTO = "auto"


def count(wanted: str, device: torch.device) -> int:
    """Return a number of processes; `auto` is one for each core of a CPU, one on other devices."""
    if wanted == AUTO:
        return cores() if device.type == "cpu" else 1
    if not wanted.isdigit() or int(wanted) < 1:
        raise UserError(f"workers {wanted}: give a number of processes from 1, or {AUTO}")
    return int(wanted)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def helped(words: list[str], others: int, say: Callable[[str], None]) -> Iterator[None]:
    """Let so many other processes run an oodbench command meanwhile, the cores shared out evenly.

    At the end they are waited for, and `say` hears what they wrote to standard error.
    """
    if not others:
        yield
        return
    threads = max(1, cores() // (others + 1))
    torch.set_num_threads(threads)
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "oodbench", *words]
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(threads))
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(others)]
        processes = [
            subprocess.Popen(command, env=os.environ | limits, stdout=subprocess.DEVNULL, stderr=log) for log in logs
        ]
        try:
            yield
            for process in processes:
                process.wait()
        finally:
            for process, log in zip(processes, logs, strict=True):
                process.terminate()
                process.wait()
                log.seek(0)
                say(log.read().decode(errors="replace"))
