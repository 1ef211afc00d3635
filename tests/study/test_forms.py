"""A key that is given another kind of value is refused with a value that it takes; each of these is taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from ruamel.yaml import YAML

from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.study.values import EXAMPLES

STUDY = """\
image: {size: 28, channels: 1}
id: {digits: {only: [1, 2, 3]}}
ood: {near: held_out, far: noise}
encoder: {resnet18: {width: 8}}
training: simclr
clustering: labels
distance: [cosine, {knn: {k: [1, 10]}}]
threshold: pooled
validation: {blobs: {count: 60}}
"""
BESIDE: dict[str, dict[str, Any]] = {  # what else is under the same key as a part of one, where it is not the example's
    "claims.*.at": {"than": {"distance": "cosine"}},
    "claims.*.than": {"at": {"distance": "knn"}},
    "claims.*.among": {"left": {}, "right": {}},
    "claims.*.winner": {"left": {}, "right": {}, "among": ["distance"]},
    "reference.set": {"val": None},
}
OF_SUITES = ("image", "id", "ood")


def parsed(text: str) -> Any:
    return YAML(typ="safe").load(text)


def given(key: str, value: Any) -> dict[str, Any]:
    """Return the study with a value at a dotted key, in which * is `mine`, beside the example of what it is part of."""
    study: dict[str, Any] = parsed(STUDY)
    if key == "suite":
        study = {name: each for name, each in study.items() if name not in OF_SUITES}
    names = key.split(".")
    for depth in range(len(names) - 1, 0, -1):
        above = ".".join(names[:depth])
        around = {} if names[depth] == "*" else parsed(EXAMPLES[above]) | BESIDE.get(key, {})
        whole = around | {names[depth].replace("*", "mine"): value}
        value = {name: each for name, each in whole.items() if each is not None}
    return study | {names[0]: value}


def test_every_key_of_a_study_has_an_example() -> None:
    assert {key for key in EXAMPLES if "." not in key} == reader.KEYS


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a study in Python looks for files: a method of one's own lies here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_method.py").write_text((ROOT / "methods" / "distance" / "norm.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", EXAMPLES)
def test_an_example_is_taken(key: str, beside: None) -> None:
    reader.load(given(key, parsed(EXAMPLES[key])))


WORDS = ("image", "ood", "space", "recipe.augment", "recipe.for", "select", "skip", "keep", "plugins", "curve.of")
LISTS = ("image", "ood", "claims", "claims.*", "claims.*.left", "tables", "tables.*", "tables.*.of", "scores", "curve")
MAPPINGS = ("plugins", "keep", "skip", "name", "tables.*.rows", "claims.*.over", "suite", "seed", "variance")
EMPTY = ("distance", "ood", "training", "recipe", "seed")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "penultimate") for key in WORDS),
        *((key, ["penultimate"]) for key in (*LISTS, "space", "reference", "compat", "allow_overlap")),
        *((key, {"penultimate": 1}) for key in MAPPINGS),
        *((key, []) for key in EMPTY),
        *((key, 7) for key in ("distance", "id", "ood.near", "reference.set", "recipe", "recipe.base")),
    ],
)
def test_another_kind_of_value_is_refused_with_an_example(key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        reader.load(given(key, value))
    assert f"; for example `{key.rpartition('.')[2].replace('*', 'mine')}: {EXAMPLES[key]}`" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distance": {"knn": 5}}, "distance.knn: is 5, wanted a mapping of parameters; for example `{k: 50}`"),
        ({"training": {"simclr": [0.5]}}, "wanted a mapping of parameters; for example `{temperature: 0."),
        ({"encoder": {"resnet18": 8}}, "wanted a mapping of parameters; for example `{width: 64}`"),
        ({"curve": {"of": "cosine"}}, "curve.of: is 'cosine', should be a mapping; for example"),
        ({"recipe": {"bsae": "fast"}}, "no such parameter; did you mean 'base'? allowed: accumulate, augment, base,"),
        ({"recipe": {"base": "fast", "fro": {}}}, "recipe.fro: there is no such parameter; did you mean 'for'?"),
        ({"distance": {"knn": {"ass": "near"}}}, "did you mean 'as'? allowed: as, k, library, sample"),
        ({"encoder": {"resnet18": {"sa": "small"}}}, "there is no such parameter; allowed: as, stem, width"),
        ({"ood": {"near": "hled_out"}}, "ood.near: there is no dataset 'hled_out'; did you mean 'held_out'?"),
        ({"space": {"unit": "yes"}}, "space.unit: is 'yes', should be true or false"),
        ({"recipe": {"augment": {"jitter": "none"}}}, "recipe.augment.jitter: is 'none', should be a list or null"),
        ({"training": {"simclr": {"head": "128"}}}, "(-[1-9][0-9]*){1,2})$', such as linear, cosine or mlp-128"),
        (
            {"clustering": {"kmeans": {"k": "all"}}},
            "is 'all', should be a valid integer or text of the pattern '^([1-9][0-9]*\\*)?classes$', such as 10",
        ),
        ({"plugins": "my.py"}, "plugins: is 'my.py', should be a list; for example `plugins: [my_method.py]`"),
    ],
)
def test_a_message_says_what_is_accepted(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        reader.load(parsed(STUDY) | changes)
