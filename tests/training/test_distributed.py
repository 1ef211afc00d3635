"""Several processes against one with the whole batch: losses, gradients, weights, batch norm; what fails, and how."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import ranks
import safetensors.torch
import torch
import warm
from tiny import TINY, write
from torch import Tensor

from oodbench.errors import UserError
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import PluginFile, source_of
from oodbench.study.settings import Recipe
from oodbench.training import distributed, networks, train
from oodbench.training.batches import ALONE, Part
from oodbench.training.checkpoints import KIND, Asked

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
Found = dict[str, Tensor]


@pytest.fixture(scope="module")
def one() -> Found:
    return ranks.everything(ALONE) | ranks.norms(ALONE)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes comes to: all of it from one start, which takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(ranks.main, (2, folder), 2, start_method="forkserver")
    return [safetensors.torch.load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]


@pytest.fixture
def warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a training start warm, to save time."""
    warm.started()
    monkeypatch.setattr(distributed, "get_context", lambda method: warm.context)


def same(found: Tensor, wanted: Tensor) -> bool:
    """Sums over a batch in two parts differ in the last bits of float32, and few steps of SGD make little of it.

    The length of the difference counts: single entries are sums that cancel. Biases before a batch norm have no
    gradient but rounding, hence the absolute part.
    """
    return float((found - wanted).double().norm()) <= 1e-5 * float(wanted.double().norm()) + 5e-6


@pytest.mark.parametrize("what", ["gradient", "losses", "weight"])
@pytest.mark.parametrize("label", ranks.TRAININGS)
def test_two_processes_come_to_what_one_does(label: str, what: str, one: Found, two: list[Found]) -> None:
    wanted = {name: value for name, value in one.items() if name.startswith(f"{label}/{what}")}
    assert wanted
    assert [name for name, value in wanted.items() if not same(two[0][name], value)] == []
    assert [name for name in wanted if not torch.equal(two[0][name], two[1][name])] == []


def test_what_a_loss_does_not_depend_on_has_no_gradient_and_does_not_decay(one: Found, two: list[Found]) -> None:
    head = "network.heads.logits.weight"
    assert f"state/gradient/{head}" not in two[0]
    fresh = networks.untrained(ranks.TRAININGS["state"], ranks.SMALL, ranks.RECIPE, ranks.IMAGE, ranks.toy(), 0)
    assert torch.equal(two[0][f"state/weight/{head}"], fresh.state_dict()[head])
    assert set(two[0]) == set(one)


def test_the_gradients_compared_are_none_of_no_size(one: Found) -> None:
    for label in ranks.TRAININGS:
        sizes = {name: float(value.norm()) for name, value in one.items() if name.startswith(f"{label}/gradient")}
        assert sizes[f"{label}/gradient/network.encoder.0.weight"] > 1e-3, label


@pytest.mark.parametrize("label", ranks.NORMS)
def test_batch_norm_is_that_of_the_whole_batch(label: str, one: Found, two: list[Found]) -> None:
    names = [name for name in one if name.startswith(f"norm/{label}/")]
    parted = {name: two[0][name] for name in names} | {
        f"norm/{label}/input": torch.cat([each[f"norm/{label}/input"] for each in two])
    }
    for name in names:
        assert same(parted[name], one[name]), name


def test_parts_of_a_batch_are_all_of_it() -> None:
    """Each process has the same items in every block, and together they have each row once."""
    parts = [Part(rank, 2).rows(3, 4).tolist() for rank in (0, 1)]
    assert parts == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


# ---- a study --------------------------------------------------------------------------------------------


class Interrupting(Watch):
    """Stops a run after its second epoch."""

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt


def runner(path: Path, watch: Watch, **recipe: object) -> Runner:
    whole = {**TINY["recipe"], "epochs": 4, "lr": 0.02, **recipe}
    encoder = {"ranks:network": {}}
    file = write(path, training="cross_entropy", encoder=encoder, recipe=whole, outliers=None)
    return Runner(reader.load(file), Options(device="cpu", checkpoint_minutes=0), watch)


def weights(pipeline: Pipeline, one: Runner) -> tuple[dict[str, Tensor], dict[str, object]]:
    artifact = pipeline.encoders.trained(one.plan.work[0].run)
    return safetensors.torch.load_file(artifact.file("weights.safetensors")), artifact.meta


@pytest.mark.usefixtures("warm_processes")
def test_a_study_on_two_devices_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    stopped = runner(tmp_path / "s.yaml", Interrupting(), devices=2)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = runner(tmp_path / "s.yaml", Watch(), devices=2)
    outcome = again.run()
    assert (outcome.failed, outcome.trained) == (0, 1)
    assert set(outcome.rows["recipe"].map(lambda label: "devices=2" in label)) == {True}
    found, facts = weights(again.pipeline, again)
    assert facts["resumed_at_epoch"] == 2
    alone = runner(tmp_path / "s.yaml", Watch())
    wanted, wanted_facts = weights(alone.pipeline, alone)
    assert alone.pipeline.encoders.trainings == 1  # under a key of its own: sums differ
    assert facts["losses"] == pytest.approx(wanted_facts["losses"], rel=1e-5)
    assert [name for name, value in wanted.items() if not same(found[name], value)] == []


