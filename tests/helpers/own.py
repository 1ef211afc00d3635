"""Images of a user's own, as files of each form that a data set reads, where its defaults look for them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 8, "test": 4}  # of each class

Pictures = dict[str, list[tuple[np.ndarray, str]]]  # split -> images (H, W, 3) and their classes


def pictures(seed: int = 0) -> Pictures:
    """Return images of three classes, each of its own brightness, no two alike."""
    rng = np.random.default_rng(seed)
    return {
        split: [
            (rng.integers(80 * k, 80 * k + 80, (10, 9, 3), dtype=np.uint8), name)
            for k, name in enumerate(CLASSES)
            for _ in range(count)
        ]
        for split, count in COUNTS.items()
    }


def encoded(x: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, form, **options)
    return stream.getvalue()


def save(path: Path, x: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path)
    return path


def write_folder(root: Path, given: Pictures) -> None:
    for split, items in given.items():
        for i, (x, name) in enumerate(items):
            save(root / "images" / split / name / f"{i:03}.png", x)


def write_csv(root: Path, given: Pictures) -> None:
    with (root / "images.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "split"])
        for split, items in given.items():
            for i, (x, name) in enumerate(items):
                save(root / "files" / f"{split} {i:03}.png", x)
                table.writerow([f"files/{split} {i:03}.png", name, split])


def write_list(root: Path, given: Pictures) -> None:
    for split, items in given.items():
        for i, (x, _) in enumerate(items):
            save(root / split / f"{i:03}.png", x)
        lines = [f"{split}/{i:03}.png {name}\n" for i, (_, name) in enumerate(items)]
        (root / f"images-{split}.txt").write_text("".join(lines))


def write_arrays(root: Path, given: Pictures) -> None:
    for split, items in given.items():
        np.savez(
            root / f"images-{split}.npz", x=np.stack([x for x, _ in items]), y=np.array([name for _, name in items])
        )


def write_parquet(root: Path, given: Pictures) -> None:
    (root / "images").mkdir(exist_ok=True)
    for split, items in given.items():
        images = [{"bytes": encoded(x), "path": f"{i}.png"} for i, (x, _) in enumerate(items)]
        table = pa.table({"image": images, "label": [name for _, name in items]})
        half = len(items) // 2
        pq.write_table(table[:half], root / "images" / f"{split}-00000-of-00002.parquet", row_group_size=5)
        pq.write_table(table[half:], root / "images" / f"{split}-00001-of-00002.parquet", row_group_size=5)


WRITERS: dict[str, Callable[[Path, Pictures], None]] = {
    "folder": write_folder,
    "csv": write_csv,
    "image_list": write_list,
    "arrays": write_arrays,
    "parquet": write_parquet,
}
