"""Shares and effects held against sums of squares that are known, nested least squares, t tests and simulations."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import made
from scipy.stats import rankdata, ttest_1samp
from tiny import write

from oodbench.errors import UserError
from oodbench.report import effects as report
from oodbench.report.claims.estimates import by_observation
from oodbench.report.effects import Design, Effect, effects, full_grid, image_error, paired, shares
from oodbench.store.rows import Results

RNG = np.random.default_rng(0)


def grid(number: Any, **axes: list[Any]) -> pd.DataFrame:
    """Return a row for each combination of levels, its AUROC in points by `number` of their places."""
    rows = []
    for places in product(*(range(len(levels)) for levels in axes.values())):
        labels = {axis: levels[i] for (axis, levels), i in zip(axes.items(), places, strict=True)}
        rows.append({"posthoc": "–", "n_id": 500, "n_ood": 500} | labels | {"auroc": number(*places) / 100})
    return made(*rows)


def only(designs: list[Design]) -> Design:
    (design,) = designs
    return design


def of(design: Design, axis: str) -> dict[str, Effect]:
    return {each.level: each for each in design.effects if each.axis == axis}


# ---- shares


def test_shares_are_those_that_the_numbers_were_made_of() -> None:
    sizes = (6, 5, 8, 20)
    wanted = {"a": 0.4, "b": 0.2, "a x c": 0.25, "residual": 0.15}
    noise = RNG.normal(size=sizes)
    parts = {"a": RNG.normal(size=(6, 1, 1, 1)), "b": RNG.normal(size=(1, 5, 1, 1)), "residual": noise}
    both = RNG.normal(size=(6, 1, 8, 1))
    parts["a x c"] = both - both.mean(0, keepdims=True) - both.mean(2, keepdims=True)
    made_of = sum(wanted[name] ** 0.5 * (each - each.mean()) / each.std() for name, each in parts.items())
    found = {each.of: each.share for each in shares(np.asarray(made_of), "abcd")}
    assert sum(found.values()) == pytest.approx(1)
    for name, share in found.items():
        assert share == pytest.approx(wanted.get(name, 0), abs=0.02), name


def residual_squares(y: Any, *blocks: Any) -> float:
    return float(np.linalg.lstsq(np.hstack(blocks), y, rcond=None)[1].sum())


@pytest.mark.parametrize("order", [("a", "b", "c", "ab", "ac", "bc"), ("c", "b", "a", "bc", "ac", "ab")])
def test_sums_of_squares_are_those_of_nested_least_squares_in_any_order(order: tuple[str, ...]) -> None:
    values = RNG.normal(size=(3, 4, 2)) + RNG.normal(size=(3, 1, 1)) + RNG.normal(size=(1, 4, 2))
    places = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1).reshape(-1, 3)
    y, one = values.ravel(), np.ones((values.size, 1))
    main = {
        name: np.eye(size)[places[:, i]][:, 1:] for i, (name, size) in enumerate(zip("abc", (3, 4, 2), strict=True))
    }
    found = {each.of.replace(" x ", ""): each for each in shares(values, "abc")}
    blocks = [one]
    before = float(((y - y.mean()) ** 2).sum())
    for term in order:
        columns = main[term[0]]
        if len(term) == 2:
            columns = np.einsum("ni,nj->nij", main[term[0]], main[term[1]]).reshape(len(y), -1)
        blocks.append(columns)
        after = residual_squares(y, *blocks)
        assert found[term].squares == pytest.approx(before - after), term
        assert found[term].freedom == columns.shape[1]
        before = after
    assert found["residual"].squares == pytest.approx(before)
    assert found["residual"].freedom == values.size - sum(each.shape[1] for each in blocks)


def test_numbers_that_are_all_alike_have_no_shares() -> None:
    assert shares(np.ones((2, 3)), "ab") == ()
    found = only(effects(grid(lambda *_: 80, training=["a", "b"], seed=[0, 1, 2])))
    assert found.shares == ()
    assert "standard deviation is 0.0 points" in report.about(found)
    text = report.sheet([found], "auroc", "").text
    assert set(text["level"]) == {"a", "b"}
    assert set(text["share"]) == {"–"}


# ---- what is counted


def test_thresholds_that_rank_alike_are_one_but_where_the_cut_is_what_counts() -> None:
    rows = grid(lambda d, t, s: 70 + 5 * d + s, distance=["a", "b"], threshold=["pooled", "conformal"], seed=[0, 1])
    assert only(effects(rows)).cells == 4
    rows["id_recall"] = np.where(rows["threshold"] == "pooled", 0.95, 0.90)
    found = only(effects(rows, "id_recall"))
    assert found.cells == 8
    assert {each.of: each.share for each in found.shares}["threshold"] == pytest.approx(1)


def test_detectors_of_other_parts_are_designs_of_their_own() -> None:
    clusters = grid(lambda d, s: 80 + d + s, distance=["a", "b"], seed=[0, 1])
    baselines = grid(lambda p, s: 90 + p - s, posthoc=["msp", "energy"], seed=[0, 1])
    baselines = baselines.assign(space="–", clustering="–", distance="–", cell="b" + baselines["cell"])
    found = {each.name: each for each in effects(pd.concat([clusters, baselines]))}
    assert set(found) == {"space x clustering x distance", "posthoc"}
    assert set(of(found["posthoc"], "posthoc")) == {"msp", "energy"}


def test_the_head_of_a_baseline_is_told_from_its_name() -> None:
    rows = grid(lambda t, p, s: 80 + t + p + s, training=["ce", "simclr"], posthoc=["msp", "vim"], seed=[0, 1])
    rows = rows.assign(space="–", clustering="–", distance="–")
    rows["posthoc"] = rows["posthoc"].where(rows["training"] == "ce", rows["posthoc"] + " on linear probe")
    found = only(effects(rows))
    assert found.told == {"head": "training"}
    assert found.grid == found.cells == 8


def test_a_machine_is_an_axis_of_rows_that_several_made() -> None:
    rows = [
        grid(lambda d, s, m=m: 70 + 4 * d + 6 * m + s, distance=["a", "b", "c"], seed=[0, 1, 2]).assign(machine=name)
        for m, name in enumerate(["here", "there"])
    ]
    found = only(effects(pd.concat(rows)))
    squares = {"distance": 16 * 2 / 3, "machine": 9, "seed": 2 / 3}  # variances of 0, 4, 8; of 0, 6; of 0, 1, 2
    by_name = {each.of: each.share for each in found.shares}
    for axis, wanted in squares.items():
        assert by_name[axis] == pytest.approx(wanted / sum(squares.values())), axis
    assert {name: each.difference.mean for name, each in of(found, "machine").items()} == pytest.approx(
        {"there": 3, "here": -3}
    )


def test_the_command_takes_what_other_machines_made(tmp_path: Path) -> None:
    """The lesser CPU's rows, and those that `merge` keeps apart; of cells that the study does not have, none."""
    path, folder = write(tmp_path / "s.yaml"), tmp_path / "results" / "s"
    places = {folder: 0, folder / "lesser_cpu" / "s": 2, folder / "machines" / "an A100": 4}
    for place, moved in places.items():
        rows = grid(lambda d, s, m=moved: 70 + 4 * d + m + s, distance=["a", "b"], seed=[0, 1, 2])
        others = rows.assign(cell="other " + rows["cell"], distance="z") if moved else rows[:0]
        Results(place).add(pd.concat([rows, others]).assign(key="k", ood_data="d"))
    asked = call("effects", path)
    assert asked.exit_code == 0, asked.output
    listed = pd.read_csv(folder / "effects.csv")
    levels = listed[(listed["kind"] == "level") & (listed["axis"] == "machine")].set_index("level")["difference"]
    assert levels.to_dict() == pytest.approx({"an A100": 2, "lesser CPU": 0, "here": -2})
    assert "z" not in set(listed["level"])


