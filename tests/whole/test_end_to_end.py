"""Tiny studies from a YAML file to rows: twice the same, resumed, shared, failing, damaged, in closed form."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, ncx2
from tiny import TINY, write
from warm import Command

import oodbench
from oodbench.errors import UserError
from oodbench.execution import estimate
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Outcome, Runner
from oodbench.store.columns import CHOSEN_BY, COMPAT, COSTS, FLOATS, INTERVALS, SHIFTED
from oodbench.store.memo import Watch
from oodbench.store.rows import Results
from oodbench.study import reader

pytestmark = pytest.mark.slow

NOT_NUMBERS = ["commit", "scored_at", *COSTS, "trained_on", "scored_on"]
OECL = {"oecl": {"warmup": 0}}


class Listener(Watch):
    """Remembers what a pipeline says."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.failures: list[str] = []

    def stage(self, what: str, title: str) -> None:
        self.stages.append((what, title))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def failed(self, title: str, message: str) -> None:
        self.failures.append(f"{title}: {message}")


def go(path: Path, listener: Listener | None = None, **options: Any) -> Outcome:
    return Runner(reader.load(path), Options(**options), listener or Listener()).run()


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what two runs of a study must agree on, to the last bit."""
    return rows.drop(columns=NOT_NUMBERS).sort_values(["cell", "ood"]).reset_index(drop=True)


def test_a_second_run_computes_nothing_and_says_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    first = go(path)
    listener = Listener()
    second = go(path, listener)
    assert (first.trained, first.scored, first.failed) == (2, 10, 0)
    assert (second.trained, second.scored, listener.stages) == (0, 0, [])
    pd.testing.assert_frame_equal(first.rows, second.rows)


def test_the_same_study_gives_the_same_numbers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "training": [{"ccl": {"warmup": 0}}, {"oecl": {"form": "self", "warmup": 0}}],
        "seed": [0, 1],
    }
    path = write(tmp_path / "s.yaml", **changes)
    first = go(path).rows
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "elsewhere"))
    pd.testing.assert_frame_equal(numbers(first), numbers(go(path).rows))
    assert not first[first["seed"] == 0]["auroc"].equals(first[first["seed"] == 1]["auroc"])


@pytest.mark.usefixtures("trained")
def test_every_column_that_should_be_filled_is(tmp_path: Path) -> None:
    rows = go(write(tmp_path / "s.yaml")).rows
    may_be_empty = {"suite", "recipe", "warnings", "error", "accuracy_classifier", "commit", "detector"}
    may_be_empty |= {*COMPAT, *CHOSEN_BY, *INTERVALS, *SHIFTED, "covariate", "n_shifted"}
    for column in rows.columns.difference(list(may_be_empty)):
        assert rows[column].notna().all(), column
        assert (rows[column].astype(str) != "").all(), column
    shares = [name for name in FLOATS if name.startswith(("au", "fpr", "accuracy")) or name.endswith("recall")]
    assert rows[shares].min().min() >= 0
    assert rows[shares].max().max() <= 1
    assert rows[rows["training"] == "cross_entropy"]["accuracy_by"].unique().tolist() == ["classifier"]
    assert rows[rows["training"] == "simclr"]["accuracy_by"].unique().tolist() == ["linear probe"]
    assert set(rows["group"]) == {"near", "far"}
    assert (rows["n_id"] == 120).all()
    assert (rows["n_train"] + rows["n_reference"] == 120).all()
    assert rows["clusters"].unique().tolist() == [3, 1]


@pytest.mark.usefixtures("trained")
def test_adding_a_clustering_trains_nothing(tmp_path: Path) -> None:
    before = go(write(tmp_path / "s.yaml"))
    listener = Listener()
    after = go(
        write(tmp_path / "s.yaml", clustering=["labels", {"kmeans": {"k": [2, 3], "restarts": 2}}, "one"]), listener
    )
    assert (after.trained, {what for what, _ in listener.stages}) == (0, {"score"})
    assert 0 < after.scored < len(after.rows)
    kept = after.rows[after.rows["cell"].isin(before.rows["cell"])]
    again = before.rows[before.rows["cell"].isin(kept["cell"])]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), again.reset_index(drop=True))


@pytest.mark.usefixtures("trained")
def test_adding_an_ood_set_embeds_that_set_only(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    go(path)
    listener = Listener()
    sets = {
        "near": {"blobs": {"groups": 3, "count": 60, "shift": 60.0}},
        "far": [{"noise": {"count": 50, "size": 8}}, "digits"],
    }
    outcome = go(write(path, ood=sets), listener)
    assert outcome.trained == 0
    assert [title for what, title in listener.stages if what in ("data", "bank")] == [
        "digits, test",
        *(title for what, title in listener.stages if what == "bank" and title.startswith("digits, test")),
    ]
    assert set(outcome.rows["ood"]) == {"blobs(groups=3, count=60, shift=60)", "noise(count=50, size=8)", "digits"}


@pytest.mark.usefixtures("trained")
def test_rows_of_cells_that_are_gone_stay_but_are_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    everything = go(path).rows
    fewer = go(write(path, distance=["cosine"])).rows
    assert len(fewer) < len(everything)
    assert len(Results(tmp_path / "results" / "s").read()) == len(everything)
    pd.testing.assert_frame_equal(oodbench.rows(path), fewer)


@pytest.mark.usefixtures("trained")
def test_a_failing_cell_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", distance=["cosine", {"knn": {"k": [3, 91]}}])
    outcome = go(path)
    failed = outcome.rows[outcome.rows["status"] == "error"]
    assert failed["distance"].unique().tolist() == ["knn(k=91)"]
    assert failed["error"].unique().tolist() == ["ValueError: knn(k=91) of 90 training items"]
    assert outcome.failed == len(failed) == 2 * 2
    assert failed["auroc"].isna().all()
    assert (outcome.rows["status"] == "ok").sum() == len(outcome.rows) - 4
    assert go(path).scored == 0
    assert go(path, redo="failed").scored == 2


def plugin(tmp_path: Path, text: str) -> None:
    (tmp_path / "fragile.py").write_text(
        '"""A training that breaks."""\nfrom torch import Tensor\nfrom oodbench.api import Batch, State, Training\n\n\n'
        'class Fragile(Training):\n    """Breaks."""\n\n    heads = {"z": "mlp-4"}\n\n'
        f"    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:\n        {text}\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('out of memory')", "RuntimeError: out of memory"),
        ("return b.out['z'].sum() * float('nan'), state", "DivergedError: the loss is nan at epoch 0, step 0"),
    ],
)
def test_a_failing_training_is_rows_and_the_rest_goes_on(tmp_path: Path, text: str, said: str) -> None:
    plugin(tmp_path, text)
    path = write(tmp_path / "s.yaml", plugins=["fragile.py"], training=["fragile", "simclr"])
    listener = Listener()
    outcome = go(path, listener)
    failed = outcome.rows[outcome.rows["training"] == "fragile"]
    assert failed["error"].unique().tolist() == [said]
    assert [message.partition(": ")[2] for message in listener.failures] == [said]
    assert (outcome.rows[outcome.rows["training"] == "simclr"]["status"] == "ok").all()
    assert (go(path).trained, go(path).scored) == (0, 0)
    plugin(tmp_path, "return b.out['z'].square().mean(), state")  # mended: its code is part of the key
    oodbench.study.fingerprints.fingerprint.cache_clear()  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.endswith(".fragile")]:
        del sys.modules[name]
    mended = go(path)
    assert (mended.trained, mended.failed) == (1, 0)


def test_a_recipe_that_diverges_is_rows_that_name_the_step_and_the_rest_goes_on(tmp_path: Path) -> None:
    recipe = TINY["recipe"] | {"lr": [0.05, 1e30]}
    rows = go(write(tmp_path / "s.yaml", training="simclr", recipe=recipe)).rows
    diverged = rows["recipe"].str.contains("lr=1e[+]30")
    assert diverged.any()
    assert (
        rows[diverged]["error"].str.fullmatch(r"DivergedError: the loss is (nan|inf) at epoch 0, step [1-9]\d*").all()
    )
    assert (rows[~diverged]["status"] == "ok").all()


@pytest.mark.usefixtures("trained")
def test_nan_features_are_an_error_row_that_names_the_set(tmp_path: Path) -> None:
    (tmp_path / "holes.py").write_text(
        '"""A distance with holes."""\nfrom oodbench.api import Clusters, Distance, Scorer, Scores\n\n\n'
        'class Holes(Distance):\n    """Holes."""\n\n    clusters = False\n\n    def fit(self, f, c):\n'
        "        return lambda x: Scores(x.double().sum(1) / 0 * 0, x[:, 0].long() * 0)\n"
    )
    outcome = go(write(tmp_path / "s.yaml", plugins=["holes.py"], distance=["holes"], training="simclr"))
    assert outcome.rows["error"].str.contains("30 of 30 scores of ID reference are NaN or infinite").all()


@pytest.mark.usefixtures("trained")
def test_what_a_plugin_warns_of_is_in_the_rows_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "wary.py").write_text(
        '"""A distance that warns."""\nimport warnings\n\nfrom oodbench.api import Distance, Scores\n\n\n'
        'class Wary(Distance):\n    """Wary."""\n\n    clusters = False\n\n    def fit(self, f, c):\n'
        "        warnings.warn('mind the gap', stacklevel=1)\n"
        "        return lambda x: Scores(x.double().sum(1), x[:, 0].long() * 0)\n"
    )
    changes = {"plugins": ["wary.py"], "distance": ["wary", "cosine"], "training": "simclr"}
    rows = go(write(tmp_path / "s.yaml", **changes)).rows
    warned = rows["warnings"].str.contains("mind the gap")
    assert rows.loc[warned, "distance"].unique().tolist() == ["wary"]
    assert warned.sum() == (rows["distance"] == "wary").sum()


WRONG = '''"""A plugin that breaks its contract."""
import torch

from oodbench.api import Clustering, Clusters, Distance, Rule, Scores, Threshold


class Wrong({contract}):
    """Wrong."""

    def fit(self, {arguments}):
        {text}
'''


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("room", "arguments", "text", "said"),
    [
        (
            "distance",
            "f, c",
            "return lambda x: Scores(x.add_(1).double().sum(1), x[:, 0].long() * 0)",
            "wrong changes its input in place",
        ),
        (
            "distance",
            "f, c",
            "f.zero_(); return lambda x: Scores(x.double().sum(1), x[:, 0].long() * 0)",
            "wrong changes its input in place",
        ),
        (
            "distance",
            "f, c",
            "return lambda x: Scores(x.double().sum(1)[1:], x[1:, 0].long() * 0)",
            "scores of ID reference have the shape (29,), for 30 items",
        ),
        (
            "clustering",
            "f, y, seed",
            "return Clusters(f[:2], torch.zeros(len(f), dtype=torch.int64))",
            "wrong makes clusters of [90, 0] items about 2 centroids",
        ),
        (
            "clustering",
            "f, y, seed",
            "return Clusters(f.clone()[:1], f.mul_(2)[:, 0].long() * 0)",
            "wrong changes its input in place",
        ),
        ("threshold", "ref, ood=None", "return Rule(lambda s: s.score, float('nan'))", "the cut of wrong is NaN"),
        (
            "threshold",
            "ref, ood=None",
            "return Rule(lambda s: s.score[1:], 0.0)",
            "have the shape (119,), for 120 items",
        ),
    ],
)
def test_a_plugin_that_breaks_its_contract_is_error_rows_and_spoils_nothing(
    tmp_path: Path, room: str, arguments: str, text: str, said: str
) -> None:
    code = WRONG.format(contract=room.capitalize(), arguments=arguments, text=text)
    (tmp_path / "wrong.py").write_text(code)
    base = {"training": "simclr", "clustering": ["labels"], "distance": ["cosine"], "threshold": ["pooled"]}
    clean = go(write(tmp_path / "clean.yaml", **base)).rows
    study = write(tmp_path / "s.yaml", **base | {room: ["wrong", *base[room]]}, plugins=["wrong.py"])
    rows = go(study).rows
    wrong = rows[rows[room] == "wrong"]
    assert len(wrong) == 2
    assert (wrong["status"] == "error").all()
    assert wrong["error"].str.contains(said, regex=False).all()
    right = rows[rows[room] != "wrong"]
    pd.testing.assert_frame_equal(numbers(right), numbers(clean))


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("kind", ["train", "bank", "data", "probe"])
def test_a_damaged_artifact_is_named_rebuilt_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    before = go(path).rows
    for artifact in (tmp_path / "results" / "store" / kind).glob("*/*"):
        victim = max(artifact.iterdir(), key=lambda file: file.stat().st_size)
        victim.write_bytes(victim.read_bytes()[:-9])
    shutil.rmtree(tmp_path / "results" / "s")
    listener = Listener()
    after = go(path, listener).rows
    assert any(f"/{kind}/" in message for message in listener.warnings)
    assert kind in {what for what, _ in listener.stages}
    pd.testing.assert_frame_equal(numbers(before), numbers(after))


@pytest.mark.usefixtures("trained")
def test_damaged_rows_are_made_again(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    before = go(path).rows
    part = sorted((tmp_path / "results" / "s" / "rows").rglob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-5])
    listener = Listener()
    after = go(path, listener)
    assert any(str(part) in message for message in listener.warnings)
    assert (after.trained, after.scored) == (0, 5)
    pd.testing.assert_frame_equal(numbers(before), numbers(after.rows))


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("stage", "made"),
    [("train", {"train", "bank", "probe", "score"}), ("bank", {"bank", "probe", "score"}), ("score", {"score"})],
)
def test_redo(tmp_path: Path, stage: str, made: set[str]) -> None:
    path = write(tmp_path / "s.yaml")
    before = go(path).rows
    listener = Listener()
    after = go(path, listener, redo=stage).rows
    assert {what for what, _ in listener.stages} == made
    assert [what for what, _ in listener.stages].count("score") == 2
    pd.testing.assert_frame_equal(numbers(before), numbers(after))


@pytest.mark.usefixtures("trained")
def test_cached_only_trains_nothing(tmp_path: Path) -> None:
    go(write(tmp_path / "s.yaml", training="simclr"))
    outcome = go(
        write(tmp_path / "s.yaml", seed=[0, 1], distance=["cosine", "euclidean"], training=["simclr", "supcon"]),
        cached_only=True,
    )
    assert (outcome.trained, outcome.missing) == (0, 3 * 8)
    assert set(outcome.rows["seed"]) == {0}
    assert set(outcome.rows["training"]) == {"simclr"}


@pytest.mark.usefixtures("trained")
def test_several_views_are_embedded_and_averaged(tmp_path: Path) -> None:
    rows = go(
        write(
            tmp_path / "s.yaml",
            training="simclr",
            space=[{"layer": "projection"}, {"layer": "projection", "views": 3}],
            clustering="one",
            distance=["norm", {"norm": {"of": "each"}}],
            threshold="pooled",
        )
    ).rows
    found = rows.set_index(["space", "distance", "ood"])["auroc"]
    assert {index[:2] for index in found.index} == {
        ("projection", "norm"),
        ("projection views=3", "norm"),
        ("projection views=3", "norm(of=each)"),
    }
    assert found.xs("projection").tolist() != found.xs("projection views=3").xs("norm").tolist()


@pytest.mark.usefixtures("trained")
def test_a_training_reference_scores_items_as_if_they_were_left_out(tmp_path: Path) -> None:
    rows = go(
        write(tmp_path / "s.yaml", reference="train", distance=[{"knn": {"k": 1}}, "cosine"], training="simclr")
    ).rows
    assert set(rows["distance"]) == {"knn(k=1)"}
    assert rows["reference"].unique().tolist() == ["train"]
    assert (rows["n_reference"] == 120).all()
    assert rows["id_recall"].min() > 0.8  # a k-NN that finds itself would accept no new item at all


# ---- closed form ------------------------------------------------------------------------------------


PIXELS = """
from torch import nn


