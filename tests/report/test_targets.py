"""Published numbers as data: what is in the files, and what a mistake in one is answered with."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oodbench.errors import UserError
from oodbench.report import targets
from oodbench.report.targets import ROOMS, Entry, Target
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, Recipe, Space

# Data sets that may be listed as elsewhere: they are on their way into the package.
PURITY = (48.9, 56.0, 61.9, 63.3, 63.9)
COUNTS = {
    "cider": 12,
    "csi": 65,
    "knn_ood": 92,
    "oecl": 8,
    "openood_fpr95": 42,
    "openood_v15": 191,
    "pcl": 36,
    "representation": 17,
    "ssd": 15,
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture(scope="module")
def published(registry: Registry) -> list[Target]:
    return targets.load(targets.published(), registry)


def stem(target: Target) -> str:
    return Path(target.place.rpartition(":")[0]).stem


def found(published: list[Target], file: str, metric: str, **about: Any) -> list[Target]:
    """Return the targets of a file that have a metric and, by name, the parts that are given; "" for none."""

    def said(target: Target, column: str) -> Any:
        part = getattr(target, column)
        if column == "ood":
            return "+".join(each.name for each in part)
        return part.name if isinstance(part, Entry) else "" if part is None else part

    return [
        each
        for each in published
        if stem(each) == file and each.metric == metric and all(said(each, key) == is_ for key, is_ in about.items())
    ]


# ---- the files -------------------------------------------------------------------------------------------


def test_how_many_numbers_each_file_has(published: list[Target]) -> None:
    assert Counter(map(stem, published)) == COUNTS


CE, R18 = {"training": "cross_entropy"}, {"encoder": "resnet18"}
C10, C100 = {"id": "cifar10"}, {"id": "cifar100"}
NEAR, FAR = {"group": "near"}, {"group": "far"}
FIVE = "svhn+lsun+isun+textures+places365"


@pytest.mark.parametrize(
    ("value", "std", "file", "metric", "about"),
    [
        (88.03, 0.25, "openood_v15", "auroc", C10 | NEAR | CE | {"posthoc": "msp"}),
        (77.76, 0.44, "openood_v15", "auroc", C100 | FAR | CE | {"posthoc": "msp"}),
        (92.96, 0.14, "openood_v15", "auroc", C10 | FAR | CE | {"distance": "knn"}),
        (58.69, 0.09, "openood_v15", "auroc", C100 | NEAR | CE | {"distance": "mahalanobis"}),
        (93.48, 0.24, "openood_v15", "auroc", C10 | FAR | {"posthoc": "vim"}),
        (90.71, 0.16, "openood_v15", "auroc", C10 | NEAR | {"training": "cider"}),
        (81.41, 1.49, "openood_v15", "auroc", C100 | FAR | {"training": "outlier_exposure"}),
        (96.55, None, "openood_v15", "auroc", C10 | FAR | {"training": "palm"}),
        (86.98, 0.37, "openood_v15", "auroc", C100 | FAR | {"posthoc": "nac"}),
        (95.06, 0.30, "openood_v15", "accuracy_classifier", C10 | CE | {"posthoc": ""}),
        (61.60, 0.46, "openood_v15", "accuracy_classifier", C100 | {"training": "csi"}),
        (93.16, 0.22, "openood_v15", "auroc", {"id": "imagenet200", "distance": "knn"} | CE | FAR),
        (95.74, None, "openood_v15", "auroc", {"id": "imagenet1k", "posthoc": "ash"} | FAR),
        (48.17, 3.92, "openood_fpr95", "fpr95_ood", C10 | NEAR | {"posthoc": "msp"}),
        (24.28, 0.40, "openood_fpr95", "fpr95_ood", C10 | FAR | {"distance": "knn"}),
        (59.20, None, "openood_fpr95", "fpr95_ood", C100 | FAR | {"posthoc": "ash"}),
        (24.53, None, "knn_ood", "fpr95_id", CE | {"distance": "knn", "ood": "svhn"}),
        (97.93, None, "knn_ood", "auroc", {"training": "supcon", "distance": "knn", "ood": FIVE}),
        (38.83, None, "knn_ood", "fpr95_id", {"training": "supcon", "distance": "knn", "ood": "cifar100"}),
        (69.56, None, "knn_ood", "auroc", {"distance": "mahalanobis", "ood": "places365"}),
        (90.63, None, "ssd", "auroc", {"training": "simclr", "ood": "cifar100"}),
        (2.07, None, "ssd", "fpr95_id", {"training": "simclr", "ood": "svhn"}),
        (95.57, None, "ssd", "aupr_out_ap", {"training": "simclr", "ood": "textures"}),
        (38.50, None, "ssd", "fpr95_id", {"training": "supcon"}),
        (99.8, None, "csi", "auroc", {"training": "csi", "distance": "csi", "ood": "svhn"}),
        (89.6, None, "csi", "auroc", {"protocol": "one class", "splits": 20}),
        (96.9, None, "csi", "auroc", {"id": "imagenet30", "ood": "textures"}),
        (97.8, None, "oecl", "auroc", {"protocol": "one class", "training": "oecl", "outliers": "tiny_images"}),
        (83.9, None, "oecl", "auroc", {"protocol": "9 classes", "training": "simclr"}),
        (14.52, None, "cider", "fpr95_id", {"ood": FIVE}),
        (87.55, None, "cider", "auroc", C100 | {"training": "supcon"}),
        (70.7, None, "representation", "accuracy_linear", C100 | {"training": "simclr", "encoder": "resnet50"}),
        (87.9, None, "representation", "accuracy_knn", {"epochs": 800}),
        (96, None, "representation", "accuracy_classifier", C10 | CE | R18),
        (5.0, None, "pcl", "silhouette", {"clustering": "labels"}),
    ],
)
def test_a_number_is_what_its_source_says(
    published: list[Target], value: float, std: float | None, file: str, metric: str, about: dict[str, Any]
) -> None:
    (target,) = found(published, file, metric, **about)
    assert (target.value, target.std) == (value, std)


def test_classes_and_clusters_have_their_own_numbers(published: list[Target]) -> None:
    one_class = found(published, "csi", "auroc", protocol="one class", splits="", id="cifar10")
    assert {each.id.params["only"]: each.value for each in one_class if each.id}["horse"] == 98.7
    pcl = {
        (each.distance.text, each.clustering.text, each.threshold.name): each.value
        for each in found(published, "pcl", "auroc")
        if each.distance and each.clustering and each.threshold and "another" not in each.source
    }
    assert pcl["mahalanobis(covariance=per_cluster)", "kmeans(k=20)", "cluster_zero_max"] == 0
    assert pcl["cosine", "labels", "cluster_min_max"] == 65.59
    assert pcl["mahalanobis(covariance=per_cluster)", "labels", "pooled"] == 76.97
    purity = {each.clustering.text: each.value for each in found(published, "pcl", "cluster_purity") if each.clustering}
    assert purity == {f"kmeans(k={k})": value for k, value in zip(range(10, 60, 10), PURITY, strict=True)}


def test_no_number_that_was_not_seen(published: list[Target]) -> None:
    """Numbers that are quoted from memory in the field, and were not found in any source."""
    assert not {69.6, 46.89, 87.67, 32.11, 20.72, 44.84, 25.05} & {each.value for each in published}


def test_each_target_names_parameters_that_there_are(published: list[Target], registry: Registry) -> None:
    rooms = {**ROOMS, "ood": "dataset"}
    parts = [(rooms[column], getattr(each, column)) for each in published for column in rooms]
    entries = [(room, each) for room, part in parts if part for each in ([part] if isinstance(part, Entry) else part)]
    checked = set()
    for room, each in entries:
        if each.params and room != "encoder" and each.name in registry.sources(room):
            plugin: Any = registry.load(room, each.name)
            assert set(each.params) <= {field.name for field in dataclasses.fields(plugin)}, each.text
            checked.add(each.name)
    assert checked >= {"cifar10", "knn", "mahalanobis", "kmeans", "csi", "simclr", "supcon", "oecl"}
    assert {each.name for room, each in entries if room == "encoder"} <= {*RESNETS, "wrn_40_2", "timm/resnet50.tv_in1k"}


def test_what_is_said_to_be_elsewhere_says_what_it_is() -> None:
    listed = targets._elsewhere(targets.published() / targets.ELSEWHERE)
    assert all(says for names in listed.values() for says in names.values())


# ---- the margin ------------------------------------------------------------------------------------------


def target(**change: Any) -> Target:
    return Target(**{"metric": "auroc", "value": 90.0, "source": "s"} | change)


@pytest.mark.parametrize(
    ("change", "margin"), [({}, 1), ({"std": 4.83, "ddof": 0, "n": 3}, 1), ({"tolerance": 0.05}, 0.05)]
)
def test_the_margin_is_a_point_or_what_the_file_says(change: dict[str, Any], margin: float) -> None:
    assert target(**change).margin == margin


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_deviation_is_the_same_whatever_the_ddof(ddof: int) -> None:
    values = np.array([88.1, 88.4, 87.2, 89.0])
    given = target(std=float(values.std(ddof=ddof)), ddof=ddof, n=4)
    assert given.deviation == pytest.approx(values.std(ddof=1))
    assert math.isnan(target().deviation)


# ---- mistakes ---------------------------------------------------------------------------------------------

HEADER = "id,ood,distance,posthoc,space,group,metric,value,std,ddof,n,source"
LINE = "cifar10,svhn,knn,,,,auroc,90,,,,s"


def written(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    file = tmp_path / "t.csv"
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cifar10,svhn,knn,,,,fpr95,90,,,,s", "metric: rows have no number 'fpr95'; did you mean 'fpr95_"),
        ("cifar10,svhn,knn,,,,auroc,101,,,,s", "value: is '101', should be less than or equal to 100"),
        ("cifar10,svhn,knn,,,,auroc,nan,,,,s", "value: is 'nan'"),
        ("cifar10,svhn,knn,,,,auroc,,,,,s", "value: is empty"),
        ("cifar10,svhn,knn,,,,auroc,90,,,,", "source: is empty"),
        ("cifar10,svhn,knn,,,,auroc,90,0.1,,3,s", "std: needs `ddof`"),
        ("cifar10,svhn,knn,,,,auroc,90,0.1,0,1,s", "std: needs `ddof`"),
        ("cifar10,svhn,knn,,,,auroc,90,0.1,2,3,s", "ddof: is '2'"),
        (
            "cifar10,svhn,kn,,,,auroc,90,,,,s",
            "distance: there is no distance 'kn', here or in elsewhere.yaml; did you ",
        ),
        ("cifar10,svhn + cifar,knn,,,,auroc,90,,,,s", "ood: there is no dataset 'cifar'"),
        ("cifar10,svhn,knn,msp,,,auroc,90,,,,s", "posthoc: a cell has a distance or a baseline, not both"),
        ("cifar10,,knn,,,,auroc,90,,,,s", "ood: is empty, and so is group"),
        ("cifar10,,knn,,,close,auroc,90,,,,s", "group: there is no such group 'close'"),
        ("cifar10,svhn,knn,,,,auroc,90,,,s", "has another number of columns than the 12 of the first line"),
        ("cifar10,svhn,knn,,,,auroc,90,,,,s,more", "has another number of columns"),
        ("cifar10,svhn,{knn: {k: 5},,,,auroc,90,,,,s", "distance: is {knn: {k: 5}, which is not YAML"),
        ("cifar10,svhn,[knn],,,,auroc,90,,,,s", "distance: is [knn], wanted a name or {name: {parameter: value}}"),
        (
            "cifar10,svhn,knn,,{unti: true},,auroc,90,,,,s",
            "space: there is no such parameter 'unti'; did you mean 'unit'",
        ),
        ("cifar10,svhn,knn,,unit,,auroc,90,,,,s", "space: is unit, wanted a mapping of parameters"),
        (LINE.replace("90", "91"), "the same cell, metric and source are in "),
    ],
)
def test_a_mistake_has_its_file_and_line(tmp_path: Path, registry: Registry, line: str, message: str) -> None:
    file = written(tmp_path, LINE, line)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        targets.load(file, registry)
    assert str(error.value).startswith(f"{file}:3: ")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace("distance", "distanse"), "there is no column 'distanse'; did you mean 'distance'?"),
        (HEADER.replace("source", "note"), "the column 'source' is missing"),
        (HEADER.replace("posthoc", "id"), "a column stands twice"),
    ],
)
def test_a_mistake_in_the_first_line(tmp_path: Path, registry: Registry, header: str, message: str) -> None:
    file = written(tmp_path, LINE, header=header)
    with pytest.raises(UserError, match=re.escape(f"{file}:1: {message}")):
        targets.load(file, registry)


def test_whose_logits_a_baseline_reads(tmp_path: Path, registry: Registry) -> None:
    header = HEADER.replace("space", "head")
    lines = [f"cifar10,svhn,,msp,{head},,auroc,90,,,,s" for head in ("", "linear probe")]
    found = targets.load(written(tmp_path, *lines, LINE, header=header), registry)
    assert [each.reads for each in found] == ["classifier", "linear probe", ""]
    with pytest.raises(UserError, match=r"t.csv:2: head: is 'probe', should be '', 'classifier' or 'linear probe'"):
        targets.load(written(tmp_path, lines[1].replace("linear ", ""), header=header), registry)
    with pytest.raises(UserError, match=r"t.csv:2: head: is of a baseline, and there is no posthoc"):
        targets.load(written(tmp_path, LINE.replace("knn,,", "knn,,classifier"), header=header), registry)


def test_a_tolerance_is_no_wider_than_the_rule(tmp_path: Path, registry: Registry) -> None:
    header = HEADER.replace("space", "tolerance")
    (only,) = targets.load(written(tmp_path, LINE.replace("knn,,", "knn,,1.5"), header=header), registry)
    assert only.margin == 1.5
    with pytest.raises(UserError) as error:
        targets.load(written(tmp_path, LINE.replace("knn,,", "knn,,1.6"), header=header), registry)
    assert str(error.value) == f"{tmp_path / 't.csv'}:2: tolerance: is '1.6', should be less than or equal to 1.5"


def test_a_folder_without_targets(tmp_path: Path, registry: Registry) -> None:
    for path in (tmp_path, tmp_path / "nowhere.csv"):
        with pytest.raises(UserError, match="there is no CSV file of targets"):
            targets.load(path, registry)


def test_a_user_may_say_what_is_elsewhere(tmp_path: Path, registry: Registry) -> None:
    file = written(tmp_path, LINE.replace("svhn", "moon"))
    (tmp_path / targets.ELSEWHERE).write_text("dataset: {moon: pictures of the moon}\n")
    (only,) = targets.load(file, registry)
    assert only.ood == (Entry("moon", {}),)
    (tmp_path / targets.ELSEWHERE).write_text("data: {moon: pictures of the moon}\n")
    with pytest.raises(UserError, match=r"elsewhere.yaml:1: data: there is no such room"):
        targets.load(file, registry)


def test_parts_are_read_as_a_study_writes_them(tmp_path: Path, registry: Registry) -> None:
    sets = "{textures: {test: [train, val, test]}} + svhn+{cifar100: {coarse: true}}"
    line = f'cifar10,"{sets}",{{knn: {{k: 50}}}},,"{{layer: penultimate, unit: true}}",,auroc,90,,,,s'
    (only,) = targets.load(written(tmp_path, line), registry)
    assert [each.text for each in only.ood] == ["textures(test=train+val+test)", "svhn", "cifar100(coarse=True)"]
    assert only.distance == Entry("knn", {"k": 50})
    assert only.space == Space(layer="penultimate", unit=True)


def test_a_recipe_is_a_base_by_name_and_changes_to_it(tmp_path: Path, registry: Registry) -> None:
    header = HEADER.replace("space", "recipe")
    lines = [
        LINE.replace("knn,,", f'knn,,"{each}"') for each in ("openood/ce", "{base: openood/ce, epochs: 3}", "{lr: 1}")
    ]
    found = targets.load(written(tmp_path, *(x + str(i) for i, x in enumerate(lines)), header=header), registry)
    assert [(each.trained.epochs, each.trained.lr, each.trained.nesterov) for each in found] == [
        (100, 0.1, True),
        (3, 0.1, True),
        (500, 1, False),
    ]
    assert found[2].recipe == Recipe(lr=1)
    for given, message in {
        "openood/cd": "there is no recipe 'openood/cd'; did you mean 'openood/ce'?",
        "{lrr: 1}": "there is no such parameter 'lrr'; did you mean 'lr'?",
        "{lr: -1}": "lr is -1: Input should be greater than 0",
    }.items():
        with pytest.raises(UserError, match=re.escape(f"t.csv:2: recipe: {message}")):
            targets.load(written(tmp_path, LINE.replace("knn,,", f'knn,,"{given}"'), header=header), registry)


def test_what_a_source_swept(tmp_path: Path, registry: Registry) -> None:
    header = HEADER.replace("space", "any")
    lines = [LINE.replace("knn,,", f'knn,,"{each}"') for each in ("[k]", "{k: [50, 100]}")]
    found = targets.load(written(tmp_path, *(x + str(i) for i, x in enumerate(lines)), header=header), registry)
    assert [each.any for each in found] == [{"k": None}, {"k": [50, 100]}]
    with pytest.raises(UserError, match=r"t.csv:2: any: is k, wanted a list of parameters"):
        targets.load(written(tmp_path, LINE.replace("knn,,", "knn,,k"), header=header), registry)
    with pytest.raises(UserError, match=r"t.csv:2: any: names parameters of a distance or a baseline"):
        targets.load(written(tmp_path, LINE.replace("knn,,", ",,[k]"), header=header), registry)


def test_the_boards_settings_are_those_of_its_code(published: list[Target]) -> None:
    """Jingkang50/OpenOOD, configs/postprocessors and openmax_postprocessor.py: other than our defaults."""
    board = [each for each in published if each.suite.startswith("openood/")]
    said = {each.posthoc.name: each.posthoc.text for each in board if each.posthoc}
    assert said["ash"] == "ash(variant=b)"
    assert said["openmax"] == "openmax(alpha=3)"
    assert said["react"] == "react(of=val)"
    assert {each.any["k"][0] for each in board if each.distance and each.distance.name == "knn"} == {50}
    assert not [each for each in board if each.posthoc and each.posthoc.name in ("ash", "scale") and not each.any]
    ours = {"cross_entropy", "logitnorm", "cider"}
    trained = [each for each in board if each.training and each.training.name in ours and "imagenet" not in each.suite]
    assert {each.trained.lr for each in trained if each.training and each.training.name != "cider"} == {0.1}
    assert {each.trained.epochs for each in trained} == {100}


def test_lines_of_the_board_have_its_deviation_but_where_it_has_one_run(published: list[Target]) -> None:
    """Jingkang50/OpenOOD, branch leaderboard at f969dfa, results/*.csv: single runs are `± 0.00` there."""
    board = [each for each in published if each.source.startswith("OpenOOD v1.5 board")]
    lacking = [each for each in board if each.std is None]
    assert all(each.note.startswith("one run") or each.suite == "openood/imagenet1k" for each in lacking)
    assert len(board) - len(lacking) >= 170
    assert {(each.ddof, each.n) for each in board if each.std is not None} == {(0, 3)}
