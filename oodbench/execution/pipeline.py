"""The pull chain of a study on a device: data, encoders, features. Each step asks the one before, and remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from oodbench.api import Dataset
from oodbench.data.library import Library, Split
from oodbench.data.missing_sets import missing_sets, without
from oodbench.errors import UserError, suggestion
from oodbench.scoring import detectors
from oodbench.store.artifacts import Store
from oodbench.store.memo import AFTER, REDO, Memo, Watch
from oodbench.store.rows import Results
from oodbench.study.grid import Run
from oodbench.study.settings import Precision, Seen
from oodbench.study.study import Study
from oodbench.training import distributed
from oodbench.training.banks import Banks, Piece, reference_of
from oodbench.training.checkpoints import Asked, Pace
from oodbench.training.embed import Layers
from oodbench.training.encoders import Encoders

CARD = Path("/dev/nvidiactl")  # where the driver of a CUDA device is loaded


@dataclass(frozen=True)
class Options:
    """How to run a study; nothing here changes a number but the device."""

    device: str = "auto"
    redo: str = ""  # train | bank | score: make it and what follows again; failed: try error rows again
    cached_only: bool = False  # train nothing, score what is trained
    memory: int = detectors.MEMORY  # bytes that scoring may take beside mapped files
    checkpoint_minutes: float = 5.0  # between two checkpoints of a training; a killed one goes on at the last
    checkpoint_epochs: int | None = None  # the same in epochs; None = by the clock alone
    graph: bool = True  # on a CUDA device capture an encoder's passes as graphs, where they can be
    without_missing_sets: bool = False  # go on without OOD test sets whose files are not here
    only: tuple[str, ...] = ()  # AXIS=LABEL: make no other rows; keys and the plan are the whole study's
    auto: Precision | None = None  # what `precision: auto` is; None = what is best on the device
    asked: Asked | None = None  # by whom a checkpoint is asked for out of turn

    def __post_init__(self) -> None:
        if self.redo and self.redo not in REDO:
            raise UserError(f"redo {self.redo}: there is no such stage{suggestion(self.redo, REDO)}")
        if self.cached_only and self.redo in AFTER:
            raise UserError(f"redo {self.redo} makes encoders or features again, which cached only forbids; drop one")


class Pipeline:
    """The artifacts of a study on a device."""

    def __init__(self, study: Study, options: Options, watch: Watch) -> None:
        if options.without_missing_sets and not study.missing:
            study = without(study, missing_sets(study))
        self.study = study = dataclasses.replace(study, added=Results(study.results, watch.warn).added().seeds)
        self.options = options
        self.watch = watch
        self.store = Store(study.store, watch.warn)
        self.device = pick_device(options.device)
        if options.device == "auto" and self.device.type == "cpu" and CARD.exists():
            unused = f"torch {torch.__version__} cannot use the CUDA device that is here ({CARD})"
            watch.warn(f"{unused}; this runs on the CPU")
        self.library = Library(study, Memo(self.store, watch, options.redo))
        checkpoints = Pace(options.checkpoint_minutes, options.checkpoint_epochs, options.asked)
        self.encoders = Encoders(self.library, self.device, checkpoints, options.graph, options.auto)
        self.banks = Banks(self.encoders)
        self.scored_by: dict[str, dict[str, str]] = {}  # of a detector, written -> the parts of its rows' keys, written

    def bank(self, run: Run, ways: Iterable[Seen], baselines: bool, network: bool = False) -> detectors.Bank:
        """Return the features of a run on every set of its study, for each way to see items; baselines get a head.

        With `network`, which some of them ask for, the bank has images and the head the network, too.
        """
        ways = list(ways)
        train, test = self.library.prepared(run.id, "train"), self.library.prepared(run.id, "test")
        fit, held_out = self.encoders.split(run)
        found = {piece: self.banks.layers(run, piece) for piece in self.banks.pieces(run, ways)}

        def seen(dataset: Dataset, split: Split, part: Literal["val", "all"] = "all") -> dict[Seen, Layers]:
            return {way: found[Piece(dataset, split, part, *way)] for way in ways}

        reference = None
        if run.reference.kind != "train":
            y = (
                train.y[held_out]
                if run.reference.held_out is None
                else self.library.reference_set(run.reference.held_out).y
            )
            reference = detectors.Known(seen(*reference_of(run)), torch.from_numpy(np.array(y)))
        head = self.banks.head(run) if baselines else None
        return detectors.Bank(
            fit=found[Piece(run.id, "train", "fit", 1)],
            y=torch.from_numpy(train.y[fit]),
            classes=len(train.classes),
            test=detectors.Known(seen(run.id, "test"), torch.from_numpy(np.array(test.y))),
            reference=reference,
            ood={name: seen(each, "test") for name, each in run.sets.items()},
            validation={each.label: seen(each, "train") for each in run.validation},
            shifted={each.label: seen(each, "test") for each in run.covariate},
            correct=self.banks.correct(run),
            images=self._images(run) if network else {},
            head=self.banks.network(run, head) if head and network else head,
        )

    def _images(self, run: Run) -> dict[str, Callable[[], Iterator[torch.Tensor]]]:
        """Return what yields the images of each set of a bank, by the names that scoring has for them."""
        pieces = {detectors.TRAIN: Piece(run.id, "train", "fit", 1), detectors.ID_TEST: Piece(run.id, "test", "all", 1)}
        if run.reference.kind != "train":
            pieces[detectors.REFERENCE] = Piece(*reference_of(run), 1)
        pieces |= {name: Piece(each, "test", "all", 1) for name, each in run.sets.items()}
        pieces |= {detectors.validation_name(x.label): Piece(x, "train", "all", 1) for x in run.validation}
        pieces |= {detectors.shifted_name(x.label): Piece(x, "test", "all", 1) for x in run.covariate}
        return {name: self.banks.images_of(run, piece) for name, piece in pieces.items()}


def pick_device(name: str) -> torch.device:
    """Return a device by name; `auto` is the first CUDA device, else the CPU. Its numbers are then reproducible."""
    distributed.reproducible()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        if not name.startswith(("cpu", "cuda")):
            raise UserError(f"there is no device '{name}'; give auto, cpu, cuda or cuda:1") from error
        raise UserError(f"device '{name}' cannot be used: {str(error).partition(chr(10))[0]}") from error
    return device
