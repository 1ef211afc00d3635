"""Every study of the repository plans without data, and runs on stand-in data; so none rots."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import call
from oodbench.methods.clustering.kmeans import KMeans
from places import ROOT
from tiny import write

from oodbench.api import Clusters
from oodbench.execution import dry_run, runner, standins
from oodbench.execution.pipeline import Options
from oodbench.report import comparison, targets
from oodbench.report.claims import verdicts
from oodbench.scoring import detectors
from oodbench.store.artifacts import digest
from oodbench.store.columns import STAND_IN
from oodbench.store.rows import frame
from oodbench.study import reader, study
from oodbench.study.registry import Registry
from oodbench.toolkit.vectors import unit
from oodbench.training.weights import plan_of

pytestmark = pytest.mark.slow

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize(
    "file",
    [each for each in STUDIES if not each.stem.startswith(("fashion", "cifar10_pretrained"))],
    ids=lambda file: file.stem,
)
def test_a_study_plans_without_data(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fashion-MNIST may be on the machine, and a plan would then measure; weights that are a file must be there."""

    def refuse(*args: object) -> None:
        raise AssertionError("a plan without data fetches nothing")

    monkeypatch.setattr("oodbench.data.download._get", refuse)
    done = call("plan", file)
    assert done.exit_code == 0, done.output
    assert "not here: " in done.stdout
    assert "unknown until the data is here" in done.stdout
    assert re.search(r"trainings +[1-9]\d* +\? +\?", done.stdout)
    assert re.search(r"cells +[1-9]\d* +\? +\?", done.stdout)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_runs_on_stand_in_data(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster is near to one item, of which there is no covariance: on another CPU sums are rounded otherwise.

    Of several encoders the first alone, on the last ID set, to save time.

    Of Fashion-MNIST's trainings the first alone: every cell of it has published rows, which test_published holds to
    the study.
    """
    whole = dry_run.dry(reader.load(file)).study
    first = whole.encoders[0]
    skips = [each for each in whole.skips if all(match.fits(first) for match in each.entries.get("encoder", ()))]
    found = dataclasses.replace(whole, encoders=[first], skips=skips)
    if len(whole.encoders) > 1:
        found = dataclasses.replace(found, ids=whole.ids[-1:])
    if file.stem == "fashion":
        found = dataclasses.replace(found, trainings=whole.trainings[:1])
    sizes = [standins.ALIKE]
    clusters = detectors.clusters_in

    def noted(*args: Any) -> Clusters:
        made = clusters(*args)
        sizes.append(int(torch.bincount(made.assign[made.assign >= 0]).min()))
        return made

    monkeypatch.setattr(detectors, "clusters_in", noted)
    outcome = runner.Runner(found, Options(device="cpu")).run()
    rows = outcome.rows
    assert set(rows["error"]) == {""}
    assert min(sizes) >= standins.ALIKE / 2  # a group of images, some of which may be held out
    assert rows["warnings"].str.startswith(STAND_IN).all()
    assert len(rows) == sum(len(work.cells) * len(work.run.sets) for work in plan_of(found).work)
    made = call("tables", file, "--dry-data")
    assert made.exit_code == 0, made.output
    for name in found.tables:
        text = (found.results / "tables" / f"{name}.md").read_text()
        assert STAND_IN in text.lower()
    of_rows = {name: claim for name, claim in found.claims.items() if claim.table == "rows"}
    for each in verdicts.verdicts(rows, of_rows) if found == whole else ():
        assert each.why in ("", "wanted are 3 runs of both sides"), (each.name, each.why)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_of_stand_in_images_are_whole_groups(seed: int, tmp_path: Path) -> None:
    """In their pixels and in features that are drawn at random, however many clusters: half as many as groups."""
    real = reader.load(write(tmp_path / "s.yaml")).ids[0]
    images = standins.dataset(real, standins.Drawing("", 8, 1, 60, 4, tuple("abcde"))).load("train", tmp_path)
    x = torch.as_tensor(images.x).flatten(1) / 255
    h = torch.relu((x - x.mean(0)) @ torch.randn(x.shape[1], 64, generator=torch.Generator().manual_seed(seed)))
    for f in (x, h, unit(h)):
        for k in (2, 5, 10, 15):
            assign = KMeans(k=k).fit(f, None, seed).assign
            groups = assign.reshape(5, standins.ALIKE, -1)  # of each class its images are dealt to its groups in turn
            assert (groups == groups[:, :1]).all()


def rows_to_be(found: study.Study) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return rows as a study of one seed would leave them, all numbers 0.5, and what it would keep of trainings."""
    rows: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    for work in plan_of(found).work:
        key = digest(work.run.canonical)
        kept[key] = {"parameters": work.run.canonical}
        about = (
            work.run.labels | {"train_key": key, "status": "ok"} | dict.fromkeys((*targets.ALLOWED, "val_auroc"), 0.5)
        )
        for cell in work.cells:
            of = about | cell.detector.labels | {"detector": json.dumps(cell.detector.canonical)}
            rows += [of | {"ood": name, "group": group} for group, sets in work.run.ood.items() for name in sets]
    return frame(rows), kept


@pytest.mark.parametrize(
    ("name", "trainings"),
    [
        ("imagenet_pretrained", {"pretrained"}),
        ("oecl", set()),  # a tenth of ID train is held out, which the paper's code trains on
        ("openood_cifar100", {"cross_entropy", "logitnorm", "outlier_exposure", "cider"}),
    ],
)
def test_the_numbers_that_a_study_is_held_against(name: str, trainings: set[str]) -> None:
    """Of which trainings; a study that says `targets` and misses all of them would print an empty table."""
    found = reader.load(ROOT / "studies" / f"{name}.yaml")
    if name == "imagenet_pretrained":  # without the lists nobody knows that ID has the classes of the weights
        with_head = [dataclasses.replace(each, classifier="linear") for each in found.trainings]  # type: ignore[call-arg]
        found = dataclasses.replace(found, trainings=with_head)
    rows, kept = rows_to_be(dataclasses.replace(found, seeds=found.seeds[:1], precisions=["float32"]))
    registry = Registry()
    held = comparison.compare(rows, kept.get, targets.load(targets.published(), registry), registry)
    assert {line.target.training.name for line in held.lines if line.n and line.target.training} == trainings


def test_real_and_dry_runs_are_apart() -> None:
    real = reader.load(ROOT / "benchmark.yaml")
    found = dry_run.dry(real).study
    assert found.results == real.results.with_name("benchmark.dry")
    assert found.store.is_relative_to(found.results.resolve())
    assert not {digest(w.run.canonical) for w in plan_of(real).work} & {
        digest(w.run.canonical) for w in plan_of(found).work
    }
    assert [each.label for each in real.ids] == [each.label for each in found.ids]
    assert [each.label for each in real.trainings] == [each.label for each in found.trainings]


def test_a_dry_run_by_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", name="s", seed=[0, 1], tables={"t": {"rows": ["training", "distance"]}})
    done = call("run", file, "--dry-data")
    assert done.exit_code == 0, done.output
    assert "2 seeds: the first 1" in done.stdout
    assert STAND_IN in (tmp_path / "results" / "s.dry" / "leaderboard.md").read_text().lower()
    assert not (tmp_path / "results" / "s").exists()
    assert not (tmp_path / "results" / "store").exists()
    assert "run the study first" in call("tables", file).stderr
    assert STAND_IN in call("tables", file, "--dry-data").stdout.lower()
    assert "mean nothing" in call("quality", file, "--dry-data").stdout


def test_no_study_has_the_name_of_a_dry_run(tmp_path: Path) -> None:
    assert "are of dry runs" in call("plan", write(tmp_path / "s.yaml", name="s.dry")).stderr
