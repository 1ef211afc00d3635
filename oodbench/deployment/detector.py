"""A detector from its folder: images in, scores and decisions out. Nothing of the study or its store is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import ClassifierHead, Clusters, Scores
from oodbench.deployment import folder as folders
from oodbench.deployment import images as reading
from oodbench.deployment.folder import DeployedFacts, Tensors
from oodbench.errors import UserError
from oodbench.exchange.parameters import Parameters
from oodbench.scoring import detectors as scoring
from oodbench.scoring.fitted import FittedDetector, FittedParts
from oodbench.store.artifacts import written
from oodbench.store.memo import NUMBER
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import LAYER_HEAD, Detector
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN, Encoder, Recipe
from oodbench.training import embed, networks
from oodbench.training.banks import linear_head, own_head

FIT, REFERENCE, CLUSTERS, PROBE = "fit.", "reference.", "clusters.", "probe."  # how names of a bank's tensors begin
STAGES = ("data", "bank", "score")  # whose arithmetic a detector takes from the package
Images = Any  # (N, H, W) or (N, H, W, C) of uint8, or files, folders and arrays by path


class Predictions(NamedTuple):
    """What a detector says of images, larger scores are more OOD."""

    score: NDArray[np.float64]  # (M,) calibrated
    is_ood: NDArray[np.bool_]  # (M,) whether it is above the cut
    nearest: NDArray[np.int64]  # (M,) class, by its place in `classes`; -1 where the detector knows none
    cluster: NDArray[np.int64]  # (M,) that the image is scored against, 0 where there are none


@dataclass(frozen=True)
class Trust:
    """What besides the package a detector may be made of, and who hears what is to be said of it."""

    registry: Registry
    own_encoder: bool  # whether a module that the folder names may be imported
    tell: Callable[[str], None]


class DeployedDetector:
    """A detector that scores images as the cell of the study did whose folder it is from."""

    def __init__(
        self, facts: DeployedFacts, model: networks.Trained, fitted: FittedDetector, head: ClassifierHead | None
    ) -> None:
        self.facts, self.model, self.fitted = facts, model, fitted
        self.device = model.mean.device
        self._head = head

    def __repr__(self) -> str:
        return f"<oodbench detector {self.label}, threshold {self.threshold:g}>"

    @property
    def label(self) -> str:
        """What the study calls it: training, ID set, encoder, seed and detector."""
        return self.facts.title

    @property
    def threshold(self) -> float:
        """The cut, in the unit of `score`: what is above it is OOD."""
        return self.fitted.rule.cut

    @property
    def classes(self) -> list[str]:
        """The names of the ID classes."""
        return list(self.facts.classes)

    def judge(self, images: Images) -> Predictions:
        """Return what it says of images. Raises UserError where something is no image."""
        return self.predictions(self.layers(self._blocks(images)))

    def score(self, images: Images) -> NDArray[np.float64]:
        """Return calibrated scores (M,) of images, larger = more OOD."""
        return self.judge(images).score

    def predict(self, images: Images) -> NDArray[np.bool_]:
        """Return which images (M,) are OOD."""
        return self.judge(images).is_ood

    def nearest(self, images: Images) -> list[str | None]:
        """Return the nearest class of each image, None where the detector knows no classes."""
        return [self.named(each) for each in self.judge(images).nearest]

    def named(self, number: int) -> str | None:
        """Return the name of a class by its place."""
        return None if number < 0 else self.facts.classes[number]

    def layers(self, blocks: Iterable[reading.Images]) -> dict[str, Tensor]:
        """Return the raw features (M, D) of images in the detector's format, of blocks of EMBED_BATCH at most."""
        parts = [self._embedded(x) for x in blocks]
        if not parts:
            raise UserError("there are no images")
        return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}

    def _embedded(self, x: reading.Images) -> dict[str, Tensor]:
        tensor = torch.tensor(x, device=self.device).permute(0, 3, 1, 2)  # channels last in memory, as in a study
        embedding = embed.embed_shifted if self.facts.shifted else embed.embed
        return {name: f[0] for name, f in embedding(self.model, tensor, PLAIN, Recipe(), 0).items()}

    def predictions(self, layers: dict[str, Tensor]) -> Predictions:
        """Return what it says of raw features (M, D)."""
        try:
            with quiet():
                score, cluster = self.fitted.scores_and_nearest(layers)
        except ValueError as error:
            raise UserError(f"{self.label}: {error}") from error
        return Predictions(score, score > self.threshold, self._nearest(layers, cluster), cluster.numpy())

    def _nearest(self, layers: dict[str, Tensor], cluster: Tensor) -> NDArray[np.int64]:
        found, clustering = torch.full_like(cluster, -1), self.fitted.detector.clustering
        if clustering and clustering.labels:
            found = cluster
        elif self._head is not None:
            h = layers["penultimate"].to(self.device)
            logits = layers["logits"] if "logits" in layers else self._head.apply(h)
            found = logits.argmax(1).cpu()
        nearest: NDArray[np.int64] = found.numpy()
        return nearest

    def _blocks(self, images: Images) -> Iterable[reading.Images]:
        facts, size = self.facts, embed.EMBED_BATCH
        paths = [images] if isinstance(images, str | Path) else images
        if not isinstance(paths, Sequence) or not all(isinstance(each, str | Path) for each in paths):
            return reading.of_array(images, facts.image, size)

        def failed(file: str, why: str) -> None:
            raise UserError(f"{file}: {why}")

        return (each.x for each in reading.blocks(map(Path, paths), facts.image, facts.decoding, size, failed))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what plugins warn of: the rows of the study have it, and detector.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(folder: Path, device: torch.device, trust: Trust, onnx: bool = False) -> DeployedDetector:
    """Return the detector of a folder. `onnx`: its encoder runs in ONNX Runtime.

    Raises UserError where a file is missing, damaged or altered, and where a plugin is not here.
    """
    facts = folders.read(folder)
    bank = folders.tensors(folder, facts, folders.BANK)
    weights = folders.tensors(folder, facts, folders.ENCODER)
    try:
        found = assembled(facts, weights, bank, device, trust)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise UserError(f"{folder} cannot be made a detector of: {said}") from error
    if found.threshold != facts.cut:
        said = f"it is {found.threshold!r} here, and {facts.cut!r} in the study"
        raise UserError(f"{folder}: the code of {found.fitted.detector.threshold.label} sets another cut now: {said}")
    if onnx:
        from oodbench.deployment.onnx_encoder import OnnxEncoder

        found.model = OnnxEncoder(found.model, folders.verified_onnx(folder, facts))
    return found


