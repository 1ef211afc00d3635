"""Dask: the workers of a cluster of dask.distributed, whoever started them; a worker a card, with the resource GPU.

Dask sees to a worker that died: its tasks run elsewhere. It does not end what has begun, and sets no
CUDA_VISIBLE_DEVICES: who starts the workers does. The scheduler keeps what a task returns until somebody has taken it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from oodbench.engines.cluster import Cluster, missing_extra
from oodbench.engines.errands import Errand
from oodbench.engines.seam import Command, Ended, GivenTask, Ledger, Task
from oodbench.errors import UserError

POLL = 0.5  # seconds between two looks at what has ended
PATIENCE = 30  # seconds for a scheduler to answer
GPU = "GPU"  # the resource of workers that have a card
LOST = "was lost: the scheduler does not know of it, or has ended it"


class Dask:
    """The tasks of one study on the workers of a scheduler."""

    by = "dask"

    def __init__(self, cluster: Cluster, name: str, ledger: Ledger, files: bytes = b"") -> None:
        try:
            import distributed
        except ImportError as error:
            raise missing_extra("dask", error) from error
        if not cluster.address:
            raise UserError("--on dask: say where the scheduler is, with --address tcp://HOST:8786 or `address:`")
        self.name, self.ledger, self.address = name, ledger, cluster.address
        self._dask: Any = distributed
        try:
            self._client: Any = self._dask.Client(cluster.address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise UserError(f"no scheduler of dask answers at {cluster.address}: {error}") from error
        self._futures: dict[str, Any] = {}
        self._files = files  # that travel to workers on other hosts; none where these share a file system
        self._travelling: Any = None  # the future of them

    def alive(self) -> dict[str, str]:
        given = self.ledger.read("dask")
        states: dict[str, str] = self._client.run_on_scheduler(_states, [each.job for each in given.values()])
        return {name: states[each.job] for name, each in given.items() if each.job in states}

    def submit(self, tasks: Sequence[Task]) -> None:
        self._check(tasks)
        given = []
        for task in tasks:
            job = f"oodbench-{self.name}-{task.name}-{secrets.token_hex(4)}"
            self._futures[task.name] = self._give(task, job)
            given.append(GivenTask(task=task, job=job, by="dask", address=self.address))
        self.ledger.add(given)
        deadline, jobs = time.monotonic() + PATIENCE, [each.job for each in given]
        while len(self._client.run_on_scheduler(_states, jobs)) < len(jobs):  # it hears of them a little later
            if time.monotonic() > deadline:
                raise UserError(f"the scheduler of dask at {self.address} has not taken all jobs in {PATIENCE} s")
            time.sleep(0.05)

    def _give(self, task: Task, job: str) -> Any:
        """Return the future of a task, which goes on when this client has gone."""
        how = {"key": job, "resources": {GPU: task.needs.gpus} if task.needs.gpus else None, "pure": False}
        if self._files:
            if self._travelling is None:  # a task, as dask makes what a task returned again where a worker is gone
                key = f"oodbench-files-{hashlib.sha256(self._files).hexdigest()}"
                self._travelling = self._client.submit(bytes, self._files, key=key)
            future = self._client.submit(Errand(task.words[2:], task.needs.cpus), self._travelling, **how)
        else:
            command = Command(task.words, self.ledger.log(task.name), task.needs.cpus)
            after = [self._futures[name] for name in task.after if name in self._futures]
            future = self._client.submit(_run, command, after, **how)
        self._client.publish_dataset(future, name=job)  # so that the scheduler keeps it when this client has gone
        return future

    def _check(self, tasks: Sequence[Task]) -> None:
        """Refuse what no worker has: dask would wait for it without a word."""
        cards: list[float] = self._client.run_on_scheduler(_cards) if tasks else []
        if tasks and not cards:
            raise UserError("no worker has come to dask's scheduler yet; start them first")
        most = max(cards, default=0)
        wanted = max((task.needs.gpus for task in tasks), default=0)
        if wanted > most:
            how = f'dask worker ADDRESS --nthreads 1 --resources "{GPU}={wanted}"'
            asked = f"a job asks for {wanted} of the resource {GPU}, a worker has {most:g} at most"
            raise UserError(f"{asked}; start some with {how}, or set gpus of `train` and `score` in the cluster's file")

    def ended(self, waiting: set[str]) -> Iterator[Ended]:
        given: dict[str, GivenTask] = {}  # what another process drops is still heard of
        while waiting:
            given |= self.ledger.read("dask")
            states = self._client.run_on_scheduler(_states, [given[name].job for name in waiting if name in given])
            for name in sorted(waiting):
                found = self._result(name, given.get(name), states)
                if found is not None:
                    waiting.discard(name)
                    yield found
                    self.ledger.drop(name)  # what is sent back is taken by now: who is ended before asks for it again
                    self._futures.pop(name, None)  # which lets the scheduler forget it
                    if name in given:
                        self._forget([given[name].job])
            if waiting:
                time.sleep(POLL)

    def _result(self, name: str, given: GivenTask | None, states: dict[str, str]) -> Ended | None:
        """Return how a task ended, or None where it has not."""
        log = self.ledger.log(name)
        if given is None:
            return Ended(name, LOST, str(log))
        if name not in self._futures:
            self._futures[name] = self._joined(given.job)
        future = self._futures[name]
        if future.status == "finished":
            found = future.result()
            return Ended(name, "", str(log), found) if isinstance(found, bytes) else Ended(name, found, str(log))
        error = LOST
        if future.status == "error":
            error = f"failed: {type(future.exception()).__name__}: {future.exception()}".splitlines()[0]
        elif given.job in states:
            return None
        if self._files:  # no other word of it comes back
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{error}\n")
        return Ended(name, error, str(log))

    def _joined(self, job: str) -> Any:
        """Return the future of a task that another process gave."""
        kept = self._client.get_dataset(job, default=None)
        return self._dask.Future(job, self._client) if kept is None else kept

    def _forget(self, jobs: Sequence[str]) -> None:
        """Let the scheduler forget what is sent back by jobs."""
        for job in {*jobs} & {*self._client.list_datasets()}:
            self._client.unpublish_dataset(job)

    def cancel(self) -> int:
        names, given = list(self.alive()), self.ledger.read("dask")
        self._client.cancel([self._dask.Future(given[name].job, self._client) for name in names], force=True)
        self._forget([each.job for each in given.values()])
        self.ledger.drop(*given)
        return len(names)

    def close(self) -> None:
        self._client.close()


def _states(keys: list[str], dask_scheduler: Any = None) -> dict[str, str]:
    """Return the states of tasks, in words, of those that the scheduler runs, will run or has run."""
    words = {"processing": "running", "memory": "finished", "released": "waiting"}
    tasks = {key: dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks}
    fine = {key: task.state for key, task in tasks.items() if task.run_spec is not None and task.state != "erred"}
    return {key: words.get(state, state) for key, state in fine.items()}


def _cards(dask_scheduler: Any = None) -> list[float]:
    """Return the resource GPU of each worker; what a client has been told of them may be old."""
    return [each.resources.get(GPU, 0) for each in dask_scheduler.workers.values()]


def _run(command: Command, after: list[str]) -> str:
    """Run a command once what it waits for has ended, whatever how."""
    return command()
