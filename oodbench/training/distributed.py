"""A training in several processes, one a CUDA device or several on the CPU, under torch's distributed data parallel.

Each process passes its part of every batch through the network; features, heads and batch norm are those of the whole
batch, and every process computes the whole loss, so that a training sees no difference. Augmentation is drawn as in
one process; dropout is not, as each process draws its own. The processes are started here and end with the training.
On the CPU they share the threads of this process. What they are given and hand back are safetensors.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm  # what torch's module of that name calls
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from oodbench.api import State, Training
from oodbench.errors import UserError
from oodbench.study import registry
from oodbench.study.settings import Encoder, ImageFormat, Precision, Recipe
from oodbench.training import networks
from oodbench.training.batches import Part, TrainingData, World
from oodbench.training.train import DivergedError, Listening, Progress, under
from oodbench.training.train import train as train_here

PATIENCE = timedelta(days=7)  # of processes for the first, which may cluster; a dead one is noticed by the parent
OFFERED = 10.0  # seconds between two steps at which the first process asks whether its progress is wanted


class RankError(Exception):
    """One of the processes of a training failed."""


def check(recipe: Recipe, items: int, device: torch.device) -> None:
    """Raise UserError where so many training items or this machine's devices cannot be shared as a recipe asks."""
    wanted = recipe.devices
    if wanted == 1:
        return
    if items < recipe.batch and items % wanted:
        raise UserError(f"the {items} training images are one batch, which {wanted} devices cannot share evenly")
    if device.type == "cuda" and device.index is not None:
        raise UserError(f"{wanted} devices are asked for, and --device {device} is one; give --device cuda")
    if device.type == "cuda" and wanted > torch.cuda.device_count():
        raise UserError(f"{wanted} devices are asked for, this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cuda", "cpu"):
        raise UserError(f"{wanted} devices are asked for, which can be CUDA devices or processes on the CPU")


def reproducible() -> None:
    """Let float32 mean float32 (no TF32), and convolutions give the same numbers twice, in this process."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


# ---- the parent -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a training is, but for its tensors: all that a new process needs to build it again."""

    source: registry.PluginFile  # of the training
    params: dict[str, Any]
    encoder: Encoder
    image: ImageFormat
    classes: int
    recipe: Recipe
    precision: Precision
    seed: int
    device: torch.device  # `cuda` for all of them, or the CPU
    offered: float = field(default_factory=lambda: OFFERED)


class _Epoch(NamedTuple):
    """An epoch is over; answered with whether the progress is wanted."""

    epoch: int
    loss: float
    terms: dict[str, float]


class _Step(NamedTuple):
    """A step is done that is no epoch's last; answered with whether the progress is wanted."""


class _Failed(NamedTuple):
    kind: str
    message: str


class _Sent(NamedTuple):
    """A progress that was asked for, or the weights at the end."""

    epochs: int
    losses: list[float]
    tensors: bytes
    steps: int
    terms: tuple[dict[str, float], ...]

    @classmethod
    def of(cls, progress: Progress) -> _Sent:
        epochs, losses, tensors, steps, terms = progress
        packed = safetensors.torch.save({k: t.cpu().contiguous() for k, t in tensors.items()})
        return cls(epochs, losses, packed, steps, terms)

    def unpacked(self) -> Progress:
        return Progress(self.epochs, self.losses, safetensors.torch.load(self.tensors), self.steps, self.terms)


