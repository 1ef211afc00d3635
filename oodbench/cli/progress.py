"""The board of a run: what each of its processes is at, with loss, rate and time left, and the cells done and failed.

Live on a terminal; elsewhere lines, of an epoch twice a minute at most, of scoring each minute. A process that helps
another one shows nothing itself: it tells what it hears, a line an event, and the other shows that, see workers.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from oodbench.cli import screen
from oodbench.errors import printable
from oodbench.store.memo import WORKER, Watch

STAGES = {
    **{"data": "prepare", "train": "train", "bank": "embed", "probe": "probe", "score": "score", "wait": "wait for"},
    **{"hash": "hash", "near": "look for duplicates:"},
    **{"quality": "measure the clusters of", "curve": "follow", "export": "export"},
}
MB = 1e6  # bytes
EVERY = 30.0  # seconds between two lines on a training, off a terminal
SCORING_EVERY = 60.0  # the same on its scoring
TOLD_EVERY = 0.5  # seconds between two epochs, or two rows, that a process tells the one that it helps
EVENT = "\x1e"  # how a line begins that is an event (RFC 7464)
EVENTS = (
    *("planned", "stage", "training", "terms", "epoch", "scoring", "scored", "found", "failed", "downloading", "warn"),
    "where",
)
SPEED_OVER = 3600.0  # seconds of which the time left is told: cells come in heaps, a training's at once
TAIL = 14  # signs at the end of a title that is too long: its seed


class _Counts(MofNCompleteColumn):
    """So many of so many, where there is anything to count."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["what"] else Text()


class _Bars(Progress):
    """A line of words above each bar."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            if task.visible:
                if task.description:
                    yield Text(_shortened(task.description, self.console.width), no_wrap=True)
                yield self.make_tasks_table([task])


def _shortened(title: str, width: int) -> str:
    """Return a title that fits; what is left out is before its end."""
    return title if len(title) <= width else f"{title[: max(0, width - TAIL - 1)]}…{title[-TAIL:]}"


class Board(Watch):
    """Shows what the processes of a run do. What this process does is heard by the board itself."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bars = _Bars(
            TextColumn("{task.fields[what]:>8}", markup=False),
            BarColumn(bar_width=16),
            _Counts(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not self.live,
            transient=True,
            speed_estimate_period=SPEED_OVER,
        )
        self.where = ""  # device, machine and precision, said when work begins
        self.runs = self.run = self.cells = 0  # trainings to look at and looked at; cells in all
        self._done = self._made = self._found = self._failed = self._mine = 0
        self.warned: dict[str, int] = {}  # message -> the process that said it first
        self._lock = threading.RLock()
        self._all = self.bars.add_task("", total=None, note="", what="cells", visible=False)
        self._lanes = {1: Lane(self, 1)}
        self.workers = 1  # whose events come

    def __enter__(self) -> Board:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def planned(self, runs: int, cells: int, done: int) -> None:
        from oodbench.report.tables import counted

        self.runs, self.cells, self._done = runs, cells, done
        self._count()
        there = f", {done} of them there" if done else ""
        if self.where:
            self.say(self.where)
        self.say(f"{counted(cells, 'cell')}{there}; {counted(runs, 'training')} to look at")

    def stage(self, what: str, title: str) -> None:
        self._lanes[1].stage(what, title)

    def training(self, epochs: int, done: int, images: int) -> None:
        self._lanes[1].training(epochs, done, images)

    def terms(self, means: dict[str, float]) -> None:
        self._lanes[1].terms(means)

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        self._lanes[1].epoch(epoch, epochs, loss)

    def scoring(self, rows: int, of: int) -> None:
        self._lanes[1].scoring(rows, of)

    def scored(self, cells: int, failed: int) -> None:
        self._lanes[1].scored(cells, failed)

    def found(self, cells: int) -> None:
        """Count cells that other processes made; those that help this one have told of them."""
        with self._lock:
            self._found += cells
            self._count()

    def made(self, cells: int, failed: int, worker: int) -> None:
        """Count cells that a process of this run made."""
        with self._lock:
            self._made, self._failed = self._made + cells, self._failed + failed
            self._mine += cells if worker == 1 else 0
            self._count()

    @property
    def counts(self) -> str:
        """How many cells are done, of all."""
        done = self._done + max(self._made, self._mine + self._found)
        return f"{done} of {self.cells} cells"

    def _count(self) -> None:
        done = self._done + max(self._made, self._mine + self._found)
        self.bars.update(self._all, total=self.cells, completed=done, note=f"{self._failed} failed", visible=True)

    def failed(self, title: str, message: str) -> None:
        self._lanes[1].failed(title, message)

    def downloading(self, file: str, done: int, total: int | None) -> None:
        self._lanes[1].downloading(file, done, total)

    def hear(self, worker: int, line: str) -> None:
        """Show what another process of the same run tells: an event, or words."""
        with self._lock:
            if worker not in self._lanes:
                self._lanes[worker] = Lane(self, worker)
            lane = self._lanes[worker]
            if not line.startswith(EVENT):
                self.say(f"worker {worker}: {line}", style="dim")
                return
            name, *given = json.loads(line.removeprefix(EVENT))
            if name in EVENTS:
                getattr(lane, name)(*given)

    def warn(self, message: str) -> None:
        self._lanes[1].warn(message)

    def say(self, text: str, head: Text | str = "", style: str = "") -> None:
        """Print a line, in one write: others may write to the same file."""
        self.console.print(Text.assemble(head, (printable(text), style)), highlight=False, soft_wrap=True)


