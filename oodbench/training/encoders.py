"""The trained encoders of a study, each trained once and remembered, and the images that they see."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodbench.api import Dataset, Shifts, Training
from oodbench.data import prepare
from oodbench.data.library import Library
from oodbench.errors import UserError
from oodbench.store.artifacts import Artifact, digest, written
from oodbench.store.memo import NUMBER
from oodbench.store.provenance import commit, libraries, machine, now, version
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import Run, canonical, resolved
from oodbench.study.settings import Precision
from oodbench.toolkit.seeds import seed_of
from oodbench.training import batches, distributed, graphs, networks, train, weights
from oodbench.training.checkpoints import Checkpoints, Pace

ROOM = 0.5  # share of a CUDA device's free memory that the images of a set may take
WEIGHTS = "weights.safetensors"
SPLITS = 8  # that are held: the seeds of a study
Indices = NDArray[np.int64]


class _Ready(NamedTuple):
    training: Training
    model: networks.Trained
    data: batches.TrainingData


@dataclass(frozen=True)
class _Kept(train.EachEpoch):
    """Offers each step's progress as a checkpoint."""

    checkpoints: Checkpoints
    hear_terms: Callable[[dict[str, float]], None]

    def terms(self, means: dict[str, float]) -> None:
        self.hear_terms(means)

    def step(self, progress: Callable[[], train.Progress]) -> None:
        self.checkpoints.offer_step(progress)


