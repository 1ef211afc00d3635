"""One detector, fitted once: it scores whatever comes, as the grid scores a test set."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from oodbench.api import Clusters, Rule, Scores
from oodbench.scoring import detectors as scoring
from oodbench.scoring.metrics import Floats
from oodbench.study.grid import Detector, resolved
from oodbench.study.settings import PLAIN
from oodbench.toolkit.seeds import seed_of

ITEMS = "the items"  # what errors call what is scored


class FittedDetector:
    """Space, clusters, distance or baseline, and cut, fitted on the training items and the reference of a bank."""

    def __init__(self, detector: Detector, bank: scoring.Bank, seed: int, how: scoring.How) -> None:
        """Raise ValueError where plugins cannot be fitted on these features."""
        self.detector = detector
        self.clusters: Clusters | None = None
        self._scored: Callable[[scoring.Layers, str], Scores]
        reference = self._of_distance(bank, seed, how) if detector.distance else self._of_baseline(bank, how)
        self.rule: Rule = resolved(detector.threshold, bank.classes).fit(scoring.joined([reference]))

    def _of_distance(self, bank: scoring.Bank, seed: int, how: scoring.How) -> Scores:
        """Fit a distance, and return the scores of the reference."""
        space, clustering = self.detector.space, self.detector.clustering
        assert self.detector.distance is not None
        distance = resolved(self.detector.distance, bank.classes)
        spaced = scoring.SpacedFeatures(space, bank, how)
        self.clusters = clusters = scoring.clusters_in(clustering, spaced, bank, seed_of(seed, "clustering"))
        scorer = scoring.fit_distances([distance], clusters, spaced)

        def scored(layers: scoring.Layers, name: str) -> Scores:
            f = layers[space.layer]
            return scorer(spaced.carried(f, distance.views), name, f.shape[1])[0]

        self._scored = scored
        if bank.reference is None:
            return scoring.left_out(distance, clusters, spaced)
        return scored(bank.reference.layers[PLAIN], scoring.REFERENCE)

    def _of_baseline(self, bank: scoring.Bank, how: scoring.How) -> Scores:
        """Fit a baseline, and return the scores of the reference."""
        assert self.detector.posthoc is not None
        assert bank.reference is not None
        self._scored = scoring.fit_posthoc(resolved(self.detector.posthoc, bank.classes), bank, how.device)
        return self._scored(bank.reference.layers[PLAIN], scoring.REFERENCE)

    def _of(self, layers: dict[str, Tensor]) -> Scores:
        return self._scored({name: f[None] for name, f in layers.items()}, ITEMS)

    def scores(self, layers: dict[str, Tensor]) -> Floats:
        """Return calibrated scores (M,) of raw features, layer -> (M, D): above the rule's cut is OOD."""
        return scoring.calibrated(self.rule, self._of(layers))

    def nearest(self, layers: dict[str, Tensor]) -> Tensor:
        """Return the clusters (M,) that raw features are scored against, 0 where there are none."""
        return self._of(layers).cluster
