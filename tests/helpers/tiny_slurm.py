"""A real Slurm of one node in one folder, as root, with neither systemd, cgroups nor accounting; two fake cards."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CONF = """\
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=120 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
WANTED = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
STARTS = 30  # seconds
LOG = 20_000  # letters of what the controller says


def lacking() -> str:
    """Return why there can be no Slurm here, or ""."""
    absent = [name for name in WANTED if not shutil.which(name, path=_path())]
    if absent:
        return f"needs Slurm, and there is no {', '.join(absent)}; make slurm installs it from Debian's archive"
    return "" if os.geteuid() == 0 else "needs to be root: its daemons start jobs as other users"


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class TinySlurm:
    """A Slurm that runs."""

    host: str
    variables: dict[str, str]  # with which its commands find it

    def say(self, *words: object) -> str:
        """Return what one of its commands prints."""
        command = list(map(str, words))
        done = subprocess.run(command, env=os.environ | self.variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that has not ended, by its number."""
        lines = self.say("squeue", "--noheader", "--array", "--format", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def has_begun(self, job: str) -> bool:
        """Return whether a job that was requeued runs again, and see to that.

        It is held for two minutes; for ever, and its node drained, where that had not forgotten the job's first copy.
        """
        if self.jobs().get(job) != "PENDING":
            return True
        self.mend()
        with suppress(AssertionError):  # it has begun meanwhile
            self.say("scontrol", "release", job)
            self.say("scontrol", "update", f"JobId={job}", "StartTime=now")
        return False

    def fail_node(self) -> None:
        """Let its node be down, as one that does not answer, which requeues what runs on it."""
        self.say("scontrol", "update", f"NodeName={self.host}", "State=DOWN", "Reason=test")

    def mend(self) -> None:
        """Have its node take jobs again. One that registers anew is back by itself."""
        deadline = time.monotonic() + STARTS
        while set(self.say("sinfo", "--noheader", "--format", "%t").split()) & {"down", "down*", "drain", "drng"}:
            assert time.monotonic() < deadline
            with suppress(AssertionError):
                self.say("scontrol", "update", f"NodeName={self.host}", "State=RESUME")
            time.sleep(0.2)


@contextmanager
def slurm(folder: Path) -> Iterator[TinySlurm]:
    """Start it, and end its daemons and whatever its jobs left, whatever happens meanwhile."""
    for name in ("state", "spool", "run", "log"):
        (folder / name).mkdir(parents=True)
    host = platform.node().partition(".")[0]
    cards = [folder / f"gpu{i}" for i in range(2)]
    for each in cards:  # only for devices that are ones does Slurm set CUDA_VISIBLE_DEVICES
        os.mknod(each, 0o666 | 0o020000, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu Type=fake File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder, ports=_free_ports()))
    key, munge = folder / "munge.key", folder / "run" / "munge"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    made = TinySlurm(host, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()})
    files = [f"--{name}={value}" for name, value in (("key-file", key), ("socket", f"{munge}.socket"))]
    files += [f"--pid-file={munge}d.pid", f"--log-file={folder}/log/munged.log", f"--seed-file={munge}.seed"]
    pids = [folder / "run" / f"{name}.pid" for name in ("slurmd", "slurmctld", "munged")]
    # where this process is killed, a shell that holds the other end of a pipe ends the daemons
    last = "; ".join(["read _", *(f'[ -s "{each}" ] && kill $(cat "{each}")' for each in pids)])
    words = ["sh", "-c", last]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        made.say("munged", "--force", *files)
        made.say("slurmctld", "-c")
        made.say("slurmd")
        deadline = time.monotonic() + STARTS
        while set(made.say("sinfo", "--noheader", "--format", "%t").split()) != {"idle"}:
            assert time.monotonic() < deadline, (folder / "log" / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)
        yield made
    finally:
        with suppress(AssertionError):
            made.say("scancel", "--full", "--signal=KILL", "--state=RUNNING", "--user=root")
        sys.stdout.write((folder / "log" / "slurmctld.log").read_text()[-LOG:])  # pytest shows it where a test fails
        for each in pids:
            _end(each)
        guard.communicate()


def _end(file: Path) -> None:
    """End the daemon whose process number a file has."""
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


def _free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(2)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
