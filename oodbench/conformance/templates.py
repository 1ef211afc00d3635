"""The stubs that `oodbench new` writes: what an author fills in, room by room."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from oodbench.errors import UserError, suggestion
from oodbench.study.registry import ROOMS, Registry

STUBS = {
    "training": '''
from torch import Tensor

from oodbench.api import Batch, Head, Positive, State, Training
from oodbench.toolkit.losses import nt_xent


class {cls}(Training):
    """{cls}: what it is, in one line."""

    temperature: Positive = 0.5  # fields are parameters: checked, hashed, swept over by studies
    head: Head = "mlp-128"

    views = 2  # what a batch carries; see oodbench/api.py for labels, outliers, shifts, mixing and refresh_every

    @property
    def heads(self) -> dict[str, str]:
        return {{"z": self.head}}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        # b.out["z"] is (V, B, P), not normalised; nt_xent(b.out["z"], self.temperature) would be SimCLR
        # a dict of named terms may stand for the loss: its sum is the loss, and the board shows each
        # init() makes a state (a queue), slowness() a slow copy of the network, learned() a module of the loss
        raise NotImplementedError("the loss of {name}")
''',
    "clustering": '''
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count
from oodbench.toolkit.clusters import grouped


class {cls}(Clustering):
    """{cls}: what it is, in one line."""

    k: Count = "classes"  # fields are parameters; a Count may be said in classes and is a number in fit

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        # f is (N, D); y is None unless the class says `labels = True`
        # grouped(f, assign) turns cluster numbers (N,), -1 = noise, into clusters with centroids
        raise NotImplementedError("the cluster of each item for {name}")
''',
    "distance": '''
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores


class {cls}(Distance):
    """{cls}: what it is, in one line."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        # f is (N, D), c.centroid (K, D); whatever is fitted here is used by score below
        def score(x: Tensor) -> Scores:
            # Scores(float64 (M,), higher = more OOD; int64 (M,), the cluster it was scored against)
            raise NotImplementedError("the score of {name}")

        return score
''',
    "threshold": '''
from oodbench.api import Rule, Scores, Threshold


class {cls}(Threshold):
    """{cls}: what it is, in one line."""

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        # Rule(calibrate: Scores -> float64 (M,), cut): an item is OOD when its calibrated score is above the cut
        raise NotImplementedError("the rule of {name}, which accepts self.level of the reference")
''',
    "posthoc": '''
from collections.abc import Callable

from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import of_logits


class {cls}(Posthoc):
    """{cls}: what it is, in one line."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        # train.h is (N, D), train.logits (N, C), train.y (N,); val is None unless the class says `val = True`,
        # head.apply(h) makes logits of features if it says `applies = True`; head.weight (C, D) and head.bias (C,)
        # are there if it says `linear = True`; head.network and items.images, see api.py, if it says `network = True`
        def score(logits: Tensor) -> Tensor:
            # (B, C) float64 -> (B,), higher = more OOD; of_features hands over features (B, D) instead
            raise NotImplementedError("the score of {name}")

        return of_logits(score)
''',
    "dataset": '''
from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Images


class {cls}(Dataset):
    """{cls}: what it is, in one line."""

    # source = Source(...) of oodbench.api, with page, licence and downloads, brings files that are not the user's own

    def needed(self, root: Path) -> list[Path]:
        return [root / "{name}" / "{name}.npz"]  # every file that load reads, whether it is there or not

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return [path for path in self.needed(root) if path.is_file()]  # a change of one prepares the set again

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        # Images(uint8 (N, H, W) or (N, H, W, C), np.int64 labels (N,), names of the classes)
        raise NotImplementedError("the images of {name}")
''',
}
HEADER = '''"""{cls}, authors, year, arXiv id, equation number."""

from __future__ import annotations
'''


def write(room: str, name: str, folder: Path) -> Path:
    """Write the stub of a plugin into a folder and return its file."""
    if room not in ROOMS:
        raise UserError(f"there is no room '{room}'{suggestion(room, ROOMS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        wanted = "1 to 40 lower-case letters, digits and _, a letter first, no word of Python's own"
        raise UserError(f"'{name}' cannot name a plugin: {wanted}")
    path = folder / f"{name}.py"
    if path.exists():
        raise UserError(f"{path} is there already")
    known = Registry().sources(room)
    if name in known:
        raise UserError(f"there is a {room} '{name}' already: {known[name].path}")
    folder.mkdir(parents=True, exist_ok=True)
    cls = "".join(part.capitalize() for part in name.split("_"))
    path.write_text((HEADER + STUBS[room]).format(cls=cls, name=name), encoding="utf-8")
    return path
