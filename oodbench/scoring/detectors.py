"""Score and judge: from the features of one encoder to the numbers of its detectors. No names, no paths, no cache."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Clustering, Clusters, Distance, Posthoc, Rule, Scores, Split
from oodbench.scoring import intervals, metrics, spaces
from oodbench.scoring import other_codebases as compat
from oodbench.store.files import scratch
from oodbench.study.grid import Detector, resolved
from oodbench.study.settings import PLAIN, Seen, Space
from oodbench.toolkit.seeds import seed_of
from oodbench.toolkit.vectors import centroids

T = TypeVar("T")
MEMORY = 2 * 10**9  # bytes that scoring may take beside the features in memory-mapped files, unless told otherwise

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
    correct: Tensor | None = None  # (M,) which ID test items are classified right; None where there is one class
    head: ClassifierHead | None = None  # what baselines read, on the device; None where there is one class


class Judged(NamedTuple):
    """The numbers of one detector on one OOD set, or why there are none."""

    detector: Detector
    ood: str
    numbers: dict[str, float]
    warnings: list[str]
    error: str = ""


TRAIN, ID_TEST, REFERENCE = "ID train", "ID test", "ID reference"
Score = Callable[[str], Scores]  # name of a set -> its checked scores, on the CPU


@dataclass(frozen=True)
class How:
    """How to score; nothing here changes a number but the device."""

    device: torch.device
    memory: int = MEMORY
    compat: bool = False  # also by the rules of other codebases


def judged(detectors: list[Detector], bank: Bank, sets: list[str], seed: int, how: How) -> Iterator[Judged]:
    """Yield the numbers of each detector on each OOD set. A detector that fails yields its error, the rest goes on.

    Work is shared: one transform a space, one fit a clustering, one pass of scores a distance, one pass for all
    settings of a distance that share theirs. What a plugin warns of (`warnings.warn`) goes into the rows of all that
    it made.
    """
    judge = _Judge(bank, sets, how.compat)
    scoring = [detector for detector in detectors if detector.distance]
    for where, in_space in _grouped(scoring, lambda d: d.space):
        spaced = yield from _tried(partial(_Spaced, where, bank, how), in_space, sets)
        if spaced is None:
            continue
        for clustering, in_clustering in _grouped(in_space, lambda d: d.clustering):
            fit = partial(_clusters, clustering, spaced.made, bank, seed_of(seed, "clustering"))
            clusters = yield from _tried(fit, in_clustering, sets)
            if clusters is None:
                continue
            notes = [*spaced.warnings, *clusters.warnings]
            for family in _families(in_clustering):
                yield from _scored_family(family, clusters.made, spaced.made, judge, notes)
    baselines = [detector for detector in detectors if detector.posthoc]
    for posthoc, members in _grouped(baselines, lambda d: d.posthoc):
        score = partial(_scored_posthoc, posthoc, bank, judge, how)
        scored = yield from _tried(score, members, sets)
        if scored is not None:
            yield from judge.judged(members, scored.made, scored.warnings)


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
    """What was made, and what was warned of meanwhile."""

    made: T
    warnings: list[str]


def _tried(
    make: Callable[[], T], detectors: list[Detector], sets: list[str]
) -> Generator[Judged, None, _Made[T] | None]:
    """Return what is made; where that fails, yield the error for every detector that needed it."""
    made = _attempt(make)
    if isinstance(made, _Made):
        return made
    yield from (Judged(detector, ood, {}, [], made) for detector in detectors for ood in sets)
    return None


def _attempt(make: Callable[[], T]) -> _Made[T] | str:
    """Return what is made, or why that failed."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            made = make()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes a row, and the grid goes on
            return f"{type(error).__name__}: {error}"
    return _Made(made, list(dict.fromkeys(str(each.message) for each in heard)))


