"""Fashion-MNIST, Xiao et al. 2017, arXiv 1708.07747: 60,000 + 10,000 images of clothes, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, are looked for in DATA/fashion_mnist, in DATA/FashionMNIST/raw (where
torchvision puts them) and in /usr/share/datasets/fashion-mnist (Debian's package dataset-fashion-mnist);
else they are downloaded to DATA/fashion_mnist.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import IDX

SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
PUBLISHED = (
    ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
    ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", 29_515),
    ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79", 4_422_102),
    ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", 5_148),
)
DOWNLOADS = tuple(Download((f"{SITE}/{name}",), md5, size=size) for name, md5, size in PUBLISHED)


class FashionMNIST(IDX):
    """Fashion-MNIST: 10 classes of clothes, 28 x 28, grey."""

    class_names = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    folders = ("fashion_mnist", "FashionMNIST/raw", "/usr/share/datasets/fashion-mnist")
    source = Source(
        "Fashion-MNIST",
        "https://github.com/zalandoresearch/fashion-mnist",
        "MIT",
        DOWNLOADS,
        folders[0],
        "or install Debian's package dataset-fashion-mnist",
    )
