"""Score and judge: from the features of one encoder to the numbers of its detectors. No names, no paths, no cache."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Clustering, Clusters, Distance, Posthoc, Rule, Scores, Split
from oodbench.errors import no_room
from oodbench.scoring import costs, intervals, metrics, spaces
from oodbench.scoring import other_codebases as compat
from oodbench.store.files import scratch
from oodbench.study.grid import Detector, resolved
from oodbench.study.settings import PLAIN, Seen, Space
from oodbench.toolkit.seeds import seed_of
from oodbench.toolkit.vectors import centroids

T = TypeVar("T")
CPU = torch.device("cpu")
MEMORY = 2 * 10**9  # bytes that scoring may take beside the features in memory-mapped files, unless told otherwise

HEAD_ROWS = 2**16  # features that a classifier takes at a time

Layers = dict[str, Tensor]  # layer -> (V, N, D) raw features, float32, on the CPU


@dataclass(frozen=True)
class Known:
    """Features of a set and the classes of its items."""

    layers: dict[Seen, Layers]  # how items are seen -> their layers
    y: Tensor  # (M,)


@dataclass(frozen=True)
class Bank:
    """The features of one trained encoder on all sets that its cells need."""

    fit: Layers  # training items that detectors are fitted on, plain
    y: Tensor  # (N,) their classes
    classes: int
    test: Known  # ID test
    reference: Known | None  # the held-out ID reference; None where the reference is `train`
    ood: dict[str, dict[Seen, Layers]]  # OOD test set -> how its items are seen -> their layers
    validation: dict[str, dict[Seen, Layers]]  # the like of the declared validation OOD sets
    shifted: dict[str, dict[Seen, Layers]] = field(default_factory=dict)  # of ID's classes under a covariate shift
    # by the names of `sets`, and ID train: yields blocks of images, for baselines that pass them through the network
    images: dict[str, Callable[[], Iterator[Tensor]]] = field(default_factory=dict)
    correct: Tensor | None = None  # (M,) which ID test items are classified right; None where there is one class
    head: ClassifierHead | None = None  # what baselines read, on the device; None where there is one class

    @property
    def sets(self) -> dict[str, dict[Seen, Layers]]:
        """Everything that is scored, by name: ID test, plain and shifted, the ID reference, OOD and validation sets."""
        reference = {} if self.reference is None else {REFERENCE: self.reference.layers}
        validation = {validation_name(name): layers for name, layers in self.validation.items()}
        shifted = {shifted_name(name): layers for name, layers in self.shifted.items()}
        return {ID_TEST: self.test.layers, **reference, **self.ood, **validation, **shifted}


def validation_name(name: str) -> str:
    """Return a name of a validation set that no test set has."""
    return f"validation {name}"


def shifted_name(name: str) -> str:
    """Return a name of a covariate-shifted ID set that no test set has."""
    return f"shifted {name}"


class ImageScores(NamedTuple):
    """Calibrated scores by image, larger = more OOD; what is at most the cut is accepted as ID."""

    cut: float
    reference: metrics.Floats
    id_: metrics.Floats
    ood: metrics.Floats


class Judged(NamedTuple):
    """The numbers of one detector on one OOD set, or why there are none."""

    detector: Detector
    ood: str
    numbers: dict[str, float]
    warnings: list[str]
    error: str = ""
    scores: ImageScores | None = None  # where they are asked for


TRAIN, ID_TEST, REFERENCE = "ID train", "ID test", "ID reference"


@dataclass(frozen=True)
class How:
    """How to score; nothing here changes a number but the device."""

    device: torch.device
    memory: int = MEMORY
    compat: bool = False  # also by the rules of other codebases
    keep_scores: bool = False


def judged(detectors: list[Detector], bank: Bank, sets: list[str], seed: int, how: How) -> Iterator[Judged]:
    """Yield the numbers of each detector on each OOD set. A detector that fails yields its error, the rest goes on.

    Work is shared: one transform a space, one fit a clustering, one pass of scores a distance, one pass for all
    settings of a distance that share theirs. What a plugin warns of (`warnings.warn`) goes into the rows of all that
    it made.
    """
    return _Judge(bank, sets, seed, how).all(detectors)


def _grouped(detectors: list[Detector], part: Callable[[Detector], T]) -> list[tuple[T, list[Detector]]]:
    groups: dict[T, list[Detector]] = {}
    for detector in detectors:
        groups.setdefault(part(detector), []).append(detector)
    return list(groups.items())


Family = list[tuple[Distance, list[Detector]]]


def _families(detectors: list[Detector]) -> list[Family]:
    """Return distances with their detectors, those together that share their work."""
    found: dict[object, Family] = {}
    for distance, members in _grouped(detectors, lambda d: d.distance):
        assert distance is not None
        shares = type(distance).fit_together.__func__ is not Distance.fit_together.__func__  # type: ignore[attr-defined]
        found.setdefault(type(distance) if shares else distance, []).append((distance, members))
    return list(found.values())


@dataclass(frozen=True)
class _Made(Generic[T]):
    """What was made, what was warned of meanwhile, and the seconds that it took."""

    made: T
    warnings: list[str]
    seconds: float = 0.0


def _attempt(make: Callable[[], T], device: torch.device = CPU) -> _Made[T] | str:
    """Return what is made, or why that failed."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            made, seconds = costs.timed(make, device)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes a row, and the grid goes on
            return f"{type(error).__name__}: {error}"
    return _Made(made, list(dict.fromkeys(str(each.message) for each in heard)), seconds)