def assembled(
    facts: DeployedFacts, weights: Tensors, bank: Tensors, device: torch.device, trust: Trust
) -> DeployedDetector:
    """Return the detector of facts and tensors, its space and distance or baseline fitted again on its bank."""
    detector = _detector(facts, trust)
    model = _model(facts, weights, device, trust)
    head = _head(detector, model, bank, device)
    parts = _parts(facts, bank)
    with quiet():
        fitted = FittedDetector(detector, _bank(facts, bank, head), facts.seed, scoring.How(device), parts)
    return DeployedDetector(facts, model, fitted, head)


def _detector(facts: DeployedFacts, trust: Trust) -> Detector:
    for room, code in facts.sources.items():
        if room == "encoder":
            continue
        name = str(facts.detector[room]["name"])
        if name not in trust.registry.sources(room):
            where = "it is a plugin of somebody's own: give its file or folder (--plugins, `plugins=`)"
            raise UserError(f"there is no {room} '{name}' here, of which {facts.title} is made; {where}")
        if trust.registry.fingerprint(room, name) != code:
            trust.tell(f"{room} {name}: its code is not that of the study any more; scores may be others")
    if other := [each for each in STAGES if facts.numbers.get(each) != NUMBER[each]]:
        made = f"oodbench {facts.made.get('version')} made it"
        trust.tell(f"{made}, whose arithmetic of {', '.join(other)} this one does not share; scores may be others")
    return Parameters(trust.registry).detector(written(facts.detector))


