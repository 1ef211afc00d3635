"""The live board of a run: stages, the training at work with its loss and time left, cells done and failed."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from oodbench.cli import screen
from oodbench.errors import printable
from oodbench.store.memo import Watch

STAGES = {
    **{"data": "prepare", "train": "train", "bank": "embed", "probe": "probe", "score": "score", "wait": "wait for"},
    **{"hash": "hash", "near": "look for duplicates:"},
    **{"quality": "measure the clusters of", "curve": "follow", "export": "export"},
}
MB = 1e6  # bytes
EVERY = 60.0  # seconds between two lines on a training, off a terminal


class Board(Watch):
    """Shows what a pipeline does: live on a terminal, a line for each training elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._all = self._progress.add_task("cells", total=None, note="")
        self._now = self._progress.add_task("", total=None, note="", visible=False)
        self._cells = self._failed = self._runs = self._run = 0
        self._training = ("", 0.0, 0.0)  # title, start, last loss
        self._said = 0.0  # when the training at work was last heard of
        self._helpers = 0  # whose words were shown
        self.where = ""  # device, machine and precision, said when work begins
        self._file = ""  # that is downloaded

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def planned(self, runs: int, cells: int, done: int) -> None:
        self._runs, self._cells = runs, done
        self._progress.update(self._all, total=cells, completed=done, note=self._counts())
        there = f", {done} of them there" if done else ""
        if self.where:
            self.say(self.where)
        self.say(f"{cells} cells{there}; {runs} trainings to look at")

    def stage(self, what: str, title: str) -> None:
        self._end_training()
        self._progress.reset(self._now, description=printable(f"{STAGES[what]}  {title}"), total=None, note="")
        self._progress.update(self._now, visible=True)
        if what == "train":
            self._run += 1
            self._said = time.perf_counter()
            self._training = (title, self._said, float("nan"))
            if not self.console.is_terminal:
                self.say(f"training {self._run}, of at most {self._runs}: {title}")
            self._progress.update(self._all, description=f"training {self._run}, of at most {self._runs}")

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        self._training = (*self._training[:2], loss)
        self._progress.update(self._now, total=epochs, completed=epoch + 1, note=f"loss {loss:.4f}")
        now, (title, start, _) = time.perf_counter(), self._training
        if not self.console.is_terminal and now - self._said >= EVERY:
            self._said = now
            left = (now - start) / (epoch + 1) * (epochs - epoch - 1)  # of a training that went on, too much
            self.say(f"{title}: epoch {epoch + 1} of {epochs}, loss {loss:.4f}, about {screen.duration(left)} left")

    def scored(self, cells: int, failed: int) -> None:
        self._cells += cells
        self._failed += failed
        self._progress.update(self._all, completed=self._cells, note=self._counts())

    def failed(self, title: str, message: str) -> None:
        self._training = ("", 0.0, 0.0)
        self.say(f"{title}: {message}", Text("failed: ", style="bold red"))

    def downloading(self, file: str, done: int, total: int | None) -> None:
        """Show the megabytes of a download."""
        if file != self._file:
            self._file = file
            self._progress.reset(self._now, description=printable(f"download  {file}"), visible=True)
        self._progress.update(self._now, total=total and round(total / MB), completed=round(done / MB), note="MB")
        if done == total:
            self.say(f"downloaded {file}: {done / MB:.1f} MB")

    def others(self, text: str) -> None:
        """Show what another process of the same run said."""
        self._helpers += 1
        for line in text.splitlines():
            self.say(f"process {self._helpers + 1}: {line}", style="dim")

    def warn(self, message: str) -> None:
        self.say(message, Text("warning: ", style="yellow"))

    def say(self, text: str, head: Text | str = "", style: str = "") -> None:
        """Print a line, in one write: others may write to the same file."""
        self.console.print(Text.assemble(head, (printable(text), style)), highlight=False, soft_wrap=True)

    def _counts(self) -> str:
        return f"{self._cells} done, {self._failed} failed"

    def _end_training(self) -> None:
        title, start, loss = self._training
        if title:
            seconds = time.perf_counter() - start
            last = "" if math.isnan(loss) else f"loss {loss:.4f}, "  # weights that are loaded have none
            self.say(f"trained {title}: {last}{seconds:.1f} s")
            self._training = ("", 0.0, 0.0)
