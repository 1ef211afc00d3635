"""The features of trained encoders, each made once and remembered, and the linear probe that is fitted on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from oodbench.api import ClassifierHead, Dataset
from oodbench.data.library import Split
from oodbench.store.artifacts import Artifact
from oodbench.store.memo import NUMBER
from oodbench.study.grid import LAYER_HEAD, Run, has_shifted
from oodbench.study.settings import Seen
from oodbench.toolkit.seeds import seed_of
from oodbench.training import embed, networks, probes
from oodbench.training.encoders import Encoders, Indices, room

PROBE = "linear.safetensors"
GRADIENT_BATCH = 128  # images that pass the network at a time where a baseline may ask for gradients


class Piece(NamedTuple):
    """A part of a set, embedded as it is seen: what a bank is made of."""

    dataset: Dataset
    split: Split
    part: Literal["fit", "val", "all"]  # of ID train: what trains and fits, or what is held out
    views: int
    crop: float | None = None


class Banks:
    """The features of a study's encoders, by run and piece."""

    def __init__(self, encoders: Encoders) -> None:
        self.encoders = encoders
        self.memo = encoders.memo

    def pieces(self, run: Run, ways: Iterable[Seen]) -> list[Piece]:
        """Return what a bank of a run is made of, for each way to see items."""
        found = [Piece(run.id, "train", "fit", 1), Piece(run.id, "test", "all", 1)]
        found += [Piece(each, "test", "all", 1) for each in run.covariate]  # of which the accuracy is measured
        for seen in ways:
            found.append(Piece(run.id, "test", "all", *seen))
            if run.reference.kind != "train":
                found.append(Piece(*reference_of(run), *seen))
            found += [Piece(each, "test", "all", *seen) for each in (*run.sets.values(), *run.covariate)]
            found += [Piece(each, "train", "all", *seen) for each in run.validation]
        return list(dict.fromkeys(found))

    def images(self, run: Run, piece: Piece) -> Indices:
        """Return the positions of a piece's images in its set."""
        if piece.part == "all":
            return np.arange(len(self.encoders.library.prepared(piece.dataset, piece.split).x))
        return self.encoders.split(run)[piece.part == "val"]

    def bank_fields(self, run: Run, piece: Piece) -> dict[str, Any]:
        return {
            "number": NUMBER["bank"],
            "train": self.encoders.train_key(run),
            "set": self.encoders.library.prepared(piece.dataset, piece.split).content,
            "part": piece.part,
            "views": piece.views,
            "crop": piece.crop,
        }

    def layers(self, run: Run, piece: Piece) -> embed.Layers:
        """Return the features of a piece under a trained network."""
        title = f"{piece.dataset.label}, {piece.split} · {run.title}"
        fields = self.bank_fields(run, piece)
        artifact = self.memo.remembered("bank", fields, lambda folder: self._embed(run, piece, folder), title)
        return load_file(artifact.file("features.safetensors"))

    def _embed(self, run: Run, piece: Piece, folder: Path) -> dict[str, Any]:
        prepared = self.encoders.library.prepared(piece.dataset, piece.split)
        x = self.encoders.images(piece.dataset, prepared, self.images(run, piece), self.encoders.device)
        seed = seed_of(run.seed, "views", prepared.content, piece.part)
        embedding = embed.embed_shifted if has_shifted(run.training) else embed.embed
        found = embedding(self.encoders.model(run), x, Seen(piece.views, piece.crop), run.recipe, seed)
        save_file({name: value.contiguous() for name, value in found.items()}, folder / "features.safetensors")
        return {"set": piece.dataset.label, "split": piece.split, "part": piece.part, "images": len(x)}

    def head(self, run: Run) -> ClassifierHead | None:
        """Return the classifier that baselines read, on the device: the training's own, else the linear probe."""
        name = LAYER_HEAD["logits"]
        if name not in run.training.heads:
            found = self.probe(run)
            return None if found is None else linear_head(*(each.to(self.encoders.device) for each in found))
        return own_head(self.encoders.model(run).network.heads[name])

    def images_of(self, run: Run, piece: Piece) -> Callable[[], Iterator[Tensor]]:
        """Return what yields the images of a piece, plain, as `network` takes them."""

        def blocks() -> Iterator[Tensor]:
            prepared = self.encoders.library.prepared(piece.dataset, piece.split)
            x = self.encoders.images(piece.dataset, prepared, self.images(run, piece), self.encoders.device)
            dtype = self.encoders.model(run).mean.dtype
            yield from (rows.to(dtype) / 255 for rows in x.split(GRADIENT_BATCH))

        return blocks

    def network(self, run: Run, head: ClassifierHead) -> ClassifierHead:
        """Return a classifier with the trained network before it, as baselines get it that ask for the network."""
        name, model = LAYER_HEAD["logits"], self.encoders.model(run)
        module = Classifier(model, name if name in run.training.heads else head).eval()
        layers, parts = networks.at_depths(model), tuple(model.network.encoder.children())
        return head._replace(network=module.passed, layers=layers, module=module, parts=parts)

    def correct(self, run: Run) -> Tensor | None:
        """Return which ID test items (M,) the classifier, or else the linear probe, classifies right."""
        return self._correct(run, run.id, self.encoders.library.prepared(run.id, "test").y)

    def correct_shifted(self, run: Run) -> dict[str, Tensor]:
        """Return the like of `correct` of each covariate-shifted set by its label; nothing where there is one class."""
        library = self.encoders.library
        found = {each.label: self._correct(run, each, library.shifted_labels(each, run.id)) for each in run.covariate}
        return {name: each for name, each in found.items() if each is not None}

    def _correct(self, run: Run, of: Dataset, y: NDArray[np.int64]) -> Tensor | None:
        layers = self.layers(run, Piece(of, "test", "all", 1))
        found = self.probe(run)
        if found is None:
            return None
        logits = layers["logits"][0] if "logits" in layers else found(layers["penultimate"][0])
        return logits.argmax(1) == torch.from_numpy(np.array(y))

    def probe_fields(self, run: Run) -> dict[str, Any]:
        return {
            "number": NUMBER["probe"],
            "train": self.encoders.train_key(run),
            "test": self.encoders.library.prepared(run.id, "test").content,
        }

    def accuracies(self, run: Run) -> dict[str, float | None]:
        """Return the ID accuracies of a trained encoder."""
        found: dict[str, float | None] = self._probe(run).meta["accuracies"]
        return found

    def probe(self, run: Run) -> probes.Linear | None:
        """Return the linear probe of a trained encoder; None where there is one class."""
        artifact = self._probe(run)
        return probes.Linear(**load_file(artifact.file(PROBE))) if artifact.meta["classes"] else None

    def _probe(self, run: Run) -> Artifact:
        """Return the linear probe of a trained encoder, and its accuracies; with one class there is none."""

        def fill(folder: Path) -> dict[str, Any]:
            y = torch.from_numpy(self.encoders.library.prepared(run.id, "train").y[self.encoders.split(run)[0]])
            if len(y.unique()) < 2:
                return {"classes": 0, "accuracies": dict.fromkeys(("classifier", "linear", "knn"))}
            y_test = torch.from_numpy(np.array(self.encoders.library.prepared(run.id, "test").y))
            fit = {name: f[0] for name, f in self.layers(run, Piece(run.id, "train", "fit", 1)).items()}
            test = {name: f[0] for name, f in self.layers(run, Piece(run.id, "test", "all", 1)).items()}
            device, features = self.encoders.device, fit["penultimate"]
            if features.numel() * features.element_size() > room(device):
                device = probes.HOST
            linear = probes.linear(features, y, device=device)
            save_file(linear._asdict(), folder / PROBE)
            return {"classes": len(linear.bias), "accuracies": probes.accuracies(linear, fit, y, test, y_test, device)}

        return self.memo.remembered("probe", self.probe_fields(run), fill, run.title)


