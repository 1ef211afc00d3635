"""The driver: gives an engine what a study misses, hears how each job ended, and tries again what died.

What is missing is what the store and the rows say. So a driver that comes later joins what already runs.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oodbench.engines import returned
from oodbench.engines.asks import Asks
from oodbench.engines.seam import Ended, Engine, Ledger, Needs, Task
from oodbench.engines.unit import ALL, MEASURE, SCORE, TRAIN
from oodbench.errors import UserError
from oodbench.execution import estimate
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import digest
from oodbench.study.grid import Work

EVERY = 30.0  # seconds between two lines on how far a study is
Say = Callable[[str], None]


@dataclass
class Driver:
    """Runs the trainings of a study on an engine. `words` of a unit: what comes after its trainings, by stage."""

    runner: Runner
    engine: Engine
    asks: Asks
    words: Callable[[str], Sequence[str]]
    say: Say
    trained: int = 0
    _works: dict[str, Work] = field(init=False, default_factory=dict)  # by Run.named
    _tries: Counter[str] = field(init=False, default_factory=Counter)  # that ended without a result, by Run.named
    _tasks: dict[str, Task] = field(init=False, default_factory=dict)  # by name: that are waited for
    _said: float = field(init=False, default=0.0)

    def missing(self) -> list[Work]:
        """Return the trainings of which rows are pending."""
        books = self.runner.bookkeeping
        return [work for work in self.runner.plan.work if books.pending(self.runner.source(work))]

    def tasks(self, works: Sequence[Work], alive: Sequence[Task] = ()) -> tuple[list[Task], list[Task]]:
        """Return the tasks that make the rows of trainings: those that are alive, and those that have to be given."""
        if not self.asks.cluster.shared:
            return self._whole(works, alive)
        training = {name: task for task in alive if task.stage == TRAIN for name in task.runs}
        scoring = {name: task for task in alive if task.stage == SCORE for name in task.runs}
        joined, new, to_score = [], [], []
        for work in works:
            name, after = work.run.named, ""
            self._works[name] = work
            if name in training:
                joined.append(training[name])
                after = training[name].name
            elif self._untrained(work):
                new.append(self._train(work))
                after = new[-1].name
            if name in scoring and (not after or name in training):
                joined.append(scoring[name])
            else:
                to_score.append((work, after))
        return list(dict.fromkeys(joined)), [*new, *self._batches(to_score)]

    def _whole(self, works: Sequence[Work], alive: Sequence[Task]) -> tuple[list[Task], list[Task]]:
        """Return the tasks of which each does all of one training."""
        self._works |= {work.run.named: work for work in works}
        going = {name: task for task in alive if task.stage == ALL for name in task.runs}
        new = [self._task(ALL, [each], self.asks.train(each)) for each in works if each.run.named not in going]
        return [going[work.run.named] for work in works if work.run.named in going], new

    def _untrained(self, work: Work) -> bool:
        pipeline = self.runner.pipeline
        return not pipeline.encoders.has_weights(work.run) or bool(estimate.unembedded(pipeline, work))

    def _train(self, work: Work) -> Task:
        return self._task(TRAIN, [work], self.asks.train(work))

    def _batches(self, works: Sequence[tuple[Work, str]]) -> list[Task]:
        """Return the tasks that score trainings, so many each; a training that was tried before is alone."""
        size = self.asks.cluster.score.batch
        first = [each for each in works if not self._tries[each[0].run.named]]
        first.sort(key=lambda each: each[1] != "")  # stable: what is trained waits for no training
        parts = [[each] for each in works if self._tries[each[0].run.named]]
        waits = [[each for each in first if bool(each[1]) is has] for has in (False, True)]
        parts += [group[i : i + size] for group in waits for i in range(0, len(group), size)]
        return [self._score([work for work, _ in part], [after for _, after in part if after]) for part in parts]

    def _score(self, works: list[Work], after: list[str]) -> Task:
        return self._task(SCORE, works, self.asks.score(works)).model_copy(update={"after": tuple(after)})

    def _task(self, stage: str, works: list[Work], needs: Needs) -> Task:
        runs = tuple(work.run.named for work in works)
        again = f"-{tries + 1}" if (tries := self._tries[runs[0]]) else ""
        name = f"{stage}-{runs[0] if len(runs) == 1 else digest(runs)}{again}"
        words = ("unit", str(self.runner.study.file.resolve()), *runs, "--stage", stage, *self.words(stage))
        return Task(name=name, stage=stage, runs=runs, words=words, needs=needs)

    def submit(self) -> set[str]:
        """Give the engine what is missing and does not run, and return the names of all tasks that make it."""
        with self.runner.pipeline.store.lock(f"jobs-{digest(str(self.runner.study.results.resolve()))}"):
            ledger, alive = Ledger(self.runner.study.results), self.engine.alive()
            given = ledger.read(self.engine.by)
            ledger.drop(*(given.keys() - alive.keys()))
            joined, new = self.tasks(self.missing(), [each.task for name, each in given.items() if name in alive])
            self.engine.submit(new)
        self._tasks |= {task.name: task for task in [*joined, *new]}
        counts = Counter(task.stage for task in new)
        if new or joined:
            parts = f"{counts[TRAIN]} that train and embed, {counts[SCORE]} that score"
            parts = parts if self.asks.cluster.shared else f"{counts[ALL]} that train, embed and score"
            self.say(f"jobs: {parts}; {len(joined)} run or wait already")
        return set(self._tasks)

    def attend(self, waiting: set[str]) -> None:
        """Wait for tasks, try again what died, and make error rows of what dies too often."""
        for said in self.engine.ended(waiting):
            task = self._tasks.pop(said.name)
            works = [self._works[name] for name in task.runs if name in self._works]
            ended = self._take(works, said) if said.sent else said
            if not ended.error:
                self.trained += task.stage in (TRAIN, ALL)
                self._say_some(waiting)
                continue
            left = [each for each in works if self.runner.bookkeeping.pending(self.runner.source(each))]
            again = [each for each in left if self._may_try(each, ended)]
            _, new = self.tasks(again)
            self.engine.submit(new)
            self._tasks |= {each.name: each for each in new}
            waiting.update(each.name for each in new)

    def _take(self, works: Sequence[Work], ended: Ended) -> Ended:
        """Take what a task sends back, and return how it ended."""
        try:
            with returned.opened(ended) as (error, folder):
                if not error:
                    returned.take(self.runner, works, folder)
                return dataclasses.replace(ended, error=error)
        except returned.OtherRowsError as error:
            return dataclasses.replace(ended, error=str(error), final=True)
        except UserError as error:
            return dataclasses.replace(ended, error=f"sent back nothing that can be taken: {error}")

    def _may_try(self, work: Work, ended: Ended) -> bool:
        """Return whether to try a training again, whose job ended without a result; else make error rows of it."""
        self._tries[work.run.named] += 1
        tries, most = self._tries[work.run.named], self.asks.cluster.retries + 1
        self.say(f"{work.run.title}: a job {ended.error} (try {tries} of {most}), see {ended.log}")
        if tries < most and not ended.final:
            return True
        times = "once" if tries == 1 else f"{tries} times"
        why = f"JobError: ended without a result {times}, the last one {ended.error}; last log {ended.log}"
        self.runner.watch.failed(work.run.title, why)
        self.runner.bookkeeping.fail(self.runner.source(work), why)
        return False

    def _say_some(self, left: set[str]) -> None:
        if left and time.monotonic() - self._said < EVERY:
            return
        self._said = time.monotonic()
        states = Counter(state for name, state in self.engine.alive().items() if name in left)
        doing = ", ".join(f"{count} {state}" for state, count in states.most_common())
        self.say(f"{self.trained} trained and embedded; jobs: {doing or 'none left'}")


def measure(engine: Engine, task: Task, results: Path) -> None:
    """Have a study measured on a node, which is kept in its folder of results. Raises UserError where that failed."""
    if task.name not in engine.alive():  # else another driver waits for it, too
        engine.submit([task])
    for ended in engine.ended({task.name}):
        error = returned.take_measured(ended, results) if ended.sent else ended.error
        if error:
            raise UserError(f"the job that measures a step of each kind of training {error}; see {ended.log}")


def measuring(asks_of: Needs, study_file: str, kind: str, words: Sequence[str]) -> Task:
    """Return the task that measures a study on a node of a kind."""
    command = ("unit", study_file, "--stage", MEASURE, "--kind", kind, *words)
    return Task(name=f"{MEASURE}-{kind}", stage=MEASURE, runs=(), words=command, needs=asks_of)
