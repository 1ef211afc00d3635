"""Tiny studies for the tests: seconds to run, on data that comes with the dependencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TINY: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "id": {"blobs": {"groups": 3, "count": 120}},
    "ood": {"near": {"blobs": {"groups": 3, "count": 60, "shift": 60.0}}, "far": {"noise": {"count": 50, "size": 8}}},
    "outliers": {"glyphs": {"count": 60, "size": 8}},
    "encoder": {"resnet18": {"width": 2}},
    "recipe": {
        "epochs": 1,
        "batch": 32,
        "lr": 0.05,
        "warmup": 0,
        "augment": {"crop": [0.8, 1.0], "flip": 0, "jitter": None, "gray": 0},
    },
    "reference": {"val": 0.25},
    "training": ["cross_entropy", "simclr"],
    "clustering": ["labels", {"kmeans": {"k": "classes", "restarts": 2}}],
    "distance": ["cosine", {"knn": {"k": 3}}],
    "threshold": ["pooled", "per_cluster"],
}

# a study of one cell, to be read and not run
HEAD = """\
image: {size: 8, channels: 1}
id: digits
ood: {far: noise}
encoder: {resnet18: {width: 8}}
training: simclr
clustering: one
distance: cosine
threshold: pooled
"""


def write(path: Path, **changes: Any) -> Path:
    """Write the tiny study with some keys changed (None leaves a key out) and return its file."""
    study = {key: value for key, value in (TINY | changes).items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        YAML().dump(study, stream)
    return path
