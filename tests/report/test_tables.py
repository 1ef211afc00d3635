"""Tables from hand-made rows: means, deviations, marks, failures, what is counted once."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made_rows import by_seed, made
from scipy.stats import ttest_rel

from oodbench.errors import UserError
from oodbench.report import formats, tables
from oodbench.study.declarations import TableSpec


def test_mean_and_deviation_over_seeds() -> None:
    (board,) = tables.leaderboards(made(*by_seed([0.80, 0.84, 0.88])))
    assert board.mean["far", "AUROC"].tolist() == pytest.approx([84])
    assert board.std["far", "AUROC"].tolist() == pytest.approx([4])
    assert "84.0 ± 4.0" in formats.markdown(board.sheet())
    assert board.n["far", "AUROC"].tolist() == [3]
    assert "over 3 seeds" in board.caption


def test_one_seed_has_no_deviation() -> None:
    (board,) = tables.leaderboards(made({}))
    assert math.isnan(board.std["far", "AUROC"].iloc[0])
    assert "**80.0**" in formats.markdown(board.sheet())


def test_methods_without_a_mean_of_a_group_are_in_the_order_of_its_sets() -> None:
    near = {"ood": "a", "group": "near"}
    low, high = (
        near | {"training": "two", "distance": name, "auroc": auroc} for name, auroc in (("l", 0.6), ("h", 0.7))
    )
    (board,) = tables.leaderboards(made(near, near | {"ood": "b"}, low, high))  # set b was not given for two
    best = tables.best_of_each_training(board).mean
    assert best.loc["two"].index.tolist() == ["h"]


def test_near_is_the_unweighted_mean_of_its_sets() -> None:
    rows = made({"ood": "a", "group": "near", "auroc": 0.6}, {"ood": "b", "group": "near", "auroc": 0.9}, {})
    (board,) = tables.leaderboards(rows)
    assert board.mean["near", "AUROC"].tolist() == pytest.approx([75])
    assert board.mean["a", "AUROC"].tolist() == pytest.approx([60])
    assert ("noise", "AUROC") not in board.mean  # alone in its group: the same as far


def test_a_group_with_a_failed_set_has_no_mean() -> None:
    rows = made(
        {"ood": "a"}, {"ood": "b", "distance": "knn"}, {"distance": "knn", "ood": "a"}, {"ood": "b", "status": "error"}
    )
    (board,) = tables.leaderboards(rows)
    found = board.mean["far", "AUROC"].reset_index(drop=True)
    assert found.isna().tolist() == [False, True]


def test_a_method_that_failed_altogether_comes_last() -> None:
    (board,) = tables.leaderboards(made({"status": "error", "auroc": None}, {"distance": "knn"}))
    text = formats.markdown(board.sheet()).splitlines()
    assert "knn" in text[2]
    assert "cosine" in text[3]
    assert text[3].rstrip("| ").endswith("0")
    assert "1 rows failed" in board.caption


def test_one_class_has_no_accuracy_and_counts_all_the_same() -> None:
    (board,) = tables.leaderboards(made(*by_seed([0.8, 0.9], accuracy=None)))
    assert ("ID", "accuracy") not in board.mean
    assert formats.markdown(board.sheet()).splitlines()[2].rstrip("| ").endswith("2")


def test_n_is_that_of_the_column_with_fewest_runs() -> None:
    rows = made(*by_seed([0.8, 0.9, 0.7]), *by_seed([0.8, 0.9], ood="a", group="near"))
    (board,) = tables.leaderboards(rows)
    assert formats.markdown(board.sheet()).splitlines()[2].rstrip("| ").endswith("2")


def test_the_leaderboard_is_sorted_by_near_then_far_and_marked() -> None:
    rows = made(
        *({"distance": d, "ood": "a", "group": "near", "auroc": v} for d, v in (("x", 0.7), ("y", 0.9), ("z", 0.8))),
        *({"distance": d, "auroc": v, "fpr95_id": 1 - v} for d, v in (("x", 0.9), ("y", 0.5), ("z", 0.6))),
    )
    (board,) = tables.leaderboards(rows)
    assert board.mean.index.get_level_values("distance").tolist() == ["y", "z", "x"]
    assert board.marks["near", "AUROC"].tolist() == [1, 0, 0]
    assert board.marks["far", "AUROC"].tolist() == [0, 0, 1]
    assert board.marks["far", "FPR95_id"].tolist() == [0, 0, 1]  # lower is better
    assert board.marks["ID", "accuracy"].tolist() == [0, 0, 0]
    text = formats.markdown(board.sheet()).splitlines()
    assert "**90.0**" in text[2]
    assert " 80.0 " in text[3]


def test_what_is_not_told_apart_from_the_best_is_marked() -> None:
    """Of b the three runs are as much below the best's as they differ; those of c are 20 points below it each time."""
    runs = {"a": [0.90, 0.91, 0.95], "b": [0.91, 0.88, 0.93], "c": [0.70, 0.7101, 0.7502], "d": [0.90, 0.91, 0.95]}
    (board,) = tables.leaderboards(made(*(row for d, values in runs.items() for row in by_seed(values, distance=d))))
    marks = dict(zip(board.mean.index.get_level_values("distance"), board.marks["far", "AUROC"], strict=True))
    assert marks == {"a": 1, "d": 1, "b": 2, "c": 0}
    less = board.taken(lambda part: part[part.index.get_level_values("distance").isin(["b", "c"])])
    assert less.marks["far", "AUROC"].tolist() == [1, 0]  # the best of those that are left
    assert "Nothing is told apart" not in less.below[0]
    none = board.taken(lambda part: part[part.index.get_level_values("distance").isin(["a", "b"])])
    assert none.marks["far", "AUROC"].tolist() == [1, 0]
    assert none.below[0].endswith("Nothing is told apart in: far AUROC.")
    assert formats.markdown(board.sheet()).count("**92.0 ± 2.6**") == 2
    assert tables.MARKED.format(apiece="") in board.caption


