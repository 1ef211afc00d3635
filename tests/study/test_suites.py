"""Suites: what each brings into a study, how a study joins or changes them, and references that are sets."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, write

from oodbench.api import Images
from oodbench.data import prepare
from oodbench.errors import UserError
from oodbench.execution.garbage import garbage
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store import rows as results
from oodbench.study import reader, study
from oodbench.study import suites as suite
from oodbench.study.class_protocol import kept_classes
from oodbench.study.grid import canonical
from oodbench.study.registry import Registry
from oodbench.study.suites import Suite
from oodbench.training.banks import Piece
from oodbench.training.weights import plan_of

FIELDS = {"says", "source", "own", "image", "id", "ood"}
OTHER = {"encoder": "resnet18", "training": "simclr", "distance": "cosine", "clustering": "one", "threshold": "pooled"}
IMAGE = {"size": 8, "channels": 1}
HELD = {"set": {"blobs": {"groups": 3, "count": 90, "draw": 1}}}


def load(folder: Path, names: str | list[str], **more: Any) -> study.Study:
    without = dict.fromkeys(TINY)
    return reader.load(write(folder / "s.yaml", **without | OTHER | {"suite": names} | more))


@pytest.fixture
def tiny_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two suites of synthetic sets, and one whose set does not exist."""
    blobs = {"groups": 3, "count": 120}
    first = {"image": IMAGE, "id": {"blobs": blobs}, "ood": {"far": {"noise": {"count": 50, "size": 8}}}}
    second = first | {"id": {"blobs": blobs | {"draw": 5}}, "ood": {"near": {"glyphs": {"count": 40, "size": 8}}}}
    bad = first | {"id": {"blobs": blobs | {"draw": 7}}, "ood": {"far": {"nose": None}}}
    suites = {"tiny/one": first, "tiny/two": second, "tiny/bad": bad, "tiny/held": first | {"reference": HELD}}
    found = {
        name: Suite(f"{name} says", "a paper", (f"{name} has a choice.",), values) for name, values in suites.items()
    }
    monkeypatch.setattr(suite, "book", lambda: found)


# ---- the package's own


