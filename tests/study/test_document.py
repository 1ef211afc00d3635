"""Study files that no study is: one message, at once, whatever is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from tiny import HEAD, write

from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.study.document import file_of, read, shipped

TENFOLD = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 10))
MANY = [i / 400 for i in range(1, 201)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x0 [1, 1]\n" + TENFOLD, "holds 3456790123 values where its anchors are repeated, 100000 at most"),
        ("a: " + "[" * 5000, "is nested too deep"),
        ("a: " + "{b: " * 300 + "1" + "}" * 300, "is nested too deep"),
        ("".join(" " * i + "a:\n" for i in range(400)), "is nested too deep"),
        ("a: 1\n" * 40_000, "has 200000 bytes, a study 100000 at most"),
        ("a: !!python/object/apply:os.system ['touch x']", "s.yaml:1: a: has the tag tag:yaml.org,2002:python/object"),
        ("a: 1\nb: !foo x", "s.yaml:2: b: has the tag !foo; a study takes plain values"),
        ("a: !!binary aGVsbG8=", "a: is of the kind bytes"),
        ("a: &x {<<: *x}", "it cannot be put together, as where `<<` is of itself"),
        ("a: " + "1" * 5000, "Exceeds the limit"),
        ("a: 1\nb: [2, 9223372036854775808]", "s.yaml:2: b: is 9.223e\\+18, should be less than 9223372036854775808"),
        ("a: 1" + "0" * 400, "a: is a number of some 400 digits, should be less than"),
        ("a: 0x" + "f" * 6000, "a: is a number of some 7225 digits, should be less than"),
        ('a: "x\\0y"', "which holds a NUL character"),
        ('b: 1\na: "\\uD800"', "s.yaml:2: a: .*half a character"),
        ("a: 'x\x1b'", "unacceptable character"),
        ("1: 2\n'1': 3", "1: a key stands twice"),
        ("a: &a {b: 1}\n" + "".join(f"c{i}: {{<<: *a}}\n" for i in range(400)), "has 400 times `<<`, 300 at most"),
        ("%YAML 1.1\n---\na: 010\n", "s.yaml:1: is said to be YAML 1.1; a study is YAML 1.2"),
    ],
)
def test_what_no_study_holds(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_anchors_and_dates_are_read(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("a: &a [1, 2]\nb: [*a, *a]\nc: &c {d: 2026-11-01}\ne: {<<: *c, f: -9223372036854775807}\n")
    assert read(file).value == {
        **{"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"d": "2026-11-01"}},
        "e": {"d": "2026-11-01", "f": -9223372036854775807},
    }


def test_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes("a: 1\nb: größe\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"s\.yaml:2: is not text in UTF-8"):
        read(file)


def test_brackets_in_comments_do_not_nest(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"# {'[' * 150}\na: x#{'y' * 3}  # {'{' * 150}\n")
    assert read(file).value == {"a": "x#yyy"}


def test_a_pipe_is_no_study(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.yaml")
    with pytest.raises(UserError, match="that is a regular one"):
        read(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {"lr": MANY, "floor": MANY, "trust": MANY}}, "over 8000000 combinations"),
        pytest.param(
            {"training": [{"simclr": {"temperature": MANY, "base_temperature": MANY}}] * 2},
            "make 50000 at most",
            marks=pytest.mark.slow,
        ),
        ({"encoder": {"my.nets:small": {"a": list(range(300)), "b": list(range(300))}}}, "300 of a x 300 of b"),
        pytest.param(
            {"seed": list(range(10_000)), "distance": [{"knn": {"k": list(range(1, 40))}}, "cosine"]},
            "the grid has",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"skip": [{"seed": 0}] * 4000, "seed": list(range(2000))},
            "skip: 4000 entries for each of .* cells are",
            marks=pytest.mark.slow,
        ),
        ({"recipe": {"epochs": 10**7}}, "recipe.epochs: is 10000000, should be less than or equal to 1000000"),
        ({"space": {"views": 10**6}}, "space.views: is 1000000, should be less than or equal to 1000"),
        ({"encoder": {"resnet18": {"width": 10**8}}}, "resnet18.width: is 100000000, should be less than"),
        ({"image": {"size": 100_000}}, "image.size: is 100000, should be less than"),
        ({"id": {"blobs": {"count": 10**12}}}, "blobs.count: is 1000000000000, should be less than"),
        ({"name": "x" * 61}, "name: .* cannot name a folder; 60 letters"),
        ({"tables": {"x" * 61: {"rows": ["training"]}}}, "cannot name a file; 60 letters"),
        (
            {"id": {"digits": {"keep": ["on", 1e-3]}}},
            "keep: is 0.001, should be a valid integer or should be",
        ),
        ({"recipe": {"augment": {"crop": [0.2, "all"]}}}, "augment.crop: is 'all', should be a valid number"),
        ({"recipe": {"augment": {"crop": [[0.2, 1.0], [0.2, "x"]]}}}, "augment.crop: is 'x', should be a valid number"),
        ({"distance": {"knn": {"K": 5}}}, "knn.K: there is no such parameter; did you mean 'k'?"),
    ],
)
def test_slips_of_the_keyboard(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reader.load(write(tmp_path / "s.yaml", **changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "text"),
    [
        *((command, "a: &x0 [1, 1]\n" + TENFOLD) for command in ("plan", "run", "prepare", "tables", "curve", "audit")),
        *(("tables", text) for text in (HEAD + "recipe: {batch: 0}\n", HEAD + "seed: [-1]\n")),
        *(("plan", HEAD + f"{key}: {value}\n") for key, value in {"recipe": "{batch: 0}", "seed": "[-1]"}.items()),
        ("plan", HEAD.replace("distance: cosine", "distance: cosin")),
        ("plan", HEAD.replace("distance: cosine", "distance: &all [*all, cosine]")),
        ("run", HEAD.replace("threshold: pooled", "threshold: [pooled, pool]")),
        ("run", HEAD.replace("{resnet18: {width: 8}}", "os:system")),
        ("run", HEAD.replace("{resnet18: {width: 8}}", "os:no_such")),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_there(tmp_path: Path, command: str, text: str) -> None:
    """It takes half a gigabyte and seconds."""
    (tmp_path / "s.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "oodbench", command, "s.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if not line.startswith("import time:")]) == 1
    assert " torch\n" not in done.stderr


def test_a_study_that_comes_with_oodbench_has_a_name_and_a_file_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_of("default").read_bytes() == (ROOT / "benchmark.yaml").read_bytes()
    assert file_of("openood_cifar10").read_bytes() == (ROOT / "studies" / "openood_cifar10.yaml").read_bytes()
    assert {*shipped()} == {"default", "benchmark", *(file.stem for file in (ROOT / "studies").glob("*.yaml"))}
    (tmp_path / "default").mkdir()
    assert file_of("default") == shipped()["default"]  # a folder is no study
    (tmp_path / "ssd").write_text("seed: 0")
    assert file_of("ssd") == Path("ssd")
    with pytest.raises(UserError, match=r"there is no study file cluster_gam; did you mean 'cluster_game'\?"):
        read(file_of("cluster_gam"))
    with pytest.raises(UserError, match=r"there is no study file a/default$"):
        read(file_of("a/default"))