def test_what_is_not_crossed_is_left_out_of_the_shares_and_named() -> None:
    rows = grid(
        lambda t, s, d, r: 60 + 9 * t - 4 * d, training=[*"abcd"], space=["p", "q"], distance=["x", "y"], seed=[0, 1]
    )
    rows = rows[~((rows["training"] == "d") & (rows["space"] == "q"))]
    found = only(effects(rows))
    assert found.left_out == {"training": ["d"]}
    assert (found.cells, found.grid) == (28, 24)
    by_name = {each.of: each.share for each in found.shares}
    assert by_name["training"] == pytest.approx(81 * 2 / 3 / (81 * 2 / 3 + 4))  # variances of 0, 9, 18 and of 0, -4
    last = of(found, "training")["d"]
    assert not last.in_grid
    assert (last.difference.mean, last.places) == (pytest.approx(18), 2)  # of 27 over 0, 9, 18, in space p alone
    assert "training: d" in report.about(found)
    assert "d *" in set(report.level_table(found)["level"])


def test_an_axis_that_differs_only_with_another_is_in_its_share() -> None:
    rows = grid(lambda t, s: 60 + 9 * t + s, training=["a", "b", "c"], seed=[0, 1])
    rows["outliers"] = np.where(rows["training"] == "c", "glyphs", "–")
    found = only(effects(rows))
    assert found.told == {"outliers": "training"}
    assert {each.axis for each in found.effects} == {"training"}


