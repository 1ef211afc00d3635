"""Features from files: .npy, .npz, .safetensors, .pt, .parquet and .csv, memory-mapped where the format lets them be.

A file holds `features` (M, D), and may hold `labels` (M,) whole numbers or texts, `logits` (M, C), `projection` (M, P),
and, in the training file, the classifier's linear head: `weight` (C, D), `bias` (C,), logits = h @ weight.T + bias. An
.npy file is the features alone, and so is an .npz or .pt file of one array without a name. In a .parquet file each is a
column, rows of features being lists; a head, which has other rows, does not fit into one. In a .csv file each column is
a feature but `labels` (or `label`). Numbers are finite. What is not float32 is converted to it, or refused where that
would cost its content; float32 in .npy and .safetensors stays in the file until it is read, and is never written to.
"""

from __future__ import annotations

import csv
import math
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from oodbench.errors import UserError, of_machine, suggestion
from oodbench.store.artifacts import sha256
from oodbench.toolkit.raw_files import RATIO

MATRICES = {"features": "penultimate", "projection": "projection", "logits": "logits"}  # array -> layer
ARRAYS = (*MATRICES, "labels", "weight", "bias")
COLUMNS = "names of columns"  # beside the arrays of a file
ENDINGS = (".npy", ".npz", ".safetensors", ".pt", ".parquet", ".csv")
NO_FEATURES = {"label", "labels", "class", "classes", "target", "targets", "id", "index"}  # names, in any case
HUGE = 1e15  # the largest number of features is below, and above its inverse
NARROW = (torch.float16, torch.bfloat16, torch.float32)  # what float32 holds whole
LOSS = 1e-3  # of the spread of a column, at most: what rounding to float32 may cost
ROUNDING = 1e-14  # of a mean: a spread as small is that of rounding in float64
NUMBERS = 2**22  # looked through at a time
ITEMS = 1000  # whose logits are held against those of the head
NEAR = 0.05  # of the largest logit: what a head in half precision may differ by


@dataclass(frozen=True)
class FeatureFile:
    """The arrays of one file."""

    path: Path
    content: str  # hash of its bytes
    layers: dict[str, Tensor]  # layer -> (M, D) float32
    labels: Tensor | None  # (M,) int64
    names: tuple[str, ...] | None  # of the classes that labels number, where labels are texts
    weight: Tensor | None  # (C, D) float32
    bias: Tensor | None  # (C,) float32
    columns: tuple[str, ...] | None = None  # names of the features, where the file gives them

    def __len__(self) -> int:
        return len(self.layers["penultimate"])


def read(path: Path) -> FeatureFile:
    """Return the arrays of a file. Raises UserError where it is missing, damaged or not of this form."""
    readers = dict(zip(ENDINGS, (_npy, _npz, _safetensors, _pt, _parquet, _csv), strict=True))
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{path} is {what}, wanted is a file" if os.path.lexists(path) else f"there is no file {path}")
    if path.suffix not in readers:
        raise UserError(f"{path}: no features are read from '{path.suffix}'{suggestion(path.suffix, ENDINGS)}")
    try:
        arrays = readers[path.suffix](path)
        _check_sizes(path, arrays)
        columns = arrays.pop(COLUMNS, None)
        for name in arrays:
            if name not in ARRAYS:
                raise UserError(f"{path}: '{name}' is no array of features{suggestion(name, ARRAYS)}")
        return replace(checked(path, arrays, sha256(path)[:16]), columns=columns)
    except UserError:
        raise
    except Exception as error:  # damaged files make the libraries raise whatever they met
        if of_machine(error):
            raise
        raise UserError(
            f"{path}: cannot be read: {str(error).partition(chr(10))[0] or type(error).__name__}"
        ) from error


