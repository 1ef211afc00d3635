"""Files of features: what is read of each format, what stays in the file, and what is refused and how that is said."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from oodbench.data import feature_files
from oodbench.data.feature_files import read
from oodbench.errors import UserError

M, D, C = 12, 5, 3
F = np.random.default_rng(0).normal(size=(M, D)).astype(np.float32)
LOGITS = np.random.default_rng(1).normal(size=(M, C)).astype(np.float32)
Y = np.arange(M) % C


def save(path: Path, arrays: dict[str, Any]) -> Path:
    """Write arrays to a file of the format that its ending names."""
    if path.suffix == ".npy":
        np.save(path, arrays["features"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file({name: torch.from_numpy(np.array(each)) for name, each in arrays.items()}, path)
    else:
        pd.DataFrame({name: list(each) for name, each in arrays.items()}).to_parquet(path)
    return path


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".parquet"])
def test_every_array_is_read(tmp_path: Path, ending: str) -> None:
    found = read(save(tmp_path / f"f{ending}", {"features": F, "projection": F[:, :2], "logits": LOGITS, "labels": Y}))
    assert len(found) == M
    wanted = {"penultimate": F, "projection": F[:, :2], "logits": LOGITS}
    assert found.layers.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found.layers[name].dtype == torch.float32
        np.testing.assert_array_equal(found.layers[name].numpy(), values)
    assert found.labels is not None
    assert found.labels.tolist() == Y.tolist()
    assert found.weight is None


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_head_is_read(tmp_path: Path, ending: str) -> None:
    arrays = {"features": F, "weight": F[:C], "bias": LOGITS[0]}
    arrays["logits"] = (F @ F[:C].T + LOGITS[0]).astype(np.float16)  # as near as half precision is
    found = read(save(tmp_path / f"f{ending}", arrays))
    assert found.weight is not None
    assert found.bias is not None
    assert (found.weight.numpy() == F[:C]).all()
    assert (found.bias.numpy() == LOGITS[0]).all()


@pytest.mark.parametrize("ending", [".npy", ".npz", ".safetensors", ".parquet"])
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path: Path, ending: str, kind: type) -> None:
    found = read(save(tmp_path / f"f{ending}", {"features": F.astype(kind)}))
    assert found.layers["penultimate"].dtype == torch.float32
    np.testing.assert_array_equal(found.layers["penultimate"].numpy(), F.astype(kind).astype(np.float32))


def test_floats_that_only_one_library_has(tmp_path: Path) -> None:
    """bfloat16 is torch's alone; other byte orders and 80-bit floats are numpy's."""
    brain = torch.from_numpy(F).bfloat16()
    safetensors.torch.save_file({"features": brain}, tmp_path / "f.safetensors")
    assert torch.equal(read(tmp_path / "f.safetensors").layers["penultimate"], brain.float())
    for kind in (">f4", np.longdouble):
        np.save(tmp_path / "f.npy", F.astype(kind))
        assert (read(tmp_path / "f.npy").layers["penultimate"].numpy() == F).all()


def test_float32_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "f.npy", {"features": F})
    load, made = np.load, []

    def remembered(*args: Any, **kwargs: Any) -> Any:
        made.append(load(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(np, "load", remembered)
    found = read(path).layers["penultimate"]
    assert isinstance(made[0], np.memmap)
    assert np.shares_memory(found.numpy(), made[0])


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_features_stay_in_the_file(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"f{ending}", {"features": F})
    found = read(path)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    at = found.layers["penultimate"].data_ptr()
    assert any(int(low, 16) <= at < int(high, 16) for low, high in (each[0].split("-") for each in maps))


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_what_changes_features_changes_no_file(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"f{ending}", {"features": F})
    before = path.read_bytes()
    read(path).layers["penultimate"].mul_(2)
    assert path.read_bytes() == before
    assert (read(path).layers["penultimate"].numpy() == F).all()


def test_the_content_is_that_of_the_bytes(tmp_path: Path) -> None:
    one, same = (save(tmp_path / f"{name}.npy", {"features": F}) for name in "ab")
    other = save(tmp_path / "c.npy", {"features": F + 1})
    assert read(one).content == read(same).content != read(other).content


def broken(row: int, value: float) -> np.ndarray:
    values = F.copy()
    values[row, 2] = value
    return values


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"logits": LOGITS}, "holds no `features`; it holds logits"),
        ({"features": F, "feature": F}, "'feature' is no array of features; did you mean 'features'?"),
        ({"features": F, "targets": Y}, "'targets' is no array of features"),
        ({"features": F[0]}, "`features` has the shape (5,), wanted are rows and columns"),
        ({"features": F[:, :, None]}, "`features` has the shape (12, 5, 1), wanted are rows and columns"),
        ({"features": F[:0]}, "`features` has the shape (0, 5)"),
        ({"features": F.astype(float) + 1e8}, "`features` does not fit into float32, 7 digits: column"),
        ({"features": F.astype(float) * 1e300}, "`features` does not fit into float32"),
        ({"features": F.astype(float) * 1e-60}, "`features` does not fit into float32"),
        ({"features": F.astype(float) * 1e-250}, "`features` does not fit into float32"),
        (
            {"features": Y[:, None] + 2**40},
            "`features` does not fit into float32, 7 digits: column 0 has",
        ),
        ({"features": broken(7, np.nan)}, "`features` has NaN or infinity in 1 of 12 rows, the first is row 7"),
        ({"features": broken(3, -np.inf)}, "`features` has NaN or infinity in 1 of 12 rows, the first is row 3"),
        ({"features": F, "logits": broken(2, np.inf)}, "`logits` has NaN or infinity"),
        ({"features": F, "logits": LOGITS[:7]}, "7 rows of `logits` beside 12 of `features`"),
        ({"features": F, "labels": Y[:7]}, "`labels` are int64 (7,), wanted are whole numbers or texts, (12,)"),
        ({"features": F, "labels": Y[:, None]}, "`labels` are int64 (12, 1), wanted are whole numbers or texts, (12,)"),
        ({"features": F, "labels": Y.astype(np.float32)}, "`labels` are float32 (12,), wanted are whole numbers"),
        ({"features": F, "weight": F[:C]}, "a head is `weight` and `bias`, and one of them is missing"),
        ({"features": F, "bias": F[0]}, "a head is `weight` and `bias`, and one of them is missing"),
        (
            {"features": F, "weight": F[:C].T, "bias": LOGITS[0]},
            "are no head of 5 features; wanted are (C, 5) and (C,)",
        ),
        ({"features": F, "weight": F[:C], "bias": F[0]}, "`weight` (3, 5) and `bias` (5,) are no head of 5 features"),
        ({"features": F, "weight": F[:C], "bias": F[:1]}, "`bias` has the shape (1, 5), wanted are a number for each"),
        (
            {"features": F, "weight": F, "bias": F[:, 0], "logits": LOGITS},
            "are not the head of `logits` with 3 columns",
        ),
        (
            {"features": F, "weight": F[C - 1 :: -1], "bias": LOGITS[0], "logits": F @ F[:C].T + LOGITS[0]},
            "`logits` are not features @ weight.T + bias",
        ),
        ({"features": F, "weight": F[:C], "bias": LOGITS[0] * np.nan}, "`bias` has NaN or infinity in 3 of 3 rows"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_wrong_arrays_are_refused(tmp_path: Path, ending: str, arrays: dict[str, np.ndarray], said: str) -> None:
    path = save(tmp_path / f"f{ending}", {name: np.ascontiguousarray(each) for name, each in arrays.items()})
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value).replace("torch.", "")


def test_labels_in_half_precision_are_refused(tmp_path: Path) -> None:
    arrays = {"features": torch.from_numpy(F), "labels": torch.from_numpy(Y).bfloat16()}
    safetensors.torch.save_file(arrays, tmp_path / "f.safetensors")
    with pytest.raises(UserError, match=r"`labels` are torch.bfloat16 \(12,\), wanted are whole numbers"):
        read(tmp_path / "f.safetensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("1 2 3\n4 5 6\n")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".safetensors", ".parquet"])
@pytest.mark.parametrize("damage", [cut, empty, text])
def test_damaged_files_are_refused(tmp_path: Path, ending: str, damage: Callable[[Path], None]) -> None:
    path = save(tmp_path / f"f{ending}", {"features": F})
    damage(path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: cannot be read: \S"):
        read(path)


def test_a_flipped_byte_of_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez_compressed(path, features=F)
    flipped(path)
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "f.npy", trap)
    np.savez(tmp_path / "f.npz", features=trap)
    for name in ("f.npy", "f.npz"):
        with pytest.raises(UserError, match=f"{name}: cannot be read: "):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_one_numpy_format_under_the_others_name(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", {"features": F}).rename(tmp_path / "f.npz")
    with pytest.raises(UserError, match=r"it holds one array, as \.npy does"):
        read(tmp_path / "f.npz")
    save(tmp_path / "a.npz", {"features": F}).rename(tmp_path / "f.npy")
    with pytest.raises(UserError, match=r"it holds several arrays, as \.npz does"):
        read(tmp_path / "f.npy")


def test_what_is_no_file_of_features(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "none.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UserError, match="is a folder, wanted is a file"):
        read(tmp_path / "folder.npy")
    (tmp_path / "f.npyy").write_bytes(b"")
    with pytest.raises(UserError, match=r"no features are read from '\.npyy'; did you mean '\.npy'\?"):
        read(tmp_path / "f.npyy")


def test_parquet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "f.parquet", {"features": F})

    def without(*args: Any, **kwargs: Any) -> None:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", without)
    with pytest.raises(UserError, match=r"pip install 'oodbench\[parquet\]'"):
        read(path)


def test_columns_of_parquet_that_are_no_arrays(tmp_path: Path) -> None:
    pd.DataFrame(F, columns=[f"x{i}" for i in range(D)]).to_parquet(tmp_path / "wide.parquet")
    with pytest.raises(UserError, match="'x0' is no array of features"):
        read(tmp_path / "wide.parquet")
    pd.DataFrame({"features": [[1.0, 2.0], [3.0]]}).to_parquet(tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match=r"ragged.parquet: cannot be read: "):
        read(tmp_path / "ragged.parquet")
    pd.DataFrame({"features": [[1.0], [3.0]], "labels": [0.0, None]}).to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(UserError, match="`labels` are float64"):
        read(tmp_path / "gaps.parquet")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint16, bool])
def test_whole_numbers_are_features(tmp_path: Path, kind: type) -> None:
    values = np.arange(M * D).reshape(M, D) % (2 if kind is bool else 100)
    found = read(save(tmp_path / "f.npz", {"features": values.astype(kind)})).layers["penultimate"]
    assert found.dtype == torch.float32
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize("shift", [0.0, 1.0, 1e3])
def test_float64_is_rounded_where_that_costs_nothing(tmp_path: Path, shift: float) -> None:
    wide = F.astype(float) + shift
    wide[:, 0] = 0.1 + 1e-17 * np.arange(M)  # as good as constant
    found = read(save(tmp_path / "f.npy", {"features": wide})).layers["penultimate"]
    np.testing.assert_array_equal(found.numpy(), wide.astype(np.float32))


def test_labels_that_are_texts(tmp_path: Path) -> None:
    names = ("ant", "bee", "cat")
    texts = np.array(["cat", "ant", "bee"])[Y]
    for ending in (".npz", ".parquet", ".csv", ".pt"):
        path = tmp_path / f"f{ending}"
        if ending == ".csv":
            pd.DataFrame(F).assign(labels=texts).to_csv(path, index=False)
        elif ending == ".pt":
            torch.save({"features": torch.from_numpy(F), "labels": texts.tolist()}, path)
        else:
            save(path, {"features": F, "labels": texts})
        found = read(path)
        assert found.labels is not None
        assert found.names == names
        assert found.labels.tolist() == [names.index(each) for each in texts]


def test_an_array_without_a_name_is_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", F)
    torch.save(torch.from_numpy(F), tmp_path / "f.pt")
    pd.DataFrame(F).to_csv(tmp_path / "f.csv", index=False, header=False)
    pd.DataFrame(F).to_csv(tmp_path / "g.csv", index=False)  # columns are called 0, 1, ...
    for name in ("f.npz", "f.pt", "f.csv", "g.csv"):
        assert read(tmp_path / name).layers["penultimate"].numpy().tolist() == F.tolist()


def test_no_row_of_csv_is_taken_for_names(tmp_path: Path) -> None:
    """Equal numbers in the first row, as rectified features have them."""
    rectified = np.maximum(F, 0)
    rectified[0] = 0
    pd.DataFrame(rectified).to_csv(tmp_path / "f.csv", index=False, header=False)
    assert read(tmp_path / "f.csv").layers["penultimate"].tolist() == rectified.tolist()
    pd.DataFrame(F, columns=list("abcde")).to_csv(tmp_path / "g.csv")
    with pytest.raises(UserError, match=r"1 columns have no name, such as an index; leave them out \(index=False\)"):
        read(tmp_path / "g.csv")


def test_columns_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    pd.DataFrame(F, columns=list("abcde")).assign(label=Y).to_csv(path, index=False)
    found = read(path)
    assert found.labels is not None
    assert (found.layers["penultimate"].tolist(), found.labels.tolist()) == (F.tolist(), Y.tolist())
    pd.DataFrame(F, columns=list("abcde")).assign(kind="x").to_csv(path, index=False)
    with pytest.raises(UserError, match="the columns kind are no numbers, such as 'x' in line 2; labels stand in"):
        read(path)


@pytest.mark.parametrize("scale", [1e16, 1e-16, 1e30, 1e-30])
def test_numbers_whose_squares_float32_does_not_hold_are_refused(tmp_path: Path, scale: float) -> None:
    np.save(tmp_path / "f.npy", F * np.float32(scale))
    with pytest.raises(UserError, match="float32 does not hold its squares; multiply those of every file by the same"):
        read(tmp_path / "f.npy")
    np.save(tmp_path / "f.npy", F * np.float32(scale**0.25))
    assert len(read(tmp_path / "f.npy")) == M


def test_odd_tensors_of_plain_numbers_are_read(tmp_path: Path) -> None:
    """In eight bits, and as the imaginary part of a conjugate, which is a view with another sign."""
    value = torch.from_numpy(F)
    torch.save(torch.complex(value, value).conj().imag, tmp_path / "f.pt")
    assert torch.equal(read(tmp_path / "f.pt").layers["penultimate"], -value)
    torch.save(value.to(torch.float8_e4m3fn), tmp_path / "f.pt")
    assert torch.equal(read(tmp_path / "f.pt").layers["penultimate"], value.to(torch.float8_e4m3fn).float())


def test_a_file_of_torch_is_not_unpickled(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"features": torch.from_numpy(F), "x": Planted()}, tmp_path / "f.pt")
    with pytest.raises(UserError, match=r"f\.pt: cannot be read"):
        read(tmp_path / "f.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n0.5,0.25\n", "the first line, 1 to 2, may name the columns"),
        ("a,a\n0.5,0.25\n", "two columns are named alike"),
        ("a,label,labels\n0.5,1,2\n", "has the columns `labels` and `label`"),
        ("a,b\n0.5,nan\n", "`features` has NaN or infinity|the columns b are no numbers"),
        ("a,b\n1,2,3\n4,5,6\n", "line 2 has more values than the 2 columns of the first line"),
        ("a,b\n", "holds no rows"),
        ("a,b\n1,2\n3,x\n", "the columns b are no numbers, such as 'x' in line 3"),
        ("a;b\n1;2\n", "columns are told apart by commas"),
        ("a,Label\n0.5,0\n0.1,0\n", "column `Label` is no feature, by its name; labels stand in `labels`"),
        ("a,target\n0.5,0\n0.1,0\n", "column `target` is no feature"),
        ("a,n\n0.5,7\n0.1,8\n0.2,9\n", "column `n` counts the rows; leave it out"),
        ("0.5,1\n0.1,2\n0.2,3\n", "column `1` counts the rows"),
    ],
)
def test_csv_files_that_may_mean_something_else(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "f.csv")


@pytest.mark.parametrize("first", ["0.0,1.0", "0,2", "1e3,5"])
def test_a_first_row_of_numbers_is_an_item(tmp_path: Path, first: str) -> None:
    (tmp_path / "f.csv").write_text(f"{first}\n0.5,0.25\n")
    found = read(tmp_path / "f.csv")
    assert (len(found), found.columns) == (2, None)
    (tmp_path / "f.csv").write_text("x,y,label\n0.5,0.25,NA\n1,2,b\n")
    found = read(tmp_path / "f.csv")
    assert (len(found), found.columns, found.names) == (2, ("x", "y"), ("NA", "b"))


ODD: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(9).to_sparse(),
    "meta": lambda: torch.empty(9, 4, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(9, 4), 0.1, 0, torch.qint8),
    "more than the file holds": lambda: torch.ones(1, 4).expand(10**9, 4),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ODD)
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, name: str) -> None:
    torch.save({"features": ODD[name]()}, tmp_path / "f.pt")
    with pytest.raises(UserError, match=r"`features` (is a sparse, quantised or meta|has 4000000000 numbers, more)"):
        read(tmp_path / "f.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's own, of what is wanted here
def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path: Path) -> None:
    """Which of them is meant nobody can tell: unpackers differ."""
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        for _ in range(2):
            archive.write(tmp_path / "a.npy", "features.npy")
    with pytest.raises(UserError, match=r"f\.npz.*two of its arrays are named features\.npy"):
        read(tmp_path / "f.npz")


def test_archives_that_promise_what_they_do_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10)}
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive, archive.open("features.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(b"abc")
    with pytest.raises(UserError, match=r"features.npy is said to have the shape \(1000000000, 10\), and is shorter"):
        read(tmp_path / "f.npz")
    np.savez_compressed(tmp_path / "f.npz", features=np.zeros((1000, 600)))
    monkeypatch.setattr(feature_files, "RATIO", 2)
    with pytest.raises(UserError, match="it unpacks to more than 2 times its size"):
        read(tmp_path / "f.npz")


def test_labels_that_wrap_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=F, labels=np.arange(M, dtype=np.uint64) + 2**63)
    with pytest.raises(UserError, match="`labels` are uint64"):
        read(tmp_path / "f.npz")