def test_a_row_without_a_number_takes_no_whole_axis_away() -> None:
    rows = grid(lambda d, s, r: 70 + d + s, distance=[*"abcde"], space=["p", "q"], seed=[0, 1, 2])
    rows.loc[0, ["auroc", "status"]] = [np.nan, "error"]
    cells = rows[rows["status"] == "ok"]
    assert len(full_grid(cells, ["distance", "space", "seed"])) == 24  # without the one distance


def test_a_training_that_did_not_learn_is_marked_and_the_mark_explained() -> None:
    rows = grid(lambda t, s: 60 + 9 * t + s, training=["a", "b"], seed=[0, 1])
    rows = rows.assign(classes=10, accuracy_linear=0.9).astype({"classes": "Int64"})
    rows.loc[(rows["training"] == "b") & (rows["seed"] == 1), "accuracy_linear"] = 0.4
    found = effects(rows, floor=0.5)
    assert set(of(only(found), "training")) == {"a", "b †"}
    assert "† did not learn" in report.caption(found, "auroc", floor=0.5)
    assert set(of(only(effects(rows, floor=0.3)), "training")) == {"a", "b"}


def test_a_design_of_one_cell_is_there_without_shares() -> None:
    rows = grid(lambda d, s: 80 + d + s, distance=["a", "b"], seed=[0, 1])
    one = grid(lambda _: 90, posthoc=["msp"]).assign(space="–", clustering="–", distance="–", cell="one")
    found = {each.name: each for each in effects(pd.concat([rows, one]))}
    assert found["posthoc"].shares == ()
    assert report.about(found["posthoc"]).startswith("posthoc: 1 of 1 cells are a full grid")
    assert "posthoc: 1 of 1" in report.sheet(list(found.values()), "auroc", "").below[-1]


# ---- levels


def test_levels_are_compared_at_the_same_places_paired_by_run() -> None:
    noise = {key: RNG.normal() for key in product(range(3), range(2), range(4))}
    rows = grid(
        lambda t, s, r: 70 + 2 * t + 7 * r + noise[t, s, r], training=[*"abc"], space=["p", "q"], seed=[0, 1, 2, 3]
    )
    found = of(only(effects(rows)), "training")
    for i, name in enumerate("abc"):
        by_run = []
        for run in range(4):
            every = [[rows_of(rows, training=t, space=s, seed=run) for s in "pq"] for t in "abc"]
            by_run.append(np.mean(every[i]) - np.mean(every))
        test = ttest_1samp(by_run, 0)
        low, high = test.confidence_interval(0.95)
        difference = found[name].difference
        assert (difference.mean, difference.p) == (pytest.approx(np.mean(by_run)), pytest.approx(test.pvalue))
        assert (difference.low, difference.high) == (pytest.approx(low), pytest.approx(high))
        assert (difference.runs, difference.of, found[name].places) == (4, "run", 2)
        mean = rows.loc[rows["training"] == name, "auroc"].mean()
        assert found[name].mean == pytest.approx(100 * mean)


def rows_of(rows: pd.DataFrame, **labels: Any) -> float:
    there = np.logical_and.reduce([rows[column] == label for column, label in labels.items()])
    (number,) = 100 * rows.loc[there, "auroc"]
    return float(number)


def test_where_id_sets_are_several_each_is_one_observation() -> None:
    rows = grid(lambda i, t, r: 70 + i * t + r, id=["x", "y", "z"], training=["a", "b"], seed=[0, 1, 2, 3])
    difference = of(only(effects(rows)), "training")["b"].difference
    assert (difference.runs, difference.observations, difference.of) == (12, 3, "ID set")
    low, high = ttest_1samp([0.0, 0.5, 1.0], 0).confidence_interval(0.95)
    assert (difference.low, difference.high) == (pytest.approx(low), pytest.approx(high))


