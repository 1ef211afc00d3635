"""Slurm, by submitit: an array of jobs for each kind of request, which sbatch takes or refuses at once.

A job that came to its time limit, or was preempted, is requeued and goes on at its checkpoint. What ended is told by
squeue and by the file that submitit writes at the end of a job: accounting (sacct) is not everywhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGUSR2
from typing import Any

from oodbench.engines.cluster import Cluster, missing_extra
from oodbench.engines.seam import Command, Ended, GivenTask, Ledger, Needs, Task
from oodbench.errors import UserError
from oodbench.store.provenance import now

POLL = 10.0  # seconds between two looks at the queue
ABSENT = 2  # looks at which a job is in no queue and without a result, before it counts as dead: files come late
MINUTES = (
    10.0  # before its limit a job is asked for a checkpoint so many seconds times 60, a tenth of the limit at most
)
CARDS = ("gres", "gpus", "gpus-per-node")  # options of sbatch that a cluster may want said in another way
LOST = "ended without a word: killed, out of memory, cancelled, or its node is gone"


@dataclass(frozen=True)
class Resumed(Command):
    """A command that submitit ends before its time is over, and runs again."""

    _process: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False)  # that runs

    def start(self, log: int) -> subprocess.Popen[bytes]:
        self._process.append(super().start(log))
        return self._process[-1]

    def checkpoint(self) -> Any:
        """Let the command write a checkpoint and end, and return what runs next: the same."""
        from submitit.helpers import DelayedSubmission

        for process in self._process:
            process.send_signal(SIGUSR2)
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                time.sleep(0.1)  # the wait of the interrupted call holds the lock of this process's end
        return DelayedSubmission(replace(self, _process=[]))


class Slurm:
    """The jobs of one study in the queues of Slurm."""

    by = "slurm"

    def __init__(self, cluster: Cluster, name: str, ledger: Ledger, executor: str = "slurm") -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing_extra("slurm", error) from error
        self.cluster, self.name, self.ledger, self.executor = cluster, name, ledger, executor
        self._submitit: Any = submitit

    def alive(self) -> dict[str, str]:
        given = self.ledger.read("slurm")
        states = self.states({each.job for each in given.values()}) if given else {}
        return {name: states[each.job] for name, each in given.items() if each.job in states}

    def states(self, jobs: set[str]) -> dict[str, str]:
        """Return those of jobs that run or wait, and what they are at. Raises UserError where Slurm does not answer."""
        lines = _said_by(["squeue", "--noheader", "--array", "--me", "--format", "%i|%T|%r"]).splitlines()
        return {job: _state(state, reason) for job, state, reason in (each.split("|") for each in lines) if job in jobs}

    def submit(self, tasks: Sequence[Task]) -> None:
        arrays: dict[tuple[Any, ...], list[Task]] = defaultdict(list)
        for task in tasks:
            arrays[task.stage, task.needs, task.after].append(task)
        most, taken = self._array_size() if tasks else 0, []
        try:
            for (_, needs, after), members in arrays.items():  # trainings stand before what waits for them
                jobs = {name: each.job for name, each in self.ledger.read("slurm").items()}
                for i in range(0, len(members), most):
                    given = self._submit(members[i : i + most], needs, [jobs[name] for name in after if name in jobs])
                    taken += given
                    self.ledger.add(given)
        except UserError:
            self._cancel(taken)
            raise

    def _array_size(self) -> int:
        if self.executor != "slurm":
            return 1000
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", _said_by(["scontrol", "show", "config"]))
        return max(1, int(found[1]) - 1) if found else 1000

    def _submit(self, tasks: list[Task], needs: Needs, after: list[str]) -> list[GivenTask]:
        folder = self.ledger.folder / f"{now().replace(':', '')}-{tasks[0].name}"
        executor = self._submitit.AutoExecutor(folder / "%j", cluster=self.executor, slurm_max_num_timeout=needs.ends)
        executor.update_parameters(**self._parameters(needs, tasks[0].stage, after))
        commands = [Resumed(task.words, self.ledger.log(task.name), needs.cpus) for task in tasks]
        try:
            with executor.batch():
                jobs = [executor.submit(command) for command in commands]
        except (self._submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            raise UserError(f"Slurm refuses {_asked(needs, self.cluster)}: {_reason(error)}") from error
        return [
            GivenTask(task=task, job=job.job_id, folder=str(folder), by="slurm")
            for task, job in zip(tasks, jobs, strict=True)
        ]

    def _parameters(self, needs: Needs, stage: str, after: list[str]) -> dict[str, Any]:
        cluster = self.cluster
        given = {key: value for key, value in cluster.sbatch.items() if needs.gpus or key not in CARDS}
        more: dict[str, Any] = {"requeue": True, **given}
        if after:
            more |= {"dependency": f"afterany:{':'.join(after)}"}
        if needs.gpus and not set(CARDS) & given.keys():
            more |= {"gres": f"gpu:{needs.gpus}"}
        found = {
            "name": f"oodbench-{self.name}-{stage}",
            "timeout_min": -(-needs.seconds // 60),
            "cpus_per_task": needs.cpus,
            "mem_gb": needs.memory / 10**9,
            "slurm_array_parallelism": cluster.at_most,
            "slurm_signal_delay_s": int(min(60 * MINUTES, needs.seconds / 10)),
            "slurm_srun_args": [f"--cpus-per-task={needs.cpus}"],  # from 22.05 on a step does not have the job's
            "slurm_setup": list(cluster.setup) or None,
            "slurm_partition": cluster.partition,
            "slurm_account": cluster.account,
            "slurm_additional_parameters": more,
        }
        return {name: value for name, value in found.items() if value is not None}

    def ended(self, waiting: set[str]) -> Iterator[Ended]:
        absent: dict[str, int] = defaultdict(int)
        given: dict[str, GivenTask] = {}  # what another process drops is still heard of
        while waiting:
            given |= self.ledger.read("slurm")
            states = self._patient_states({each.job for name, each in given.items() if name in waiting})
            for name in sorted(waiting):
                found = self._result(given[name]) if name in given else LOST
                if found is None and given[name].job not in states:
                    absent[name] += 1
                    found = LOST if absent[name] > ABSENT else None
                if found is not None:
                    waiting.discard(name)
                    absent.pop(name, None)
                    self.ledger.drop(name)
                    yield Ended(name, found, str(self.ledger.log(name)))
            if waiting:
                time.sleep(POLL)

    def _patient_states(self, jobs: set[str]) -> dict[str, str]:
        """Return the states of jobs; while Slurm does not answer, as where its controller starts anew, wait."""
        while True:
            try:
                return self.states(jobs)
            except UserError:
                time.sleep(POLL)

    def _result(self, given: GivenTask) -> str | None:
        """Return how a job ended, or None where it has not said so."""
        paths = self._submitit.core.utils.JobPaths(Path(given.folder) / "%j", job_id=given.job, task_id=0)
        if not paths.result_pickle.exists():
            return None
        state, found = self._submitit.core.utils.pickle_load(paths.result_pickle)  # of submitit's own making
        return str(found) if state == "success" else f"failed: {_last_line(found)}; see {paths.stderr}, too"

    def cancel(self) -> int:
        alive, given = self.alive(), self.ledger.read("slurm")
        self._cancel([given[name] for name in alive])
        return len(alive)

    def close(self) -> None:
        """Nothing is open."""

    def _cancel(self, given: Sequence[GivenTask]) -> None:
        if given:
            _said_by(["scancel", *(each.job for each in given)])
        for each in given:
            self.ledger.drop(each.task.name)


def _said_by(words: list[str]) -> str:
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError as error:
        raise UserError(f"there is no {words[0]} here: this is no machine of a Slurm cluster") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{words[0]} does not answer") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"{words[0]}: {_last_line(error.stderr)}") from error


def _state(state: str, reason: str) -> str:
    plain = state.lower().replace("_", " ")
    return f"{plain} ({reason})" if state == "PENDING" and reason not in ("None", "Dependency") else plain


def _asked(needs: Needs, cluster: Cluster) -> str:
    parts = [f"{needs.gpus} GPUs"] * (needs.gpus > 0) + [f"{needs.cpus} CPU cores", f"{needs.memory / 10**9:.3g} GB"]
    where = f" in partition {cluster.partition}" if cluster.partition else ""
    return f"a job of {', '.join(parts)} and {needs.seconds // 60} minutes{where}"


def _reason(error: Exception) -> str:
    text = str(getattr(error, "output", None) or getattr(error, "stderr", None) or error)
    lines = [line.partition("error: ")[2] or line for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-2:]))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