class Pixels(nn.Module):
    def forward(self, x):
        return x.flatten(1)


def pixels(channels, size):
    return Pixels()
"""


@pytest.fixture
def pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pixel_nets.py").write_text(PIXELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pixel_nets", raising=False)
    return "pixel_nets:pixels"


def chi_square_auroc(dimensions: int, noncentrality: float) -> float:
    """Return P(OOD > ID) of squared distances: ID chi-square, OOD non-central chi-square."""
    density = chi2(dimensions).pdf
    area, _ = quad(lambda t: density(t) * ncx2(dimensions, noncentrality).sf(t), 0, 6 * dimensions, limit=200)
    return float(area)


def test_gaussians_in_pixel_space_have_their_closed_form(tmp_path: Path, pixels: str) -> None:
    """One Gaussian, one cluster, an encoder that returns its pixels: AUROC and recalls of three distances are known."""
    spread, shift, n, d = 12.0, 45.0, 4000, 16
    blobs = {"groups": 1, "count": n, "size": 4, "spread": spread, "separation": 0.0}
    rows = go(
        write(
            tmp_path / "s.yaml",
            image={"size": 4, "channels": 1},
            id={"blobs": blobs},
            ood={"near": {"blobs": blobs | {"shift": shift}}},
            encoder=pixels,
            recipe={"epochs": 0, "normalize": "none"},
            reference={"val": 0.5},
            training="simclr",
            clustering="one",
            distance=["euclidean", "mahalanobis", {"mahalanobis": {"singular": "shrink"}}],
            threshold="pooled",
        )
    ).rows
    variance = spread**2 + 1 / 12
    noncentrality = shift**2 / variance
    assert len(rows) == 3
    for row in rows.to_dict("records"):
        assert row["auroc"] == pytest.approx(chi_square_auroc(d, noncentrality), abs=0.012), row["distance"]
        assert row["id_recall"] == pytest.approx(0.95, abs=0.015)
        cut = chi2(d).ppf(0.95)
        assert row["ood_recall"] == pytest.approx(ncx2(d, noncentrality).sf(cut), abs=0.03)
        assert row["fpr95_id"] == pytest.approx(ncx2(d, noncentrality).cdf(cut), abs=0.03)


# ---- overlap -----------------------------------------------------------------------------------------


def test_overlap_is_refused_unless_allowed(tmp_path: Path) -> None:
    same = {"near": {"blobs": {"groups": 3, "count": 120}}, "far": {"glyphs": {"count": 60, "size": 8}}}
    outliers = {"glyphs": {"count": 60, "size": 8}}
    (tmp_path / "leaky.py").write_text(LEAKY)
    leak = {"plugins": ["leaky.py"], "training": ["simclr", OECL], "outliers": "leaky", "ood": {"near": "leaky"}}
    path = write(tmp_path / "s.yaml", **leak)
    with pytest.raises(UserError) as caught:
        go(path)
    assert "20 images of OOD test (leaky) are also in outliers (leaky) (positions 0, 1, 2, 3, 4, ...)" in str(
        caught.value
    )
    assert not (tmp_path / "results" / "store" / "train").exists()
    listener = Listener()
    go(write(path, **leak, allow_overlap=True), listener)
    assert any("20 images of OOD test" in message for message in listener.warnings)
    go(write(tmp_path / "t.yaml", ood=same, outliers=outliers, training=OECL))


LEAKY = '''"""Train and test are the same."""
import numpy as np

from oodbench.api import Dataset, Images


class Leaky(Dataset):
    """Leaky."""

    def load(self, split, root):
        x = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
        return Images(x, np.zeros(20, dtype=np.int64), ("a",))
'''


# ---- checks before any work ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"pca": 17}}, "space: pca=17 is wider than the features"),
        ({"space": {"layer": "projection", "pca": 129}, "training": "simclr"}, "129 is wider than the features"),
        ({"encoder": "timm/vit_tiny_patch16_224"}, "takes images of 224 x 224 only"),
        ({"encoder": "timm/nothing"}, r"s.yaml:\d+: encoder: timm has no model 'nothing'"),
        ({"encoder": "timm/resnet18.nonsense"}, r"s.yaml:\d+: encoder: timm cannot make 'resnet18.nonsense'"),
        ({"reference": {"val": 0.99}}, r"s.yaml:\d+: reference: blobs.* leaves no training image of blob 0"),
        ({"clustering": ["one"], "threshold": ["per_cluster"]}, "no cell is left"),
        ({"image": {"size": 8, "channels": 5}}, "images of 1 channels cannot|images of 3 channels cannot|data set"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    if "channels" in changes.get("image", {}) and changes["image"]["channels"] == 5:
        changes |= {"id": "natural_patches"}
    with pytest.raises(UserError, match=said):
        go(write(tmp_path / "s.yaml", **changes))
    assert not (tmp_path / "results" / "store" / "train").exists()


def test_missing_data_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "absent.py").write_text(ABSENT)
    with pytest.raises(UserError, match=r"data set absent: place absent.bin in .*data/absent"):
        go(write(tmp_path / "s.yaml", plugins=["absent.py"], ood={"far": "absent"}))
    assert not (tmp_path / "results" / "store" / "train").exists()


ABSENT = '''"""A set that is not here."""
from oodbench.api import Dataset


class Absent(Dataset):
    """Absent."""

    def load(self, split, root):
        raise FileNotFoundError(f"place absent.bin in {root / 'absent'}")
'''


# ---- killed, and two at once ----------------------------------------------------------------------------------


SLOW = {"recipe": {"epochs": 6, "batch": 16, "lr": 0.05, "warmup": 0, "augment": {"flip": 0}}, "seed": [0, 1]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    """The rows of the slow study where nothing comes in between; commands have one thread, as each of two workers."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        Command(folder, "run", write(folder / "s.yaml", **SLOW)).finished()
        yield numbers(Results(folder / "s").current())