def test_of_class_splits_each_is_an_observation_and_not_its_seeds() -> None:
    """Ten seeds tell two methods apart on one split; on two splits they are two observations."""
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.normal(size=10)

    def rows(*ids: str) -> pd.DataFrame:
        return made(
            *(
                row
                for name in ids
                for distance, level in (("a", 0.9), ("b", 0.8))
                for row in by_seed(list(level + noise * (distance == "b")), distance=distance, id=name)
            )
        )

    assert tables.leaderboards(rows("x"))[0].marks["far", "AUROC"].tolist() == [1, 0]
    assert tables.leaderboards(rows("x", "y"))[0].marks["far", "AUROC"].tolist() == [1, 0]  # two: only the best
    (board,) = tables.leaderboards(rows("x", "y", "z"))
    assert board.seen is not None
    assert board.seen.shape[1] == 3 * board.mean.shape[1]
    assert board.marks["far", "AUROC"].tolist() == [1, 0]


def test_told_apart_is_a_paired_t_test_over_all_pairs() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, 8)) + np.array([3, 2.5, 1, 0.5, 0, 0])[:, None]
    best = int(values.mean(1).argmax())
    expected = [
        row != best and min(1, 15 * ttest_rel(values[best], values[row]).pvalue) <= 0.05 for row in range(len(values))
    ]
    assert len(set(expected)) == 2
    assert tables.told_apart(values, best).tolist() == expected
    part = values.copy()
    part[4, 2:] = np.nan  # two runs that both have
    assert not tables.told_apart(part, best)[4]


@pytest.mark.parametrize("methods", [2, 20])
def test_of_equal_methods_none_is_told_apart_in_95_of_100(methods: int) -> None:
    """Where every method is as good, with runs that are good or bad for all: the best is picked by the same numbers."""
    rng = np.random.default_rng(methods)
    runs = rng.normal(size=(2000, 1, 5)) + rng.normal(size=(2000, methods, 5))
    told = [tables.told_apart(each, int(each.mean(1).argmax())).any() for each in runs]
    assert np.mean(told) <= 0.06  # of 2,000 tables, 5 % and two standard errors


def test_thresholds_of_one_ranking_are_counted_once() -> None:
    rows = made(
        {"level": 0.9},
        {"level": 0.95},
        {"threshold": "per_cluster", "auroc": 0.7},
        {"threshold": "per_cluster", "auroc": 0.7, "level": 0.99},
    )
    (board,) = tables.leaderboards(rows)
    assert board.mean.index.get_level_values("threshold").tolist() == ["pooled", "per_cluster"]
    assert board.n["far", "AUROC"].tolist() == [1, 1]


def test_of_one_ranking_a_threshold_that_saw_no_ood_is_shown() -> None:
    seen = {"threshold": "f1 [saw noise]", "level": None}
    other = {"posthoc": "msp", "distance": "–"}
    rows = made(seen, {}, {"distance": "knn"}, seen | {"distance": "knn"}, seen | other)
    (board,) = tables.leaderboards(rows)
    shown = board.mean.index.to_frame(index=False)
    assert set(zip(shown["distance"], shown["threshold"], strict=True)) == {
        ("cosine", "pooled"),
        ("knn", "pooled"),
        ("–", "f1 [saw noise]"),
    }


def test_thresholds_that_agree_on_one_set_only_are_two() -> None:
    rows = made({"ood": "a"}, {}, {"threshold": "per_cluster", "ood": "a"}, {"threshold": "per_cluster", "auroc": 0.7})
    (board,) = tables.leaderboards(rows)
    assert board.mean["a", "AUROC"].tolist() == pytest.approx([80, 80])
    assert board.mean["noise", "AUROC"].tolist() == pytest.approx([80, 70])


