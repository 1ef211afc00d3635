"""Tiny ImageNet, Stanford CS231n 2015: 100,000 + 10,000 photographs, 64 x 64, RGB or grey, 200 classes.

`original`: DATA/tiny-imagenet-200, or tiny-imagenet-200.zip in DATA; else it is downloaded. The train split are its
train images, the test split its validation images (its test images have no labels and are not used); a class is named
by its WordNet id. OOD papers use 10,000 of its images, 32 x 32, as test images alone, of one class: `crop` and `resize`
are those of ODIN, Liang et al. 2018, arXiv 1706.02690, `fix` that of CSI, Tack et al. 2020, arXiv 2007.08176, which is
resized without the artefacts of `resize`. They are at any depth below DATA/Imagenet_crop, DATA/Imagenet_resize or
DATA/Imagenet_fix, or the archive is in that folder; else it is downloaded (`fix` is placed by hand). 500 train images a
class are confirmed by public descriptions of the set, 10,000 of a form by pytorch-ood's documentation and by CSI's
imagenet_fix_preprocess.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Images, Source
from oodbench.toolkit import image_files, raw_files
from oodbench.toolkit.layouts import Place, Unlabelled, shipped_by_csi, shipped_by_odin

TRAIN_COUNT = 100_000  # of the original
COUNT = 10_000  # of all other forms
ORIGINAL = "tiny-imagenet-200"
SOURCES = {
    "original": Source(
        "Tiny ImageNet (original)",
        "http://cs231n.stanford.edu",
        "see the page",
        (
            Download(
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                "md5:90528d7ca1a48142e341f4ef8d21d0de",
                rf"{ORIGINAL}/((train/(n\d{{8}}/images/)?|val/images/)[^/.]+\.(JPEG|jpg)|val/val_annotations\.txt)",
            ),
        ),
    ),
    "crop": shipped_by_odin(
        "Tiny ImageNet (crop)",
        "Imagenet_crop",
        "avgm2u562itwpkl/Imagenet.tar.gz",
        "md5:7c0827e4246c3718a5ee076e999e52e5",
    ),
    "resize": shipped_by_odin(
        "Tiny ImageNet (resize)",
        "Imagenet_resize",
        "kp3my3412u5k9rl/Imagenet_resize.tar.gz",
        "md5:0f9ff11d45babf2eff5fe12281d1ac31",
    ),
    "fix": shipped_by_csi(
        "Tiny ImageNet (fix)", "Imagenet_fix", "https://drive.google.com/file/d/1sO_-noq10mmziB1ECDyNhD5T4u5otyKA"
    ),
}


class TinyImageNet(Unlabelled):
    """Tiny ImageNet: 200 classes of photographs, 64 x 64, or 10,000 of them as OOD papers crop and resize them."""

    form: Literal["original", "crop", "resize", "fix"] = "original"  # whole, or as ODIN or CSI shrank it

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return None if self.form == "original" else super().class_names

    @property
    def places(self) -> dict[image_files.Split, Place]:
        if self.form == "original":
            return {"train": Place((f"{ORIGINAL}/train",), TRAIN_COUNT), "test": Place((f"{ORIGINAL}/val",))}
        return {"test": Place((self.source.folder,), COUNT)}

    @property
    def source(self) -> Source:
        return SOURCES[self.form]

    def needed(self, root: Path) -> Sequence[Path]:
        if self.form != "original":
            return super().needed(root)
        listed = _list(root)
        return [listed, *_labels(listed), *image_files.needed_below(self.top("train", root))]

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        if self.form != "original" or split == "train":
            return super().files(split, root)
        return raw_files.present([_list(root), *_labels(_list(root))])

    def read(self, top: Path) -> Images:
        return image_files.of_classes(top) if self.form == "original" else super().read(top)

    def load(self, split: image_files.Split, root: Path) -> Images:
        if self.form != "original" or split == "train":
            return super().load(split, root)
        return _validation(_list(root), self.load("train", root).classes)


def _list(root: Path) -> Path:
    return root / ORIGINAL / "val" / "val_annotations.txt"


def _labels(listed: Path) -> dict[Path, str]:
    """Return the label of each validation image, which a line `FILE LABEL X Y X Y` gives; nothing without a list."""
    if not listed.is_file():
        return {}
    found = image_files.lines(listed, r"([\w-]+\.JPEG)\s+(n\d{8})(\s+\d+){4}\s*", "image of a class")
    return {listed.parent / "images" / match[1]: match[2] for _, match in found}


def _validation(listed: Path, classes: tuple[str, ...]) -> Images:
    labels = _labels(listed)
    if unknown := sorted(set(labels.values()) - set(classes)):
        raise ValueError(f"{listed}: there is no class {unknown[0]} in the folder of train images")
    return Images(image_files.of_files(list(labels)), image_files.numbered(labels.values(), classes), classes)