@pytest.mark.parametrize("file", sorted(suite.FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_suite_is_whole_and_says_what_is_its_own(file: Path) -> None:
    from oodbench.study.document import read

    for name, each in read(file).value.items():
        assert set(each) - {"validation", "outliers", "reference", "files", "covariate"} == FIELDS, name
        assert set(each["image"]) - {"short"} == {"size", "channels", "fit", "resize", "antialias"}
        assert all(line.endswith(".") for line in each["own"])
        unsaid = "reference" not in each
        assert unsaid == any("held out for thresholds" in line for line in each["own"]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", suite.book())
def test_every_suite_makes_a_study(name: str, tmp_path: Path) -> None:
    found = load(tmp_path, name)
    assert {work.run.suite for work in plan_of(found).work} == {name}


TIN = "tiny_imagenet"
TEXTURES = "textures(test=train+val+test)"
PLACES = "places365(limit=10000, part=test)"  # of the test images, as the README of CIDER has it
EXPECTED = {
    "openood/cifar10": {
        "ids": ["cifar10"],
        "ood": {"near": ["cifar100", TIN], "far": ["mnist", "svhn", "textures", "places365"]},
        "count": {"cifar10": (50000, 9000), "cifar100": 9000, TIN: (1000, 7793), "svhn": 26032, "places365": 35195},
        "more": ("set(cifar10 val)", [TIN], ["tin597"]),
    },
    "openood/cifar100": {
        "ids": ["cifar100"],
        "ood": {"near": ["cifar10", TIN], "far": ["mnist", "svhn", "textures", "places365"]},
        "count": {"cifar100": (50000, 9000), "cifar10": 10000, TIN: (972, 6526), "svhn": 26032, "mnist": 70000},
        "more": ("set(cifar100 val)", [TIN], ["tin597"]),
    },
    "ssd/cifar10": {
        "ids": ["cifar10"],
        "ood": {"near": ["cifar100"], "far": ["svhn", TEXTURES]},
        "count": {},
        "more": ("val(0.1)", [], []),
    },
    "csi/cifar10": {
        "ids": ["cifar10"],
        "ood": {
            "near": ["cifar100", "cifar10_interpolated"],
            "far": [*("svhn", "lsun(form=resize)", "lsun(form=fix)", f"{TIN}(form=resize)", f"{TIN}(form=fix)")],
        },
        "count": {},
        "more": ("val(0.1)", [], []),
    },
    "csi/imagenet30": {
        "ids": ["imagenet30"],
        "ood": {
            "far": [
                *("cub(limit=3000, test=train+test)", "stanford_dogs(limit=3000, test=train+test)"),
                *("pets(limit=3000, test=trainval+test)", "flowers102(limit=3000, test=train+val+test)"),
                "food101(without=hot_dog, limit=3000, test=train+test)",
                *("places365(limit=3000)", "caltech256(limit=3000)", "textures(limit=3000, test=train+val+test)"),
            ]
        },
        "count": {},
        "more": ("val(0.1)", [], []),
    },
    "knn_ood/cifar10": {
        "ids": ["cifar10"],
        "ood": {"near": ["cifar100"], "far": ["svhn(first=1000)", "lsun", "isun", TEXTURES, PLACES]},
        "count": {},
        "more": ("val(0.1)", [], []),
    },
    "cider/cifar100": {
        "ids": ["cifar100"],
        "ood": {"far": ["svhn(first=1000)", PLACES, "isun(limit=10000)", TEXTURES, "lsun(limit=10000)"]},
        "count": {},
        "more": ("val(0.1)", [], []),
    },
    "oecl/cifar10-leave-one-out": {
        "ids": [f"cifar10(without={k})" for k in range(10)],
        "ood": {"near": ["held_out"]},
        "count": {},
        "more": ("val(0.1)", [], ["cifar100"]),
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_sets_of_a_suite(name: str, tmp_path: Path) -> None:
    found, expected = load(tmp_path, name), EXPECTED[name]
    assert [each.label for each in found.ids] == expected["ids"]
    for id_ in found.ids:
        setup = found.setups[id_.label]
        assert {group: list(members) for group, members in setup.ood.items()} == expected["ood"]
        validation, outliers = ([each.label for each in sets] for sets in (setup.validation, setup.outliers))
        assert (setup.reference.label, validation, outliers) == expected["more"]
    counts = {each.label: each.params.get("count") for each in found.datasets}
    assert counts | expected["count"] == counts


@pytest.mark.parametrize("name", ["oecl/imagenet30-one-vs-rest", "oecl/imagenet30-leave-one-out"])
def test_outliers_are_of_none_of_the_thirty_classes(tmp_path: Path, name: str) -> None:
    """The names that torchvision has for the ids that are left out are those of ImageNet-30, in their order."""
    found = load(tmp_path, name)
    (outliers,) = {each.label: each for setup in found.setups.values() for each in setup.outliers}.values()
    wnids, words = (type(outliers)(names=names).class_names or () for names in ("wnid", "words"))  # type: ignore
    assert (outliers.name, len(kept_classes(outliers, wnids)), len(outliers.without)) == ("imagenet1k", 970, 30)  # type: ignore
    left_out = [words[wnids.index(each)].lower().replace(" ", "_") for each in outliers.without]  # type: ignore
    ours = [name.removeprefix("rotary_") for name in found.ids[0].class_names or ()]  # ImageNet's is a dial telephone
    assert left_out == ours


def test_every_list_of_openoods_cifar_suites_is_known_by_its_hash(tmp_path: Path) -> None:
    """Also the outliers', of which there is a train list alone."""
    for name in ("cifar10", "cifar100"):
        lists = {str(each.params["title"]): each.params for each in load(tmp_path, f"openood/{name}").datasets}
        assert len(lists) == 9
        for title, params in lists.items():
            both = params["sha256"] if isinstance(params["sha256"], tuple) else (params["sha256"],) * 2
            assert [each is not None for each in both] == [True, title != "tin597"]


@pytest.mark.parametrize(
    ("name", "shifted"),
    [
        ("cifar10", {"cifar10_c": "cifar10/test_cifar10c"}),
        *(
            (name, {f"imagenet_{kind}": f"{folder}/test_{folder}_{kind}" for kind in ("v2", "c", "r")})
            for name, folder in (("imagenet200", "imagenet200"), ("imagenet1k", "imagenet"))
        ),
    ],
)
def test_a_full_spectrum_suite_is_the_plain_one_with_shifted_sets(
    name: str, shifted: dict[str, str], tmp_path: Path
) -> None:
    """Shifted sets and their lists: DATA_INFO of OpenOOD's evaluator at 3c35632, "csid"."""
    plain, full = (load(tmp_path, f"openood/{each}") for each in (name, f"{name}_fs"))
    (one,), (other,) = plain.setups.values(), full.setups.values()
    assert dataclasses.replace(other, covariate=[], suite=one.suite) == one
    assert (plain.ids, plain.settings.image, one.covariate) == (full.ids, full.settings.image, [])
    found = {each.label: each.params for each in other.covariate}
    assert {label: params["path"] for label, params in found.items()} == {
        label: f"benchmark_imglist/{stem}.txt" for label, stem in shifted.items()
    }
    assert {params["test_share"] for params in found.values()} == {1}
    if name == "cifar10":
        assert (found["cifar10_c"]["count"], found["cifar10_c"]["sha256"][:8]) == (10000, "92bf5025")


def test_the_lists_of_openood_are_where_its_script_leaves_them(tmp_path: Path) -> None:
    found = load(tmp_path, "openood/cifar10")
    setup = found.setups["cifar10"]
    assert found.ids[0].params["path"] == "benchmark_imglist/cifar10/{split}_cifar10.txt"
    held_out = setup.reference.held_out
    assert held_out is not None
    assert (held_out.params["path"], held_out.params["count"]) == ("benchmark_imglist/cifar10/val_cifar10.txt", 1000)
    (tin,) = setup.validation
    assert (tin.params["train"], tin.params["test"]) == ("val", "test")
    assert {each.params["root"] for each in found.datasets} == {"images_classic"}


# ---- in a study


def test_suites_are_joined_each_with_its_own(tmp_path: Path) -> None:
    found = load(tmp_path, ["openood/cifar10", "openood/cifar100"], training=["cross_entropy", "oecl"])
    runs = {(work.run.id.label, work.run.training.name): work.run for work in plan_of(found).work}
    assert {key: run.suite for key, run in runs.items()} == {
        ("cifar10", "cross_entropy"): "openood/cifar10",
        ("cifar10", "oecl"): "openood/cifar10",
        ("cifar100", "cross_entropy"): "openood/cifar100",
        ("cifar100", "oecl"): "openood/cifar100",
    }
    for (name, training), run in runs.items():
        of = [
            run.id,
            run.reference.held_out,
            *run.validation,
            *run.sets.values(),
            *([run.outliers] if run.outliers else []),
        ]
        assert {each.params["path"].split("/")[1] for each in of if each} == {name}
        assert bool(run.outliers) is (training == "oecl")
    assert set(runs["cifar10", "oecl"].ood["near"]) == {"cifar100", TIN}
    assert set(runs["cifar100", "oecl"].ood["near"]) == {"cifar10", TIN}


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ("openod/cifar10", {}, "suite: there is no suite 'openod/cifar10'; did you mean 'openood/cifar10'?"),
        (["ssd/cifar10", "ssd/cifar11"], {}, "there is no suite 'ssd/cifar11'; did you mean 'ssd/cifar1"),
        ([], {}, "wanted a suite's name or a list of them"),
        (["ssd/cifar10", "ssd/cifar10"], {}, "names a suite twice"),
        (
            "ssd/cifar10",
            {"ood": {"far": "svhn"}},
            "ood: the suite ssd/cifar10 says it, too; drop this key, or `suite:`",
        ),
        ("openood/cifar10_fs", {"covariate": "cifar10_c"}, "covariate: the suite openood/cifar10_fs says it, too"),
        (["openood/cifar10_fs", "openood/cifar100"], {}, "differ in `covariate`"),
        ("ssd/cifar10", {"image": IMAGE}, "image: the suite ssd/cifar10 says it, too"),
        (["ssd/cifar10", "csi/cifar10-one-class"], {}, "ssd/cifar10 and csi/cifar10-one-class differ in `image`"),
        (["openood/cifar10", "ssd/cifar100"], {}, "differ in `reference`"),
        (["openood/cifar10", "ssd/cifar100"], {"reference": "val"}, "or say one for all with the key 'validation'"),
        (["openood/cifar10", "ssd/cifar10"], dict.fromkeys(suite.CHANGEABLE, "glyphs") | {"reference": "val"}, "apart"),
        ("ssd/cifar10", {"reference": {"set": ["svhn", "mnist"]}}, "is one data set, not svhn, mnist"),
        ("ssd/cifar10", {"reference": {"sets": "svhn"}}, "should be 'val' or 'train', {val: share} or {set: data set}"),
    ],
)
def test_what_cannot_be(names: Any, more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, names, **more)
    assert said in str(caught.value)
    assert f"{tmp_path / 's.yaml'}:" in str(caught.value)


def test_a_mistake_in_a_suite_is_shown_where_the_study_names_it(tiny_suites: None, tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **dict.fromkeys(TINY) | OTHER | {"suite": ["tiny/one", "tiny/bad"]})
    line = file.read_text().splitlines().index("- tiny/bad") + 1
    with pytest.raises(UserError) as caught:
        reader.load(file)
    assert str(caught.value).startswith(f"{file}:{line}: suite tiny/bad: ood.far.nose: there is no dataset 'nose'")


def test_a_suite_without_shifted_sets_takes_a_studys(tmp_path: Path) -> None:
    found = load(tmp_path, ["openood/cifar10", "openood/cifar100"], covariate={"cifar10": {"corrupt": "jpeg-3"}})
    assert [[each.label for each in setup.covariate] for setup in found.setups.values()] == 2 * [
        ["cifar10(corrupt=jpeg-3)"]
    ]


def test_a_study_may_change_what_rows_then_tell(tmp_path: Path) -> None:
    found = load(tmp_path, "openood/cifar10", validation={"glyphs": {"size": 32}}, reference={"val": 0.2})
    (run,) = (work.run for work in plan_of(found).work)
    assert run.labels["suite"] == "openood/cifar10 (own validation, reference)"
    assert ([each.name for each in run.validation], run.reference.label) == (["glyphs"], "val(0.2)")
    assert [each.label for each in found.outliers] == ["tin597"]


def test_tables_and_claims_are_read_without_plugins(tiny_suites: None, tmp_path: Path) -> None:
    tables = {"t": {"rows": ["distance"], "columns": ["suite"]}}
    claims = {"c": {"says": "so", "of": {"suite": "tiny/bad"}, "left": {"training": "a"}, "right": {"training": "b"}}}
    changes = dict.fromkeys(TINY) | OTHER | {"suite": "tiny/bad", "tables": tables, "claims": claims}
    file = write(tmp_path / "s.yaml", **changes)
    assert reader.tables_of(file)[0]["t"].columns == ("suite",)
    assert reader.claims_of(file)["c"].of == {"suite": "tiny/bad"}
    assert reader.results_of(file).name == "s"


@pytest.mark.slow
def test_the_command_line_tells_sets_and_own_choices(tiny_suites: None, tmp_path: Path) -> None:
    def call(*words: str) -> list[str]:
        outcome = command_line.call(*words)
        assert outcome.exit_code == 0, outcome.output
        return [" ".join(line.split()) for line in outcome.stdout.splitlines()]

    listed = call("list", "suites")
    at = listed.index("tiny/held tiny/held says (a paper)")
    assert listed[at + 1 : at + 5] == [
        "ID: blobs(groups=3, count=120)",
        "far OOD: noise(count=50, size=8)",
        "reference: blobs(groups=3, count=90, draw=1)",
        "own: tiny/held has a choice.",
    ]
    more = {"suite": "tiny/one", "recipe": {"epochs": 0}, "encoder": {"resnet18": {"width": 2}}}
    file = str(write(tmp_path / "s.yaml", **dict.fromkeys(TINY) | OTHER | more | {"reference": HELD}))
    call("run", file)
    planned = call("plan", file)
    assert planned[:2] == ["suite tiny/one (own reference): tiny/one says", "own: tiny/one has a choice."]
    assert any("0 trained, 0 cells scored" in line for line in call("run", file))
    rows = results.Results(reader.results_of(Path(file))).current()
    assert set(rows["suite"]) == {"tiny/one (own reference)"}
    assert (rows["status"] == "ok").all()


def test_rows_from_before_there_were_suites_have_none() -> None:
    assert results.parse(b"cell,ood,auroc\nabc,noise,0.5\n")["suite"].tolist() == [""]


# ---- a reference that is a set of its own


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., Runner]:
    def make(**changes: Any) -> Runner:
        quick = TINY["recipe"] | {"epochs": 0}
        detectors = {"clustering": None, "distance": {"knn": {"k": 3}}, "threshold": "pooled", "recipe": quick}
        file = write(tmp_path / "s.yaml", **{"training": "simclr", "reference": HELD, **detectors, **changes})
        return Runner(reader.load(file), Options(device="cpu"))

    return make


@pytest.mark.slow
def test_rows_of_a_reference_set_are_those_computed_by_hand(runner: Callable[..., Runner]) -> None:
    made = runner(validation={"glyphs": {"count": 30, "size": 8, "draw": 3}}, threshold=["pooled", "conformal"])
    outcome = made.run()
    run = made.plan.work[0].run
    held_out = run.reference.held_out
    assert held_out is not None

    def features(dataset: Any, split: Any, part: Any) -> torch.Tensor:
        return made.pipeline.banks.layers(run, Piece(dataset, split, part, 1))["penultimate"][0].double()

    fit = features(run.id, "train", "fit")
    assert len(fit) == 120  # all of ID train

    def score(f: torch.Tensor) -> torch.Tensor:
        return torch.cdist(f, fit, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, 2]

    reference, test = score(features(held_out, "test", "all")), score(features(run.id, "test", "all"))
    rows = outcome.rows[outcome.rows["threshold"] == "pooled"]
    assert (outcome.rows["status"] == "ok").all()
    assert set(outcome.rows["n_reference"]) == {90}
    assert set(outcome.rows["reference"]) == {f"set({held_out.label})"}
    cut = reference.sort().values[math.ceil(0.95 * 90) - 1]
    recall = (test <= cut).double().mean().item()
    assert rows["id_recall"].tolist() == pytest.approx([recall] * len(rows))
    (seen,) = run.validation
    other = score(features(seen, "train", "all"))
    auroc = ((other[:, None] > reference).double() + (other[:, None] == reference).double() / 2).mean().item()
    assert rows["val_auroc"].tolist() == pytest.approx([auroc] * len(rows))
    assert garbage([made.study], print)[1] == []


def test_what_a_reference_set_is_part_of(runner: Callable[..., Runner]) -> None:
    """Weights do not depend on it, rows do: on its parameters and on its content."""
    first, whole, other = (
        runner(),
        runner(reference="train"),
        runner(reference={"set": {"blobs": HELD["set"]["blobs"] | {"draw": 2}}}),
    )
    made = [each.pipeline.encoders.train_key(each.plan.work[0].run) for each in (first, whole, other)]
    assert len(set(made)) == 1
    keys = [{row.cell: row.key for row in each.source(each.plan.work[0]).wanted} for each in (first, other)]
    assert keys[0].keys().isdisjoint(keys[1])
    assert set(keys[0].values()).isdisjoint(keys[1].values())


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (
            {"groups": 4, "count": 90, "draw": 1},
            "reference: the 4 classes of blobs(count=90, draw=1) (blob 0, blob 1, ",
        ),
        ({"groups": 3, "count": 120}, "120 images of ID test (blobs(groups=3, count=120)) are also in ID reference"),
    ],
)
def test_a_reference_set_that_does_not_fit(held: dict[str, Any], said: str, runner: Callable[..., Runner]) -> None:
    with pytest.raises(UserError) as caught:
        runner(reference={"set": {"blobs": held}}).checks.check()
    assert said in str(caught.value)


