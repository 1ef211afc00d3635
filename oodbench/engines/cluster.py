"""Where a study runs: a cluster's file, and the engine for it. No key knows of it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import AfterValidator, ByteSize, TypeAdapter, ValidationError

from oodbench.engines.seam import Engine, Ledger
from oodbench.errors import UserError, suggestion
from oodbench.store.artifacts import digest
from oodbench.study.document import Document, read
from oodbench.study.values import Values

VARIABLE = "OODBENCH_CLUSTER"
HOME = Path("~/.config/oodbench/cluster.yaml")
ENGINES = ("local", "slurm", "dask")
AUTO: Literal["auto"] = "auto"
UNITS = {"min": 60, "h": 3600, "d": 86400}


def seconds(time: str) -> int:
    """Return what a time such as 30min, 4h or 2d is in seconds."""
    if not (found := re.fullmatch(r"(\d+)(min|h|d)", time)):
        raise ValueError("wanted is auto, or a time such as 30min, 4h or 2d")
    return int(found[1]) * UNITS[found[2]]


def number_of_bytes(memory: str) -> int:
    """Return what a size such as 500MB or 16GB is in bytes."""
    try:
        return int(TypeAdapter(ByteSize).validate_python(memory))
    except ValidationError:
        raise ValueError("wanted is auto, or a size such as 500MB or 16GB") from None


def _time(text: str) -> str:
    if text != AUTO:
        seconds(text)
    return text


def _size(text: str) -> str:
    if text != AUTO:
        number_of_bytes(text)
    return text


Time = Annotated[str, AfterValidator(_time)]
Size = Annotated[str, AfterValidator(_size)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class TrainingJob:
    """What a job that trains and embeds one encoder asks for."""

    gpus: Natural | Literal["auto"] = AUTO  # as many as its recipe has devices
    cpus: Count = 4
    memory: Size = AUTO  # images, model and features, and 4 GB
    time: Time = AUTO  # half as much again as was measured, and ten minutes; else the most that a job may take


@dataclass(frozen=True)
class ScoringJob:
    """What a job that scores some encoders asks for."""

    gpus: Natural = 0
    cpus: Count = 4
    memory: Size = AUTO
    time: Time = AUTO
    batch: Count = 20  # encoders


@dataclass(frozen=True)
class Cluster:
    """Where a study runs."""

    on: Literal["local", "slurm", "dask"] = "local"
    partition: str | None = None  # of Slurm
    account: str | None = None
    address: str | None = None  # of dask's scheduler
    shared: bool = True  # False: hosts see no file of each other's; a job does all of a training, and sends rows back
    at_most: Count = 32  # jobs of an array at once
    setup: tuple[str, ...] = ()  # shell commands before a job
    sbatch: dict[str, str | int | bool] = field(default_factory=dict)  # whatever else sbatch takes
    train: TrainingJob = TrainingJob()
    score: ScoringJob = ScoringJob()
    retries: Natural = 2  # of jobs that died; a training that diverged is rows and is not tried again

    @property
    def kind(self) -> str:
        """What decides how long a step takes there."""
        return digest([self.on, self.partition, self.address, self.sbatch, self.train.cpus, self.train.gpus])


def load(file: Path | None, flags: dict[str, Any]) -> Cluster:
    """Return a cluster by its file, else by $OODBENCH_CLUSTER, else by the user's own; flags that are given win."""
    named = file or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None and not named.is_file():
        raise UserError(f"there is no cluster file {named}, which {'--cluster' if file else VARIABLE} names")
    where = named or (HOME.expanduser() if HOME.expanduser().is_file() else None)
    document = read(where) if where else Document(Path("the command line"), {})
    values, names = Values(document), [each.name for each in dataclasses.fields(Cluster)]
    for key in document.value:
        if key not in names:
            document.fail((key,), f"there is no such key{suggestion(key, names)}")
    on = flags.get("on")
    if on and on not in ENGINES:
        raise UserError(f"--on {on}: there is no such engine{suggestion(on, ENGINES)}")
    if time := flags.pop("time", None):
        try:
            _time(time)
        except ValueError as error:
            raise UserError(f"--time {time}: {error}") from None
    said = {name: value for name, value in flags.items() if value not in (None, "")}
    cluster = dataclasses.replace(values.one(Cluster, document.value, ()), **said)
    if cluster.on == "slurm" and not cluster.shared:
        how = "whose folder, results/STUDY/jobs, every node has to see; share it, or run on dask"
        raise UserError(f"shared: false: jobs of Slurm are given and heard of by submitit, {how}")
    return dataclasses.replace(cluster, train=dataclasses.replace(cluster.train, time=time)) if time else cluster


@contextmanager
def engine(cluster: Cluster, name: str, results: Path, files: bytes = b"") -> Iterator[Engine]:
    """Give the engine of a cluster for a study of this name, whose files travel in a parcel if one is given.

    Raises UserError where its library is not installed.
    """
    found: Engine
    if cluster.on == "slurm":
        from oodbench.engines.slurm import Slurm

        found = Slurm(cluster, name, Ledger(results))
    else:
        from oodbench.engines.dask import Dask

        found = Dask(cluster, name, Ledger(results), files)
    try:
        yield found
    finally:
        found.close()


def missing_extra(extra: str, error: ImportError) -> UserError:
    """Return what is said where the library of an engine is not installed."""
    return UserError(f"--on {extra} needs {error.name}: pip install 'oodbench[{extra}]'")