def _model(facts: DeployedFacts, weights: Tensors, device: torch.device, trust: Trust) -> networks.Trained:
    _check_encoder(facts.encoder, facts.sources.get("encoder"), trust)
    dtype = torch.float64 if facts.precision == "float64" else torch.float32
    with torch.random.fork_rng(devices=[]), networks.arithmetic(dtype):
        network = networks.build(facts.encoder, facts.heads, facts.image, len(facts.classes))
        model = networks.Trained(network, facts.image.channels)
    model.load_state_dict(weights)
    return model.to(device).eval()


def _check_encoder(encoder: Encoder, code: str | None, trust: Trust) -> None:
    """Refuse to import somebody's module because a folder names it."""
    if not encoder.module:
        return
    if not trust.own_encoder:
        raise UserError(
            f"its encoder is {encoder.name}, code that is not of oodbench: --own-encoder (`own_encoder=True`) says "
            "that you trust this folder, and the module is imported"
        )
    if fingerprint_module(encoder.module) != code:
        trust.tell(f"encoder {encoder.name}: its code is not that of the study any more; scores may be others")


def _head(detector: Detector, model: networks.Trained, bank: Tensors, device: torch.device) -> ClassifierHead | None:
    if not detector.posthoc:
        return None
    if f"{PROBE}weight" in bank:
        return linear_head(*(bank[f"{PROBE}{name}"].to(device) for name in ("weight", "bias")))
    return own_head(model.network.heads[LAYER_HEAD["logits"]])


def _bank(facts: DeployedFacts, bank: Tensors, head: ClassifierHead | None) -> scoring.Bank:
    fit = _layers(bank, f"{FIT}layer.")
    nothing = {PLAIN: {name: f[:, :0] for name, f in fit.items()}}  # there is no test set here
    test = scoring.Known(nothing, bank[f"{FIT}y"][:0])
    reference = None
    if f"{REFERENCE}y" in bank:
        reference = scoring.Known({PLAIN: _layers(bank, f"{REFERENCE}layer.")}, bank[f"{REFERENCE}y"])
    return scoring.Bank(fit, bank[f"{FIT}y"], len(facts.classes), test, reference, {}, {}, head=head)


def _layers(bank: Tensors, start: str) -> scoring.Layers:
    """Return the layers (1, N, D) of a set."""
    return {name.removeprefix(start): f[None] for name, f in bank.items() if name.startswith(start)}


def _parts(facts: DeployedFacts, bank: Tensors) -> FittedParts:
    clusters = None
    if f"{CLUSTERS}centroid" in bank:
        clusters = Clusters(
            bank[f"{CLUSTERS}centroid"],
            bank[f"{CLUSTERS}assign"],
            bank.get(f"{CLUSTERS}weight"),
            bank.get(f"{CLUSTERS}covariance"),
            facts.covariance_type,
        )
    seen = Scores(bank["seen.score"], bank["seen.cluster"]) if "seen.score" in bank else None
    return FittedParts(clusters, Scores(bank[f"{REFERENCE}score"], bank[f"{REFERENCE}cluster"]), seen)


def tensors_of(
    detector: Detector, bank: scoring.Bank, parts: FittedParts, probe: Mapping[str, Tensor] | None
) -> Tensors:
    """Return what `assembled` makes a detector of again, by name."""
    wanted = [detector.space.layer] if detector.distance else ["penultimate", "logits"]
    found: Tensors = {f"{FIT}layer.{name}": bank.fit[name][0] for name in wanted if name in bank.fit} | {
        f"{FIT}y": bank.y
    }
    found |= {f"{REFERENCE}score": parts.reference.score, f"{REFERENCE}cluster": parts.reference.cluster}
    if detector.posthoc and bank.reference is not None:
        plain = bank.reference.layers[PLAIN]
        found |= {f"{REFERENCE}layer.{name}": plain[name][0] for name in wanted if name in plain}
        found |= {f"{REFERENCE}y": bank.reference.y}
        found |= {f"{PROBE}{name}": each for name, each in (probe or {}).items()}
    if parts.clusters is not None:
        given = parts.clusters._asdict().items()
        found |= {f"{CLUSTERS}{name}": each for name, each in given if isinstance(each, Tensor)}
    if parts.seen is not None:
        found |= {"seen.score": parts.seen.score, "seen.cluster": parts.seen.cluster}
    return found