def test_levels_that_rank_differently_are_told_apart() -> None:
    rows = made({}, {"level": 0.9}, *({"threshold": "per_cluster", "level": v, "auroc": v} for v in (0.9, 0.95)))
    (board,) = tables.leaderboards(rows)
    assert set(board.mean.index.get_level_values("threshold")) == {
        "pooled",
        "per_cluster at 0.9",
        "per_cluster at 0.95",
    }


def test_recipes_show_only_what_tells_them_apart() -> None:
    rows = made(
        {"recipe": "epochs=3; lr=0.1"},
        {"recipe": "epochs=3; lr=0.2", "auroc": 0.7},
        {"training": "supcon", "recipe": "epochs=9; lr=0.3"},
    )
    (board,) = tables.leaderboards(rows)
    assert set(board.mean.index.get_level_values("recipe")) == {"lr=0.1", "lr=0.2", "–"}


@pytest.mark.slow
def test_class_splits_are_runs_of_one_leaderboard_and_other_sets_have_their_own() -> None:
    only = {"protocol": "one class"}
    rows = made(
        only | {"id": "digits(only=1)"},
        only | {"id": "digits(only=2)", "auroc": 0.9},
        {"id": "cifar10", "family": "cifar10"},
        {},
    )
    first, second, third = tables.leaderboards(rows)
    names = ["leaderboard-digits-one-class", "leaderboard-cifar10", "leaderboard-digits-all-classes"]
    assert [first.name, second.name, third.name] == names
    assert first.caption.startswith("digits, one class. ")
    assert first.mean["far", "AUROC"].tolist() == pytest.approx([85])
    assert first.n["far", "AUROC"].tolist() == [2]
    assert "2 class splits x 1 seed;" in first.caption


def test_columns_that_do_not_vary_are_left_out() -> None:
    rows = made({}, {"training": "oecl", "outliers": "glyphs"})
    (board,) = tables.leaderboards(rows)
    assert board.mean.index.names == ["training", "distance"]
    (wider,) = tables.leaderboards(made({}, {"outliers": "glyphs"}, {"outliers": "noise"}))
    assert "outliers" in wider.mean.index.names


def test_the_best_of_each_training() -> None:
    rows = made({"auroc": 0.7}, {"auroc": 0.8, "distance": "knn"}, {"training": "supcon", "auroc": 0.75})
    best = tables.best_of_each_training(tables.leaderboards(rows)[0])
    assert best.name == "best"
    assert best.mean.index.tolist() == [("simclr", "knn"), ("supcon", "cosine")]


def test_a_declared_table() -> None:
    rows = made(
        *by_seed([0.6, 0.8], ood="a"),
        *by_seed([0.5, 0.5], ood="b"),
        *by_seed([0.9, 0.9], ood="a", clustering="kmeans"),
        *by_seed([0.9, 0.9], ood="b", clustering="kmeans"),
    )
    table = tables.declared(rows, "t", TableSpec(rows=("training",), of={"clustering": "labels"}))
    assert table.mean.loc["simclr"].tolist() == pytest.approx([70, 50])
    assert table.std.loc["simclr"].tolist() == pytest.approx([math.sqrt(200), 0])
    averaged = tables.declared(rows, "t", TableSpec(rows=("training",)))
    assert averaged.mean.loc["simclr"].tolist() == pytest.approx([80, 70])
    assert "each averaged over clustering (2)" in averaged.caption


def test_a_declared_table_of_several_values() -> None:
    rows = made({"level": 0.9, "id_recall": 0.91}, {"level": 0.95}, {"level": 0.95, "threshold": "per_cluster"})
    spec = TableSpec(rows=("threshold", "level"), columns=(), value=("id_recall", "ood_recall"))
    table = tables.declared(rows, "t", spec)
    assert table.mean.columns.tolist() == ["id_recall", "ood_recall"]
    assert table.mean["id_recall"].tolist() == pytest.approx([91, 95, 95])
    assert table.marks.sum().sum() == 0  # neither is better
    assert table.mean.index.tolist() == [("pooled", 0.9), ("pooled", 0.95), ("per_cluster", 0.95)]


def test_files(tmp_path: Any) -> None:
    (board,) = tables.leaderboards(
        made(*by_seed([0.80, 0.84]), {"distance": "mahalanobis(shared, pinv)", "auroc": 0.5})
    )
    files = {path.suffix: path.read_text() for path in formats.write_table(board.sheet(), tmp_path)}
    assert sorted(files) == [".csv", ".html", ".md", ".tex"]
    numbers = pd.read_csv(io.StringIO(files[".csv"]))
    assert numbers["far AUROC mean"].tolist() == pytest.approx([82, 50])
    assert r"\textbf{82.0 $\pm$ 2.8}" in files[".tex"]
    assert r"FPR95\_id" in files[".tex"]
    assert "\\begin{tabular}{@{}llrrrrr@{}}" in files[".tex"]
    body = files[".tex"].split("\\midrule")[1].split("\\bottomrule")[0]
    assert all(line.count("&") == 6 for line in body.strip().splitlines())