class Lane(Watch):
    """Shows what one process of a run does."""

    def __init__(self, board: Board, worker: int) -> None:
        self.board, self.worker = board, worker
        self._task = board.bars.add_task("", total=None, note="", what="", visible=False)
        self._training = ("", 0.0, 0.0)  # title, start, last loss
        self._terms = ""  # of that loss
        self._said = 0.0  # when the training at work was last heard of
        self._first, self._images = 0, 0  # epochs that were there before, images of one
        self._title = ""  # of what is scored
        self._file = ""  # that is downloaded

    @property
    def _name(self) -> str:
        return f"worker {self.worker}: " if self.board.workers > 1 else ""

    def _say(self, text: str, head: Text | str = "") -> None:
        self.board.say(f"{self._name}{text}", head)

    def where(self, process: int, where: str) -> None:
        """Say which process it is, and on what it works where that is not what the first one works on."""
        self._say(f"process {process}" + ("" if where == self.board.where else f", {where}"))

    def stage(self, what: str, title: str) -> None:
        self._end_training()
        name = f"{self._name}{STAGES[what]}  {title}"
        self.board.bars.reset(self._task, description=printable(name), total=None, note="", what="")
        self.board.bars.update(self._task, visible=True)
        next(each for each in self.board.bars.tasks if each.id == self._task).total = None  # which a reset leaves
        self._said, self._title = time.perf_counter(), title
        if what == "train":
            self.board.run += 1
            self._training, self._first, self._images = (title, self._said, float("nan")), 0, 0
            self._terms = ""
            if not self.board.live:
                self._say(f"training {self.board.run}, of at most {self.board.runs}: {title}")

    def training(self, epochs: int, done: int, images: int) -> None:
        title, _, loss = self._training
        self._training, self._first, self._images = (title, time.perf_counter(), loss), done, images
        self.board.bars.update(self._task, total=epochs, completed=done, what="epochs")

    def terms(self, means: dict[str, float]) -> None:
        self._terms = f" ({', '.join(f'{name} {mean:.4f}' for name, mean in means.items())})"

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        now, (title, start, _) = time.perf_counter(), self._training
        self._training = (title, start, loss)
        done = epoch + 1 - self._first  # in this process
        rate = f", {self._images * done / (now - start):.0f} images/s" if self._images and now > start else ""
        note = f"loss {loss:.4f}{self._terms}{rate}"
        self.board.bars.update(self._task, total=epochs, completed=epoch + 1, what="epochs", note=note)
        if not self.board.live and now - self._said >= EVERY:
            self._said = now
            left = (now - start) / done * (epochs - epoch - 1)
            self._say(f"{title}: epoch {epoch + 1} of {epochs}, {note}, about {screen.duration(left)} left")

    def scoring(self, rows: int, of: int) -> None:
        self.board.bars.update(self._task, total=of, completed=rows, what="rows")
        now = time.perf_counter()
        if not self.board.live and now - self._said >= SCORING_EVERY:
            self._said = now
            self._say(f"scoring {self._title}: {rows} of {of} rows; {self.board.counts} before")

    def scored(self, cells: int, failed: int) -> None:
        self.board.made(cells, failed, self.worker)

    def failed(self, title: str, message: str) -> None:
        self._training = ("", 0.0, 0.0)
        self._say(f"{title}: {message}", Text("failed: ", style="bold red"))

    def warn(self, message: str) -> None:
        """Say it, where no other process has: all look at the same data."""
        if self.board.warned.setdefault(message, self.worker) == self.worker:
            self._say(message, Text("warning: ", style="yellow"))

    def downloading(self, file: str, done: int, total: int | None) -> None:
        """Show the megabytes of a download."""
        bars = self.board.bars
        if file != self._file:
            self._file = file
            bars.reset(self._task, description=printable(f"{self._name}download  {file}"), what="MB", visible=True)
        bars.update(self._task, total=total and round(total / MB), completed=round(done / MB), note="")
        if done == total:
            self._say(f"downloaded {file}: {done / MB:.1f} MB")

    def _end_training(self) -> None:
        title, start, loss = self._training
        if title:
            seconds = time.perf_counter() - start
            last = "" if math.isnan(loss) else f"loss {loss:.4f}{self._terms}, "  # weights that are loaded have none
            self._say(f"trained {title}: {last}{seconds:.1f} s")
            self._training = ("", 0.0, 0.0)


