"""MNIST, LeCun et al. 1998: 60,000 + 10,000 handwritten digits, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, in DATA/MNIST/raw, where torchvision has them; else they are downloaded.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import IDX

SITES = ("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist")
PUBLISHED = (
    ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
    ("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432", 28_881),
    ("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", 1_648_877),
    ("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", 4_542),
)
DOWNLOADS = tuple(Download(tuple(f"{site}/{name}" for site in SITES), md5, size=size) for name, md5, size in PUBLISHED)


class MNIST(IDX):
    """MNIST: 10 handwritten digits, 28 x 28, grey."""

    class_names = tuple("0123456789")
    folders = ("MNIST/raw",)
    source = Source("MNIST", "http://yann.lecun.com/exdb/mnist/", "none stated", DOWNLOADS, folders[0])
