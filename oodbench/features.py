"""Features from files: .npy, .npz, .safetensors and .parquet, memory-mapped where the format lets them be.

A file holds `features` (M, D), and may hold `labels` (M,) whole numbers, `logits` (M, C), `projection` (M, P), and, in
the training file, the classifier's linear head: `weight` (C, D) and `bias` (C,). An .npy file is the features
alone. In a .parquet file each is a column, rows of features being lists. Features in half precision are
widened.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from oodbench.errors import UserError, suggestion

MATRICES = {"features": "penultimate", "projection": "projection", "logits": "logits"}  # array -> layer
ARRAYS = (*MATRICES, "labels", "weight", "bias")
ENDINGS = (".npy", ".npz", ".safetensors", ".parquet")


@dataclass(frozen=True)
class FeatureFile:
    """The arrays of one file."""

    path: Path
    content: str  # hash of its bytes
    layers: dict[str, Tensor]  # layer -> (M, D) float32
    labels: Tensor | None  # (M,) int64
    weight: Tensor | None  # (C, D) float32
    bias: Tensor | None  # (C,) float32

    def __len__(self) -> int:
        return len(self.layers["penultimate"])


def read(path: Path) -> FeatureFile:
    """Return the arrays of a file. Raises UserError where it is missing, damaged or not of this form."""
    readers = dict(zip(ENDINGS, (_npy, _npz, _safetensors, _parquet), strict=True))
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix not in readers:
        raise UserError(f"{path}: cannot be read: '{path.suffix}'{suggestion(path.suffix, ENDINGS)}")
    try:
        arrays = readers[path.suffix](path)
    except UserError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for name in arrays:
        if name not in ARRAYS:
            raise UserError(f"{path}: what is '{name}'?{suggestion(name, ARRAYS)}")
    return _checked(path, arrays)


def _checked(path: Path, arrays: Mapping[str, Any]) -> FeatureFile:
    if "features" not in arrays:
        raise UserError(f"{path}: holds no `features`; it holds {', '.join(arrays) or 'nothing'}")
    layers = {layer: _matrix(path, name, arrays[name]) for name, layer in MATRICES.items() if name in arrays}
    n, width = layers["penultimate"].shape
    for name, layer in MATRICES.items():
        if layer in layers and len(layers[layer]) != n:
            raise UserError(f"{path}: {len(layers[layer])} rows of `{name}` beside {n} of `features`")
    weight = _matrix(path, "weight", arrays["weight"]) if "weight" in arrays else None
    bias = torch.as_tensor(np.asarray(arrays["bias"], dtype=np.float32)) if "bias" in arrays else None
    if (weight is None) != (bias is None):
        raise UserError(f"{path}: a head is `weight` and `bias`, and one of them is missing")
    if weight is not None and bias is not None and (weight.shape[1] != width or bias.shape != (len(weight),)):
        raise UserError(
            f"{path}: `weight` {tuple(weight.shape)} and `bias` {tuple(bias.shape)} are no head of {width} features"
        )
    return FeatureFile(path, _digest(path), layers, _labels(path, arrays.get("labels"), n), weight, bias)


def _matrix(path: Path, name: str, values: Any) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(_floats(path, name, values))
    if tensor.ndim != 2 or not tensor.numel():
        raise UserError(f"{path}: `{name}` has the shape {tuple(tensor.shape)}, wanted are rows and columns")
    if not tensor.is_floating_point():
        raise UserError(f"{path}: `{name}` is {tensor.dtype}, wanted is a float")
    return tensor.float()


def _floats(path: Path, name: str, values: Any) -> NDArray[np.floating[Any]]:
    array: NDArray[np.floating[Any]] = np.asanyarray(values)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: `{name}` is {array.dtype}, wanted is a float")
    return array


def _labels(path: Path, values: Any, n: int) -> Tensor | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{path}: `labels` are {array.dtype} {array.shape}, wanted are {n} whole numbers")
    return torch.from_numpy(array.astype(np.int64))


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


# ---- formats --------------------------------------------------------------------------------------------


def _npy(path: Path) -> dict[str, Any]:
    return {"features": np.load(path, mmap_mode="c", allow_pickle=False)}  # "c": a write stays in memory


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - it is no mapping


def _parquet(path: Path) -> dict[str, Any]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise UserError(f"{path}: to read .parquet files, pip install 'oodbench[parquet]'") from error
    return {
        str(name): table[name].to_numpy() if name == "labels" else np.stack(list(table[name])) for name in table.columns
    }