def test_an_encoder_that_comes_with_its_training_is_no_pairing() -> None:
    rows = grid(lambda t, d: 70 + 3 * t + d, training=["a", "b"], distance=["x", "y"])
    rows["encoder"] = "resnet of " + rows["training"]
    found = only(effects(rows))
    assert of(found, "training")["b"].difference.mean == pytest.approx(1.5)
    assert of(found, "training")["b"].difference.runs == 1
    assert of(found, "distance")["y"].difference.of == "encoder"
    assert "–" in set(report.level_table(found)["95 % interval"])


@pytest.mark.parametrize(("ids", "seeds"), [(1, 4), (6, 3)])
def test_intervals_cover_the_true_difference(ids: int, seeds: int) -> None:
    runs = pd.MultiIndex.from_product([range(ids), ["resnet"], range(seeds)], names=["id", "encoder", "seed"])
    draws = 1500
    by_id = RNG.normal(scale=2.0, size=(draws, ids, 1)) * (ids > 1)
    numbers = (1.5 + by_id + RNG.normal(size=(draws, ids, seeds))).reshape(draws, -1)
    found = paired(by_observation(pd.DataFrame(numbers.T, index=runs)))
    covered = np.mean([each.low <= 1.5 <= each.high for each in found])
    assert 0.93 <= covered <= 0.97


# ---- images


def test_the_error_of_images_is_that_of_drawing_others() -> None:
    """Of exponential scores, for which Hanley and McNeil's Q1 and Q2 are exact."""
    n_id, n_ood, draws = 30, 90, 4000
    ood = RNG.exponential(3.0, size=(draws, n_ood))
    ranks = rankdata(np.hstack([RNG.exponential(1.0, size=(draws, n_id)), ood]), axis=1)
    aurocs = (ranks[:, n_id:].sum(1) - n_ood * (n_ood + 1) / 2) / (n_id * n_ood)
    (error,) = image_error(pd.DataFrame({"auroc": [0.75], "n_id": [n_id], "n_ood": [n_ood]}), "auroc")
    assert aurocs.mean() == pytest.approx(0.75, abs=0.003)
    assert aurocs.std() == pytest.approx(error, rel=0.04)


def test_the_error_of_a_rate_is_binomial_in_the_images_that_it_is_of() -> None:
    rows = pd.DataFrame({"fpr95_id": [0.2], "fpr95_ood": [0.2], "autc": [0.2], "n_id": [100], "n_ood": [400]})
    assert image_error(rows, "fpr95_id")[0] == pytest.approx(0.02)  # of OOD images
    assert image_error(rows, "fpr95_ood")[0] == pytest.approx(0.04)
    assert np.isnan(image_error(rows, "autc")[0])


# ---- mistakes, files


def test_mistakes_are_answered() -> None:
    rows = grid(lambda d, s: 70 + d + s, distance=["a", "b"], seed=[0, 1])
    with pytest.raises(UserError, match="--value auroq: rows have no such metric; did you mean 'auroc'"):
        effects(rows, "auroq")
    with pytest.raises(UserError, match="--group: no row has group 'neat'"):
        effects(rows, group="neat")
    with pytest.raises(UserError, match="no row has oscr"):
        effects(rows, "oscr")
    with pytest.raises(UserError, match="nothing varies"):
        effects(rows[:1])


def test_the_command_prints_and_writes_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    folder = tmp_path / "results" / "s"
    asked = call("effects", path)
    assert asked.exit_code == 2
    assert "run the study first" in asked.output
    rows = grid(lambda t, o, r: 70 + 5 * t + r, training=["a", "b"], ood=["near", "noise"], seed=[0, 1, 2])
    rows.loc[rows["ood"] == "near", "group"] = "near"
    Results(folder).add(rows.assign(key="k", ood_data="d"))
    asked = call("effects", path, "--group", "near")
    assert asked.exit_code == 0, asked.output
    assert "6 of 6 cells are a full grid" in asked.output
    assert "[+2.5, +2.5]" in asked.output
    listed = pd.read_csv(folder / "effects.csv")
    (share,) = listed.loc[(listed["axis"] == "training") & (listed["kind"] == "share"), "share"]
    assert share == pytest.approx(100 * 6.25 / (6.25 + 2 / 3))
    assert (folder / "effects.md").read_text().count("| training") == 3
    assert (folder / "effects.tex").exists()
