"""One detector, fitted once: it scores whatever comes, as the grid scores a test set."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from oodbench.api import Clusters, Rule, Scores
from oodbench.scoring import detectors as scoring
from oodbench.scoring.metrics import Floats
from oodbench.study.grid import Detector, resolved
from oodbench.study.settings import PLAIN
from oodbench.toolkit.seeds import seed_of

ITEMS = "the items"  # what errors call what is scored


class FittedParts(NamedTuple):
    """What was made of a detector elsewhere: with it, nothing is clustered anew, and no reference is scored again."""

    clusters: Clusters | None  # None of a baseline
    reference: Scores  # of the ID reference, not calibrated
    seen: Scores | None  # of the validation OOD sets, one after the other, where the threshold is set on them


class FittedDetector:
    """Space, clusters, distance or baseline, and cut, fitted on the training items and the reference of a bank.

    `parts` are those of the same detector on the same bank, where they are known.
    """

    def __init__(
        self, detector: Detector, bank: scoring.Bank, seed: int, how: scoring.How, parts: FittedParts | None = None
    ) -> None:
        """Raise ValueError where plugins cannot be fitted on these features."""
        self.detector = detector
        self._scored: Callable[[scoring.Layers, str], Scores]
        if detector.distance:
            self.parts = self._of_distance(bank, seed, how, parts)
        else:
            self.parts = self._of_baseline(bank, how, parts)
        threshold, seen = resolved(detector.threshold, bank.classes), self.parts.seen
        self.rule: Rule = threshold.fit(scoring.joined([self.parts.reference]), seen and scoring.joined([seen]))

    def _of_distance(self, bank: scoring.Bank, seed: int, how: scoring.How, parts: FittedParts | None) -> FittedParts:
        space, clustering = self.detector.space, self.detector.clustering
        assert self.detector.distance is not None
        distance = resolved(self.detector.distance, bank.classes)
        spaced = scoring.SpacedFeatures(space, bank, how)
        if parts is None or parts.clusters is None:
            clusters = scoring.clusters_in(clustering, spaced, bank, seed_of(seed, "clustering"))
        else:
            clusters = parts.clusters
        own = Clusters(*(each.to(how.device, copy=True) if isinstance(each, Tensor) else each for each in clusters))  # type: ignore[arg-type]
        scorer, _ = scoring.fit_distances([distance], own, spaced)

        def scored(layers: scoring.Layers, name: str) -> Scores:
            f = layers[space.layer]
            return scorer(spaced.carried(f, distance.views), name, f.shape[1])[0]

        self._scored = scored
        if parts is not None:
            return parts
        if bank.reference is None:
            return FittedParts(clusters, scoring.left_out(distance, own, spaced), None)
        return FittedParts(clusters, *self._of_sets(bank))

    def _of_baseline(self, bank: scoring.Bank, how: scoring.How, parts: FittedParts | None) -> FittedParts:
        assert self.detector.posthoc is not None
        self._scored, _ = scoring.fit_posthoc(resolved(self.detector.posthoc, bank.classes), bank, how.device)
        return parts or FittedParts(None, *self._of_sets(bank))

    def _of_sets(self, bank: scoring.Bank) -> tuple[Scores, Scores | None]:
        """Return the scores of the reference, and of the validation OOD sets where the threshold is set on them."""
        assert bank.reference is not None
        reference = self._scored(bank.reference.layers[PLAIN], scoring.REFERENCE)
        if not self.detector.threshold.needs_ood:
            return reference, None
        seen = [self._scored(layers[PLAIN], name) for name, layers in bank.validation.items()]
        return reference, scoring.joined(seen)

    def _of(self, layers: dict[str, Tensor]) -> Scores:
        return self._scored({name: f[None] for name, f in layers.items()}, ITEMS)

    def scores(self, layers: dict[str, Tensor]) -> Floats:
        """Return calibrated scores (M,) of raw features, layer -> (M, D): above the rule's cut is OOD."""
        return scoring.calibrated(self.rule, self._of(layers))

    def nearest(self, layers: dict[str, Tensor]) -> Tensor:
        """Return the clusters (M,) that raw features are scored against, 0 where there are none."""
        return self._of(layers).cluster

    def scores_and_nearest(self, layers: dict[str, Tensor]) -> tuple[Floats, Tensor]:
        """Return what `scores` and `nearest` do, scored once."""
        found = self._of(layers)
        return scoring.calibrated(self.rule, found), found.cluster