def train(
    model: networks.Trained, job: Job, data: TrainingData, watch: Listening, done: Progress | None = None
) -> list[float]:
    """Train a model in place, as `train` of one process does, in `job.recipe.devices` new processes.

    Raises what a process raised: DivergedError, UserError, else RankError with its message.
    """
    check(job.recipe, len(data.x), job.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        safetensors.torch.save_file(_handed(model, data, done), folder / "given.safetensors")
        begun = done._replace(tensors={}) if done else None
        with _quiet_start():
            ranks = [_Rank(job, rank, begun, folder) for rank in range(job.recipe.devices)]
        try:
            finished = _attended(ranks, watch)
        finally:
            for rank in ranks:
                rank.end()
    model.load_state_dict(finished.tensors)
    model.eval()
    return finished.losses


def _handed(model: networks.Trained, data: TrainingData, done: Progress | None) -> dict[str, Tensor]:
    """Return all tensors that the processes start from, by name."""
    images = {"x": data.x} | ({} if data.outliers is None else {"outliers": data.outliers})
    tensors = {name: cast(Tensor, x) for name, x in images.items()} | {"y": data.y}  # the parent's are on the CPU
    tensors |= {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"done/{name}": value for name, value in (done.tensors if done else {}).items()}
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Let processes start without torch's warning, at every training, that all parameters turned out to be used."""
    name, before = "TORCH_CPP_LOG_LEVEL", os.environ.get("TORCH_CPP_LOG_LEVEL")
    os.environ[name] = before or "ERROR"  # read when a process loads torch
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


class _Rank:
    """One of the processes, as the parent sees it."""

    def __init__(self, job: Job, rank: int, done: Progress | None, folder: Path) -> None:
        context = get_context("spawn")  # a fork would share the parent's threads and its CUDA state
        self.number = rank
        self.line, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // job.recipe.devices)
        arguments = (job, rank, done, folder, threads, theirs)
        self.process: BaseProcess = context.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.line.close()

    def death(self) -> RankError:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        hint = "" if code < 0 else "; a script that runs a study does so under `if __name__ == '__main__':`"
        return RankError(f"process {self.number} of the training {how}{hint}")


def _attended(ranks: list[_Rank], watch: Listening) -> Progress:
    """Answer the processes until the first has finished, or one has failed."""
    lines = {rank.line: rank for rank in ranks}
    while True:
        for ready in connection.wait(list(lines)):
            rank = lines[cast(connection.Connection, ready)]
            try:
                message = rank.line.recv()
            except (EOFError, ConnectionResetError):
                raise rank.death() from None
            if isinstance(message, _Sent):
                return message.unpacked()
            if isinstance(message, _Failed):
                raise _cause(ranks, rank, message)
            progress: Callable[[], Progress] = partial(_asked, rank)
            if isinstance(message, _Step):
                watch.step(progress)
            else:
                watch.terms(message.terms)
                watch.epoch(message.epoch, message.loss, progress)
            rank.line.send(False)


def _asked(rank: _Rank) -> Progress:
    rank.line.send(True)
    found: Progress = rank.line.recv().unpacked()
    return found


def _cause(ranks: Sequence[_Rank], rank: _Rank, failed: _Failed) -> Exception:
    """Return what to raise. Where a process is gone, the failures of the others follow from that."""
    known = {"DivergedError": DivergedError, "UserError": UserError}
    if failed.kind in known:
        return known[failed.kind](failed.message)
    connection.wait([each.process.sentinel for each in ranks], timeout=1)
    for each in ranks:
        if not each.process.is_alive():
            return each.death()
    return RankError(f"process {rank.number} of the training: {failed.kind}: {failed.message}")


# ---- each process ---------------------------------------------------------------------------------------


def _run(job: Job, rank: int, done: Progress | None, folder: Path, threads: int, line: connection.Connection) -> None:
    """Train in this process and tell the parent, who ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to hear
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    torch.set_num_threads(threads)
    reproducible()
    try:
        message: _Sent | _Failed = _trained(job, rank, done, folder, line)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        message = _Failed(type(error).__name__, str(error))
    if rank == 0 or isinstance(message, _Failed):
        line.send(message)
    with suppress(EOFError):
        line.recv()  # until the parent ends it: the others would see a lost connection rather than the error


def _outlive_nobody() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _trained(job: Job, rank: int, done: Progress | None, folder: Path, line: connection.Connection) -> _Sent:
    device = torch.device("cuda", rank) if job.device.type == "cuda" else job.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group(backend, rendezvous, PATIENCE, job.recipe.devices, rank)
    given = safetensors.torch.load_file(folder / "given.safetensors")
    x = given["x"].to(device).contiguous(memory_format=torch.channels_last)
    outliers = given.get("outliers")
    if outliers is not None:
        outliers = outliers.to(device).contiguous(memory_format=torch.channels_last)
    data = TrainingData(x, given["y"].to(device), job.classes, outliers, Ranks(rank, job.recipe.devices, device))
    training = cast(type[Training], registry.load(job.source))(**job.params)
    model = networks.blank(training, job.encoder, job.image, job.classes, precision=job.precision)
    model.load_state_dict(under("model/", given))
    model.to(device)
    begun = done._replace(tensors=under("done/", given)) if done else None
    watch = _Telling(line, job.offered) if rank == 0 else Listening()
    losses = train_here(model, training, job.recipe, job.precision, data, job.seed, watch, begun)
    return _Sent.of(Progress(job.recipe.epochs, losses, model.state_dict()))


class _Telling(Listening):
    """Tells the parent."""

    def __init__(self, line: connection.Connection, offered: float) -> None:
        self._line, self._every, self._last = line, offered, time.monotonic()
        self._terms: dict[str, float] = {}

    def terms(self, means: dict[str, float]) -> None:
        self._terms = means

    def epoch(self, epoch: int, loss: float, progress: Callable[[], Progress]) -> None:
        self._tell(_Epoch(epoch, loss, self._terms), progress)

    def step(self, progress: Callable[[], Progress]) -> None:
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._tell(_Step(), progress)

    def _tell(self, message: _Epoch | _Step, progress: Callable[[], Progress]) -> None:
        self._line.send(message)
        while self._line.recv():
            self._line.send(_Sent.of(progress()))


# ---- what the processes share ---------------------------------------------------------------------------


class Ranks(World):
    """This process among several, each of which has the same weights and sees a part of each batch."""

    def __init__(self, rank: int, processes: int, device: torch.device) -> None:
        self.part = Part(rank, processes)
        self.device = device

    def parallel(self, step: nn.Module) -> Callable[..., tuple[Tensor, State]]:
        """Return a step under distributed data parallel and synchronised batch norm.

        A parameter that the loss does not depend on gets no gradient, as in one process. Buffers are the first
        process's; those of batch norm are the same everywhere.
        """
        parallel = DistributedDataParallel(step, find_unused_parameters=True)

        def run(*arguments: Any) -> tuple[Tensor, State]:
            with WholeBatchNorm():
                found: tuple[Tensor, State] = parallel(*arguments)
            return found

        return run

    def gathered(self, z: Tensor) -> Tensor:
        """Return the rows of all processes; every process computes the same loss of them, so its own need no others'.

        Their gradient is multiplied by the number of processes because distributed data parallel takes the mean over
        them where the gradient of one loss is the sum.
        """
        parts = [torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(self.part.of)]
        dist.all_gather(parts, z.detach().contiguous())
        parts[self.part.rank] = z
        together = torch.cat(parts, 1)
        if together.requires_grad:
            together.register_hook(lambda gradient: gradient * self.part.of)
        return together

    def from_first(self, make: Callable[[], State]) -> State:
        box = [{name: value.cpu() for name, value in make().items()} if self.part.rank == 0 else None]
        dist.broadcast_object_list(box, src=0)
        return {name: value.to(self.device) for name, value in (box[0] or {}).items()}


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of theirs, for what each makes of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Sum.apply(gradients[0])


class WholeBatchNorm(TorchFunctionMode):
    """Batch norm over the batches of all processes, whatever module calls it, while this is entered.

    No module is replaced, so that weights keep their names. On CUDA devices the arithmetic is that of
    torch.nn.SyncBatchNorm, which refuses tensors on the CPU and drops what a subclass of BatchNorm2d adds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what `torch.nn.functional.batch_norm` does, of this process's rows of a batch shared evenly."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if x.device.type == "cuda":
        return cast(
            Tensor,
            SyncBatchNorm.apply(
                x, weight, bias, running_mean, running_var, eps, momentum, dist.group.WORLD, dist.get_world_size()
            ),
        )
    dims, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    parts = wide.new_zeros(dist.get_world_size(), 2, x.shape[1])  # mean and variance of each process, then of all
    parts[dist.get_rank()] = torch.stack([wide.mean(dims), wide.var(dims, correction=0)])
    means, variances = cast(Tensor, _Sum.apply(parts)).unbind(1)
    mean = means.mean(0)
    var = (variances + (means - mean).square()).mean(0)
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * count / (count - 1), momentum)
    out = (wide - mean.view(shape)) * (var + eps).rsqrt().view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    return out.to(x.dtype)