def test_no_rows_make_no_table() -> None:
    with pytest.raises(UserError, match="run the study first"):
        tables.leaderboards(made({"status": "error"}))


# ---- what a reader has to know ---------------------------------------------------------------------------

MSP = {"distance": "–", "clustering": "–", "space": "–", "posthoc": "msp"}


def test_a_row_names_its_detector_where_a_study_has_one_baseline() -> None:
    (board,) = tables.leaderboards(made({"posthoc": "–"}, MSP | {"auroc": 0.7}))
    assert list(board.mean.index.names) == ["training", "distance", "posthoc"]
    assert ("simclr", "–", "msp") in board.mean.index
    (alone,) = tables.leaderboards(made(MSP))
    assert list(alone.mean.index.names) == ["training", "posthoc"]


def test_what_the_best_row_is_the_best_by_is_said() -> None:
    near = {"ood": "a", "group": "near"}
    (board,) = tables.leaderboards(made({}, near, {"distance": "knn"}, near | {"distance": "knn", "auroc": 0.9}))
    best = tables.best_of_each_training(board)
    assert best.caption.startswith("The row of each training that is highest by near AUROC, on the test sets. ")
    assert "in them another row may be better" in best.caption
    (far,) = tables.leaderboards(made({}))
    assert "highest by far AUROC" in tables.best_of_each_training(far).caption


@pytest.mark.parametrize(("items", "said"), [(1, "noise (1 image)"), (29, "noise (29 images)"), (30, ""), (None, "")])
def test_a_set_of_few_images_is_named(items: int | None, said: str) -> None:
    rows = made({"n_ood": items}, {"n_ood": 500, "ood": "b"})
    shown = [*tables.leaderboards(rows), tables.declared(rows, "t", TableSpec(rows=("training",)))]
    for table in shown:
        assert ("Of few images, so that a number says little: " + said + "." in table.caption) == bool(said)
        assert ("few images" in table.caption) == bool(said)


def test_what_is_held_out_of_training_is_said() -> None:
    (board,) = tables.leaderboards(made({}).assign(loss=0.5))
    caption = board.caption.removesuffix(" " + tables.BEST.format(apiece=""))
    assert caption.endswith("Held out for thresholds, and no part of training: a share 0.1 of ID train.")
    (brought,) = tables.leaderboards(made({"reference": "val(v.npy)"}).assign(loss=float("nan")))
    assert " Thresholds are set on: v.npy." in brought.caption  # whoever trained may have seen it
    (whole,) = tables.leaderboards(made({"reference": "set(x)"}))
    assert "Held out" not in whole.caption


def test_every_threshold_is_in_a_table_whatever_it_ranks_like() -> None:
    rows = made({}, {"threshold": "mine", "id_recall": 0.5}, {"threshold": "mine", "level": 0.9, "id_recall": 0.4})
    found = tables.thresholds(rows)
    assert found is not None
    assert found.mean["id_recall"].to_dict() == pytest.approx(
        {("pooled", 0.95): 95, ("mine", 0.95): 50, ("mine", 0.9): 40}
    )
    assert tables.thresholds(made({}, {"distance": "knn"})) is None


def test_rows_of_several_id_sets_are_compared_within_each_and_a_row_of_one_run_is_called_equal_to_none() -> None:
    found = {
        ("a", "x"): [0.90, 0.91, 0.95],
        ("a", "y"): [0.91, 0.88, 0.93],
        ("a", "z"): [0.70, 0.7101, 0.7502],
        ("a", "one run"): [0.60],
        ("b", "x"): [0.50, 0.51, 0.55],
        ("b", "z"): [0.30, 0.3101, 0.3502],
    }
    by_run = {(*of, f"{of[0]} {i}"): value for of, values in found.items() for i, value in enumerate(values)}
    index = pd.MultiIndex.from_tuples(by_run, names=["id", "distance", "run"])
    numbers = pd.DataFrame({"near": [*by_run.values()]}, index=index)
    table = tables.averaged("t", "t.", numbers, numbers * 0, ["id", "distance"], {"near": 1}, None)
    assert dict(zip(found, table.marks.loc[[*found], "near"], strict=True)) == dict(
        zip(found, [1, 2, 0, 0, 1, 0], strict=True)
    )
    assert "of each column among the rows of an ID set, picked" in table.caption