def checked(path: Path, arrays: Mapping[str, Any], content: str) -> FeatureFile:
    """Return arrays that fit together, as a file of them; `path` names them in what is said, `content` is their hash.

    They may be nested lists too, which numpy reads.
    """
    if "features" not in arrays:
        raise UserError(f"{path}: holds no `features`; it holds {', '.join(arrays) or 'nothing'}")
    layers = {layer: _matrix(path, name, arrays[name]) for name, layer in MATRICES.items() if name in arrays}
    for name, layer in MATRICES.items():
        if layer in layers:
            _check_scale(path, name, layers[layer])
    n = len(layers["penultimate"])
    for name, layer in MATRICES.items():
        if layer in layers and len(layers[layer]) != n:
            raise UserError(f"{path}: {len(layers[layer])} rows of `{name}` beside {n} of `features`")
    weight = _matrix(path, "weight", arrays["weight"]) if "weight" in arrays else None
    bias = _tensor(path, "bias", arrays["bias"], "a number for each class", 1) if "bias" in arrays else None
    if (weight is None) != (bias is None):
        raise UserError(f"{path}: a head is `weight` and `bias`, and one of them is missing")
    if weight is not None and bias is not None:
        _check_head(path, weight, bias, layers)
    return FeatureFile(path, content, layers, *_labels(path, arrays.get("labels"), n), weight, bias)