class Encoders:
    """The encoders of a study on a device.

    `checkpoints`: when those of a training are due. `graph`: capture CUDA graphs where they can be. `auto`: what
    `precision: auto` is; None = what is best on the device.
    """

    def __init__(
        self,
        library: Library,
        device: torch.device,
        checkpoints: Pace,
        graph: bool = True,
        auto: Precision | None = None,
    ) -> None:
        self.library = library
        self.memo = library.memo
        self.device = device
        self.checkpoints = checkpoints
        self.graph = graph
        self.auto = auto
        self.trainings = 0  # encoders that have been trained here
        self._train_keys: dict[str, str] = {}
        self._splits: dict[tuple[str, float, int], tuple[Indices, Indices]] = {}  # the last ones
        self._sizes: dict[str, int] = {}  # what was asked of a network, written -> the answer
        self._on_host: set[str] = set()  # contents of sets that did not fit on the device
        self._model: tuple[str, networks.Trained] | None = None  # the last one used, by its key

    def train_fields(self, run: Run) -> dict[str, Any]:
        id_ = self.library.prepared(run.id, "train")
        module = run.encoder.module
        return {
            "number": NUMBER["train"],
            "id": id_.content,
            "outliers": self.library.prepared(run.outliers, "train").content if run.outliers else None,
            "training": self._training_fields(run, len(id_.classes)),
            "source": self.library.study.registry.fingerprint("training", run.training.name),
            "encoder": asdict(run.encoder),
            "encoder_source": fingerprint_module(module) if module else None,
            "recipe": run.recipe.canonical,
            "image": run.image.canonical,
            "reference": run.reference.training,
            "precision": self.precision(run),
            "seed": run.seed,
            **({} if run.epoch is None else {"epoch": run.epoch}),
            **({} if run.training.shifts == Shifts() else {"turned": "last"}),  # once before the flip
        }

    def _training_fields(self, run: Run, classes: int) -> dict[str, Any]:
        """Return a training's parameters, with the content of its weights rather than where they are."""
        fields = canonical(resolved(run.training, classes)) or {}
        return fields if run.training.weights is None else fields | {"weights": self._weights(run).content()}

    def _weights(self, run: Run) -> weights.WeightsSource:
        return weights.source(run.training, run.encoder, run.image.channels, self.library.study.file.parent)

    def check_weights(self, run: Run) -> None:
        """Raise UserError where a run's weights do not fit its network; downloads nothing."""
        if run.training.weights is None:
            return
        where = (run.encoder, run.image.channels, self.library.study.file.parent)
        with torch.device("meta"):
            weights.check(run.training, *where, self._blank(run).network.state_dict())

    def _blank(self, run: Run, seed: int = 0) -> networks.Trained:
        classes = len(self.library.prepared(run.id, "train").classes)
        training = resolved(run.training, classes)
        return networks.blank(training, run.encoder, run.image, classes, seed, self.precision(run))

    def train_key(self, run: Run) -> str:
        if run.named not in self._train_keys:
            self._train_keys[run.named] = digest(self.train_fields(run))
        return self._train_keys[run.named]

    def feature_dim(self, run: Run) -> int:
        """Return the number of penultimate features of a run's network; of those alike one is looked at."""
        asked = written(["features", asdict(run.encoder), run.image.canonical])
        if asked not in self._sizes:
            self._sizes[asked] = networks.feature_dim(run.encoder, run.image)
        return self._sizes[asked]

    def weights_bytes(self, run: Run) -> int:
        """Return the bytes of a run's trained network; of those alike one is looked at."""
        classes = len(self.library.prepared(run.id, "train").classes)
        asked = written(["weights", asdict(run.encoder), run.image.canonical, run.training.heads, classes])
        if asked not in self._sizes:
            with torch.device("meta"):
                network = networks.build(run.encoder, run.training.heads, run.image, classes)
            self._sizes[asked] = sum(each.numel() * each.element_size() for each in network.state_dict().values())
        return self._sizes[asked]

    def precision(self, run: Run) -> Precision:
        """Return the precision of a run with `auto` resolved: bf16 where the device has units for it, else float32."""
        return self.auto_precision if run.precision == "auto" else run.precision

    @property
    def auto_precision(self) -> Precision:
        """What `precision: auto` is."""
        if self.auto is not None:
            return self.auto
        return "bf16" if has_bf16(self.device) else "float32"

    def has_weights(self, run: Run) -> bool:
        """Return whether a training seems to be in the store."""
        return self.memo.store.has("train", self.train_key(run))

    def kept(self, run: Run) -> list[Run]:
        """Return a run at each epoch that the study keeps of it before the last."""
        if run.training.weights is not None:
            return []
        return [replace(run, epoch=each) for each in self.library.study.keep if each < run.recipe.epochs]

    def course(self, run: Run) -> list[Run]:
        """Return a run at each epoch that the study keeps of it, the last one being the run itself."""
        return [*self.kept(run), run]

    def unkept(self, run: Run) -> list[Run]:
        """Return a run at each kept epoch that is not in the store although its training is: `keep` came later."""
        return [each for each in self.kept(run) if self.has_weights(run) and not self.has_weights(each)]

    def trained(self, run: Run) -> Artifact:
        """Return the weights of a training. Raises LookupError where those of an epoch were not kept."""
        if run.epoch is not None:
            found = self.memo.store.read("train", self.train_key(run))
            if found is None:
                raise LookupError(f"the weights of {run.title} are not in {self.memo.store.root}")
            return found
        checkpoints, before = self._checkpoints(run), self.trainings
        artifact = self.memo.remembered(
            "train", self.train_fields(run), lambda folder: self._train(run, folder), run.title
        )
        if self.trainings > before:
            checkpoints.clear()
        return artifact

    def _checkpoints(self, run: Run) -> Checkpoints:
        return Checkpoints(self.memo.store, self.train_fields(run), *self.checkpoints)

    def _load(self, run: Run, folder: Path) -> dict[str, Any]:
        """Make the artifact of a training whose weights are loaded."""
        start = time.perf_counter()
        model = self._blank(run, run.seed)
        network, where = model.network, (run.encoder, run.image.channels, self.library.study.file.parent)
        found = weights.load(run.training, *where, network.state_dict())
        network.load_state_dict(found.state)
        networks.normalise(model, torch.tensor(found.mean), torch.tensor(found.std))
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
        seconds = round(time.perf_counter() - start, 3)
        return {"title": run.title, "losses": [], "seconds": seconds, **found.facts, **self._circumstances()}

    def _circumstances(self) -> dict[str, Any]:
        return {
            "device": str(self.device),
            "machine": machine(str(self.device)),
            "version": version(),
            "commit": commit(),
            "libraries": libraries(),
            "trained_at": now(),
        }

    def _train(self, run: Run, folder: Path) -> dict[str, Any]:
        if run.training.weights is not None:
            return self._load(run, folder)
        checkpoints = self._checkpoints(run)
        if self.memo.redo == "train":
            checkpoints.clear()
            for each in self.kept(run):
                self.memo.store.remove("train", self.train_key(each))
        done = checkpoints.latest()
        training, model, seen = self._ready(run)
        losses, terms = (list(done.losses), list(done.terms)) if done else ([], [])
        kept = {each.epoch: each for each in self.kept(run)}

        def save(at: Run, weights: Callable[[], dict[str, Tensor]], folder: Path) -> dict[str, Any]:
            save_file({name: value.cpu().contiguous() for name, value in weights().items()}, folder / WEIGHTS)
            facts = {"title": at.title, "losses": losses[: at.epoch], "seconds": round(checkpoints.seconds, 3)}
            facts |= {"terms": terms[: at.epoch]} if any(terms) else {}
            how = {"images": len(seen.x), "resumed_at_epoch": done.epochs if done else 0}
            how |= {"resumed_at_step": done.steps} if done and done.steps else {}
            how["graph"] = isinstance(seen.world, graphs.Card) and seen.world.captured
            return facts | how | self._circumstances()

        def keep(epochs: int, weights: Callable[[], dict[str, Tensor]]) -> None:
            at = kept.get(epochs)
            if at and self.memo.store.read("train", self.train_key(at)) is None:  # else it was kept before a kill
                self.memo.store.write("train", self.train_key(at), self.train_fields(at), partial(save, at, weights))

        def before_epoch(means: dict[str, float]) -> None:
            terms.append(means)
            if means:
                self.memo.watch.terms(means)

        def after_epoch(epoch: int, loss: float, progress: Callable[[], train.Progress]) -> None:
            self.memo.watch.epoch(epoch, run.recipe.epochs, loss)
            losses.append(loss)
            # before a checkpoint, so that whoever goes on from it misses none
            keep(epoch + 1, lambda: train.weights_of(progress()))
            checkpoints.offer(epoch + 1, progress)

        self.memo.watch.training(run.recipe.epochs, len(losses), len(seen.x))
        keep(0, model.state_dict)
        watch = _Kept(after_epoch, checkpoints, before_epoch)
        with checkpoints.wanted():
            if run.recipe.devices > 1:
                distributed.train(model, self._job(run, training, seen.classes), seen, watch, done)
            else:
                train.train(model, training, run.recipe, self.precision(run), seen, run.seed, watch, done)
                seen.world.release()
        self.trainings += 1
        return save(run, model.state_dict, folder)

    def _job(self, run: Run, training: Training, classes: int) -> distributed.Job:
        return distributed.Job(
            source=self.library.study.registry.source("training", training.name),
            params=training.params,
            encoder=run.encoder,
            image=run.image,
            classes=classes,
            recipe=run.recipe,
            precision=self.precision(run),
            seed=run.seed,
            device=self.device,
        )

    def _ready(self, run: Run) -> _Ready:
        """Return a run's training, its data and its network before the first step.

        They are on the device; on the CPU where several devices wait for them.
        """
        id_ = self.library.prepared(run.id, "train")
        if run.recipe.devices > 1:
            for each in (run.id, run.outliers):
                self._check_shared(each)
        fit, _ = self.split(run)
        device = self.device if run.recipe.devices == 1 else torch.device("cpu")
        graph = self.graph and graphs.wanted(run.recipe, run.encoder, device)
        seen = batches.TrainingData(
            x=self.images(run.id, id_, fit, device),
            y=torch.from_numpy(id_.y[fit]).to(device),
            classes=len(id_.classes),
            outliers=self._outliers(run.outliers, device) if run.outliers else None,
            world=graphs.Card(self.memo.watch.warn) if graph else batches.ALONE,
        )
        training = resolved(run.training, seen.classes)
        model = networks.untrained(training, run.encoder, run.recipe, run.image, seen, run.seed, self.precision(run))
        return _Ready(training, model, seen)

    def _check_shared(self, dataset: Dataset | None) -> None:
        """Raise UserError where several devices cannot each hold a set's training images."""
        if dataset is None:
            return
        x = self.library.prepared(dataset, "train").x
        where = (
            "the disk" if isinstance(x, prepare.LazyImages) else "each device" if x.nbytes > room(self.device) else ""
        )
        if where:
            raise UserError(f"{dataset.label} does not fit on {where}, as a training on several devices needs")

    def split(self, run: Run) -> tuple[Indices, Indices]:
        """Return the positions in ID train that train and fit, and those held out of it for thresholds."""
        id_ = self.library.prepared(run.id, "train")
        if run.reference.kind != "val":
            return np.arange(len(id_.y)), np.arange(0)
        asked = (id_.content, run.reference.share, run.seed)
        if asked not in self._splits:
            found = prepare.held_out_split(id_.y, run.reference.share, seed_of(run.seed, "reference"))
            self._splits = {**dict([*self._splits.items()][1 - SPLITS :]), asked: found}
        return self._splits[asked]

    def _outliers(self, dataset: Dataset, device: torch.device) -> batches.Images:
        prepared = self.library.prepared(dataset, "train")
        return self.images(dataset, prepared, np.arange(len(prepared.x)), device)

    def images(self, dataset: Dataset, prepared: prepare.Prepared, at: Indices, device: torch.device) -> batches.Images:
        """Return images of a set on a device, channels last in memory, or where they do not fit, on the host."""
        if isinstance(prepared.x, prepare.LazyImages):  # too large for the disk
            return batches.HostImages(prepared.x, at, device)
        size = prepared.x[:1].nbytes * len(at)
        if size <= room(device):
            return torch.from_numpy(np.array(prepared.x[at])).to(device).permute(0, 3, 1, 2)
        if prepared.content not in self._on_host:
            self._on_host.add(prepared.content)
            what = f"the {size / 1e9:.2g} GB of {dataset.label} are more than {ROOM:.0%} of the device's free memory"
            self.memo.watch.warn(f"{what}; they stay in host memory, and batches are copied")
        return batches.HostImages(prepared.x, at, device)

    def model(self, run: Run) -> networks.Trained:
        """Return the trained network of a run."""
        key = self.train_key(run)
        if self._model is None or self._model[0] != key:
            model = self._blank(run)
            model.load_state_dict(load_file(self.trained(run).file(WEIGHTS)))
            self._model = (key, model.to(self.device).eval())
        return self._model[1]


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has units for bf16: elsewhere torch emulates it, which is slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def room(device: torch.device) -> float:
    """Return how many bytes the images of a set may take on a device; on the CPU, where they are, any number."""
    return ROOM * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