def test_a_grid_of_detectors_has_no_sets(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text("distance: cosine\nclustering: one\nthreshold: pooled\nreference: {set: digits}\n")
    with pytest.raises(UserError, match=r"g.yaml:4: reference.set: .* --val"):
        reader.load_grid(file, ())


# ---- limits and lists


def test_a_limit_is_of_the_whole_set_and_in_no_key_where_it_is_not_given() -> None:
    blobs = Registry().load("dataset", "blobs")
    y = np.repeat(np.arange(4), [50, 30, 15, 5])
    images = Images(np.zeros((100, 2, 2), np.uint8), y, ("a", "b", "c", "d"))
    plain: Any = blobs(without=0)
    index, left, _ = prepare.select(dataclasses.replace(plain, limit=20), images)
    assert len(index) == len(left) == 20
    assert (np.diff(index) > 0).all()
    assert (index >= 50).all()
    again, _, _ = prepare.select(dataclasses.replace(plain, limit=20), images)
    assert again.tolist() == index.tolist()
    assert (
        prepare.select(dataclasses.replace(plain, limit=60), images)[0].tolist()
        == prepare.select(plain, images)[0].tolist()
    )
    both, counted, _ = prepare.select(dataclasses.replace(plain, per_class=5, limit=12), images)
    assert (len(both), np.bincount(counted).max() <= 5) == (12, True)
    assert "limit" not in (canonical(plain) or {})
    assert (canonical(dataclasses.replace(plain, limit=20)) or {})["limit"] == 20


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for k in range(5):
        Image.fromarray(np.full((2, 2), k, np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "train_x.txt").write_text("0.png 0\n1.png 1\n2.png 0\n")
    (tmp_path / "test_x.txt").write_text("3.png 0\n4.png 1\n")
    return tmp_path


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_list_is_the_one_that_is_meant(lists: Path) -> None:
    image_list: Any = Registry().load("dataset", "image_list")
    hashes = tuple(digest(lists / f"{split}_x.txt") for split in ("train", "test"))
    meant = {"path": "{split}_x.txt", "count": (3, 2), "sha256": hashes}
    assert [len(image_list(**meant).load(split, lists).y) for split in ("train", "test")] == [3, 2]
    one = image_list(path="test_x.txt", test_share=1.0, count=2, sha256=hashes[1])
    assert len(one.load("test", lists).y) == 2
    with pytest.raises(ValueError, match=r"train_x.txt lists 3 images, the list that is meant 4"):
        image_list(**meant | {"count": (4, 2)}).load("train", lists)
    with pytest.raises(ValueError, match=rf"test_x.txt is another list .* sha256 {hashes[1]}, not {hashes[0]}"):
        image_list(**meant | {"sha256": hashes[::-1]}).load("test", lists)
    with pytest.raises(ValueError, match=r"count: the path '\{split\}_x.txt' is two lists"):
        image_list(path="{split}_x.txt", count=3)
    with pytest.raises(ValueError, match=r"sha256: the path 'test_x.txt' is one list"):
        image_list(path="test_x.txt", test_share=1.0, sha256=hashes)


def test_a_title_stands_for_where_a_list_is() -> None:
    image_list: Any = Registry().load("dataset", "image_list")
    assert image_list(path="a/{split}.txt", count=(3, 2), title="pets").label == "pets"
    assert image_list(path="a/{split}.txt", only=3, limit=9, title="pets").label == "pets(only=3, limit=9)"
    assert image_list(path="a/{split}.txt").label == "image_list(path=a/{split}.txt)"
