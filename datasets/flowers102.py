"""Flowers-102, Nilsback and Zisserman 2008 (ICVGIP): photographs of 102 kinds of flowers, RGB, of many sizes.

DATA/flowers-102 has jpg/, imagelabels.mat and setid.mat, as torchvision has them, or 102flowers.tgz and the two files;
else they are downloaded. The parts are trnid, valid and tstid of setid.mat. A class has torchvision's name. CSI tests
on images of all parts: `test: [train, val, test]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Parted

NAMES = (
    *("pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold"),
    *("tiger lily", "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot"),
    *("king protea", "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily"),
    *("balloon flower", "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger"),
    *("grape hyacinth", "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william"),
    *("carnation", "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya"),
    *("cape flower", "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily"),
    *("poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion"),
    *("petunia", "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium"),
    *("orange dahlia", "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan"),
    *("silverbush", "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy"),
    *("gazania", "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus"),
    *("toad lily", "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow"),
    *("magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove"),
    *("bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper"),
    "blackberry lily",
)
FOLDER = "flowers-102"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


class Flowers102(Parted):
    """Flowers-102: 102 classes of flowers, RGB, of many sizes."""

    test: tuple[Literal["train", "val", "test"], ...] = ("test",)  # the other parts are the train split

    class_names = NAMES
    parts = tuple(PARTS)
    source = Source(
        "Flowers-102",
        f"{SITE}/",
        "none stated",
        (
            Download((f"{SITE}/imagelabels.mat",), "md5:e0620be6f572b9609742df49c70aed4d"),
            Download((f"{SITE}/setid.mat",), "md5:a5357ecc9cb78c4bef273ce3793fc85c"),
            Download((f"{SITE}/102flowers.tgz",), "md5:52808999861908f626f3c1f4e79d11fa", r"jpg/image_\d{5}\.jpg"),
        ),
        FOLDER,
    )

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "imagelabels.mat", root / FOLDER / "setid.mat"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        labelled, parted = self.lists(part, root)
        labels = _numbers(labelled, "labels")
        y = raw_files.checked_labels(labelled, labels - 1, len(labels), len(NAMES))
        numbers = _numbers(parted, PARTS[part])
        if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(y):
            raise ValueError(f"{parted} numbers images from {numbers.min()} to {numbers.max()}, there are {len(y)}")
        return [(root / FOLDER / "jpg" / f"image_{i:05}.jpg", int(y[i - 1])) for i in numbers.tolist()]


def _numbers(path: Path, key: str) -> NDArray[Any]:
    """Return a vector of whole numbers of a .mat file."""
    (found,) = raw_files.read_mat(path, key)
    with raw_files.reading(path):
        return np.asarray(found.reshape(-1)).astype(np.int64)