def _check_sizes(path: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse tensors that are no plain numbers in the file: sparse, quantised, or a view of fewer numbers."""
    for name, each in arrays.items():
        if isinstance(each, Tensor):
            if each.layout != torch.strided or each.is_quantized or each.is_meta:
                raise UserError(f"{path}: `{name}` is a sparse, quantised or meta tensor, wanted are plain numbers")
            if each.numel() * each.element_size() > max(RATIO * path.stat().st_size, 1 << 20):
                raise UserError(f"{path}: `{name}` has {each.numel()} numbers, more than the file holds")


def _check_head(path: Path, weight: Tensor, bias: Tensor, layers: dict[str, Tensor]) -> None:
    shapes = f"{path}: `weight` {tuple(weight.shape)} and `bias` {tuple(bias.shape)}"
    width, logits = layers["penultimate"].shape[1], layers.get("logits")
    if weight.shape[1] != width or len(bias) != len(weight):
        raise UserError(f"{shapes} are no head of {width} features; wanted are (C, {width}) and (C,)")
    if logits is not None and logits.shape[1] != len(weight):
        raise UserError(f"{shapes} are not the head of `logits` with {logits.shape[1]} columns")
    if logits is not None:
        made, logits = layers["penultimate"][:ITEMS] @ weight.T + bias, logits[:ITEMS]
        if (made - logits).abs().max() > NEAR * logits.abs().max():
            raise UserError(
                f"{path}: `logits` are not features @ weight.T + bias; give the head that made them, or none"
            )


def _matrix(path: Path, name: str, values: Any) -> Tensor:
    return _tensor(path, name, values, "rows and columns", 2)


def _tensor(path: Path, name: str, values: Any, wanted: str, dimensions: int) -> Tensor:
    """Return numbers as float32, the same memory where they are so already."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise UserError(f"{path}: `{name}` is {values.dtype}, wanted are numbers")
        native = values.dtype.isnative and values.dtype.itemsize <= 8 and values.dtype.kind != "u"
        values = torch.from_numpy(values if native else values.astype(np.float64))
    if values.ndim != dimensions or not values.numel():
        some = ", one at least" * (not values.numel())
        raise UserError(f"{path}: `{name}` has the shape {tuple(values.shape)}, wanted are {wanted}{some}")
    if values.is_floating_point() and values.itemsize == 1:  # nothing is computed in float8
        values = values.float()
    if values.is_complex():
        raise UserError(f"{path}: `{name}` is {values.dtype}, wanted are numbers")
    _check_finite(path, name, values)
    if values.dtype not in NARROW:
        _check_rounding(path, name, values)
    tensor: Tensor = values.float()
    return tensor


def _check_rounding(path: Path, name: str, values: Tensor) -> None:
    """Refuse numbers whose differences float32 cannot hold, such as those of features around 1e8."""
    rows = values.reshape(len(values), -1)
    blocks, n = rows.split(max(1, NUMBERS // rows.shape[1])), len(rows)
    largest = torch.stack([block.double().abs().amax(0) for block in blocks]).amax(0)
    unit = torch.where(largest > 0, largest, 1.0)  # of each column, so that squares are within float64
    first = rows[0].double() / unit
    total, squares, lost = (torch.zeros_like(first) for _ in range(3))
    for block in blocks:
        wide = block.double()
        apart = wide / unit - first
        total += apart.sum(0)
        squares += apart.square().sum(0)
        lost += ((wide - wide.float().double()) / unit).square().sum(0)
    mean, spread = first + total / n, (squares / n - (total / n).square()).clamp_min(0).sqrt()
    share = torch.where(spread > ROUNDING * mean.abs(), (lost / n).sqrt() / spread, 0.0)
    worst = int(share.argmax())
    if share[worst] > LOSS:  # beyond the range of float32 it is infinite
        numbers = (
            f"mean {float(unit[worst] * mean[worst]):.3g} and standard deviation {unit[worst] * spread[worst]:.3g}"
        )
        how = "subtract the same numbers from every file, or scale them, so that they lie around 0"
        raise UserError(f"{path}: `{name}` does not fit into float32, 7 digits: column {worst} has {numbers}; {how}")


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity: what makes them is broken, and one such row spoils means, neighbours and covariances."""
    rows = tensor.reshape(len(tensor), -1)
    bad = torch.cat([~block.isfinite().all(1) for block in rows.split(max(1, NUMBERS // rows.shape[1]))])
    if bad.any():
        count, first = int(bad.sum()), int(bad.nonzero()[0])
        raise UserError(f"{path}: `{name}` has NaN or infinity in {count} of {len(bad)} rows, the first is row {first}")


def _check_scale(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse numbers whose squares, and sums of these, float32 does not hold: every distance is made of them."""
    largest = float(torch.aminmax(tensor).max.abs().maximum(tensor.min().abs()))
    if largest > HUGE or 0 < largest < 1 / HUGE:
        how = f"multiply those of every file by the same number, such as {1 / largest:.0e}"
        raise UserError(f"{path}: `{name}` reaches {largest:.1e}, and float32 does not hold its squares; {how}")


def _labels(path: Path, values: Any, n: int) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Return the class of each item, and the names of the classes in their order where labels are texts."""
    if values is None:
        return None, None
    kind = values.dtype  # of numpy or of torch
    if str(kind).endswith("uint64"):
        raise UserError(f"{path}: `labels` are uint64, wanted are int64 or smaller")
    array = values.double().numpy() if isinstance(values, Tensor) and values.is_floating_point() else np.asarray(values)
    names = None
    if array.dtype.kind in "OU" and all(isinstance(each, str) for each in array.flat):
        found, array = np.unique(array.astype(str), return_inverse=True)
        names = tuple(found.tolist())
    if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{path}: `labels` are {kind} {tuple(array.shape)}, wanted are whole numbers or texts, ({n},)")
    return torch.from_numpy(array.astype(np.int64)), names


# ---- formats --------------------------------------------------------------------------------------------


def _npy(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="c", allow_pickle=False)  # "c": a write stays in memory
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays, as .npz does")
    return {"features": array}


def _npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:  # numpy leaves a damaged file open
        if zipfile.is_zipfile(stream):
            unpacked = sum(each.file_size for each in zipfile.ZipFile(stream).infolist())
            if unpacked > RATIO * max(1 << 20, path.stat().st_size):
                raise ValueError(f"it unpacks to more than {RATIO} times its size")
        stream.seek(0)
        arrays = np.load(stream, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array, as .npy does")
        _check_headers(stream)
        found = dict(arrays)
        return {"features": found["arr_0"]} if list(found) == ["arr_0"] else found


def _check_headers(stream: IO[bytes]) -> None:
    """Refuse two arrays of a name, and one whose header promises more than it holds: numpy sets the memory aside."""
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two of its arrays are named {twice}")
        for info in archive.infolist():
            with archive.open(info) as member:
                first = np.lib.format.read_magic(member) == (1, 0)
                read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                shape, _, kind = read_header(member)
                if math.prod(shape) * kind.itemsize > info.file_size:
                    raise ValueError(f"{info.filename} is said to have the shape {shape}, and is shorter")


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - it is no mapping


def _pt(path: Path) -> dict[str, Any]:
    """Return the tensors of a file that torch.save wrote; nothing else in it is unpickled."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own advice is to read it all the same
        asks = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(f"it asks for {asks[1]}, and holds more than tensors" if asks else "it is damaged") from error
    if isinstance(found, Tensor):
        return {"features": _plain(found)}
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, wanted is a tensor or a dict of tensors")
    return {str(name): _plain(each) if isinstance(each, Tensor) else np.asarray(each) for name, each in found.items()}


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor without history, whose numbers are those in memory."""
    return tensor.detach().resolve_conj().resolve_neg()


def _csv(path: Path) -> dict[str, Any]:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = [each.strip() for each in next(csv.reader(stream), [])]
    numbered = [[str(i + start) for i in range(len(first))] for start in (0, 1)]  # pandas begins at 0
    named = not all(_is_number(each) for each in first) or first == numbered[0]
    if not named and len(first) > 1 and first == numbered[1]:
        raise UserError(f"{path}: the first line, 1 to {len(first)}, may name the columns; name them otherwise, or not")
    if named and len(set(first)) < len(first):
        raise UserError(f"{path}: two columns are named alike")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(path, header=0 if named else None, keep_default_na=False, index_col=False)
        except pd.errors.ParserWarning as error:  # pandas would take the first column, or the last, for an index
            said = f"line {1 + named} has more values than the {len(first)} columns of the first line"
            raise UserError(f"{path}: {said}") from error
    if table.empty:
        raise UserError(f"{path}: holds no rows")
    if unnamed := [name for name in table if str(name).startswith("Unnamed:")]:
        raise UserError(f"{path}: {len(unnamed)} columns have no name, such as an index; leave them out (index=False)")
    labels = [name for name in ("labels", "label") if name in table]
    if len(labels) > 1:
        raise UserError(f"{path}: has the columns `labels` and `label`; leave one of them out")
    features = table.drop(columns=labels)
    if texts := [str(name) for name in features if features[name].dtype.kind not in "fiub"]:
        wrong = pd.to_numeric(features[texts[0]], errors="coerce").isna().to_numpy()
        line = int(wrong.argmax()) + 1 + named
        given = features[texts[0]].iloc[int(wrong.argmax())]
        said = f"the columns {', '.join(texts[:5])} are no numbers, such as {given!r} in line {line}"
        raise UserError(f"{path}: {said}; labels stand in `labels`, and columns are told apart by commas")
    for name in features:
        _check_no_feature(path, str(name), features[name].to_numpy())
    found: dict[str, Any] = {"features": features.to_numpy()}
    found |= {COLUMNS: tuple(map(str, features))} if named else {}
    return found | {"labels": table[labels[0]].to_numpy()} if labels else found


def _check_no_feature(path: Path, name: str, values: Any) -> None:
    """Refuse a column that says which item or class a row is: detectors would tell sets apart by it."""
    if name.casefold() in NO_FEATURES:
        raise UserError(f"{path}: column `{name}` is no feature, by its name; labels stand in `labels`")
    if len(values) > 2 and (values == values[0] + np.arange(len(values))).all():
        raise UserError(f"{path}: column `{name}` counts the rows; leave it out (index=False)")


def _is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def _parquet(path: Path) -> dict[str, Any]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise UserError(f"{path}: to read .parquet files, pip install 'oodbench[parquet]'") from error
    columns = {str(name): table[name] for name in table.columns}
    return {name: np.stack(list(each)) if name in MATRICES else each.to_numpy() for name, each in columns.items()}