@pytest.mark.usefixtures("warm_processes")
def test_two_processes_go_on_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the step at which a checkpoint was asked for, with the weights of a training that nobody interrupted."""
    monkeypatch.setattr(distributed, "OFFERED", 0.0)
    path, asked = tmp_path / "s.yaml", Asked()
    asked.now = asked.to_end = True
    study = runner(path, Watch(), devices=2).study
    with pytest.raises(KeyboardInterrupt):
        Runner(study, Options(device="cpu", asked=asked)).run()
    again = runner(path, Watch(), devices=2)
    assert [key.partition("-")[2] for key in again.pipeline.store.keys(KIND)] == ["000000-00000001"]
    found, facts = weights(again.pipeline, again)
    assert (facts["resumed_at_epoch"], facts["resumed_at_step"]) == (0, 1)
    again.pipeline.store.remove("train", again.encoders.train_key(again.plan.work[0].run))
    wanted, wanted_facts = weights(again.pipeline, again)
    assert "resumed_at_step" not in wanted_facts
    assert facts["losses"] == wanted_facts["losses"]
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []


# ---- what fails -----------------------------------------------------------------------------------------


LOSS = '''"""A training that fails in one process."""

import os

import torch
import torch.distributed as dist

from oodbench.api import Batch, State, Training


class Failing(Training):
    """Failing: does what its parameter says, in the second process."""

    how: str = ""

    heads = {{"z": "linear-4"}}

    def loss(self, b: Batch, state: State) -> tuple[torch.Tensor, State]:
        z = b.out["z"]
        if dist.get_rank() == 1 and b.epoch == 1:
            {how}
        return z.square().mean() * ({factor} if b.epoch == 1 else 1.0), state
'''


@pytest.mark.parametrize(
    ("how", "factor", "error", "message", "is_new"),
    [
        ("raise ValueError('no such')", "1.0", distributed.RankError, "process 1 .*ValueError: no such", True),
        ("os.kill(os.getpid(), 9)", "1.0", distributed.RankError, r"process 1 .*ended by signal 9 \(SIGKILL\)", False),
        ("pass", "float('nan')", train.DivergedError, "the loss is nan at epoch 1, step 0", False),
    ],
)
def test_a_failing_process_ends_all_with_one_message(
    how: str,
    factor: str,
    error: type[Exception],
    message: str,
    is_new: bool,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Once in new processes, as trainings have them; then in warm ones, to save time, which write errors to a file."""
    errors = warm.started()
    said = errors.read_text()
    if not is_new:
        request.getfixturevalue("warm_processes")
    (tmp_path / "failing.py").write_text(LOSS.format(how=how, factor=factor))
    source = source_of(tmp_path / "failing.py")
    heard: list[int] = []
    with pytest.raises(error, match=message):
        train_two(source, lambda epoch, loss, progress: heard.append(epoch))
    assert heard == [0]
    assert capfd.readouterr().err == ""
    assert "Traceback" not in errors.read_text()[len(said) :]


def train_two(source: PluginFile, watch: Callable[[int, float, Callable[[], train.Progress]], None]) -> list[float]:
    """Train a plugin's defaults in two processes."""
    recipe = dataclasses.replace(ranks.RECIPE, devices=2)
    training = ranks.loaded(source)
    data = ranks.toy()
    model = networks.untrained(training, ranks.SMALL, recipe, ranks.IMAGE, data, 0)
    job = distributed.Job(source, training.params, ranks.SMALL, ranks.IMAGE, data.classes, recipe, "float32", 0, CPU)
    return distributed.train(model, job, data, train.EachEpoch(watch))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"batch": 32, "devices": 3}, "devices: batch (32) cannot be cut into 3 equal parts"),
        ({"batch": 32, "devices": 2, "outlier_batch": 5}, "devices: outlier_batch (5) cannot be cut into 2 equal"),
        ({"batch": 12, "devices": 2, "accumulate": 4}, "accumulate x devices: batch (12) cannot be cut into 8 equal"),
        ({"batch": 12, "devices": 2, "compile": True}, "compile: not with several devices"),
    ],
)
def test_a_batch_that_devices_cannot_share_is_refused(tmp_path: Path, recipe: dict[str, int], message: str) -> None:
    file = write(tmp_path / "s.yaml", recipe={"epochs": 1, **recipe})
    with pytest.raises(UserError, match=rf"s\.yaml:\d+: recipe: {re.escape(message)}"):
        reader.load(file)


def test_more_devices_than_there_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(batch=8, devices=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="4 devices are asked for, this machine has 2 CUDA devices"):
        distributed.check(recipe, 100, torch.device("cuda"))
    with pytest.raises(UserError, match="--device cuda:1 is one; give --device cuda"):
        distributed.check(dataclasses.replace(recipe, devices=2), 100, torch.device("cuda:1"))
    with pytest.raises(UserError, match=r"4 devices .* CUDA devices or processes on the CPU"):
        distributed.check(recipe, 100, torch.device("mps"))
    for fine in (torch.device("cpu"), torch.device("cuda")):
        distributed.check(dataclasses.replace(recipe, devices=2), 100, fine)


def test_a_set_smaller_than_a_batch_that_devices_cannot_share_is_refused_before_the_run(tmp_path: Path) -> None:
    small = runner(tmp_path / "s.yaml", Watch(), batch=128, devices=64)  # 90 images
    with pytest.raises(UserError, match=r"s\.yaml:\d+: recipe.devices: the 90 training images are one batch"):
        small.checks.check()


def test_a_set_that_does_not_fit_on_each_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of one device may stay on the host; several devices are each handed all of them."""
    several = runner(tmp_path / "s.yaml", Watch(), batch=8, devices=2)
    pipeline, run = several.pipeline, several.plan.work[0].run
    pipeline.encoders._ready(run)
    monkeypatch.setattr("oodbench.training.encoders.room", lambda device: 10)
    with pytest.raises(UserError, match="does not fit on each device, as a training on several devices needs"):
        pipeline.encoders._ready(run)
