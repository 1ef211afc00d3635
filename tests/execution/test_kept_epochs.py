"""Epochs that a study keeps: the weights of that moment, whatever kills the training; named where they are missing."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from safetensors.torch import load_file, save_file
from tiny import TINY, write
from warm import Command

import oodbench
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Outcome, Runner
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.study.grid import Run
from oodbench.study.settings import PLAIN
from oodbench.training import batches, embed, networks, train

pytestmark = pytest.mark.slow

LONG = TINY["recipe"] | {"epochs": 6}
CCL = {"ccl": {"k": 3, "warmup": 2, "update_every": 2}}


def runner(path: Path, **options: Any) -> Runner:
    return Runner(reader.load(path), Options(device="cpu", **options))


def go(path: Path, **options: Any) -> Outcome:
    return runner(path, **options).run()


def weights(pipeline: Pipeline, run: Run) -> dict[str, torch.Tensor]:
    return load_file(pipeline.encoders.trained(run).file("weights.safetensors"))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def by_hand(pipeline: Pipeline, run: Run) -> list[dict[str, torch.Tensor]]:
    """Return the weights of a training before its first step and after each epoch, from the stage alone."""
    id_ = pipeline.library.prepared(run.id, "train")
    fit, _ = pipeline.encoders.split(run)
    x = torch.from_numpy(id_.x[fit]).permute(0, 3, 1, 2)
    data = batches.TrainingData(x, torch.from_numpy(id_.y[fit]), len(id_.classes))
    model = networks.untrained(run.training, run.encoder, run.recipe, run.image, data, run.seed)
    seen: list[dict[str, torch.Tensor]] = []

    def watch(*_: Any) -> None:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    watch()
    train.train(model, run.training, run.recipe, "float32", data, run.seed, train.EachEpoch(watch))
    return seen


def test_kept_epochs_are_those_of_the_training(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training=CCL, keep=["last", 3, 0, 3, 5, 6])
    outcome = go(path)
    assert (outcome.trained, outcome.failed, outcome.unkept) == (1, 0, 0)
    each = runner(path)
    run = each.plan.work[0].run
    kept = each.pipeline.encoders.kept(run)
    assert [at.epoch for at in kept] == [0, 3, 5]  # the sixth is the last, which is there anyway
    wanted = by_hand(each.pipeline, run)
    for at, epoch in [*zip(kept, (0, 3, 5), strict=True), (run, 6)]:
        assert equal(weights(each.pipeline, at), wanted[epoch])
    losses = each.pipeline.encoders.trained(run).meta["losses"]
    assert [each.pipeline.encoders.trained(at).meta["losses"] for at in kept] == [[], losses[:3], losses[:5]]
    assert len(each.pipeline.store.keys("train")) == 4
    assert not equal(wanted[3], wanted[5])


def test_what_is_made_of_an_epoch_is_of_its_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training="simclr", keep=[2])
    go(path)
    each = runner(path)
    run = each.plan.work[0].run
    (at,) = each.pipeline.encoders.kept(run)
    bank = each.pipeline.bank(at, [PLAIN], baselines=False)
    model = networks.blank(run.training, run.encoder, run.image, 3)
    model.load_state_dict(by_hand(each.pipeline, run)[2])
    x = torch.from_numpy(np.array(each.pipeline.library.prepared(run.id, "test").x)).permute(0, 3, 1, 2)
    assert torch.equal(bank.test.layers[PLAIN]["penultimate"][0], embed.features(model, x).h)


def test_keeping_is_no_part_of_a_training(tmp_path: Path) -> None:
    plain_ = runner(write(tmp_path / "a" / "s.yaml", recipe=LONG, training="simclr"))
    keeping = runner(write(tmp_path / "b" / "s.yaml", recipe=LONG, training="simclr", keep=[0, 2, "last"]))
    (one,), (other,) = plain_.plan.work, keeping.plan.work
    assert plain_.pipeline.encoders.train_key(one.run) == keeping.pipeline.encoders.train_key(other.run)
    assert plain_.source(one).wanted != []
    assert plain_.source(one).wanted == keeping.source(other).wanted
    pipeline = keeping.pipeline
    runs = [
        *pipeline.encoders.kept(other.run),
        other.run,
        *pipeline.encoders.kept(dataclasses.replace(other.run, seed=1)),
    ]
    assert len({pipeline.encoders.train_key(each) for each in runs}) == len({each.title for each in runs}) == 5


def test_a_killed_training_misses_no_epoch_and_doubles_none(tmp_path: Path) -> None:
    """Killed when epoch 1 is kept, again when epoch 10 is, two epochs after a checkpoint; the third goes on to the end.

    Kept epochs and the last weights are those of a training that nobody killed, to the last bit.
    """
    path = write(tmp_path / "s.yaml", recipe=LONG | {"epochs": 40}, training=CCL, keep=[0, 1, 9, 10, 39])
    results = tmp_path / "killed"
    for there, options in ((2, ["--checkpoint-minutes", "0"]), (4, ["--checkpoint-epochs", "4"])):
        process = Command(results, "run", path, *options)
        deadline = time.monotonic() + 240
        while len(list(results.glob("store/train/*/*/manifest.json"))) < there:
            assert process.runs(), process.output()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        assert len(list(results.glob("store/train/*/[!.]*"))) < 6
    assert "1 trained" in Command(results, "run", path).finished()
    assert not list(results.glob("store/*/*/.*"))
    assert not list(results.glob("store/checkpoint/*/*"))
    assert json.loads(next(results.glob("s/runs/*.json")).read_text())["resumed_at_epoch"] >= 8
    rows = go(path).rows
    files = [sorted(root.glob("store/train/*/*/weights.safetensors")) for root in (results, tmp_path / "results")]
    names = [[file.parent.name for file in found] for found in files]
    assert names[0] == names[1]
    assert len(names[0]) == 6
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    auroc = [each.set_index(["cell", "ood"])["auroc"] for each in (Results(results / "s").current(), rows)]
    pd.testing.assert_series_equal(*(each.sort_index() for each in auroc))


def test_epochs_asked_for_too_late_are_named_and_made_by_redo(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training="simclr")
    assert call("run", path).exit_code == 0
    write(path, recipe=LONG, training="simclr", keep=[1, 2])
    said = f"2 epochs to keep are of trainings that are done; oodbench run {path} --redo train keeps them"
    for words in (["plan"], ["run"], ["run"]):  # the second run says so, too
        done = call(*words, path)
        assert said in done.stderr
        assert done.exit_code == 0
    before = weights((each := runner(path)).pipeline, run := each.plan.work[0].run)
    done = call("run", path, "--redo", "train")
    assert done.stderr.count("warning:") == 0
    assert "1 trained" in done.stdout
    again = runner(path)
    assert equal(weights(again.pipeline, run), before)
    assert [
        equal(weights(again.pipeline, at), by_hand(again.pipeline, run)[at.epoch or 0])
        for at in again.pipeline.encoders.kept(run)
    ] == [
        True,
        True,
    ]
    assert "0 trained, 0 cells scored" in call("run", path).stdout
    with pytest.raises(LookupError, match="epoch 5 are not in"):
        again.pipeline.encoders.trained(dataclasses.replace(run, epoch=5))


def test_redo_makes_kept_epochs_and_what_hangs_on_them_again(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training="simclr", keep=[1])
    go(path)
    each = runner(path)
    (at,) = each.pipeline.encoders.kept(each.plan.work[0].run)
    each.pipeline.bank(at, [PLAIN], baselines=False)
    kept = each.pipeline.store.path("train", each.pipeline.encoders.train_key(at)) / "manifest.json"
    before = kept.stat().st_mtime_ns
    assert go(path, redo="train").unkept == 0
    assert kept.stat().st_mtime_ns > before


def test_features_and_probe_of_an_epoch_are_of_the_weights_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training="simclr", keep=[1])
    go(path)
    each = runner(path)
    (at,) = each.pipeline.encoders.kept(each.plan.work[0].run)
    store, key = each.pipeline.store, each.pipeline.encoders.train_key(at)

    def made() -> dict[tuple[str, str], float]:
        pipeline = runner(path).pipeline
        pipeline.bank(at, [PLAIN], baselines=False)
        pipeline.banks.accuracies(at)
        return {(kind, each): store.made_at(kind, each) for kind in ("bank", "probe") for each in store.keys(kind)}

    first = made()
    assert made() == first
    weights = store.read("train", key)
    assert weights is not None
    state = load_file(weights.file("weights.safetensors"))

    def other(folder: Path) -> dict[str, Any]:
        save_file({name: 1.01 * value for name, value in state.items()}, folder / "weights.safetensors")
        return weights.meta

    store.remove("train", key)
    store.write("train", key, weights.fields, other)
    second = made()
    assert second.keys() == first.keys()
    changed = {place for place in first if second[place] != first[place]}
    assert len(changed) == len(first) / 2
    assert all((store.fields(*place)["train"] == key) == (place in changed) for place in first)


def test_verify_and_gc_know_kept_epochs(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG, training="simclr", keep=[0, 1])
    go(path)
    each = runner(path)
    first, _ = each.pipeline.encoders.kept(each.plan.work[0].run)
    each.pipeline.banks.accuracies(first)
    each.pipeline.bank(first, [PLAIN], baselines=False)
    assert "freed 0 artifacts" in call("gc", path).stdout
    write(path, recipe=LONG, training="simclr", keep=[1])
    assert "would free 7 artifacts" in call("gc", path, "--dry-run").stdout  # weights, 5 sets, 1 probe
    file = each.pipeline.store.path("train", each.pipeline.encoders.train_key(first)) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    done = call("verify", path)
    assert done.exit_code == 1
    assert str(file.parent) in done.stderr


DIVERGING = '''"""Goes wrong in its fourth epoch."""
from oodbench.api import Training

class Fragile(Training):
    """Goes wrong in its fourth epoch."""
    heads = {"z": "mlp-4"}
    def loss(self, b, state):
        return b.out["z"].square().mean() * (float("inf") if b.epoch == 3 else 1.0), state
'''


def test_a_diverging_training_leaves_the_epochs_before_and_no_last(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(DIVERGING)
    path = write(
        tmp_path / "s.yaml", recipe=LONG, plugins=["fragile.py"], training=["fragile", "simclr"], keep=[0, 3, 4, 5]
    )
    done = call("run", path, "--checkpoint-epochs", "1")
    assert done.exit_code == 1
    assert "DivergedError: the loss is inf at epoch 3, step 0" in done.stderr
    rows = oodbench.rows(path)
    assert rows.groupby("training")["status"].unique().map(list).to_dict() == {"fragile": ["error"], "simclr": ["ok"]}
    each = runner(path)
    fragile, simclr = (work.run for work in each.plan.work)
    assert not each.pipeline.encoders.has_weights(fragile)
    assert [each.pipeline.encoders.has_weights(at) for at in each.pipeline.encoders.kept(fragile)] == [
        True,
        True,
        False,
        False,
    ]
    assert each.pipeline.encoders.has_weights(simclr)
    assert all(each.pipeline.encoders.has_weights(at) for at in each.pipeline.encoders.kept(simclr))
    again = go(path, redo="failed")  # goes on at the checkpoint of epoch 3, and says the same
    assert (again.trained, again.unkept) == (0, 0)
    assert set(again.rows.loc[again.rows["training"] == "fragile", "error"]) == set(
        rows.loc[rows["training"] == "fragile", "error"]
    )
    assert not list((tmp_path / "results").glob("store/*/*/.*"))


def test_trainings_of_other_lengths_keep_what_they_have(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", recipe=LONG | {"epochs": [2, 4]}, training="simclr", keep=[0, 2])
    each = runner(path)
    assert [[at.epoch for at in each.pipeline.encoders.kept(work.run)] for work in each.plan.work] == [[0], [0, 2]]
    assert each.unkept() == []  # nothing is trained