class Classifier(torch.nn.Module):
    """A trained network and the classifier behind its features: a head of it, by name, or a linear probe."""

    def __init__(self, model: networks.Trained, head: str | ClassifierHead) -> None:
        super().__init__()
        self.model = model
        self.head = head if isinstance(head, str) else None
        probe = (None, None) if isinstance(head, str) else (head.weight, head.bias)
        self.weight, self.bias = (None if each is None else torch.nn.Parameter(each) for each in probe)

    def passed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 features (B, D) and logits (B, C) of images (B, C, H, W) in [0, 1], with gradients."""
        return self._classified(*self.model(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits that `passed` does; of images in any memory layout, for torch.vmap knows one alone."""
        return self._classified(*self.model.network((x - self.model.mean) / self.model.std))[1]

    def _classified(self, h: Tensor, out: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        h = h.float()
        if self.head is not None:
            return h, out[self.head].float()
        assert self.weight is not None
        assert self.bias is not None
        return h, h @ self.weight.T + self.bias


def reference_of(run: Run) -> tuple[Dataset, Split, Literal["val", "all"]]:
    """Return where the held-out reference of a run is: a part of ID train, or a set of its own."""
    held_out = run.reference.held_out
    return (run.id, "train", "val") if held_out is None else (held_out, "test", "all")


def own_head(module: torch.nn.Module) -> ClassifierHead:
    """Return a training's own classifier as baselines read it: in float32, as the features that it takes."""
    head = copy.deepcopy(module).float()
    if isinstance(head, torch.nn.Linear):
        return linear_head(head.weight.detach(), head.bias.detach())

    @torch.no_grad()
    def apply(h: Tensor) -> Tensor:
        logits: Tensor = head(h)
        return logits

    return ClassifierHead(apply, None, None)


def linear_head(weight: Tensor, bias: Tensor) -> ClassifierHead:
    """Return the head of weights (C, D) and a bias (C,)."""
    return ClassifierHead(lambda h: h @ weight.T + bias, weight, bias)