class _Spaced:
    """The features of a bank in one space, on the device, within a budget of memory.

    What fits the budget is kept, and made anew where a plugin changed it in place. What does not is carried into the
    space block by block each time it is scored; training features go into a file, or stay in the bank's.
    """

    def __init__(self, where: Space, bank: Bank, how: How) -> None:
        self._device = how.device
        plain = bank.fit[where.layer][0].to(how.device)
        reference = {} if bank.reference is None else {REFERENCE: bank.reference.layers}
        sets = {ID_TEST: bank.test.layers, **reference, **bank.ood, **_validation(bank)}
        self._raw = {name: layers[where.seen][where.layer] for name, layers in sets.items()}  # (V, M, D)
        self._small = how.memory >= 4 * (_bytes(plain) + sum(_bytes(f) for f in self._raw.values()))
        self._rows = max(256, how.memory // (64 * plain.shape[1]))  # of a block: few float64 copies of it
        self._transform, self._train = spaces.fit(where, plain, _at_once if self._small else self._on_disk)
        self._kept: dict[tuple[str, bool], tuple[Tensor, int]] = {}  # features, and their version when made

    @property
    def fit(self) -> Tensor:
        """The features (N, D) of the training items."""
        return self._keep((TRAIN, False), lambda: self._train.clone() if self._small else self._train)

    def _on_disk(self, step: spaces.Transform, f: Tensor) -> Tensor:
        """Return training features one step further, in a memory-mapped file that goes when they do."""
        file = scratch(len(f), step(f[:1]).shape[1])
        for start in range(0, len(file), self._rows):
            file[start : start + self._rows] = step(f[start : start + self._rows]).cpu().numpy()
        return torch.from_numpy(file).to(self._device)

    def items(self, name: str) -> int:
        return int(self._raw[name].shape[1])

    def seen(self, name: str, every_view: bool) -> Iterator[Tensor]:
        """Yield the features of a set in blocks: (B, D) of the mean view, or (V, B, D) of every view."""
        f = self._raw[name]
        if self._small:
            whole = self._keep((name, every_view), lambda: self._carried(f, every_view).clone())
            yield from whole.split(self._rows, dim=-2)
        else:
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


def _at_once(step: spaces.Transform, f: Tensor) -> Tensor:
    return step(f)


def _bytes(f: Tensor) -> int:
    return f.numel() * f.element_size()


def _validation(bank: Bank) -> dict[str, dict[Seen, Layers]]:
    """Return the validation sets under names that no test set has."""
    return {f"validation {name}": layers for name, layers in bank.validation.items()}


def _clusters(clustering: Clustering | None, spaced: _Spaced, bank: Bank, seed: int) -> Clusters:
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


def _copy(clusters: Clusters) -> Clusters:
    weight, covariance = (None if each is None else each.clone() for each in (clusters.weight, clusters.covariance))
    centroid, assign = clusters.centroid.clone(), clusters.assign.clone()
    return clusters._replace(centroid=centroid, assign=assign, weight=weight, covariance=covariance)


class Clustered(NamedTuple):
    """The ID features of a bank in one space, and the clusters that detectors have there."""

    train: Tensor  # (N, D)
    test: Tensor  # (M, D), of the mean view
    clusters: list[Clusters | str]  # of each clustering, or why there are none


def clustered(
    where: Space, clusterings: list[Clustering | None], bank: Bank, seed: int, device: torch.device
) -> Clustered:
    """Return the clusters that `judged` scores against, for the seed of the same run."""
    spaced = _Spaced(where, bank, How(device))

    def attempt(clustering: Clustering | None) -> Clusters | str:
        try:
            return _clusters(clustering, spaced, bank, seed_of(seed, "clustering"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other clusterings have theirs
            return f"{type(error).__name__}: {error}"

    with warnings.catch_warnings(action="ignore"):  # they are in the rows
        found = [attempt(each) for each in clusterings]
    return Clustered(spaced.fit, torch.cat(list(spaced.seen(ID_TEST, False))), found)


# ---- scores -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scored:
    """The scores of one distance or baseline on every set, on the CPU, and facts about the fit."""

    reference: Scores
    id_: Scores
    ood: dict[str, Scores | str]  # a set's scores, or why there are none
    validation: dict[str, Scores]
    facts: dict[str, float]
    rankings: metrics.Rankings


def _scored_family(
    family: Family, clusters: Clusters, spaced: _Spaced, judge: _Judge, notes: list[str]
) -> Iterator[Judged]:
    """Yield the numbers of distances that share their work; where that fails, of each on its own."""
    bank, sets = judge.bank, judge.sets
    made = _attempt(partial(_scored, [distance for distance, _ in family], _copy(clusters), spaced, bank, sets))
    if isinstance(made, _Made):
        for (_, members), scored in zip(family, made.made, strict=True):
            yield from judge.judged(members, scored, notes + made.warnings)
    elif len(family) > 1:
        for each in family:
            yield from _scored_family([each], clusters, spaced, judge, notes)
    else:
        yield from (Judged(detector, ood, {}, [], made) for detector in family[0][1] for ood in sets)


def _scored(
    distances: list[Distance], clusters: Clusters, spaced: _Spaced, bank: Bank, names: list[str]
) -> list[_Scored]:
    distances = [resolved(distance, bank.classes) for distance in distances]
    first = distances[0]
    scorer = type(first).fit_together(distances, spaced.fit, clusters)
    spaced.check_unchanged(first.label)

    def scores(name: str) -> list[Scores]:
        found = [scorer(block) for block in spaced.seen(name, first.views)]
        spaced.check_unchanged(first.label)
        return [_checked(_joined(parts), name, spaced.items(name)) for parts in zip(*found, strict=True)]

    if bank.reference is not None:
        references = scores(REFERENCE)
    else:
        found = [distance.leave_one_out(spaced.fit, clusters) for distance in distances]
        spaced.check_unchanged(first.label)
        references = [_checked(each, REFERENCE, len(spaced.fit)) for each in found]
    facts = {"clusters": len(clusters.centroid), "dimensions": spaced.fit.shape[1], "n_train": len(spaced.fit)}
    return _all_scores(references, scores, names, bank, facts)


def _all_scores(
    references: list[Scores], scores: Callable[[str], list[Scores]], names: list[str], bank: Bank, facts: dict[str, int]
) -> list[_Scored]:
    """Return what scorers make of every set; an OOD set that cannot be scored leaves the others their numbers."""
    n = len(references)

    def attempt(name: str) -> list[Scores] | list[str]:
        try:
            return scores(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes the rows of this set
            return [f"{type(error).__name__}: {error}"] * n

    id_ = scores(ID_TEST)
    validation = {name: scores(name) for name in _validation(bank)}
    ood = {name: attempt(name) for name in names}
    return [
        _Scored(
            references[i],
            id_[i],
            {name: each[i] for name, each in ood.items()},
            {name: each[i] for name, each in validation.items()},
            {**facts, "n_reference": len(references[i].score)},
            metrics.Rankings(None if bank.correct is None else bank.correct.numpy()),
        )
        for i in range(n)
    ]


def _scored_posthoc(posthoc: Posthoc | None, bank: Bank, judge: _Judge, how: How) -> _Scored:
    head = bank.head
    assert posthoc is not None
    assert bank.reference is not None
    if head is None:
        raise ValueError(f"{posthoc.label} needs a classifier of several classes")
    posthoc = resolved(posthoc, bank.classes)

    def split(layers: Layers, y: Tensor | None = None) -> Split:
        h = layers["penultimate"][0].to(how.device, copy=True)
        logits = layers["logits"][0].to(how.device, copy=True) if "logits" in layers else head.apply(h.clone())
        return Split(h, logits, None if y is None else y.to(how.device, copy=True))

    held_out = split(bank.reference.layers[PLAIN], bank.reference.y) if posthoc.val else None
    scorer = posthoc.fit(split(bank.fit, bank.y), held_out, head)
    sets = {ID_TEST: bank.test.layers, REFERENCE: bank.reference.layers, **bank.ood, **_validation(bank)}

    def scores(name: str) -> list[Scores]:
        seen = split(sets[name][PLAIN])
        found = scorer(seen)
        return [_checked(Scores(found, torch.zeros(len(seen.h), dtype=torch.int64)), name, len(seen.h))]

    n, dim = bank.fit["penultimate"][0].shape
    return _all_scores(scores(REFERENCE), scores, judge.sets, bank, {"dimensions": dim, "n_train": n})[0]


def _checked(scores: Scores, name: str, items: int) -> Scores:
    """Return scores on the CPU in float64; raises ValueError, naming the set, on a wrong number, NaN or infinity."""
    score = scores.score.double().cpu()
    for what, given in (("scores", score), ("clusters", scores.cluster)):
        if given.shape != (items,):
            raise ValueError(f"{what} of {name} have the shape {tuple(given.shape)}, for {items} items")
    bad = int((~score.isfinite()).sum())
    if bad:
        raise ValueError(f"{bad} of {len(score)} scores of {name} are NaN or infinite")
    return Scores(score, scores.cluster.cpu())


# ---- judge ------------------------------------------------------------------------------------------------


class _Judge:
    """Turns scores into the numbers of detectors, for one bank and its OOD sets."""

    def __init__(self, bank: Bank, sets: list[str], compat: bool) -> None:
        self.bank = bank
        self.sets = sets
        self.compat = compat

    def judged(self, detectors: list[Detector], scored: _Scored, notes: list[str]) -> Iterator[Judged]:
        """Yield the numbers of the thresholds of one scorer."""
        for detector in detectors:
            judged = yield from _tried(partial(self._judged, detector, scored), [detector], self.sets)
            if judged is not None:
                noted = notes + judged.warnings
                yield from (each._replace(warnings=noted + each.warnings) for each in judged.made)

    def _judged(self, detector: Detector, scored: _Scored) -> list[Judged]:
        threshold = resolved(detector.threshold, self.bank.classes)
        seen = _joined(list(scored.validation.values())) if threshold.needs_ood else None
        rule = threshold.fit(_own(scored.reference), seen)
        if math.isnan(rule.cut):
            raise ValueError(f"the cut of {threshold.label} is NaN")
        notes = _empty_clusters(scored) if threshold.clusters else []
        id_, reference = _calibrated(rule, scored.id_), _calibrated(rule, scored.reference)
        held_out = self.bank.reference is not None and not threshold.needs_ood
        interval = _Interval(rule, reference, scored.reference, held_out)
        numbers = scored.facts | self._chosen_by(rule, reference, scored) | interval.of_id(len(id_))
        found = []
        for name in self.sets:
            scores = scored.ood[name]
            if isinstance(scores, str):
                found.append(Judged(detector, name, {}, [], scores))
                continue
            ood = _calibrated(rule, scores)
            ranking = scored.rankings(id_, ood)
            sizes = {"n_id": len(id_), "n_ood": len(ood), "cut": rule.cut}
            warned = metrics.warnings(ranking, f"{detector.scorer.label} on {name}")
            judged = ranking | metrics.recalls(id_, ood, rule.cut) | interval.of_ood(ood) | numbers | sizes
            if self.compat:
                judged |= _by_others(id_, ood) | _truncated(detector, scored, scores)
            found.append(Judged(detector, name, judged, notes + warned))
        return found

    def _chosen_by(self, rule: Rule, reference: metrics.Floats, scored: _Scored) -> dict[str, float]:
        """Return the numbers that settings may be chosen by: ID reference against validation OOD, mean over sets."""
        ranked = metrics.Ranked(reference)
        each = [ranked.ranking(_calibrated(rule, scores)) for scores in scored.validation.values()]
        return {f"val_{name}": float(np.mean([one[name] for one in each])) for name in CHOSEN_BY if each}


CHOSEN_BY = ("auroc", "fpr95_id", "fpr95_ood")


class _Interval:
    """95 % intervals of the recalls of a rule, where its cut is one of the held-out reference scores."""

    def __init__(self, rule: Rule, calibrated: metrics.Floats, reference: Scores, held_out: bool) -> None:
        self._reference = calibrated
        self._place = int((calibrated <= rule.cut).sum())  # the cut is the place-th smallest
        plain = np.array_equal(calibrated, reference.score.numpy()) and bool((calibrated == rule.cut).any())
        self._known = held_out and plain

    def of_id(self, items: int) -> dict[str, float]:
        """Return where the realised ID recall of so many test items lies, by the draw of reference and test."""
        if not self._known:
            return {}
        low, high = intervals.calibrated(0.0, len(self._reference), items, k=self._place)
        return {"id_recall_low": float(low), "id_recall_high": float(high)}

    def of_ood(self, ood: metrics.Floats) -> dict[str, float]:
        """Return an interval of the OOD recall of the cut at the same quantile of all ID, and of all OOD."""
        if not self._known:
            return {}
        level = self._place / len(self._reference)
        low, high = intervals.ood_recall(self._reference, ood, level)
        return {"ood_recall_low": low, "ood_recall_high": high}


def _by_others(id_: metrics.Floats, ood: metrics.Floats) -> dict[str, float]:
    return {f"compat_{name}": value for name, value in compat.all_rules(id_, ood).items()}


def _truncated(detector: Detector, scored: _Scored, ood: Scores) -> dict[str, float]:
    """Return the studied code's numbers of per-cluster cuts, where there are clusters."""
    if detector.clustering is None:
        return {}
    groups = [compat.Grouped(each.score.numpy(), each.cluster.numpy()) for each in (scored.reference, scored.id_, ood)]
    return {f"compat_truncated_{name}": value for name, value in compat.truncated(*groups).items()}


def _joined(scores: Sequence[Scores]) -> Scores:
    return Scores(torch.cat([each.score for each in scores]), torch.cat([each.cluster for each in scores]))


def _own(scores: Scores) -> Scores:
    return Scores(scores.score.clone(), scores.cluster.clone())


def _calibrated(rule: Rule, scores: Scores) -> metrics.Floats:
    found = rule.calibrate(_own(scores))
    if found.shape != scores.score.shape:
        raise ValueError(f"calibrated scores have the shape {tuple(found.shape)}, for {len(scores.score)} items")
    return found.double().numpy()


def _empty_clusters(scored: _Scored) -> list[str]:
    total, found = int(scored.facts["clusters"]), len(scored.reference.cluster.unique())
    return [f"{total - found} of {total} clusters have no reference item"] if found < total else []
