"""Two libraries at the same work, each in its own process, in turns; and what the machine could do at most."""

from __future__ import annotations

import os
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What makes numpy's matrix products slower than the machine allows: peers run at their best.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
LEAST = 0.25  # seconds that a round takes at least: shorter work is repeated in it


@dataclass(frozen=True)
class Scale:
    """How large the synthetic work is."""

    size: float = 1.0  # share of the rows
    dim: int = 512
    device: str = "cpu"  # of our side; peers are on the CPU

    def rows(self, full: int) -> int:
        return max(20, round(full * self.size))


Work = Callable[[], Any]  # what is timed; returns what it computed, as numpy arrays or numbers
Prepare = Callable[[Scale], Work]  # makes the data and whatever is not timed


class Side(AbstractContextManager["Side"]):
    """A library at work in a process of its own, which waits between two rounds."""

    def __init__(self, prepare: Prepare, scale: Scale) -> None:
        for name in SLOWING:
            os.environ.pop(name, None)
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, scale))
        self._process.start()
        theirs.close()

    def run(self) -> tuple[float, Any]:
        """Return the seconds that the work took, the mean of a round's repeats, and what it computed."""
        self._pipe.send(True)
        seconds, result = self._pipe.recv()
        return seconds, result

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, prepare: Prepare, scale: Scale) -> None:
    warnings.simplefilter("ignore")  # of mixtures that still move
    work = prepare(scale)
    # As in a process that has been at work for a while: having freed one large array, glibc keeps what is freed after
    # it, rather than hand pages back and fault them in again. It is the same for both sides.
    np.ones(31 << 20, dtype=np.uint8)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        start, repeats = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < LEAST:
            result = work()
            repeats += 1
        pipe.send((seconds / repeats, result))


class Rounds(NamedTuple):
    """Median seconds of each side, and what each computed in the first round."""

    seconds: list[float]
    results: list[Any]


def in_turns(sides: list[Prepare], scale: Scale, rounds: int, least: int = 1) -> Rounds:
    """Run each side once to warm up, then in turns; slow work (over ten seconds a round) gets `least` rounds."""
    running = [Side(prepare, scale) for prepare in sides]
    try:
        first = [side.run() for side in running]
        slow = sum(seconds for seconds, _ in first) > 10
        times = [[] if not slow else [seconds] for seconds, _ in first]
        for _ in range(least - 1 if slow else rounds):
            for mine, side in zip(times, running, strict=True):
                mine.append(side.run()[0])
    finally:
        for side in running:
            side.__exit__()
    return Rounds([statistics.median(each) for each in times], [result for _, result in first])


# ---- the machine ----------------------------------------------------------------------------------


class Machine(NamedTuple):
    """Measured rates: float32 matrix products in FLOP/s, reading memory in bytes/s."""

    product: float
    memory: float

    def seconds(self, flop: float, read: float) -> float:
        """Return the time in which nothing but these products and this reading could be done."""
        return max(flop / self.product, read / self.memory)


def machine(rounds: int) -> Machine:
    """Return the median rates of several rounds."""
    with Side(_rates, Scale()) as side:
        found = [side.run()[1] for _ in range(rounds + 1)][1:]
    return Machine(*(statistics.median(each) for each in zip(*found, strict=True)))


def _rates(scale: Scale) -> Work:
    import torch

    m, n, k = 2048, 8192, 512
    x, p, out = torch.randn(m, k), torch.randn(n, k), torch.empty(n, m)
    large = torch.randn(64 << 20)

    def rates() -> tuple[float, float]:
        def best(work: Callable[[], object]) -> float:
            times = []
            for _ in range(3):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
            return min(times)

        product = best(lambda: torch.mm(p, x.T, out=out))
        return 2 * m * n * k / product, 4 * large.numel() / best(large.sum)

    return rates


# ---- memory ---------------------------------------------------------------------------------------


class Peak(AbstractContextManager["Peak"]):
    """The most anonymous memory (no mapped files) that this process has had, in MB; Linux only."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.mb = max(self.mb, anonymous())

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def anonymous() -> float:
    """Return the anonymous memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon")
