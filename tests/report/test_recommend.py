"""Recommendations from rows whose best detector and regret are known, slow loops over what was left out, t tests."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import made
from scipy.stats import ttest_rel
from tiny import write

from oodbench.errors import UserError
from oodbench.report import recommend as report
from oodbench.report import tables
from oodbench.report.claims.estimates import Runs
from oodbench.report.recommend import ALL, Recommendation, holm, recommendations
from oodbench.store.rows import Results

RNG = np.random.default_rng(0)
SETS = {"x": [90.0, 80.0, 70.0], "y": [60.0, 85.0, 88.0], "z": [91.0, 83.0, 60.0]}  # AUROC of a, b and c


def rows_of(numbers: dict[str, list[float]], seeds: int = 1, **change: Any) -> pd.DataFrame:
    """Return rows of detectors a, b, ... by OOD set, the same in each seed."""
    rows = []
    for ood, values in numbers.items():
        for seed, (i, value) in product(range(seeds), enumerate(values)):
            base = {"posthoc": "–", "ood": ood, "seed": seed, "distance": "abcdefgh"[i], "score_seconds": 1.0 + i}
            rows.append(base | {"auroc": value / 100} | change)
    return made(*rows)


def only(rows: pd.DataFrame) -> Recommendation:
    (found,), without = recommendations(rows)
    assert not without
    return found


def name(candidate: tuple[str, str] | None) -> str:
    assert candidate is not None
    return candidate[1].rpartition(" · ")[2]


# ---- the choice and what it costs


def test_the_others_choose_for_the_set_left_out_and_the_regret_is_known() -> None:
    found = only(rows_of(SETS))
    assert name(found.answer) == "b"  # 82.7 on the mean of all
    taken = {ood: name(each) for ood, each in found.choice.taken.items()}
    assert taken == {"x": "b", "y": "a", "z": "b"}  # of y and z: 75.5, 84, 74; of x and z: 90.5, 81.5, 65
    assert found.choice.regrets.tolist() == pytest.approx([10, 28, 8])
    assert found.choice.regret == pytest.approx(46 / 3)
    assert found.choice.worst == "y"
    assert found.choice.auroc == pytest.approx((80 + 60 + 83) / 3)


def test_validation_chooses_where_there_is_some_and_the_others_are_told_beside_it() -> None:
    rows = rows_of(SETS).assign(val_auroc=lambda each: each["distance"].map({"a": 0.7, "b": 0.6, "c": 0.9}))
    found = only(rows)
    assert found.validated
    assert name(found.answer) == "c"
    assert found.choice.regrets.tolist() == pytest.approx([20, 0, 31])
    assert found.by_others is not None
    assert found.by_others.regret == pytest.approx(46 / 3)
    alone = only(rows[rows["ood"] == "x"])  # validation can be judged on one set
    assert (alone.choice.regret, alone.by_others) == (pytest.approx(20), None)


def test_regrets_are_those_of_a_slow_loop_over_id_sets_seeds_and_sets() -> None:
    ids, seeds, names, detectors = ["i", "j"], range(3), ["x", "y", "z", "w"], "abcde"
    auroc = {key: RNG.uniform(50, 100) for key in product(detectors, ids, seeds, names)}
    for seed in seeds:  # the second ID set has not all of the OOD sets
        for detector in detectors:
            del auroc[detector, "j", seed, "w"]
    found = only(
        made(
            *(
                {"posthoc": "–", "distance": d, "id": i, "seed": s, "ood": o, "auroc": value / 100}
                for (d, i, s, o), value in auroc.items()
            )
        )
    )

    def mean(detector: str, id_: str, ood: str) -> float:
        return float(np.mean([auroc[detector, id_, seed, ood] for seed in seeds]))

    def over(detector: str, without: str) -> float:
        of_ids = []
        for id_ in ids:
            there = [ood for ood in names if ood != without and (detector, id_, 0, ood) in auroc]
            of_ids.append(np.mean([mean(detector, id_, ood) for ood in there]))
        return float(np.mean(of_ids))

    assert name(found.answer) == max(detectors, key=lambda each: over(each, ""))
    regrets: dict[str, list[float]] = {id_: [] for id_ in ids}
    for id_, ood in ((id_, ood) for id_ in ids for ood in names if ("a", id_, 0, ood) in auroc):
        chosen = max(detectors, key=lambda each: over(each, ood))
        regrets[id_].append(max(mean(each, id_, ood) for each in detectors) - mean(chosen, id_, ood))
        assert found.choice.regrets[id_, ood] == pytest.approx(regrets[id_][-1])
    assert found.choice.regret == pytest.approx(np.mean([np.mean(each) for each in regrets.values()]))


def test_of_what_ties_the_cheapest_is_taken_and_the_others_are_counted() -> None:
    rows = rows_of({"x": [80, 90, 90], "y": [80, 90, 90]})
    rows["score_seconds"] = rows["distance"].map({"a": 1, "b": 9, "c": 5})
    found = only(rows)
    assert (name(found.answer), found.tied) == ("c", 1)
    assert "as does 1 other that ties" in report.sentences(found)[0]


# ---- trainings


def test_there_is_an_answer_over_all_trainings_and_one_of_each() -> None:
    worse = rows_of({ood: [each - 30 for each in values] for ood, values in SETS.items()}, training="ce")
    found, without = recommendations(pd.concat([rows_of(SETS), worse.assign(cell="w" + worse["cell"])]))
    assert not without
    assert [each.scope for each in found] == [ALL, "simclr", "ce"]
    assert found[0].answer[0] == "simclr"
    assert [len(each.table) for each in found] == [6, 3, 3]
    assert found[0].choice.regret == pytest.approx(found[1].choice.regret)


def test_trainings_are_compared_in_the_runs_that_all_have() -> None:
    few = rows_of(SETS, seeds=3, training="ce")
    many = rows_of(SETS, seeds=5)
    many.loc[many["seed"] > 2, "auroc"] = 0.5
    found, without = recommendations(pd.concat([few, many]))
    assert [each.observations for each in found] == [3, 3, 5]
    assert found[0].table["auroc"].max() == pytest.approx(np.mean([SETS[ood][1] for ood in SETS]))
    apart, without = recommendations(pd.concat([few, many[many["seed"] > 2]]))
    assert [each.scope for each in apart] == ["ce", "simclr"]
    assert without == ["No answer over all trainings: they have no run in common."]


def test_encoders_that_come_with_their_trainings_are_no_runs_over_all() -> None:
    own = [rows_of(SETS, training=each, encoder=f"net {each}") for each in "pqr"]
    found, without = recommendations(pd.concat(own))
    assert not without
    assert found[0].scope == ALL
    assert (found[0].observations, len(found[0].table)) == (1, 9)


def test_a_training_that_did_not_learn_is_marked_and_the_mark_explained() -> None:
    found = only(rows_of(SETS).assign(classes=10, accuracy_linear=0.4).astype({"classes": "Int64"}))
    assert found.scope == "simclr"
    (weak,), _ = recommendations(rows_of(SETS).assign(classes=10, accuracy_linear=0.4), floor=0.5)
    assert weak.scope == "simclr †"
    assert "† did not learn" in report.caption([weak], 0.5)


# ---- what is told apart


@pytest.mark.parametrize("validated", [True, False])
def test_what_is_told_apart_is_what_paired_t_tests_and_their_family_say(validated: bool) -> None:
    draws = {each: np.random.default_rng(i + 10).normal(size=5) for i, each in enumerate("abcdef")}
    by_detector = {each: 90 - i**2 / (2 - validated) + draws[each] for i, each in enumerate("abcdef")}
    rows = [
        {"posthoc": "–", "ood": ood, "seed": seed, "distance": each, "auroc": (values[seed] + add) / 100}
        for each, values in by_detector.items()
        for seed, (ood, add) in product(range(5), [("x", 1), ("y", -1)])
    ]
    val = {"val_auroc": [float(row["distance"] == "a") for row in rows]} if validated else {}
    found = only(made(*rows).assign(**val))
    answer = by_detector[name(found.answer)]
    rivals = [each for each in by_detector if each != name(found.answer)]
    p = {each: ttest_rel(by_detector[each], answer).pvalue for each in rivals}
    left, wanted = sorted(rivals, key=lambda each: p[each]), set()
    for i, each in enumerate(left):  # step down, until one stands
        if p[each] > 0.05 / (len(left) - i if validated else 15):
            break
        wanted.add(each)
    table = found.table.set_index(pd.Index([name(each) for each in found.table.index]))
    assert set(table.index[table["told_apart"]]) == wanted
    assert 0 < len(wanted) < len(rivals)
    for each in rivals:
        assert table.loc[each, "p"] == pytest.approx(p[each])
        assert table.loc[each, "difference"] == pytest.approx(np.mean(by_detector[each] - answer))
    assert f"5 runs tell it apart from {len(wanted)} of 5 rivals" in " ".join(report.sentences(found))


@pytest.mark.parametrize("validated", [True, False])
def test_of_detectors_that_are_equal_one_is_told_apart_in_at_most_five_per_cent(validated: bool) -> None:
    rng, told, draws = np.random.default_rng(5), 0, 600
    for _ in range(draws):
        values = rng.normal(size=(5, 6)) + rng.normal(size=(5, 1))
        answer = 0 if validated else int(values.mean(0).argmax())
        found = report.against(pd.RangeIndex(6), answer, Runs(values, np.arange(5), "run"), validated)
        told += bool(found["told_apart"].any())
        if not validated:  # as tables mark it
            rest = tables.told_apart(values.T, answer)
            assert found["told_apart"].tolist() == rest.tolist()
    assert told / draws <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5


def test_holm_is_the_example_of_its_steps() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_runs_tell_nothing_apart_and_that_is_said(seeds: int) -> None:
    found = only(rows_of(SETS, seeds))
    assert found.apart == 0
    assert f"{seeds} run{'s' * (seeds > 1)}: no two detectors can be told apart" in " ".join(report.sentences(found))
    assert set(report.answers([found])["told apart"]) == {"–"}


# ---- costs


def test_the_cheapest_is_as_good_as_far_as_runs_tell_and_not_far_behind() -> None:
    rows = rows_of({"x": [90.0, 89.7, 60.0], "y": [90.0, 89.7, 60.0]}, seeds=3)
    rows["auroc"] += rows["seed"].map({0: -0.005, 1: 0.007, 2: -0.002}).where(rows["distance"] == "b", 0).astype(float)
    rows["auroc"] += rows["seed"].map({0: 0.1, 1: -0.2, 2: 0.1}).where(rows["distance"] == "c", 0).astype(float)
    rows["score_seconds"] = rows["distance"].map({"a": 9, "b": 5, "c": 1})
    found = only(rows)
    assert name(found.answer) == "a"
    assert name(found.cheapest) == "b"
    assert "scoring 10 s for 18" in " ".join(report.sentences(found))  # of both sets
    assert "training" not in report.sentences(found)[-1]  # no row says how long that took
    apiece = {"fit_seconds": rows["distance"].map({"a": 1.0, "b": 4.0, "c": 0.0}), "item_seconds": 0.001, "n_ood": 50}
    alone = only(rows.assign(**apiece))
    assert name(alone.cheapest) == "a"  # b's clusters, which came with another scorer, cost it 4 s
    assert alone.table["score_seconds"].tolist() == pytest.approx([1.1, 4.1, 0.1])  # of both sets, of 50 images each
    without = only(rows.assign(score_seconds=np.nan))
    assert without.cheapest is None
    assert "No row says how long scoring took." in report.sentences(without)


def test_what_settings_share_is_in_the_time_of_each() -> None:
    rows = rows_of({"x": [90.0, 80.0, 70.0], "y": [90.0, 80.0, 70.0]})
    rows["distance"] = rows["distance"].map({"a": "knn(k=1)", "b": "knn(k=5)", "c": "cosine"})
    rows["score_seconds"] = rows["distance"].map({"knn(k=1)": 4.0, "knn(k=5)": 0.1, "cosine": 1.0})
    seconds = {name(each): value for each, value in only(rows).table["score_seconds"].items()}  # type: ignore[arg-type]
    assert seconds == {"knn(k=1)": 8.0, "knn(k=5)": 8.0, "cosine": 2.0}


def test_the_front_is_what_no_other_beats() -> None:
    numbers = RNG.integers(0, 6, size=(60, 3)).astype(float)
    table = pd.DataFrame(numbers, columns=["auroc", "train_seconds", "score_seconds"])
    wanted = set()
    for i, (auroc, *costs) in enumerate(numbers):
        beaten = False
        for other, *others in numbers:
            no_worse = other >= auroc and all(a <= b for a, b in zip(others, costs, strict=True))
            beaten |= no_worse and (other, *others) != (auroc, *costs)
        wanted |= set() if beaten else {i}
    assert set(report.front(table).index) == wanted


def test_of_what_is_as_good_the_smallest_is_named_where_rows_say_what_detectors_hold() -> None:
    rows = rows_of({"x": [90.0, 89.8, 89.7], "y": [90.0, 89.8, 89.7]}, seeds=3)
    rows["auroc"] += rows["seed"].map({0: 0.02, 1: -0.01, 2: -0.01}).where(rows["distance"] != "a", 0).astype(float)
    held, times = {"a": 5e6, "b": 3e3, "c": 4e3}, {"a": 4e-4, "b": 3e-4, "c": 2e-6}
    rows["fitted_bytes"], rows["item_seconds"] = rows["distance"].map(held), rows["distance"].map(times)
    found = only(rows)
    assert (name(found.answer), found.smallest and name(found.smallest)) == ("a", "b")
    said = " ".join(report.sentences(found))
    assert "smallest in memory, the encoder apart: simclr · penultimate · labels · b, 3 kB for 5,000." in said
    shown = report.fronts(found).set_index("AUROC of all sets")
    assert shown["an item, µs"].to_dict() == {"90.0": "400", "89.8": "300", "89.7": "2"}
    assert "scoring, s" not in shown
    assert "Memory: the arrays" in report.caption([found])


def test_the_cut_of_the_answer_is_said_with_its_level() -> None:
    rows = rows_of(SETS).assign(id_recall=0.94, level=0.95)
    rows["ood_recall"] = rows["ood"].map({"x": 0.5, "y": 0.2, "z": 0.8})
    said = "Its cut{} accepts 94.0 % of ID test, and finds 50.0 % of OOD in the mean."
    assert said.format(" at level 0.95") in report.sentences(only(rows))
    assert said.format("") in report.sentences(only(rows.assign(level=np.nan)))
    other = rows_of({"x": SETS["x"]}, id="other").assign(id_recall=0.5, ood_recall=0.1)
    both = " ".join(report.sentences(only(pd.concat([rows, other.assign(cell="o" + other["cell"])]))))
    assert "accepts 72.0 % of ID test, and finds 30.0 % of OOD" in both  # each ID set once, however many OOD sets
    for gone in ("id_recall", "ood_recall"):
        assert "Its cut" not in " ".join(report.sentences(only(rows.assign(**{gone: np.nan}))))


# ---- what is missing


def test_a_detector_that_lacks_a_set_is_out_and_named() -> None:
    rows = rows_of(SETS)
    rows.loc[(rows["distance"] == "b") & (rows["ood"] == "z"), ["auroc", "status"]] = [np.nan, "error"]
    found = only(rows)
    assert [name(each) for each in found.lacking] == ["b"]
    assert len(found.table) == 2
    assert "missing: 1 (simclr · penultimate · labels · b)" in report.sentences(found)[-1]


def test_a_training_without_an_answer_is_named_beside_those_that_have_one() -> None:
    gone = rows_of({"x": SETS["x"]}, training="ce")
    found, without = recommendations(pd.concat([rows_of(SETS), gone.assign(cell="g" + gone["cell"])]))
    assert [each.scope for each in found] == [ALL, "simclr"]
    assert without == ["No answer of ce: it has one OOD set, and none can be left out to judge the choice on."]
    assert len(found[0].lacking) == 3


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(UserError, match=r"x is the only OOD set with numbers.*no set can be left out"):
        recommendations(rows_of({"x": [90, 80]}))
    failed = rows_of(SETS).assign(auroc=np.nan)
    with pytest.raises(UserError, match="no row has an AUROC"):
        recommendations(failed)
    rows = rows_of({"x": [90, 80], "y": [90, 80]})
    with pytest.raises(UserError, match="No answer of simclr: none of its 2 detectors has every number"):
        recommendations(rows[(rows["distance"] == "a") == (rows["ood"] == "x")])


# ---- commands


def test_the_command_says_the_answer_first_and_writes_every_detector(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml")
    folder = tmp_path / "results" / "s"
    Results(folder).add(rows_of(SETS).assign(key="k", ood_data="d"))
    asked = call("recommend", path)
    assert asked.exit_code == 0, asked.output
    first = next(line for line in asked.stdout.splitlines() if line.strip())
    assert first == "Of 3 detectors of simclr: simclr · penultimate · labels · b."
    assert "15.3 points less than the best detector of that set, 28.0 at worst (y)" in asked.stdout
    assert "do not say what fitting, one image and memory cost" in asked.stdout
    listed = pd.read_csv(folder / "recommend.csv")
    assert list(listed["detector"]) == [f"penultimate · labels · {each}" for each in "bac"]
    assert list(listed["answer"]) == [True, False, False]
    assert listed["regret"].dropna().tolist() == pytest.approx([46 / 3])
    assert "15.3 points less" in (folder / "recommend.md").read_text()


def test_scoring_own_features_ends_with_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    labels = RNG.integers(0, 3, size=120)
    files = {each: tmp_path / f"{each}.npz" for each in ("train", "id", "p", "q")}
    for file, shift in zip(files.values(), (0, 0, 3, 6), strict=True):
        features = RNG.normal(size=(120, 4)) + 4 * np.eye(4)[labels] + shift
        np.savez(file, features=features.astype(np.float32), labels=labels)
    (tmp_path / "grid.yaml").write_text("clustering: labels\ndistance: [cosine, euclidean]\nthreshold: pooled\n")
    words = ("--train", files["train"], "--id", files["id"], "--grid", tmp_path / "grid.yaml", "--recommend")
    asked = call("score", *words, "--ood", f"p={files['p']}")
    assert (asked.exit_code, "a second OOD set" in asked.output) == (2, True)
    asked = call("score", *words, "--ood", f"p={files['p']}", "--ood", f"q={files['q']}")
    assert asked.exit_code == 0, asked.output
    assert "Of 2 detectors of train: " in asked.output
    assert (tmp_path / "results" / "features" / "recommend.csv").exists()
