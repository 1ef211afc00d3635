"""What a pick on test images is worth: unbiased on images that had no part in it; the pick's own number is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made_rows import made
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from oodbench.report import formats, halves, tables
from oodbench.report.selection import selection
from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.study.declarations import Select, TableSpec

SCORES = {"ID": 60, "near": 40}
AHEAD = 1.0  # of OOD, in deviations: the true AUROC is that of two normal distributions


def kept(id_: NDArray[Any], ood: NDArray[Any]) -> scores.KeptScores:
    none = scores.Wrong(np.zeros(0, np.int64), np.zeros((0, 1, 1, 1), np.uint8))
    return scores.KeptScores(0.0, id_[:1], id_.astype(np.float32), ood.astype(np.float32), none, none)


def study(store: Store | None, candidates: int, seeds: int = 2, ahead: tuple[float, ...] = ()) -> pd.DataFrame:
    """Return rows of detectors of two trainings whose scores are drawn, those of the store kept there."""
    rng, rows = np.random.default_rng(candidates), []
    for training in ("simclr", "supcon"):
        for i in range(candidates):
            for seed in range(seeds):
                id_ = rng.normal(size=SCORES["ID"])
                ood = rng.normal(AHEAD + (ahead[i] if ahead else 0), size=SCORES["near"])
                auroc = roc_auc_score([0] * len(id_) + [1] * len(ood), [*id_, *ood])
                key = f"{training}{i}{seed}"
                rows.append({"training": training, "distance": f"d{i}", "seed": seed, "auroc": auroc, "key": key})
                if store:
                    scores.keep(store, (key, "near", "x"), key, kept(id_, ood))
    return made(*(row | {"group": "near", "ood": "near", "ood_data": "x", "cell": row["key"]} for row in rows))


def best(rows: pd.DataFrame, store: Store | None) -> tables.Table:
    (board,) = tables.leaderboards(rows)
    return halves.honest(tables.best_of_each_training(board), board, rows, store)


def test_under_the_null_the_other_half_is_unbiased_and_the_naive_best_is_not() -> None:
    """Forty candidates that are all alike: 150 picks on halves of 30 and 20 images."""
    rng, truth = np.random.default_rng(0), 100 * norm.cdf(AHEAD / 2**0.5)
    naive, apart = [], []
    labels = pd.MultiIndex.from_product([["t"], range(40), ["r"]], names=["training", "distance", "run"])
    for _ in range(150):
        id_, ood = rng.normal(size=(40, SCORES["ID"])), rng.normal(AHEAD, size=(40, SCORES["near"]))
        numbers = [halves.of_halves(*each) for each in zip(id_, ood, strict=True)]
        table = 100 * pd.DataFrame(numbers, index=labels)
        apart.append(halves.both_ways(table).item())
        naive.append(table.mean(axis=1).max())
    error = np.std(apart, ddof=1) / len(apart) ** 0.5
    assert np.mean(apart) == pytest.approx(truth, abs=3 * error)
    assert np.mean(naive) > truth + 5
    assert error < 0.5


def test_halves_are_of_all_images_and_their_aurocs_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    id_, ood = rng.integers(0, 9, 61).astype(float), rng.integers(3, 12, 40).astype(float)
    draws = [np.random.default_rng(0).permutation(len(each)) for each in (id_, ood)]
    expected = []
    for i in (0, 1):
        parts = [each[draw[i::2]] for each, draw in zip((id_, ood), draws, strict=True)]
        labels = np.repeat([0, 1], [len(part) for part in parts])
        expected.append(roc_auc_score(labels, np.concatenate(parts)))
    assert halves.of_halves(id_, ood) == pytest.approx(expected)


def test_both_ways_by_a_slow_loop() -> None:
    rng = np.random.default_rng(2)
    labels = [("t", d, r) for d in "abc" for r in "xy"] + [("u", d, r) for d in "abc" for r in "xy"]
    names = ["training", "distance", "run"]
    numbers = pd.DataFrame(rng.uniform(size=(12, 2)), index=pd.MultiIndex.from_tuples(labels, names=names))
    found = halves.both_ways(numbers)
    for training in "tu":
        for run in "xy":
            ways = []
            for one in (0, 1):
                of = {d: np.mean([numbers.loc[(training, d, r), one] for r in "xy"]) for d in "abc"}
                ways.append(numbers.loc[(training, max(of, key=lambda d: of[d]), run), 1 - one])
            assert found[training, run] == pytest.approx(np.mean(ways))


def test_where_all_scores_are_kept_the_best_says_what_its_pick_is_worth(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = study(store, candidates=3, ahead=(0.0, 5.0, 0.0))  # one that is far ahead on either half
    found = best(rows, store)
    column = ("near", "AUROC, other half")
    assert found.mean.columns[-1] == column
    assert found.mean[column].tolist() == pytest.approx(found.mean["near", "AUROC"].tolist(), abs=0.1)
    assert found.n[column].tolist() == [2, 2]
    assert found.better[column] == 0
    assert "`near AUROC, other half` is of images that had no part in picking" in found.caption
    assert "is too high" not in found.caption
    text = formats.markdown(found.sheet()).splitlines()
    assert [each.strip() for each in text[0].split("|")][-3:-1] == ["near AUROC, other half", "n"]


def test_a_table_of_some_columns_has_the_other_half_beside_the_one_that_it_is_of(tmp_path: Path) -> None:
    columns = ("training", "distance", "near AUROC", "n")
    of = {kept_in: study(kept_in, candidates=2) for kept_in in (None, Store(tmp_path))}
    for kept_in, rows in of.items():
        found = best(rows, kept_in)
        text = tables.view(found, TableSpec(columns=columns)).sheet().text
        assert (f"near AUROC, {tables.OTHER}" in text) == (kept_in is not None)
        assert set(text) - {f"near AUROC, {tables.OTHER}"} == set(columns)
        assert list(tables.view(found, TableSpec(columns=tuple(text))).sheet().text) == list(text)


def test_where_scores_are_not_all_kept_the_caption_says_so(tmp_path: Path) -> None:
    said = "It is picked on the images that its numbers are of: near AUROC is too high by what picking gains."
    rows, store = study(None, candidates=2), Store(tmp_path)
    for kept_in in (None, store):
        assert best(rows, kept_in).caption.endswith(said)
    rows = study(store, candidates=2)
    scores_of_one = scores.name("simclr00", "near", "x")
    assert best(rows, store).caption.endswith("averaged.")
    store.remove(scores.KIND, scores_of_one)
    assert best(rows, store).caption.endswith(said)
    assert "other half" not in " ".join(map(str, best(rows, store).mean.columns))


# ---- settings chosen on validation


def settings(store: Store, ahead: tuple[float, ...], val: tuple[float, ...]) -> pd.DataFrame:
    """Return rows of settings of one method in two runs, each on two near sets, with their scores in the store."""
    rng, rows = np.random.default_rng(7), []
    for i, seed, ood in [(i, seed, ood) for i in range(len(ahead)) for seed in range(2) for ood in "ab"]:
        found = kept(rng.normal(size=SCORES["ID"]), rng.normal(ahead[i], size=SCORES["near"]))
        key = f"{i}{seed}"
        scores.keep(store, (key, ood, "x"), key, found)
        auroc = roc_auc_score([0] * len(found.id_) + [1] * len(found.ood), [*found.id_, *found.ood])
        labels = {"distance": f"knn(k={i + 1})", "seed": seed, "ood": ood, "group": "near", "ood_data": "x"}
        rows.append(labels | {"auroc": auroc, "key": key, "cell": key, "posthoc": "–", "val_auroc": val[i]})
    return made(*rows)


def test_the_best_setting_on_test_is_of_images_apart_by_a_slow_loop(tmp_path: Path) -> None:
    store, over = Store(tmp_path), Select(over=("distance",))
    rows = settings(store, ahead=(1.0, 1.1, 0.9), val=(0.9, 0.8, 0.7))
    found = selection(rows, over, store=store)
    best, gaps = [], []
    for seed in range(2):
        there = [[scores.kept(store, (f"{i}{seed}", ood, "x")) for ood in "ab"] for i in range(3)]
        halves_of = [np.mean([halves.of_halves(k.id_, k.ood) for k in each if k], axis=0) for each in there]
        ways = [max(halves_of, key=lambda each: each[one])[1 - one] for one in (0, 1)]
        best.append(100 * np.mean(ways))
        gaps.append(best[-1] - 100 * halves_of[0].mean())
    assert found.mean["near", "best on test, other half"].tolist() == pytest.approx([np.mean(best)])
    assert found.std["near", "oracle gap"].tolist() == pytest.approx([np.std(gaps, ddof=1)])
    assert found.mean["near", "oracle gap"].tolist() == pytest.approx([np.mean(gaps)])
    assert "measured on the other half" in found.caption
    assert "is luck" not in found.caption
    assert ("near", "best on test") not in found.mean
    row = rows.iloc[-1]
    store.remove(scores.KIND, scores.name(row["key"], row["ood"], row["ood_data"]))
    without = selection(rows, over, store=store)
    assert "part of which is luck" in without.caption
    assert (without.mean["near", "oracle gap"] > found.mean["near", "oracle gap"]).all()


def test_under_the_null_the_best_of_a_run_gains_nothing_on_the_other_half() -> None:
    """Eight settings that are all alike, in 200 runs, on halves of 30 and 20 images."""
    rng, truth = np.random.default_rng(3), 100 * norm.cdf(AHEAD / 2**0.5)
    shape = (200 * 8,)
    id_, ood = rng.normal(size=(*shape, SCORES["ID"])), rng.normal(AHEAD, size=(*shape, SCORES["near"]))
    numbers = 100 * pd.DataFrame([halves.of_halves(*each) for each in zip(id_, ood, strict=True)])
    numbers = numbers.assign(run=np.repeat(np.arange(200), 8))
    found = halves.best_of_run(numbers, ["run"])
    assert len(found) == 200
    assert found.mean() == pytest.approx(truth, abs=2.5 * float(found.sem()))
    assert numbers.assign(mean=numbers[[0, 1]].mean(axis=1)).groupby("run")["mean"].max().mean() > truth + 4
