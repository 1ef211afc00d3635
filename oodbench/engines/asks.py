"""What the jobs of a study ask a cluster for: cards, cores, memory, and time from what was measured there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from oodbench.engines.cluster import AUTO, Cluster, TrainingJob, number_of_bytes, seconds
from oodbench.engines.seam import Needs
from oodbench.engines.unit import Measured
from oodbench.execution import estimate
from oodbench.execution.runner import Runner
from oodbench.study.grid import Run, Work

GB = 10**9
PROGRAM, SCORING = 4 * GB, 2 * GB  # of memory: Python, torch and its libraries; the same without a training
MEASURING = 8 * GB
MARGIN, MORE, LEAST = 1.5, 600, 1200  # times what was measured, and so many seconds more, at least
STEP = 600  # seconds by which limits differ, so that jobs which ask for about the same share an array
TRIES = 3  # times that a job may come to its limit beside those that are expected
COPIES = 4  # of the weights: network, gradients, and the moments of an optimiser


class Asks:
    """What the jobs of a study ask for."""

    def __init__(self, runner: Runner, cluster: Cluster, measured: Measured | None) -> None:
        self.runner, self.cluster, self.measured = runner, cluster, measured
        self.pipeline = runner.pipeline

    def train(self, work: Work) -> Needs:
        """Return what the training of an encoder and its embedding ask for."""
        job, run = self.cluster.train, work.run
        takes = self.seconds(work)
        limit = _limit(takes) if job.time == AUTO else seconds(job.time)
        every = self.pipeline.banks.pieces(run, work.ways)
        features = estimate.features_bytes(self.pipeline, run, every)
        weights = COPIES * self.pipeline.encoders.weights_bytes(run)
        return Needs(
            gpus=cards(job, run),
            cpus=job.cpus,
            memory=_memory(job.memory, PROGRAM + self._images(run) + weights + features),
            seconds=limit,
            ends=math.ceil(takes / limit) + TRIES,
        )

    def score(self, works: Sequence[Work]) -> Needs:
        """Return what the scoring of some encoders asks for, one after the other."""
        job, spent = self.cluster.score, self.runner.results.read(["score_seconds"])["score_seconds"].dropna()
        a_row = float(spent.mean()) if len(spent) else estimate.ROW_SECONDS
        takes = a_row * sum(len(work.cells) * len(work.run.sets) for work in works)
        pieces = [(work.run, self.pipeline.banks.pieces(work.run, work.ways)) for work in works]
        features = max(estimate.features_bytes(self.pipeline, *each) for each in pieces)
        return Needs(
            gpus=job.gpus,
            cpus=job.cpus,
            memory=_memory(job.memory, SCORING + self.runner.options.memory + features),
            seconds=_limit(takes) if job.time == AUTO else seconds(job.time),
            ends=TRIES,
        )

    def seconds(self, work: Work) -> float:
        """Return what training and embedding take, by a measured step; 0 where nothing was measured."""
        rate = self.measured.rates.get(estimate.kind_of(work.run), 0.0) if self.measured else 0.0
        return rate * estimate.views(self.pipeline, work.run, estimate.unembedded(self.pipeline, work))

    def _images(self, run: Run) -> int:
        """Return the bytes of the images that a training and its embedding read."""
        sets = {(run.id, "train"), (run.id, "test"), *((each, "test") for each in (*run.sets.values(), *run.covariate))}
        sets |= {(each, "train") for each in run.validation} | ({(run.outliers, "train")} if run.outliers else set())
        shapes = [self.pipeline.library.prepared(dataset, split).x.shape for dataset, split in sets]  # type: ignore[arg-type]
        return sum(math.prod(shape) for shape in shapes)


def cards(job: TrainingJob, run: Run) -> int:
    return run.recipe.devices if job.gpus == AUTO else job.gpus


def _limit(takes: float) -> int:
    return math.ceil(max(LEAST, takes * MARGIN + MORE) / STEP) * STEP


def _memory(given: str, needed: int) -> int:
    return math.ceil(needed / GB) * GB if given == AUTO else number_of_bytes(given)
