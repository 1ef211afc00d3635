"""What is part of which key: everything that decides a number, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write

from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import digest
from oodbench.store.memo import NUMBER, Watch
from oodbench.study import reader, registry
from oodbench.study.fingerprints import content
from oodbench.study.grid import Cell, Run, Work
from oodbench.study.settings import Augment, ImageFormat, Recipe, Reference, Space
from oodbench.training.banks import Piece


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(reader.load(write(tmp_path / "s.yaml", training="simclr")), Options(device="cpu"))


def another(value: Any) -> Any:
    """Return a value of the same kind that is not equal."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (value[0] / 2, *value[1:])
    if value is None:
        return 64
    return "mlp-64" if value == "mlp-128" else f"other {value}"


def variants(part: Any) -> list[tuple[str, Any]]:
    """Return a dataclass with each of its fields changed, by the field's name."""
    found = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            found += [
                (f"{field.name}.{name}", dataclasses.replace(part, **{field.name: v})) for name, v in variants(value)
            ]
        else:
            other = copy.copy(part)
            object.__setattr__(other, field.name, another(value))  # allowed or not
            found.append((field.name, other))
    return found


@pytest.mark.parametrize(("generation", "precision"), [(7, "float32"), (8, "bf16")])
def test_auto_is_bf16_where_the_card_has_it_and_does_not_emulate_it(
    generation: int, precision: str, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards before Ampere (8) only emulate bf16, and are slower with it: torch counts them in by default."""
    run = dataclasses.replace(runner.plan.work[0].run, precision="auto")
    monkeypatch.setattr(runner.pipeline.encoders, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)  # makes it the current one
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    card = types.SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert runner.pipeline.encoders.precision(run) == precision


@pytest.mark.parametrize(("units", "precision"), [((), "float32"), (("avx512_bf16",), "bf16"), (("amx_tile",), "bf16")])
def test_auto_is_bf16_where_the_cpu_has_units_for_it(
    units: tuple[str, ...], precision: str, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataclasses.replace(runner.plan.work[0].run, precision="auto")
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda there=name in units: there)
    assert runner.pipeline.encoders.precision(run) == precision


def test_every_field_of_a_training_is_in_its_key(runner: Runner) -> None:
    run, pipeline = runner.plan.work[0].run, runner.pipeline
    changed: list[tuple[str, Run]] = [
        *((f"recipe.{name}", dataclasses.replace(run, recipe=each)) for name, each in variants(run.recipe)),
        *((f"image.{name}", dataclasses.replace(run, image=each)) for name, each in variants(run.image)),
        *(
            (f"reference.{name}", dataclasses.replace(run, reference=each))
            for name, each in variants(run.reference)[:2]
        ),
        *((f"training.{name}", dataclasses.replace(run, training=each)) for name, each in variants(run.training)),
        *((f"encoder.{name}", dataclasses.replace(run, encoder=each)) for name, each in variants(run.encoder)[:1]),
        ("encoder.params", dataclasses.replace(run, encoder=dataclasses.replace(run.encoder, params={"width": 3}))),
        ("seed", dataclasses.replace(run, seed=1)),
        ("precision", dataclasses.replace(run, precision="bf16")),
        ("outliers", dataclasses.replace(run, outliers=run.sets["noise(count=50, size=8)"])),
        ("id", dataclasses.replace(run, id=dataclasses.replace(run.id, per_class=20))),
    ]
    keys = [digest(pipeline.encoders.train_fields(each)) for _, each in changed]
    same = [name for (name, _), key in zip(changed, keys, strict=True) if key == pipeline.encoders.train_key(run)]
    assert same == []
    assert len(set(keys)) == len(keys)
    names = {name.partition(".")[2] for name, _ in changed}
    fields = {f.name for cls in (Recipe, ImageFormat, Reference) for f in dataclasses.fields(cls)}
    wanted = fields - {"augment", "held_out"}  # a set elsewhere decides no weights: see test_suites.py
    assert names >= wanted | {f"augment.{f.name}" for f in dataclasses.fields(Augment)}


def test_a_recipe_without_padding_has_the_key_that_it_had_before_there_was_any() -> None:
    assert digest(Recipe().canonical) == "825097757dd2db3f"  # of all fields but `pad`, by the version before it
    assert Recipe(augment=Augment(pad=4)).canonical["augment"]["pad"] == 4
    assert Recipe(augment=Augment(pad=4)).label == "augment.pad=4"


def test_a_bank_depends_on_its_training_set_part_and_views(runner: Runner) -> None:
    run, pipeline = runner.plan.work[0].run, runner.pipeline
    pieces = [
        Piece(run.id, "test", "all", 1),
        Piece(run.id, "test", "all", 2),
        Piece(run.id, "test", "all", 2, 0.54),
        Piece(run.id, "train", "fit", 1),
        Piece(run.id, "train", "val", 1),
        *(Piece(each, "test", "all", 1) for each in run.sets.values()),
    ]
    keys = {
        digest(pipeline.banks.bank_fields(each, piece))
        for piece in pieces
        for each in (run, dataclasses.replace(run, seed=1))
    }
    assert len(keys) == 2 * len(pieces)


def test_every_part_of_a_detector_is_in_its_cell(runner: Runner) -> None:
    cell = next(cell for cell in runner.plan.cells if cell.detector.clustering)
    detector = cell.detector
    changed = [dataclasses.replace(detector, space=each) for _, each in variants(Space(layer="projection"))]
    for axis in ("clustering", "distance", "threshold"):
        part = getattr(detector, axis)
        changed += [dataclasses.replace(detector, **{axis: each}) for _, each in variants(part)]
    ids = [cell.id, *(Cell(cell.run, each).id for each in changed)]
    assert len(set(ids)) == len(ids)


def keys(runner: Runner, work: Work) -> dict[str, str]:
    return {each.cell: each.key for each in runner.source(work).wanted}


@pytest.mark.parametrize(("axis", "name"), [("clustering", "kmeans"), ("distance", "cosine"), ("threshold", "pooled")])
def test_rows_follow_the_code_of_their_own_plugins(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, axis: str, name: str
) -> None:
    (work,) = runner.plan.work
    before, whole = keys(runner, work), registry.Registry.fingerprint

    def edited(self: registry.Registry, room: str, plugin: str) -> str:
        return "edited" if (room, plugin) == (axis, name) else whole(self, room, plugin)

    monkeypatch.setattr(registry.Registry, "fingerprint", edited)
    runner.pipeline.scored_by.clear()  # as in another process
    after = keys(runner, work)
    changed = [cell for cell in work.cells if after[cell.id] != before[cell.id]]
    assert changed == [cell for cell in work.cells if getattr(getattr(cell.detector, axis), "name", "") == name]
    assert changed


def test_rows_follow_their_training(runner: Runner) -> None:
    (work,) = runner.plan.work
    other = dataclasses.replace(work, run=dataclasses.replace(work.run, seed=1))
    assert set(keys(runner, work).values()).isdisjoint(keys(runner, other).values())


def test_where_a_study_lies_and_how_it_is_run_is_in_no_key(runner: Runner, tmp_path: Path) -> None:
    other = reader.load(write(tmp_path / "elsewhere" / "t.yaml", training="simclr", name="other"))
    pipeline = Pipeline(other, Options(device="cpu", checkpoint_minutes=1), Watch())
    assert pipeline.encoders.train_key(runner.plan.work[0].run) == runner.pipeline.encoders.train_key(
        runner.plan.work[0].run
    )


# The code that computes and that no plugin's fingerprint covers. Where a hash no longer fits: has the arithmetic of a
# stage changed? Then raise its number in oodbench.store.memo.NUMBER and below. Has it not? Then the new hash alone.
NUMBERS = {"data": 2, "train": 1, "bank": 1, "probe": 2, "score": 3}
CODE = {
    "data.prepare": "e0f894ef2b0e",
    "data.corruptions": "df4ed1ff08d0",
    "training.augment": "0e2517be40f3",
    "training.networks": "c2f21483ae68",
    "training.batches": "b5c02ac52d3d",
    "training.train": "6feacf41145a",
    "training.embed": "71284bab954c",
    "training.optim": "f1806bdfca90",
    "training.probes": "3aba1bc8a37c",
    "scoring.detectors": "7bcdcf256789",
    "scoring.spaces": "b986e1c885cc",
    "scoring.metrics": "2785d4d61aac",
    "data.colour": "10a37d03e6ad",
    "toolkit.vectors": "9bf63cfa8a2e",
    "toolkit.linear_algebra": "f7812b4f8ddb",
}


def test_numbers_of_the_stages() -> None:
    assert NUMBER == NUMBERS


@pytest.mark.parametrize("module", CODE)
def test_code_that_computes_is_pinned(module: str) -> None:
    assert content(f"oodbench.{module}")[:12] == CODE[module], "see the comment above CODE"
