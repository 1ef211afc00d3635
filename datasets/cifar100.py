"""CIFAR-100, Krizhevsky 2009: 50,000 + 10,000 photographs, 32 x 32, RGB, 100 classes in 20 super-classes.

DATA/cifar-100-python, as torchvision has it, or cifar-100-python.tar.gz in DATA; else it is downloaded.
The two files are pickles and are read without unpickling anything but arrays of bytes and lists.
"""

from __future__ import annotations

from pathlib import Path

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Labelled, Packed

FINE = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle"),
    *("bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle"),
    *("chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur"),
    *("dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard"),
    *("lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
    *("plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket"),
    *("rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger"),
    *("tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
)
COARSE = (
    *("aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables"),
    *("household_electrical_devices", "household_furniture", "insects", "large_carnivores"),
    *("large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores"),
    *("medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees"),
    *("vehicles_1", "vehicles_2"),
)
FOLDER = "cifar-100-python"
ARCHIVE = Download(
    ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
    "md5:eb9058c3a382ffc7106e4002c42a8d85",
    rf"{FOLDER}/(train|test)",
    size=169_001_437,
)


class CIFAR100(Packed):
    """CIFAR-100: 100 classes of photographs, 32 x 32, RGB, or their 20 super-classes."""

    coarse: bool = False  # the super-classes, each of five classes

    train_files = (f"{FOLDER}/train",)
    test_files = (f"{FOLDER}/test",)
    source = Source("CIFAR-100", "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated", (ARCHIVE,))

    @property
    def class_names(self) -> tuple[str, ...]:
        return COARSE if self.coarse else FINE

    def read(self, *paths: Path) -> Labelled:
        return raw_files.read_rows(paths, "coarse_labels" if self.coarse else "fine_labels", len(self.class_names))