class SpacedFeatures:
    """The features of a bank in one space, on the device, within a budget of memory.

    What fits the budget is kept, and made anew where a plugin changed it in place. What does not is carried into the
    space block by block each time it is scored. Training features go into a file, or stay in the bank's; on a CUDA
    device, where they are a copy, they are carried where they are.
    """

    def __init__(self, where: Space, bank: Bank, how: How) -> None:
        self._made_of = (where, bank, how)
        self._device = how.device
        plain = bank.fit[where.layer][0].to(how.device)
        self._raw = {name: layers[where.seen][where.layer] for name, layers in bank.sets.items()}  # (V, M, D)
        self._small = how.memory >= 4 * sum(f.nbytes for f in (plain, *self._raw.values()))
        self._rows = max(256, how.memory // (64 * plain.shape[1]))  # of a block: few float64 copies of it
        carry = None if self._small else self._on_disk if how.device.type == "cpu" else self._in_place
        self._transform, self._train = spaces.fit(where, plain, carry)
        self._kept: dict[tuple[str, bool], tuple[Tensor, int]] = {}  # features, and their version when made

    @cached_property
    def on_host(self) -> SpacedFeatures:
        """The same on the CPU."""
        where, bank, how = self._made_of
        return SpacedFeatures(where, bank, replace(how, device=torch.device("cpu")))

    @property
    def fit(self) -> Tensor:
        """The features (N, D) of the training items."""
        return self._keep((TRAIN, False), lambda: self._train.clone() if self._small else self._train)

    def _on_disk(self, step: spaces.Transform, f: Tensor) -> Tensor:
        """Return training features one step further, in a memory-mapped file that goes when they do."""
        file = scratch(len(f), step(f[:1]).shape[1])
        for start in range(0, len(file), self._rows):
            file[start : start + self._rows] = step(f[start : start + self._rows]).cpu().numpy()
        return torch.from_numpy(file)

    def _in_place(self, step: spaces.Transform, f: Tensor) -> Tensor:
        """Return training features one step further, in their own memory where they keep their width."""
        width = step(f[:1]).shape[1]
        found = f if width == f.shape[1] else f.new_empty(len(f), width)
        for start in range(0, len(f), self._rows):
            found[start : start + self._rows] = step(f[start : start + self._rows])
        return found

    def ready(self, name: str, every_view: bool) -> None:
        """Carry a set into the space, where that is kept, so that what scores it first does not pay for it."""
        if self._small:
            for _ in self.seen(name, every_view):
                break

    def items(self, name: str) -> int:
        return int(self._raw[name].shape[1])

    def seen(self, name: str, every_view: bool) -> Iterator[Tensor]:
        """Yield the features of a set in blocks: (B, D) of the mean view, or (V, B, D) of every view."""
        f = self._raw[name]
        if self._small:
            whole = self._keep((name, every_view), lambda: self._carried(f, every_view).clone())
            yield from whole.split(self._rows, dim=-2)
        else:
            yield from self.carried(f, every_view)

    def carried(self, f: Tensor, every_view: bool) -> Iterator[Tensor]:
        """Yield the like of `seen` of raw features (V, M, D)."""
        yield from (self._carried(block, every_view) for block in f.split(self._rows, dim=1))

    def _carried(self, f: Tensor, every_view: bool) -> Tensor:
        f = f.to(self._device)
        return self._transform(f if every_view else f[0] if len(f) == 1 else f.mean(0))

    def _keep(self, key: tuple[str, bool], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._kept:
            made = make()
            self._kept[key] = (made, made._version)
        return self._kept[key][0]

    def check_unchanged(self, who: str) -> None:
        """Raise ValueError where a plugin has changed features in place: others would have scored what it left.

        They are made anew for others; training features that are too large to copy stay spoilt for everybody.
        """
        changed = [key for key, (tensor, version) in self._kept.items() if tensor._version != version]
        for key in changed:
            if self._small or key[0] != TRAIN:
                del self._kept[key]
        if changed:
            raise ValueError(f"{who} changes its input in place")


def clusters_in(clustering: Clustering | None, spaced: SpacedFeatures, bank: Bank, seed: int) -> Clusters:
    f = spaced.fit
    y = bank.y.to(f.device, copy=True)
    if clustering is None:
        everything = torch.zeros_like(y)
        return Clusters(centroids(f, everything, 1), everything)
    found = resolved(clustering, bank.classes).fit(f, y if clustering.labels else None, seed)
    spaced.check_unchanged(clustering.label)
    k, n = len(found.centroid), len(f)
    if found.assign.shape != (n,):
        raise ValueError(f"{clustering.label} assigns {tuple(found.assign.shape)} of {n} items")
    sizes = torch.bincount(found.assign[found.assign >= 0], minlength=k)
    if len(sizes) > k or not sizes.all() or not k:
        raise ValueError(f"{clustering.label} makes clusters of {sizes.tolist()} items about {k} centroids")
    return found


class Clustered(NamedTuple):
    """The ID features of a bank in one space, and the clusters that detectors have there."""

    train: Tensor  # (N, D)
    test: Tensor  # (M, D), of the mean view
    clusters: list[Clusters | str]  # of each clustering, or why there are none


def clustered(
    where: Space, clusterings: list[Clustering | None], bank: Bank, seed: int, device: torch.device
) -> Clustered:
    """Return the clusters that `judged` scores against, for the seed of the same run."""
    spaced, seed = SpacedFeatures(where, bank, How(device)), seed_of(seed, "clustering")
    tried = [
        _attempt(partial(clusters_in, each, spaced, bank, seed)) for each in clusterings
    ]  # warnings are in the rows
    found = [each.made if isinstance(each, _Made) else each for each in tried]
    return Clustered(spaced.fit, torch.cat(list(spaced.seen(ID_TEST, False))), found)


# ---- scores -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scored:
    """The scores of one distance or baseline on every set, on the CPU, and facts about the fit."""

    reference: Scores
    id_: Scores
    ood: dict[str, Scores | str]  # a set's scores, or why there are none
    validation: list[Scores]
    shifted: list[Scores]
    facts: dict[str, float]
    rankings: metrics.Rankings
    full_spectrum: metrics.Rankings


def checked(scores: Scores, name: str, items: int, clusters: int = 1) -> Scores:
    """Return scores on the CPU in float64; raises ValueError, naming the set, on a wrong number, NaN or infinity."""
    score = scores.score.double().cpu()
    for what, given in (("scores", score), ("clusters", scores.cluster)):
        if given.shape != (items,):
            raise ValueError(f"{what} of {name} have the shape {tuple(given.shape)}, for {items} items")
    bad = int((~score.isfinite()).sum())
    if bad:
        raise ValueError(f"{bad} of {len(score)} scores of {name} are NaN or infinite")
    cluster = scores.cluster.cpu()
    if ((cluster < 0) | (cluster >= clusters)).any():
        low, high = int(cluster.min()), int(cluster.max())
        raise ValueError(f"clusters of {name} reach from {low} to {high}, there are {clusters}, from 0")
    return Scores(score, cluster)


def fit_distances(
    distances: list[Distance], clusters: Clusters, spaced: SpacedFeatures
) -> tuple[Callable[[Iterator[Tensor], str, int], list[Scores]], int]:
    """Return what scores a set by distances that share their work, and how many bytes these hold.

    It takes a set's blocks, its name and how many items it has. Blocks are (B, D) of the mean view, or (V, B, D) of
    every view where these distances want them.
    """
    first, count = distances[0], len(clusters.centroid)
    scorer = type(first).fit_together(distances, spaced.fit, clusters)
    spaced.check_unchanged(first.label)

    def scores(blocks: Iterator[Tensor], name: str, items: int) -> list[Scores]:
        found = [scorer(block) for block in blocks]
        spaced.check_unchanged(first.label)
        return [checked(joined(parts), name, items, count) for parts in zip(*found, strict=True)]

    return scores, costs.held(scorer)


def left_out(distance: Distance, clusters: Clusters, spaced: SpacedFeatures) -> Scores:
    """Return the scores of the training items, each as if it were none."""
    found = distance.leave_one_out(spaced.fit, clusters)
    spaced.check_unchanged(distance.label)
    return checked(found, REFERENCE, len(spaced.fit), len(clusters.centroid))


def fit_posthoc(posthoc: Posthoc, bank: Bank, device: torch.device) -> tuple[Callable[[Layers, str], Scores], int]:
    """Return what scores the layers of a set, by its name, as a baseline does, and bytes that it and a head hold."""
    head = bank.head
    assert bank.reference is not None
    if head is None:
        raise ValueError(f"{posthoc.label} needs a classifier of several classes")

    def split(layers: Layers, name: str, y: Tensor | None = None) -> Split:
        h = layers["penultimate"][0].to(device, copy=True)
        if "logits" in layers:
            logits = layers["logits"][0].to(device, copy=True)
        else:
            logits = torch.cat([head.apply(rows.clone()) for rows in h.split(HEAD_ROWS)])
        if posthoc.network and name not in bank.images:
            raise ValueError(f"{posthoc.label} passes images through the network, and {name} is features alone")
        return Split(h, logits, None if y is None else y.to(device, copy=True), bank.images.get(name))

    held_out = split(bank.reference.layers[PLAIN], REFERENCE, bank.reference.y) if posthoc.val else None
    scorer = posthoc.fit(split(bank.fit, TRAIN, bank.y), held_out, head)

    def scores(layers: Layers, name: str) -> Scores:
        seen = split(layers, name)
        found = scorer(seen)
        return checked(Scores(found, torch.zeros(len(seen.h), dtype=torch.int64)), name, len(seen.h))

    return scores, costs.held((scorer, head.weight, head.bias))


@dataclass(frozen=True)
class _Judge:
    """Scores the sets of one bank, and turns scores into the numbers of detectors on its OOD sets."""

    bank: Bank
    sets: list[str]
    seed: int
    how: How

    def all(self, detectors: list[Detector]) -> Iterator[Judged]:
        """Yield the numbers of each detector on each OOD set."""
        for where, members in _grouped([d for d in detectors if d.distance], lambda d: d.space):
            yield from self._in_space(where, members)
        for posthoc, members in _grouped([d for d in detectors if d.posthoc], lambda d: d.posthoc):
            scored = yield from self._tried(partial(self._by_posthoc, posthoc), members)
            if scored:
                yield from self.judged(members, scored.made, scored.warnings)

    def _in_space(self, where: Space, detectors: list[Detector]) -> Iterator[Judged]:
        """Yield the numbers of detectors in one space, of which nothing is left in memory when that is done."""
        spaced = yield from self._tried(partial(SpacedFeatures, where, self.bank, self.how), detectors)
        if spaced is None:
            return
        for clustering, members in _grouped(detectors, lambda d: d.clustering):
            fit = partial(clusters_in, clustering, spaced.made, self.bank, seed_of(self.seed, "clustering"))
            clusters = yield from self._tried(fit, members)
            if clusters is None:
                continue
            notes = [*spaced.warnings, *clusters.warnings]
            for family in _families(members):
                yield from self._family(family, clusters, spaced.made, notes)

    def _tried(self, make: Callable[[], T], detectors: list[Detector]) -> Generator[Judged, None, _Made[T] | None]:
        """Return what is made; where that fails, yield the error for every detector that needed it."""
        made = _attempt(make, self.how.device)
        if isinstance(made, _Made):
            return made
        yield from self._failed(detectors, made)
        return None

    def _failed(self, detectors: list[Detector], error: str) -> Iterator[Judged]:
        """Yield an error for each detector on each OOD set; what a device has no room for is made on the host."""
        if not self._no_room(error):
            yield from (Judged(detector, ood, {}, [], error) for detector in detectors for ood in self.sets)
            return
        yield from (each._replace(warnings=[*each.warnings, self._note]) for each in self._host.all(detectors))

    def _no_room(self, error: str) -> bool:
        """Return whether an error says that the device is full; what is not used of it is then free for others."""
        if self.how.device.type == "cpu" or not no_room(error):
            return False
        torch.cuda.empty_cache()
        return True

    @property
    def _note(self) -> str:
        return f"scored on the CPU: {self.how.device} has no room for it"

    @property
    def _host(self) -> _Judge:
        """The same work on the host."""
        bank = replace(self.bank, head=_on_host(self.bank.head, self.how.device))
        return replace(self, bank=bank, how=replace(self.how, device=torch.device("cpu")))

    def _family(
        self, family: Family, clusters: _Made[Clusters], spaced: SpacedFeatures, notes: list[str]
    ) -> Iterator[Judged]:
        """Yield the numbers of distances that share their work; where that fails, of each on its own."""
        own = Clusters(*(each.clone() if isinstance(each, Tensor) else each for each in clusters.made))  # type: ignore[arg-type]
        fit = partial(self._by_distances, [distance for distance, _ in family], replace(clusters, made=own), spaced)
        made = _attempt(fit)
        if isinstance(made, _Made):
            for (_, members), scored in zip(family, made.made, strict=True):
                yield from self.judged(members, scored, notes + made.warnings)
        elif len(family) > 1:
            for each in family:
                yield from self._family([each], clusters, spaced, notes)
        elif self._no_room(made):
            here = Clusters(*(each.cpu() if isinstance(each, Tensor) else each for each in clusters.made))  # type: ignore[arg-type]
            host = self._host
            carried = yield from host._tried(lambda: spaced.on_host, family[0][1])
            if carried:
                yield from host._family(family, replace(clusters, made=here), carried.made, [*notes, self._note])
        else:
            yield from self._failed(family[0][1], made)

    def _by_distances(self, distances: list[Distance], made: _Made[Clusters], spaced: SpacedFeatures) -> list[_Scored]:
        distances, clusters = [resolved(distance, self.bank.classes) for distance in distances], made.made
        fit = partial(fit_distances, distances, clusters, spaced)
        (scorer, size), seconds = costs.timed(fit, self.how.device)
        views = distances[0].views

        def scores(name: str) -> list[Scores]:
            return scorer(spaced.seen(name, views), name, spaced.items(name))

        if self.bank.reference is not None:
            references = scores(REFERENCE)
        else:
            references = [left_out(distance, clusters, spaced) for distance in distances]
        facts = {"clusters": len(clusters.centroid), "dimensions": spaced.fit.shape[1], "n_train": len(spaced.fit)}
        spaced.ready(ID_TEST, views)
        return self._scored(references, scores, facts | {"fit_seconds": made.seconds + seconds, "fitted_bytes": size})

    def _by_posthoc(self, posthoc: Posthoc | None) -> _Scored:
        bank = self.bank
        assert posthoc is not None
        fit = partial(fit_posthoc, resolved(posthoc, bank.classes), bank, self.how.device)
        (scorer, size), seconds = costs.timed(fit, self.how.device)

        def scores(name: str) -> list[Scores]:
            return [scorer(bank.sets[name][PLAIN], name)]

        n, dim = bank.fit["penultimate"][0].shape
        facts = {"dimensions": dim, "n_train": n, "fit_seconds": seconds, "fitted_bytes": size}
        return self._scored(scores(REFERENCE), scores, facts)[0]

    def _scored(
        self, references: list[Scores], scores: Callable[[str], list[Scores]], facts: dict[str, float]
    ) -> list[_Scored]:
        """Return what scorers make of every set; an OOD set that cannot be scored leaves the others their numbers."""

        def attempt(name: str) -> list[Scores] | list[str]:
            try:
                return scores(name)
            except (Exception, SystemExit) as error:
                if self.how.device.type != "cpu" and no_room(error):
                    raise
                return [f"{type(error).__name__}: {error}"] * len(references)

        id_, seconds = costs.repeated(lambda: scores(ID_TEST), self.how.device)
        facts = facts | {"item_seconds": seconds / len(id_[0].score)}
        validation = [scores(validation_name(name)) for name in self.bank.validation]
        shifted = [scores(shifted_name(name)) for name in self.bank.shifted]
        ood = {name: attempt(name) for name in self.sets}
        correct = None if self.bank.correct is None else self.bank.correct.numpy()
        return [
            _Scored(
                reference,
                id_[i],
                {name: each[i] for name, each in ood.items()},
                [each[i] for each in validation],
                [each[i] for each in shifted],
                {**facts, "n_reference": len(reference.score)},
                metrics.Rankings(correct),
                metrics.Rankings(),
            )
            for i, reference in enumerate(references)
        ]

    def judged(self, detectors: list[Detector], scored: _Scored, notes: list[str]) -> Iterator[Judged]:
        """Yield the numbers of the thresholds of one scorer."""
        for detector in detectors:
            judged = yield from self._tried(partial(self._judged, detector, scored), [detector])
            if judged:
                noted = notes + judged.warnings
                yield from (each._replace(warnings=noted + each.warnings) for each in judged.made)

    def _judged(self, detector: Detector, scored: _Scored) -> list[Judged]:
        threshold = resolved(detector.threshold, self.bank.classes)
        seen = joined(scored.validation) if threshold.needs_ood else None
        rule = threshold.fit(_own(scored.reference), seen)
        if math.isnan(rule.cut):
            raise ValueError(f"the cut of {threshold.label} is NaN")
        notes = _empty_clusters(scored) if threshold.clusters else []
        id_, reference = calibrated(rule, scored.id_), calibrated(rule, scored.reference)
        held_out = self.bank.reference is not None and not threshold.needs_ood
        place = _place(rule, reference, scored.reference) if held_out else 0
        numbers = scored.facts | self._chosen_by(rule, reference, scored)
        numbers |= _of_id(place, reference, len(id_)) if place else {}
        shifted = [calibrated(rule, each) for each in scored.shifted]
        found = []
        for name in self.sets:
            scores = scored.ood[name]
            if isinstance(scores, str):
                found.append(Judged(detector, name, {}, [], scores))
                continue
            ood = calibrated(rule, scores)
            ranking = scored.rankings(id_, ood)
            sizes = {"n_id": len(id_), "n_ood": len(ood), "cut": rule.cut}
            warned = metrics.warnings(ranking, f"{detector.scorer.label} on {name}", (len(id_), len(ood)))
            judged = ranking | metrics.recalls(id_, ood, rule.cut) | numbers | sizes
            judged |= _of_ood(place, reference, ood) if place else {}
            if shifted:
                judged |= _of_full_spectrum(scored.full_spectrum, rule.cut, id_, np.concatenate(shifted), ood)
            if self.how.compat:
                judged |= _by_others(id_, ood, (scored.reference, scored.id_, scores) if detector.clustering else ())
            kept = ImageScores(rule.cut, reference, id_, ood) if self.how.keep_scores else None
            found.append(Judged(detector, name, judged, notes + warned, scores=kept))
        return found

    def _chosen_by(self, rule: Rule, reference: metrics.Floats, scored: _Scored) -> dict[str, float]:
        """Return the numbers that settings may be chosen by: ID reference against validation OOD, mean over sets."""
        ranked = metrics.Ranked(reference)
        each = [ranked.ranking(calibrated(rule, scores)) for scores in scored.validation]
        return {f"val_{name}": float(np.mean([one[name] for one in each])) for name in CHOSEN_BY if each}


def _on_host(head: ClassifierHead | None, device: torch.device) -> ClassifierHead | None:
    """Return a classifier on a device as one that takes and returns tensors on the CPU."""
    if head is None:
        return None
    weight, bias = (None if each is None else each.cpu() for each in (head.weight, head.bias))

    def apply(h: Tensor) -> Tensor:
        return torch.cat([head.apply(rows.to(device)).cpu() for rows in h.split(HEAD_ROWS)])

    return head._replace(apply=apply, weight=weight, bias=bias)


CHOSEN_BY = ("auroc", "fpr95_id", "fpr95_ood")
FULL_SPECTRUM = ("auroc", "aupr_in", "aupr_out", "fpr95_id", "fpr95_ood")  # what OpenOOD reports


def _place(rule: Rule, calibrated: metrics.Floats, reference: Scores) -> int:
    """Return which of the reference scores, from the smallest, a cut is; 0 where it is none, or they were changed."""
    plain = np.array_equal(calibrated, reference.score.numpy()) and bool((calibrated == rule.cut).any())
    return int((calibrated <= rule.cut).sum()) if plain else 0


def _of_id(place: int, reference: metrics.Floats, items: int) -> dict[str, float]:
    """Return where the realised ID recall of so many test items lies, by the draw of reference and test."""
    low, high = intervals.calibrated(place, len(reference), items)
    return {"id_recall_low": low, "id_recall_high": high}


def _of_ood(place: int, reference: metrics.Floats, ood: metrics.Floats) -> dict[str, float]:
    """Return an interval of the OOD recall of the cut at the same quantile of all ID, and of all OOD."""
    low, high = intervals.ood_recall(reference, ood, place / len(reference))
    return {"ood_recall_low": low, "ood_recall_high": high}


def _of_full_spectrum(
    ranking: metrics.Rankings, cut: float, id_: metrics.Floats, shifted: metrics.Floats, ood: metrics.Floats
) -> dict[str, float]:
    """Return the numbers that count covariate-shifted images as ID, beside plain ones, and what a cut makes of them."""
    found = ranking(np.concatenate([id_, shifted]), ood)
    of_shifted = {"n_shifted": len(shifted), "id_recall_shifted": float(np.mean(shifted <= cut))}
    return {f"fs_{name}": found[name] for name in FULL_SPECTRUM} | of_shifted


def _by_others(id_: metrics.Floats, ood: metrics.Floats, clustered: Sequence[Scores]) -> dict[str, float]:
    """Return the numbers of other codebases, those of per-cluster cuts where there are clusters."""
    found = compat.all_rules(id_, ood)
    if clustered:
        of_clusters = compat.truncated(*(compat.Grouped(*(part.numpy() for part in each)) for each in clustered))
        found |= {f"truncated_{name}": value for name, value in of_clusters.items()}
    return {f"compat_{name}": value for name, value in found.items()}


def joined(scores: Sequence[Scores]) -> Scores:
    return Scores(torch.cat([each.score for each in scores]), torch.cat([each.cluster for each in scores]))


def _own(scores: Scores) -> Scores:
    return joined([scores])


def calibrated(rule: Rule, scores: Scores) -> metrics.Floats:
    found = rule.calibrate(_own(scores))
    if found.shape != scores.score.shape:
        raise ValueError(f"calibrated scores have the shape {tuple(found.shape)}, for {len(scores.score)} items")
    return found.double().numpy()


def _empty_clusters(scored: _Scored) -> list[str]:
    total, found = int(scored.facts["clusters"]), len(scored.reference.cluster.unique())
    return [f"{total - found} of {total} clusters have no reference item"] if found < total else []
