"""The pull chain over the stages: each step asks the one before and remembers the answer under a key.

A key is a hash of the fields that a stage and its ancestors read: parameters with defaults filled in, data
hashes, the code of the plugin and of our modules that it imports, and a number below, to be raised by
hand when the rest of a stage's arithmetic changes. The cache is the dependency graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodbench.api import ClassifierHead, Dataset, Shifts, Training
from oodbench.data import download, duplicates
from oodbench.data import prepare as data
from oodbench.errors import UserError, suggestion
from oodbench.scoring import detectors
from oodbench.scoring import probes as probing
from oodbench.store.artifacts import Artifact, Store
from oodbench.store.provenance import commit, libraries, now, version
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import LAYER_HEAD, Run, canonical, digest, has_shifted, resolved
from oodbench.study.settings import PLAIN, Precision, Seen
from oodbench.study.study import Study
from oodbench.toolkit.seeds import seed_of
from oodbench.training import batches, distributed, embed, networks, train, weights
from oodbench.training.checkpoints import Checkpoints

# Raise a number when the arithmetic of its stage changes; everything after it is then made again.
NUMBER = {"data": 1, "train": 1, "bank": 1, "probe": 2, "score": 2}
REDO = ("train", "bank", "score", "failed")
AFTER = {"train": ("train", "bank", "probe"), "bank": ("bank", "probe")}  # what is made again with a stage
ROOM = 0.5  # share of a CUDA device's free memory that the images of a set may take
DISK = 0.9  # share of the store's free disk that the images of a set may take
PROBE = "linear.safetensors"
WEIGHTS = "weights.safetensors"
Split = Literal["train", "test"]
Indices = NDArray[np.int64]


class Piece(NamedTuple):
    """A part of a set, embedded as it is seen: what a bank is made of."""

    dataset: Dataset
    split: Split
    part: Literal["fit", "val", "all"]  # of ID train: what trains and fits, or what is held out
    views: int
    crop: float | None = None


class Watch(Protocol):
    """Hears what a lab does."""

    def planned(self, runs: int, cells: int, done: int) -> None: ...
    def stage(self, what: str, title: str) -> None: ...
    def epoch(self, epoch: int, epochs: int, loss: float) -> None: ...
    def scored(self, cells: int, failed: int) -> None: ...
    def failed(self, title: str, message: str) -> None: ...
    def downloading(self, file: str, done: int, total: int | None) -> None: ...  # bytes
    def warn(self, message: str) -> None: ...


@dataclass(frozen=True)
class Options:
    """How to run a study; nothing here changes a number but the device."""

    device: str = "auto"
    redo: str = ""  # train | bank | score: make it and what follows again; failed: try error rows again
    cached_only: bool = False  # train nothing, score what is trained
    memory: int = detectors.MEMORY  # bytes that scoring may take beside mapped files
    checkpoint_minutes: float = 5.0  # between two checkpoints of a training; a killed one goes on at the last
    checkpoint_epochs: int | None = None  # the same in epochs; None = by the clock alone

    def __post_init__(self) -> None:
        if self.redo and self.redo not in REDO:
            raise UserError(f"redo {self.redo}: there is no such stage{suggestion(self.redo, REDO)}")
        if self.cached_only and self.redo in AFTER:
            raise UserError(f"redo {self.redo} makes encoders or features again, which cached only forbids; drop one")


class Silent:
    """A watch that says nothing."""

    def planned(self, runs: int, cells: int, done: int) -> None:
        return None

    def stage(self, what: str, title: str) -> None:
        return None

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        return None

    def scored(self, cells: int, failed: int) -> None:
        return None

    def failed(self, title: str, message: str) -> None:
        return None

    def downloading(self, file: str, done: int, total: int | None) -> None:
        return None

    def warn(self, message: str) -> None:
        return None


class _Ready(NamedTuple):
    training: Training
    model: networks.Trained
    data: batches.TrainingData


class Lab:
    """The artifacts of a study on a device."""

    def __init__(self, study: Study, options: Options, watch: Watch) -> None:
        self.study = study
        self.options = options
        self.watch = watch
        self.store = Store(study.store, watch.warn)
        self.device = pick_device(options.device)
        self.trainings = 0  # encoders that this lab has trained
        self._prepared: dict[tuple[str, Split], data.Prepared] = {}
        self._train_keys: dict[str, str] = {}
        self._on_host: set[str] = set()  # contents of sets that did not fit on the device
        self._made: set[str] = set()  # keys made or found by this lab: not to be made again under `redo`
        self._model: tuple[str, networks.Trained] | None = None  # the last one used, by its key

    # ---- data

    def data_fields(self, dataset: Dataset, split: Split) -> dict[str, Any]:
        files = [Path(file).stat() for file in dataset.files(split, self.study.data)]
        return {
            "number": NUMBER["data"],
            "dataset": canonical(dataset),
            "source": self.study.registry.fingerprint("dataset", dataset.name),
            "split": split,
            "image": self.study.settings.image.canonical,
            "files": [[file.st_size, file.st_mtime_ns] for file in files],
        }

    def prepared(self, dataset: Dataset, split: Split) -> data.Prepared:
        """Return a split of a set in the study's format. Raises UserError where its files are missing or damaged."""
        known = (str(canonical(dataset)), split)
        if split not in dataset.splits:
            uses = {"train": "ID set, outliers or validation OOD", "test": "ID set or OOD test set"}[split]
            raise UserError(f"data set {dataset.label}: it has no {split} images, and cannot be {uses}")
        if known not in self._prepared:
            try:
                with self.store.lock("fetch", dataset.name), download.shown(self.watch.downloading):
                    download.fetch_set(dataset, self.study.data)
                self._prepared[known] = self._prepare(dataset, split)
            except UserError:
                raise
            except (OSError, ValueError) as error:
                raise UserError(f"data set {dataset.label}: {error}") from error
            except Exception as error:  # a reader's own bug, or what its library raises on a damaged file
                raise UserError(f"data set {dataset.label}: {type(error).__name__}: {error}") from error
        return self._prepared[known]

    def _prepare(self, dataset: Dataset, split: Split) -> data.Prepared:
        image, root = self.study.settings.image, self.study.data

        def fill(folder: Path) -> dict[str, Any]:
            return data.prepare(dataset, split, image, root, folder, DISK * self.store.free())

        title = f"{dataset.label}, {split}"
        artifact = self._remembered("data", self.data_fields(dataset, split), fill, title)
        for each in artifact.meta.get("warnings", ()):
            self.watch.warn(f"{title}: {each}")
        if "lazy" not in artifact.meta:
            return data.opened(artifact.path, artifact.meta)
        what = f"its {artifact.meta['lazy'] / 1e9:.2g} GB were more than {DISK:.0%} of the free disk of the store"
        how = f"it is decoded whenever it is read; with more room, delete {artifact.path} and it is prepared again"
        self.watch.warn(f"{title}: {what}, so {how}")
        return data.reopened(dataset, split, image, root, artifact.path, artifact.meta)

    # ---- duplicates

    def hash_fields(self, dataset: Dataset, split: Split) -> dict[str, Any]:
        return {"number": duplicates.NUMBER, "set": self.prepared(dataset, split).content}

    def _hashes(self, dataset: Dataset, split: Split) -> NDArray[np.uint8]:
        """Return the perceptual hashes of a set's images (N, 8)."""

        def fill(folder: Path) -> dict[str, Any]:
            np.save(folder / "hashes.npy", duplicates.hashes(self.prepared(dataset, split).x))
            return {"set": dataset.label, "split": split}

        title = f"{dataset.label}, {split}"
        artifact = self._remembered("hash", self.hash_fields(dataset, split), fill, title)
        found: NDArray[np.uint8] = np.load(artifact.path / "hashes.npy")
        return found

    def near_fields(self, one: Dataset, split: Split, other: Dataset, other_split: Split) -> dict[str, Any]:
        return {"one": self.hash_fields(one, split), "other": self.hash_fields(other, other_split)}

    def near(self, one: Dataset, split: Split, other: Dataset, other_split: Split) -> duplicates.Pairs:
        """Return the images of a split of another set that have a near duplicate in a split of one."""

        def fill(folder: Path) -> dict[str, Any]:
            x, y = self.prepared(one, split).x, self.prepared(other, other_split).x
            found = duplicates.near(x, y, self._hashes(one, split), self._hashes(other, other_split))
            np.savez(folder / "near.npz", **found._asdict())
            return {"one": f"{one.label}, {split}", "other": f"{other.label}, {other_split}"}

        title = f"{other.label}, {other_split} in {one.label}, {split}"
        artifact = self._remembered("near", self.near_fields(one, split, other, other_split), fill, title)
        with np.load(artifact.path / "near.npz") as found:
            return duplicates.Pairs(*(found[name] for name in duplicates.Pairs._fields))

    # ---- train

    def train_fields(self, run: Run) -> dict[str, Any]:
        id_ = self.prepared(run.id, "train")
        module = run.encoder.name.partition(":")[0] if ":" in run.encoder.name else ""
        return {
            "number": NUMBER["train"],
            "id": id_.content,
            "outliers": self.prepared(run.outliers, "train").content if run.outliers else None,
            "training": self._training_fields(run, len(id_.classes)),
            "source": self.study.registry.fingerprint("training", run.training.name),
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

    def _weights(self, run: Run) -> weights.Source:
        return weights.source(run.training, run.encoder, run.image.channels, self.study.file.parent)

    def check_weights(self, run: Run) -> None:
        """Raise UserError where a run's weights do not fit its network; downloads nothing."""
        if run.training.weights is None:
            return
        classes = len(self.prepared(run.id, "train").classes)
        with torch.device("meta"):
            network = networks.blank(run.training, run.encoder, run.image, classes).network
        weights.check(run.training, run.encoder, run.image.channels, self.study.file.parent, network.state_dict())

    def train_key(self, run: Run) -> str:
        known = digest(run.canonical)
        if known not in self._train_keys:
            self._train_keys[known] = digest(self.train_fields(run))
        return self._train_keys[known]

    def precision(self, run: Run) -> Precision:
        """Return the precision of a run with `auto` resolved: bf16 on a CUDA device that has it, else float32."""
        if run.precision != "auto":
            return run.precision
        has = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has else "float32"

    def has_weights(self, run: Run) -> bool:
        """Return whether a training seems to be in the store."""
        return self.store.has("train", self.train_key(run))

    def kept(self, run: Run) -> list[Run]:
        """Return a run at each epoch that the study keeps of it before the last."""
        if run.training.weights is not None:
            return []
        return [replace(run, epoch=each) for each in self.study.keep if each < run.recipe.epochs]

    def unkept(self, run: Run) -> list[Run]:
        """Return a run at each kept epoch that is not in the store although its training is: `keep` came later."""
        return [each for each in self.kept(run) if self.has_weights(run) and not self.has_weights(each)]

    def trained(self, run: Run) -> Artifact:
        """Return the weights of a training. Raises LookupError where those of an epoch were not kept."""
        if run.epoch is not None:
            found = self.store.read("train", self.train_key(run))
            if found is None:
                raise LookupError(f"the weights of {run.title} are not in {self.store.root}")
            return found
        checkpoints, before = self._checkpoints(run), self.trainings
        artifact = self._remembered("train", self.train_fields(run), lambda folder: self._train(run, folder), run.title)
        if self.trainings > before:
            checkpoints.clear()
        return artifact

    def _checkpoints(self, run: Run) -> Checkpoints:
        options = self.options
        return Checkpoints(self.store, self.train_key(run), options.checkpoint_minutes, options.checkpoint_epochs)

    def _load(self, run: Run, folder: Path) -> dict[str, Any]:
        """Make the artifact of a training whose weights are loaded."""
        start = time.perf_counter()
        classes = len(self.prepared(run.id, "train").classes)
        model = networks.blank(run.training, run.encoder, run.image, classes, run.seed)
        network, where = model.network, (run.encoder, run.image.channels, self.study.file.parent)
        found = weights.load(run.training, *where, network.state_dict())
        network.load_state_dict(found.state)
        networks.normalise(model, torch.tensor(found.mean), torch.tensor(found.std))
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
        seconds = round(time.perf_counter() - start, 3)
        return {"title": run.title, "losses": [], "seconds": seconds, **found.facts, **self._circumstances()}

    def _circumstances(self) -> dict[str, Any]:
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "version": version(),
            "commit": commit(),
            "libraries": libraries(),
            "trained_at": now(),
        }

    def _train(self, run: Run, folder: Path) -> dict[str, Any]:
        if run.training.weights is not None:
            return self._load(run, folder)
        checkpoints = self._checkpoints(run)
        if self.options.redo == "train":
            checkpoints.clear()
            self._forget_kept(run)
        done = checkpoints.latest()
        training, model, seen = self._ready(run)
        losses = list(done.losses) if done else []
        kept = {each.epoch: each for each in self.kept(run)}

        def save(at: Run, weights: Callable[[], dict[str, Tensor]], folder: Path) -> dict[str, Any]:
            save_file({name: value.cpu().contiguous() for name, value in weights().items()}, folder / WEIGHTS)
            facts = {"title": at.title, "losses": losses[: at.epoch], "seconds": round(checkpoints.seconds, 3)}
            resumed = {"images": len(seen.x), "resumed_at_epoch": done.epochs if done else 0}
            return facts | resumed | self._circumstances()

        def keep(epochs: int, weights: Callable[[], dict[str, Tensor]]) -> None:
            at = kept.get(epochs)
            if at and self.store.read("train", self.train_key(at)) is None:  # else it was kept before a kill
                self.store.write("train", self.train_key(at), self.train_fields(at), partial(save, at, weights))

        def watch(epoch: int, loss: float, progress: Callable[[], train.Progress]) -> None:
            self.watch.epoch(epoch, run.recipe.epochs, loss)
            losses.append(loss)
            # before a checkpoint, so that whoever goes on from it misses none
            keep(epoch + 1, lambda: train.weights_of(progress()))
            checkpoints.offer(epoch + 1, progress)

        keep(0, model.state_dict)
        if run.recipe.devices > 1:
            distributed.train(model, self._job(run, training, seen.classes), seen, watch, done)
        else:
            train.train(model, training, run.recipe, self.precision(run), seen, run.seed, watch, done)
        self.trainings += 1
        return save(run, model.state_dict, folder)

    def _forget_kept(self, run: Run) -> None:
        """Remove the kept epochs of a run, and what was made of them."""
        ways = {PLAIN, *(space.seen for space in self.study.detectors.spaces)}
        for each in self.kept(run):
            banks = [("bank", digest(self.bank_fields(each, piece))) for piece in self.pieces(each, ways)]
            made = [("train", self.train_key(each)), ("probe", digest(self.probe_fields(each))), *banks]
            for kind, key in made:
                self.store.remove(kind, key)

    def _job(self, run: Run, training: Training, classes: int) -> distributed.Job:
        return distributed.Job(
            source=self.study.registry.source("training", training.name),
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
        id_ = self.prepared(run.id, "train")
        if run.recipe.devices > 1:
            for each in (run.id, run.outliers):
                self._check_shared(each)
        fit, _ = self.split(run)
        device = self.device if run.recipe.devices == 1 else torch.device("cpu")
        seen = batches.TrainingData(
            x=self._images(run.id, id_, fit, device),
            y=torch.from_numpy(id_.y[fit]).to(device),
            classes=len(id_.classes),
            outliers=self._outliers(run.outliers, device) if run.outliers else None,
        )
        training = resolved(run.training, seen.classes)
        return _Ready(training, networks.untrained(training, run.encoder, run.recipe, run.image, seen, run.seed), seen)

    def _check_shared(self, dataset: Dataset | None) -> None:
        """Raise UserError where several devices cannot each hold a set's training images."""
        if dataset is None:
            return
        x = self.prepared(dataset, "train").x
        where = "the disk" if isinstance(x, data.LazyImages) else "each device" if x.nbytes > room(self.device) else ""
        if where:
            raise UserError(f"{dataset.label} does not fit on {where}, as a training on several devices needs")

    def split(self, run: Run) -> tuple[Indices, Indices]:
        """Return the positions in ID train that train and fit, and those held out of it for thresholds."""
        y = self.prepared(run.id, "train").y
        if run.reference.kind != "val":
            return np.arange(len(y)), np.arange(0)
        return data.held_out_split(y, run.reference.share, seed_of(run.seed, "reference"))

    def reference_set(self, dataset: Dataset) -> data.Prepared:
        """Return the images of a reference that is a set of its own."""
        return self.prepared(dataset, "test")

    def _outliers(self, dataset: Dataset, device: torch.device) -> batches.Images:
        prepared = self.prepared(dataset, "train")
        return self._images(dataset, prepared, np.arange(len(prepared.x)), device)

    def _images(self, dataset: Dataset, prepared: data.Prepared, at: Indices, device: torch.device) -> batches.Images:
        """Return images of a set on a device, channels last in memory, or where they do not fit, on the host."""
        if isinstance(prepared.x, data.LazyImages):  # too large for the disk
            return batches.HostImages(prepared.x, at, device)
        size = prepared.x[:1].nbytes * len(at)
        if size <= room(device):
            return torch.from_numpy(np.array(prepared.x[at])).to(device).permute(0, 3, 1, 2)
        if prepared.content not in self._on_host:
            self._on_host.add(prepared.content)
            what = f"the {size / 1e9:.2g} GB of {dataset.label} are more than {ROOM:.0%} of the device's free memory"
            self.watch.warn(f"{what}; they stay in host memory, and batches are copied")
        return batches.HostImages(prepared.x, at, device)

    def model(self, run: Run) -> networks.Trained:
        """Return the trained network of a run."""
        key = self.train_key(run)
        if self._model is None or self._model[0] != key:
            classes = len(self.prepared(run.id, "train").classes)
            model = networks.blank(resolved(run.training, classes), run.encoder, run.image, classes)
            model.load_state_dict(load_file(self.trained(run).file(WEIGHTS)))
            self._model = (key, model.to(self.device).eval())
        return self._model[1]

    # ---- bank

    def pieces(self, run: Run, ways: Iterable[Seen]) -> list[Piece]:
        """Return what a bank of a run is made of, for each way to see items."""
        found = [Piece(run.id, "train", "fit", 1), Piece(run.id, "test", "all", 1)]
        for seen in ways:
            found.append(Piece(run.id, "test", "all", *seen))
            if run.reference.kind != "train":
                found.append(Piece(*_reference(run), *seen))
            found += [Piece(each, "test", "all", *seen) for each in run.sets.values()]
            found += [Piece(each, "train", "all", *seen) for each in run.validation]
        return list(dict.fromkeys(found))

    def images(self, run: Run, piece: Piece) -> Indices:
        """Return the positions of a piece's images in its set."""
        if piece.part == "all":
            return np.arange(len(self.prepared(piece.dataset, piece.split).x))
        return self.split(run)[piece.part == "val"]

    def bank_fields(self, run: Run, piece: Piece) -> dict[str, Any]:
        return {
            "number": NUMBER["bank"],
            "train": self.train_key(run),
            "set": self.prepared(piece.dataset, piece.split).content,
            "part": piece.part,
            "views": piece.views,
            "crop": piece.crop,
        }

    def layers(self, run: Run, piece: Piece) -> embed.Layers:
        """Return the features of a piece under a trained network."""
        title = f"{piece.dataset.label}, {piece.split} · {run.title}"
        fields = self.bank_fields(run, piece)
        artifact = self._remembered("bank", fields, lambda folder: self._embed(run, piece, folder), title)
        return load_file(artifact.file("features.safetensors"))

    def _embed(self, run: Run, piece: Piece, folder: Path) -> dict[str, Any]:
        prepared = self.prepared(piece.dataset, piece.split)
        x = self._images(piece.dataset, prepared, self.images(run, piece), self.device)
        seed = seed_of(run.seed, "views", prepared.content, piece.part)
        embedding = embed.embed_shifted if has_shifted(run.training) else embed.embed
        found = embedding(self.model(run), x, Seen(piece.views, piece.crop), run.recipe, seed)
        save_file({name: value.contiguous() for name, value in found.items()}, folder / "features.safetensors")
        return {"set": piece.dataset.label, "split": piece.split, "part": piece.part, "images": len(x)}

    def bank(self, run: Run, ways: Iterable[Seen], baselines: bool) -> detectors.Bank:
        """Return the features of a run on every set of its study, for each way to see items; baselines get a head."""
        ways = list(ways)
        train, test = self.prepared(run.id, "train"), self.prepared(run.id, "test")
        fit, held_out = self.split(run)
        found = {piece: self.layers(run, piece) for piece in self.pieces(run, ways)}

        def seen(dataset: Dataset, split: Split, part: Literal["val", "all"] = "all") -> dict[Seen, embed.Layers]:
            return {way: found[Piece(dataset, split, part, *way)] for way in ways}

        reference = None
        if run.reference.kind != "train":
            y = train.y[held_out] if run.reference.held_out is None else self.reference_set(run.reference.held_out).y
            reference = detectors.Known(seen(*_reference(run)), torch.from_numpy(np.array(y)))
        return detectors.Bank(
            fit=found[Piece(run.id, "train", "fit", 1)],
            y=torch.from_numpy(train.y[fit]),
            classes=len(train.classes),
            test=detectors.Known(seen(run.id, "test"), torch.from_numpy(np.array(test.y))),
            reference=reference,
            ood={name: seen(each, "test") for name, each in run.sets.items()},
            validation={each.label: seen(each, "train") for each in run.validation},
            correct=self.correct(run),
            head=self.head(run) if baselines else None,
        )

    def head(self, run: Run) -> ClassifierHead | None:
        """Return the classifier that baselines read, on the device: the training's own, else the linear probe."""
        name = LAYER_HEAD["logits"]
        if name not in run.training.heads:
            found = self.probe(run)
            return None if found is None else linear_head(*(each.to(self.device) for each in found))
        head = self.model(run).network.heads[name]
        if isinstance(head, torch.nn.Linear):
            return linear_head(head.weight.detach().clone(), head.bias.detach().clone())

        @torch.no_grad()
        def apply(h: Tensor) -> Tensor:
            logits: Tensor = head(h)
            return logits

        return ClassifierHead(apply, None, None)

    def correct(self, run: Run) -> Tensor | None:
        """Return which ID test items (M,) the classifier, or else the linear probe, classifies right."""
        layers = self.layers(run, Piece(run.id, "test", "all", 1))
        found = self.probe(run)
        if found is None:
            return None
        logits = layers["logits"][0] if "logits" in layers else found(layers["penultimate"][0])
        return logits.argmax(1) == torch.from_numpy(np.array(self.prepared(run.id, "test").y))

    # ---- probe

    def probe_fields(self, run: Run) -> dict[str, Any]:
        return {
            "number": NUMBER["probe"],
            "train": self.train_key(run),
            "test": self.prepared(run.id, "test").content,
        }

    def accuracies(self, run: Run) -> dict[str, float | None]:
        """Return the ID accuracies of a trained encoder."""
        found: dict[str, float | None] = self._probe(run).meta["accuracies"]
        return found

    def probe(self, run: Run) -> probing.Linear | None:
        """Return the linear probe of a trained encoder; None where there is one class."""
        artifact = self._probe(run)
        return probing.Linear(**load_file(artifact.file(PROBE))) if artifact.meta["classes"] else None

    def _probe(self, run: Run) -> Artifact:
        """Return the linear probe of a trained encoder, and its accuracies; with one class there is none."""

        def fill(folder: Path) -> dict[str, Any]:
            y = torch.from_numpy(self.prepared(run.id, "train").y[self.split(run)[0]])
            if len(y.unique()) < 2:
                return {"classes": 0, "accuracies": dict.fromkeys(("classifier", "linear", "knn"))}
            y_test = torch.from_numpy(np.array(self.prepared(run.id, "test").y))
            fit = {name: f[0] for name, f in self.layers(run, Piece(run.id, "train", "fit", 1)).items()}
            test = {name: f[0] for name, f in self.layers(run, Piece(run.id, "test", "all", 1)).items()}
            linear = probing.linear(fit["penultimate"], y)
            save_file(linear._asdict(), folder / PROBE)
            return {"classes": len(linear.bias), "accuracies": probing.accuracies(linear, fit, y, test, y_test)}

        return self._remembered("probe", self.probe_fields(run), fill, run.title)

    # ---- remembering

    def _remembered(
        self, kind: str, fields: dict[str, Any], fill: Callable[[Path], dict[str, Any]], title: str
    ) -> Artifact:
        """Return an artifact from the store, or make it, once, whoever else wants it."""
        key = digest(fields)
        if kind in AFTER.get(self.options.redo, ()) and key not in self._made:
            self.store.remove(kind, key)
        self._made.add(key)
        artifact = self.store.read(kind, key)
        if artifact is not None:
            return artifact
        with self.store.lock(kind, key):
            artifact = self.store.read(kind, key)  # another process may have made it meanwhile
            if artifact is None:
                self.watch.stage(kind, title)
                artifact = self.store.write(kind, key, fields, fill)
            return artifact


def _reference(run: Run) -> tuple[Dataset, Split, Literal["val", "all"]]:
    """Return where the held-out reference of a run is: a part of ID train, or a set of its own."""
    held_out = run.reference.held_out
    return (run.id, "train", "val") if held_out is None else (held_out, "test", "all")


def linear_head(weight: Tensor, bias: Tensor) -> ClassifierHead:
    """Return the head of weights (C, D) and a bias (C,)."""
    return ClassifierHead(lambda h: h @ weight.T + bias, weight, bias)


def room(device: torch.device) -> float:
    """Return how many bytes the images of a set may take on a device; on the CPU, where they are, any number."""
    return ROOM * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def pick_device(name: str) -> torch.device:
    """Return a device by name; `auto` is the first CUDA device, else the CPU. Its numbers are then reproducible."""
    distributed.reproducible()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).partition(chr(10))[0]}") from error
    return device