def test_a_killed_run_goes_on_and_gives_the_same_rows(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    path = write(tmp_path / "s.yaml", **SLOW)
    results = tmp_path / "killed"
    process = Command(results, "run", path)
    weights = results / "store" / "train"
    deadline = time.monotonic() + 120
    while not list(weights.glob("*/[!.]*/manifest.json")):
        assert process.runs(), process.output()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    there = len(list(weights.glob("*/[!.]*/manifest.json")))
    assert there < 4
    assert f"{4 - there} trained" in Command(results, "run", path).finished()
    pd.testing.assert_frame_equal(numbers(Results(results / "s").current()), undisturbed)


def test_a_training_killed_in_the_middle_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
    """Killed after its first checkpoint, and again two later."""
    recipe = SLOW["recipe"] | {"epochs": 16, "lr": 0.01}
    ccl = {"ccl": {"warmup": 2, "update_every": 2}}
    path = write(tmp_path / "s.yaml", recipe=recipe, training=ccl, encoder={"resnet18": {"width": 4}})
    results = tmp_path / "killed"
    words = ("run", path, "--checkpoint-minutes", "0")
    checkpoints = results / "store" / "checkpoint"
    epoch = 0
    for more in (1, 2):
        process = Command(results, *words)
        deadline = time.monotonic() + 120
        while not any(int(each.name[-6:]) >= epoch + more for each in checkpoints.glob("*/[!.]*")):
            assert process.runs(), process.output()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        assert not list((results / "store" / "train").glob("*/[!.]*/manifest.json"))
        epoch = max(int(each.name[-6:]) for each in checkpoints.glob("*/[!.]*"))
    assert "1 trained" in Command(results, *words).finished()
    assert not list(checkpoints.glob("*/*"))
    assert not list(results.glob("store/*/*/.*"))
    (facts,) = [json.loads(file.read_text()) for file in (results / "s" / "runs").iterdir()]
    assert facts["resumed_at_epoch"] == epoch
    assert len(facts["losses"]) == 16
    expected = go(path).rows
    pd.testing.assert_frame_equal(numbers(Results(results / "s").current()), numbers(expected))
    weights = [next(root.glob("store/train/*/*/weights.safetensors")) for root in (results, tmp_path / "results")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_runs_on_one_store_share_the_work(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    path = write(tmp_path / "s.yaml", **SLOW)
    results = tmp_path / "shared"
    both = [Command(results, "run", path), Command(results, "run", path)]
    trained = [int(each.finished().split(" trained, ")[0].split()[-1]) for each in both]
    assert sum(trained) == 4
    pd.testing.assert_frame_equal(numbers(Results(results / "s").current()), undisturbed)
    assert json.loads((results / "s" / "plan.json").read_text())["cells"]


def test_workers_share_the_work_of_one_command(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    path = write(tmp_path / "s.yaml", **SLOW)
    results = tmp_path / "shared"
    output = Command(results, "run", path, "--workers", "2").finished()
    trained = re.search(r"(\d) trained, (\d+) cells scored by this process of 2, 40 rows", output)
    assert trained is not None
    assert len(re.findall(r"^worker [12]: trained ", output, re.M)) == 4
    pd.testing.assert_frame_equal(numbers(Results(results / "s").current()), undisturbed)


@pytest.mark.usefixtures("trained")
def test_python_interface(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr")
    made = oodbench.run(path, device="cpu")
    pd.testing.assert_frame_equal(made, oodbench.rows(path))
    assert np.isfinite(made["auroc"]).all()


def test_csi_is_scored_over_turned_views(tmp_path: Path) -> None:
    recipe = TINY["recipe"] | {"epochs": 8}
    space = [{}, {"layer": "shifted", "views": 2}]
    path = write(
        tmp_path / "s.yaml", training=["csi", "simclr"], recipe=recipe, space=space, distance=["csi", "cosine"]
    )
    planned = estimate.estimate(Runner(reader.load(path), Options(), Listener()))
    first = go(path)
    rows = first.rows[first.rows["distance"] == "csi"]
    assert (first.failed, first.trained) == (0, 2)
    assert set(zip(rows["training"], rows["space"], strict=True)) == {("csi", "shifted views=2")}
    assert set(rows["dimensions"]) == {4 * (128 + 4)}
    store = reader.load(path).store
    stored = sum(file.stat().st_size for file in store.rglob("*.safetensors") if file.name != "linear.safetensors")
    assert planned.bytes == pytest.approx(stored, rel=0.1)
    again = go(path)
    assert (again.trained, again.scored) == (0, 0)


@pytest.mark.slow
def test_trainings_that_differ_in_precision_alone_all_have_rows(tmp_path: Path) -> None:
    one = {"outliers": None, "training": "cross_entropy", "distance": "cosine", "clustering": "labels"}
    outcome = go(write(tmp_path / "s.yaml", **one, threshold="pooled", precision=["float32", "float64"]))
    assert outcome.rows["precision"].tolist() == ["float32"] * 2 + ["float64"] * 2
