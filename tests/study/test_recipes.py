"""The recipes that come with the package: whole, sourced line by line, and those of the papers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from oodbench.study import reader, recipes
from oodbench.study.settings import Recipe

FILES = sorted(recipes.FOLDER.glob("*.yaml"))
# What a recipe says for itself, so that a default that changes changes no paper's recipe.
SAID = {
    *("epochs", "batch", "optimizer", "lr", "momentum", "weight_decay", "warmup", "schedule", "schedule_from"),
    *("schedule_per", "floor", "normalize", "augment"),
}


def recipe(name: str, folder: Path) -> Recipe:
    file = folder / "s.yaml"
    file.write_text(
        "image: {size: 8}\nid: digits\nood: {far: noise}\nencoder: resnet18\ntraining: simclr\n"
        f"clustering: one\ndistance: cosine\nthreshold: pooled\nrecipe: {name}\n"
    )
    return reader.load(file).recipes["simclr"][""]


@pytest.mark.parametrize("name", recipes.book())
def test_a_recipe_is_right_and_says_what_matters(name: str, tmp_path: Path) -> None:
    values = recipes.find(name).values
    assert set(values) >= SAID
    assert set(values["augment"]) >= {"crop", "flip", "jitter", "gray"}
    assert ("warmup_lr" in values) is (values["warmup"] > 0)
    assert ("trust" in values) is (values["optimizer"] == "lars")
    assert isinstance(recipe(name, tmp_path), Recipe)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_constant_has_its_source_beside_it(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if re.match(r" {4,}\w+: [^&]", line)]
    assert lines
    assert [line for line in lines if not re.search(r"  # \S", line)] == []


def test_names() -> None:
    names = set(recipes.book())
    assert {"cluster_game/supcon", "supcontrast/simclr", "oecl/one_vs_rest", "openood/ce", "cider", "fast"} <= names
    assert "fast/fast" not in names
    assert "ours" in recipes.find("fast").about.lower()


def test_the_contrastive_trainings_of_supcontrast_share_one_recipe() -> None:
    assert recipes.find("supcontrast/simclr").values == recipes.find("supcontrast/supcon").values


def test_what_the_codes_say_in_numbers(tmp_path: Path) -> None:
    found = {name: recipe(name, tmp_path) for name in recipes.book()}
    assert [(r.epochs, r.batch, r.lr) for r in (found["supcontrast/simclr"], found["supcontrast/cross_entropy"])] == [
        (1000, 1024, 0.5),
        (500, 1024, 0.8),
    ]
    ssd = found["ssd/simclr"]
    assert ssd.floor * ssd.lr == pytest.approx(1e-4)  # CosineAnnealingLR's eta_min
    ce = found["openood/ce"]
    assert ce.floor * ce.lr == pytest.approx(1e-6)
    assert (ce.augment.crop, ce.augment.pad, ce.augment.translate) == (None, 4, 0)  # RandomCrop(32, padding=4)
    assert found["openood/logitnorm"] == ce  # train_logitnorm.yml, logitnorm_trainer.py
    exposed = dataclasses.replace(found["outlier_exposure"], outlier_batch=None)
    assert exposed == ce  # oe_scratch.py, whose cosine OpenOOD's trainers have
    assert found["outlier_exposure"].outlier_batch == 256
    assert found["csi/unlabelled"].lr == 10 * found["csi/unlabelled"].warmup_lr
    changed = dataclasses.replace(found["oecl/one_vs_rest"], epochs=500, batch=64)
    assert found["oecl/leave_one_class_out"] == changed