class Told(Board):
    """Tells another process what it hears, on standard error, and shows nothing."""

    def __init__(self, console: Console) -> None:
        super().__init__(Console(file=console.file, width=80, force_terminal=False))
        self._last = 0.0

    def _tell(self, *event: Any) -> None:
        sys.stderr.write(f"{EVENT}{json.dumps(event)}\n")
        sys.stderr.flush()

    def _tell_some(self, *event: Any) -> None:
        if (now := time.perf_counter()) - self._last >= TOLD_EVERY:
            self._last = now
            self._tell(*event)

    def planned(self, runs: int, cells: int, done: int) -> None:
        self._tell("where", os.getpid(), self.where)

    def stage(self, what: str, title: str) -> None:
        self._tell("stage", what, title)

    def training(self, epochs: int, done: int, images: int) -> None:
        self._tell("training", epochs, done, images)

    def terms(self, means: dict[str, float]) -> None:
        self._tell("terms", means)

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        (self._tell if epoch + 1 == epochs else self._tell_some)("epoch", epoch, epochs, loss)

    def scoring(self, rows: int, of: int) -> None:
        self._tell_some("scoring", rows, of)

    def scored(self, cells: int, failed: int) -> None:
        self._tell("scored", cells, failed)

    def found(self, cells: int) -> None:
        """What others made, the process that is helped hears itself."""

    def failed(self, title: str, message: str) -> None:
        self._tell("failed", title, message)

    def downloading(self, file: str, done: int, total: int | None) -> None:
        (self._tell if done == total else self._tell_some)("downloading", file, done, total)

    def warn(self, message: str) -> None:
        self._tell("warn", message)


def board(console: Console) -> Board:
    """Return what shows a run; in a process that helps another one, what tells that one."""
    return Told(console) if WORKER in os.environ else Board(console)
