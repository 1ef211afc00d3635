"""More processes on one study: each takes the trainings that no other is at. The store's locks do the sharing.

Small networks do not fill the cores of a CPU: in float32 the default study took 239 s in two processes of one thread,
381 s in one process of two threads.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from os import _exit
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from oodbench.cli.arguments import AUTO, CARDS
from oodbench.errors import UserError
from oodbench.store.memo import WORKER

VISIBLE = "CUDA_VISIBLE_DEVICES"


def count(wanted: str, device: torch.device, each: int = 1) -> int:
    """Return a number of processes, of which each needs so many CUDA devices.

    CARDS is one for each of those, where none is named; AUTO the same, and one for each core of a CPU.
    """
    if wanted == AUTO and device.type == "cpu":
        return cores()
    return max(1, len(cards(device, each))) if wanted in (AUTO, CARDS) else int(wanted)


def cards(device: torch.device, each: int = 1) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES may say to each process, which needs so many; none where a device is named."""
    if str(device) != "cuda":
        return []
    seen = [each.strip() for each in os.environ.get(VISIBLE, "").split(",") if each.strip()]
    found = seen or [str(i) for i in range(torch.cuda.device_count())]
    return [",".join(found[i : i + each]) for i in range(0, len(found) - each + 1, each)]


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def helped(
    words: list[str], others: int, hear: Callable[[int, str], None], shared: Sequence[str] = ()
) -> Iterator[list[str]]:
    """Let so many other processes run an oodbench command meanwhile, cores and CUDA devices shared out evenly.

    This process has the first of the devices, the others each the next one, by CUDA_VISIBLE_DEVICES. At the end they
    are waited for, and what is yielded holds how those ended that did not come to an end of their own. `hear` is told,
    in threads, each line that they write to standard error and by which of them, from 2. None outlives this process,
    however that ends.
    """
    died: list[str] = []
    if not others:
        yield died
        return
    threads = max(1, cores() // (others + 1))
    torch.set_num_threads(threads)
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "oodbench.cli.workers", *words]
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(threads))
        pipe = subprocess.PIPE
        start = partial(subprocess.Popen, command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe)
        own = [{VISIBLE: shared[i % len(shared)]} if shared else {} for i in range(1, others + 1)]
        processes = [start(env=os.environ | limits | {WORKER: str(i)} | card) for i, card in enumerate(own, 2)]
        readers = [threading.Thread(target=_read, args=(hear, i, each)) for i, each in enumerate(processes, 2)]
        for each in readers:
            each.start()
        try:
            yield died
            died += [_end(code) for process in processes if (code := process.wait()) not in ENDS]
        finally:
            for process, thread in zip(processes, readers, strict=True):
                process.terminate()
                process.wait()
                thread.join()
                for stream in (process.stdin, process.stderr):
                    if stream:
                        stream.close()


def _read(hear: Callable[[int, str], None], worker: int, process: subprocess.Popen[bytes]) -> None:
    """Let somebody hear each line that a process writes to standard error, until it ends."""
    for line in process.stderr or ():
        if text := line.decode(errors="replace").rstrip("\r\n"):
            hear(worker, text)


# What lets torch, its libraries and those of numpy use the least that a CPU of this kind has, and sum in other orders.
LESSER = {"ATEN_CPU_CAPABILITY": "default"}
LESSER_X86 = {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "NEHALEM"}


def as_lesser_cpu(words: list[str], results: Path) -> bool:
    """Run an oodbench command on this CPU as if it were a lesser one, with results and a store of its own.

    Returns False, and runs nothing, where this process is on the least CPU already. Raises UserError where it fails.
    """
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return False
    less = LESSER | (LESSER_X86 if platform.machine() in ("x86_64", "AMD64") else {})
    folders = {"OODBENCH_RESULTS": str(results), "OODBENCH_STORE": str(results / "store")}
    command = [sys.executable, "-m", "oodbench.cli.workers", *words]
    env = os.environ | less | folders
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        code = process.wait()  # it ends when this process does
    if code not in ENDS[:2]:
        raise UserError(f"the study as run on a lesser CPU {_end(code)}")
    return True


ENDS = (0, 1, 2)  # exit codes of a command: done, done with errors in rows, a user's mistake


def _end(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _until_alone() -> None:
    """End this process when the one that started it is gone: then nobody holds the other end of its input."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    _exit(1)


if __name__ == "__main__":
    threading.Thread(target=_until_alone, daemon=True).start()
    from oodbench.cli.app import app

    app(prog_name="oodbench")
