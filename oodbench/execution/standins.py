"""What takes the place of a data set, a training or an encoder in a dry run: the same names, nothing of their content.

Each is of a class made for the one that it stands in for, whose label, parameters and class protocol it keeps, so that
tables, claims and `skip` find what they name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Images, Training
from oodbench.study.settings import Encoder
from oodbench.toolkit.seeds import seed_of

CLASSES = 10  # of a set, and those that its class protocol names
COARSE = 4  # fields along each side of a class's pattern: a crop leaves them, and a few steps of training learn them
ALIKE = 10  # images of a group, at least
APART = 10  # times as far apart as the images of a group are its class's groups, and as groups are classes


class Drawing(NamedTuple):
    """How a set is generated; part of its parameters, so that no key is one of real data."""

    code: str  # what draws it
    size: int  # pixels of each side
    channels: int
    train: int  # images of each class
    test: int
    classes: tuple[str, ...]


def dataset(of: Dataset, drawn: Drawing) -> Dataset:
    """Return a generated set: a pattern for each class, within it one for each group of images, and little noise.

    Groups are ten times as far apart as the images of one, and roughly stay so in the features of any network. So
    a clustering into no more clusters than there are groups parts groups from each other, not their images: none
    of its clusters is of one image, however sums are rounded. In noise alone k-means cuts off single outliers.
    """
    real: Any = type(of)

    class StandInSet(real):  # type: ignore[misc]
        stand_in: Drawing = drawn

        requires: ClassVar[dict[str, str]] = {}
        class_names = drawn.classes
        source = None
        needed = Dataset.needed
        files = Dataset.files

        def load(self, split: Literal["train", "test"], root: Path) -> Images:
            how = self.stand_in
            each, classes = how.train if split == "train" else how.test, len(how.classes)
            rng = np.random.default_rng(seed_of(0, of.label))
            pattern, own = _patterns(rng, how), _groups(rng, how)
            y, group = np.repeat(np.arange(classes), each), np.tile(np.arange(each) % own.shape[1], classes)
            rng = np.random.default_rng(seed_of(1, of.label, split))
            noise = rng.integers(256, size=(len(y), how.size, how.size, how.channels))
            x = (APART**2 * pattern[y] + APART * own[y, group] + noise) / (APART**2 + APART + 1)
            return Images(x.astype(np.uint8), y.astype(np.int64), how.classes)

    StandInSet.name = of.name
    found: Dataset = StandInSet(**of.params).called(of.shown_as)
    return found


def _patterns(rng: np.random.Generator, how: Drawing) -> NDArray[np.float64]:
    """Return the pattern (K, H, W, C) of each class."""
    k = len(how.classes)
    levels = np.linspace(0, 255, k)
    colour = np.stack([rng.permutation(levels) for _ in range(how.channels)], -1)  # a crop leaves it
    light = np.linspace(255, 0, how.size)[:, None, None]  # from above: it tells the turns of an image
    field = np.arange(how.size) * COARSE // how.size
    fields = 255 * rng.integers(2, size=(k, COARSE, COARSE, how.channels))[:, field][:, :, field]
    pattern: NDArray[np.float64] = (colour[:, None, None] + light + fields) / 3
    return pattern


def _groups(rng: np.random.Generator, how: Drawing) -> NDArray[np.int64]:
    """Return the pattern (K, G, H, W, C) of each of the groups of a class: those of its training images."""
    groups = max(1, how.train // ALIKE)
    return rng.integers(256, size=(len(how.classes), groups, how.size, how.size, how.channels))


def class_names(of: Dataset) -> tuple[str, ...]:
    """Return the names of the classes of a stand-in: the first ones, up to some after the last that is named."""
    given = [getattr(of, name) for name in ("keep", "only", "without")]
    named = [each for value in given if value is not None for each in (value if isinstance(value, tuple) else (value,))]
    words = tuple(dict.fromkeys(each for each in named if isinstance(each, str)))
    numbers = [each for each in named if isinstance(each, int)]
    known = of.class_names
    if known is None:
        most = max([*numbers, len(words) - 1]) + 1 + CLASSES
        return (*words, *(f"class{k}" for k in range(most)))[:most]
    last = max([*numbers, *(known.index(each) for each in words), -1])
    return known[: last + 1 + CLASSES]


def training(of: Training, **changes: Any) -> Training:
    """Return a training with other parameters that is shown as it was."""
    real: Any = type(of)

    class StandInTraining(real):  # type: ignore[misc]
        __annotations__ = dict.fromkeys(changes, Any)  # a real one of its kind may not have such values

        @property
        def label(self) -> str:
            return of.label

    StandInTraining.name = of.name
    found: Training = StandInTraining(**of.params | changes).called(of.shown_as)
    return found


def untrained(of: Training, heads: dict[str, str]) -> Training:
    """Return a training that loads no weights: its network stays as it is drawn."""
    found = training(of, **{name: None for name in ("weights",) if name in of.params})
    type(found).weights = None  # type: ignore[assignment, method-assign]
    type(found).heads = heads  # type: ignore[assignment, method-assign]
    return found


@dataclass(frozen=True, kw_only=True)
class Slim(Encoder):
    """An encoder of fewer channels that is shown as another."""

    shown: str

    @property
    def label(self) -> str:
        return self.shown
