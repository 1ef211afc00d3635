"""oodbench as a Python package: the same numbers as its commands, and detectors that are taken along."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from numpy.typing import NDArray
from places import ROOT
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from tiny import write

import oodbench
from oodbench import UserError
from oodbench.store.rows import Results
from oodbench.study.registry import Registry

Arrays = dict[str, NDArray[Any]]
CLASSES, D = 3, 6


@pytest.fixture
def made() -> Arrays:
    """Features of three classes, and of what is none of them."""
    rng = np.random.default_rng(0)
    centre = 4 * rng.normal(size=(CLASSES, D))
    y = rng.integers(0, CLASSES, 400)
    new = rng.integers(0, CLASSES, 150)
    return {
        "h": np.abs(centre[y] + rng.normal(size=(400, D))).astype(np.float32),
        "y": y,
        "test": np.abs(centre[new] + rng.normal(size=(150, D))).astype(np.float32),
        "test_y": new,
        "ood": np.abs(2.5 * rng.normal(size=(120, D))).astype(np.float32),
    }


def test_the_grid_on_arrays_is_that_of_the_command_on_files(made: Arrays, tmp_path: Path) -> None:
    train, test = {"features": made["h"], "labels": made["y"]}, {"features": made["test"], "labels": made["test_y"]}
    for name, arrays in (("train", train), ("ID", test), ("sea", {"features": made["ood"]})):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "distance: [mahalanobis, norm]\nposthoc: [msp, react]\nclustering: [labels, one]\nthreshold: pooled\n"
    )
    words = ["--train", tmp_path / "train.npz", "--id", tmp_path / "ID.npz", "--far", f"sea={tmp_path / 'sea.npz'}"]
    done = call("score", *words, "--training", "mine", "--grid", grid, "--device", "cpu")
    assert done.exit_code == 0, done.output
    with pytest.warns(UserWarning, match="^left out: 1 cell: norm ignores clusters$"):
        rows = oodbench.score(train, test, far={"sea": made["ood"]}, training="mine", grid=grid, device="cpu")
    kept = kept_in(tmp_path / "results" / "features")
    assert len(rows) == len(kept) == 5
    both = rows.merge(kept, on=["space", "clustering", "distance", "posthoc", "threshold", "level", "ood", "group"])
    assert len(both) == len(rows)
    np.testing.assert_array_equal(both["auroc_x"], both["auroc_y"])
    np.testing.assert_array_equal(both["cut_x"], both["cut_y"])
    assert not (tmp_path / "results" / "ID").exists()


def kept_in(folder: Path) -> pd.DataFrame:
    return Results(folder).current()


def test_rows_are_kept_where_a_name_is_given(made: Arrays, tmp_path: Path) -> None:
    grid = {"distance": "cosine", "clustering": "one", "threshold": "pooled"}
    tensors = [torch.from_numpy(made[name]).requires_grad_() for name in ("h", "test", "ood")]
    rows = oodbench.score(tensors[0], tensors[1], {"sea": tensors[2]}, grid=grid, name="kept", device="cpu")
    assert rows["distance"].tolist() == ["cosine"]
    assert rows["group"].tolist() == ["ood"]
    pd.testing.assert_frame_equal(kept_in(tmp_path / "results" / "kept"), rows, check_like=True)
    lists = oodbench.score(made["h"].tolist(), made["test"].tolist(), {"sea": made["ood"].tolist()}, grid=grid)
    assert lists["auroc"].tolist() == rows["auroc"].tolist()


DETECTORS: list[tuple[str, dict[str, Any]]] = [
    ("mahalanobis", {}),
    ("mahalanobis", {"covariance": "per_cluster", "space": {"unit": True}}),
    ("knn", {"k": 5, "space": {"zscore": True}}),
    ("cosine", {"clustering": {"kmeans": {"k": 4}}, "threshold": "per_cluster"}),
    ("ssd", {"threshold": {"pooled": {"level": 0.9}}}),
    ("msp", {"threshold": "conformal"}),
    ("vim", {"dims": 3}),
    ("react", {}),
]


@pytest.mark.parametrize(("name", "how"), DETECTORS)
def test_a_detector_scores_and_cuts_as_the_grid_does(made: Arrays, name: str, how: dict[str, Any]) -> None:
    """AUROC, the cut, and the shares on either side of it are those of the same cell of a grid."""
    words = {"clustering", "threshold", "space"}
    parameters = {key: value for key, value in how.items() if key not in words}
    room = "posthoc" if name in Registry().sources("posthoc") else "distance"
    grid = {room: {name: parameters} if parameters else name, "threshold": "pooled"}
    grid |= {"clustering": "labels"} if room == "distance" else {}
    grid |= {key: how[key] for key in words & how.keys()}
    train = {"features": made["h"], "labels": made["y"]}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        (row,) = oodbench.score(train, made["test"], {"sea": made["ood"]}, grid=grid, device="cpu").itertuples()
    said = [f"rows warn: 1 cell: {text}" for text in str(row.warnings).split("; ") if text]
    assert [str(each.message) for each in heard] == said
    fitted = oodbench.detector(name, **how).fit(made["h"], made["y"], device="cpu")
    id_, ood = fitted.score(made["test"]), fitted.score(made["ood"])
    is_ood = np.repeat([0, 1], [len(id_), len(ood)])
    assert roc_auc_score(is_ood, np.concatenate([id_, ood])) == pytest.approx(row.auroc, abs=1e-12)
    assert fitted.threshold == row.cut
    assert 1 - fitted.predict(made["test"]).mean() == pytest.approx(row.id_recall)
    assert fitted.predict(made["ood"]).mean() == pytest.approx(row.ood_recall)
    np.testing.assert_allclose(fitted.score(made["ood"][:7]), ood[:7], rtol=1e-5)  # whatever else is scored beside it
    assert name in fitted.label


def test_mahalanobis_is_scikit_learns(made: Arrays) -> None:
    """The library on the items that are not held out, about the nearest class mean."""
    val, val_y = made["h"][:80], made["y"][:80]
    h, y = made["h"][80:], made["y"][80:]
    fitted = oodbench.detector("mahalanobis").fit(h, y, val={"features": val, "labels": val_y}, device="cpu")
    means = np.stack([h[y == each].mean(0) for each in range(CLASSES)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(h - means[y])
    wanted = np.stack([covariance.mahalanobis(made["ood"] - mean) for mean in means])
    rank = np.argsort(np.argsort(fitted.score(made["ood"])))
    np.testing.assert_array_equal(rank, np.argsort(np.argsort(wanted.min(0))))
    np.testing.assert_array_equal(fitted.nearest(made["ood"]), wanted.argmin(0))
    assert np.mean(fitted.score(val) <= fitted.threshold) >= 0.95


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: oodbench.detector("mahalanobi"), "there is no distance and no baseline 'mahalanobi'; did you mean"),
        (lambda x: oodbench.detector("knn", K=3), "knn has no parameter 'K'"),
        (lambda x: oodbench.detector("knn", k=-3), "knn: k is -3, should be greater than"),
        (lambda x: oodbench.detector("knn", threshold="poled").fit(x["h"]), "there is no threshold 'poled'"),
        (lambda x: oodbench.detector("knn", space={"unt": True}).fit(x["h"]), "unt"),
        (lambda x: oodbench.detector("knn", threshold="youden").fit(x["h"]), "youden is set on OOD"),
        (lambda x: oodbench.detector("knn", k=[1, 5]).fit(x["h"]), "knn: k is [1, 5]"),
        (lambda x: oodbench.detector("msp").fit(x["h"]), "msp needs labels, train has none"),
        (lambda x: oodbench.detector("knn").fit(x["h"][0]), "train: `features` has the shape (6,), wanted are rows"),
        (lambda x: oodbench.detector("knn").fit(x["h"], x["y"][:9]), "train: `labels` are int64 (9,), wanted are"),
        (lambda x: oodbench.detector("knn").fit(x["h"] * np.nan), "train: `features` has NaN or infinity in 400 of"),
        (lambda x: oodbench.detector("knn").fit(x["h"]).score(x["ood"][:, :2]), "the items: 2 columns, train has 6"),
        (lambda x: oodbench.score({"h": x["h"]}, x["test"], {"sea": x["ood"]}), "train: 'h' is no array of features"),
        (lambda x: oodbench.score(x["h"], x["test"]), "give at least one OOD set"),
        (
            lambda x: oodbench.recommend(pd.DataFrame({"auroc": [1]})),
            "this DataFrame has no column cell, key, status and",
        ),
        (lambda x: oodbench.recommend(3), "int is neither a study (a file, a name, a mapping) nor a DataFrame"),
        (lambda x: oodbench.score(x["h"], x["test"], x["ood"]), "ood is of type ndarray, wanted are sets by name"),
        (lambda x: oodbench.score(x["h"], x["test"], {1: [[1, 2], [3]]}), "1: setting an array element"),
        (lambda x: oodbench.score(x["h"], x["test"], {"sea": x["ood"]}, seed="a"), "seed is 'a', wanted is a whole"),
        (lambda x: oodbench.plugins("distnce"), "there is no room 'distnce'; did you mean 'distance'"),
    ],
)
def test_what_is_wrong_is_said(made: Arrays, make: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        make(made)
    assert says in str(error.value)


def test_a_plugin_of_ones_own_is_a_detector(made: Arrays, tmp_path: Path) -> None:
    text = (ROOT / "methods" / "distance" / "norm.py").read_text(encoding="utf-8")
    (tmp_path / "length.py").write_text(text)
    fitted = oodbench.detector("length", plugins=str(tmp_path / "length.py")).fit(made["h"], device="cpu")
    assert fitted.score(made["ood"]).shape == (120,)


def test_one_detector_is_recommended_of_ones_own_features(made: Arrays, tmp_path: Path) -> None:
    """What is named is the best of the rows, and fitted it has the AUROC of its row, a plugin of one's own too."""
    (tmp_path / "length.py").write_text((ROOT / "methods" / "distance" / "norm.py").read_text(encoding="utf-8"))
    grid = {"plugins": [str(tmp_path / "length.py")], "threshold": {"pooled": {"level": 0.9}}}
    of = {"distance": [{"knn": {"k": [1, 5]}}, "length"], "space": [{}, {"unit": True}], "posthoc": ["msp", "energy"]}
    train, sets = {"features": made["h"], "labels": made["y"]}, {"sea": made["ood"], "sky": made["ood"] + 0.5}
    with pytest.warns(UserWarning, match="left out: 1 cell: length needs raw features"):
        rows = oodbench.score(train, made["test"], sets, grid=grid | of, device="cpu")
    for chosen in (rows, rows[rows["distance"] == "length"], rows[rows["posthoc"].str.startswith("energy")]):
        best = oodbench.recommend(chosen)
        mean = chosen.groupby("detector")["auroc"].mean()
        assert f"Of {len(mean)} detector" in str(best)
        answer = chosen[chosen["detector"] == mean.idxmax()].set_index("ood")
        fitted = best.detector.fit(made["h"], made["y"], device="cpu")
        for name, ood in sets.items():
            scores = np.concatenate([fitted.score(made["test"]), fitted.score(ood)])
            is_ood = np.repeat([0, 1], [len(made["test"]), len(ood)])
            assert roc_auc_score(is_ood, scores) == pytest.approx(answer.loc[name, "auroc"], abs=1e-12)
        assert fitted.threshold == answer["cut"].iloc[0]
        assert best.table.loc[best.table["answer"], "auroc"].tolist() == pytest.approx([100 * mean.max()])
    assert "energy" in best.label
    assert rows.attrs["left_out"] == {"length needs raw features, not penultimate unit": 1}
    assert len(oodbench.tables(rows)["leaderboard"]) == rows["detector"].nunique()
    own = rows[rows["distance"] == "length"]
    nameless = pd.concat([own.assign(seed=seed) for seed in range(2)])
    nameless.attrs = {}  # as pandas leaves them where those of the parts differ
    best = oodbench.recommend(nameless, plugins=str(tmp_path / "length.py"))
    assert best.detector.fit(made["h"], made["y"], device="cpu").threshold == own["cut"].iloc[0]
    page = oodbench.write_report(pd.concat([rows, rows.assign(training="other")]), tmp_path / "p.html")
    assert "<h1>features, other</h1>" in page.read_text(encoding="utf-8")


def test_rows_from_a_csv_file_are_the_same_and_rows_of_the_same_are_refused(made: Arrays, tmp_path: Path) -> None:
    """Two encoders under one name were averaged, as one run."""
    grid = {"distance": ["cosine", "knn"], "clustering": "one", "threshold": "pooled"}
    sets = {"sea": made["ood"], "sky": made["ood"] + 0.5}
    first, other = (oodbench.score(h, made["test"], sets, grid=grid, device="cpu") for h in (made["h"], made["h"] + 1))
    first.to_csv(tmp_path / "rows.csv", index=False)
    again = pd.read_csv(tmp_path / "rows.csv")
    assert str(oodbench.recommend(again)) == str(oodbench.recommend(first))
    pd.testing.assert_frame_equal(oodbench.tables(again)["leaderboard"], oodbench.tables(first)["leaderboard"])
    for use in (oodbench.recommend, oodbench.tables, oodbench.write_report):
        with pytest.raises(UserError, match="4 rows beside others of the same labels, such as training features"):
            use(pd.concat([first, other]))
    assert len(oodbench.tables(pd.concat([first, other.assign(training="other")]))["leaderboard"]) == 4


def test_plugins_are_told_as_the_command_tells_them() -> None:
    told = json.loads(call("list", "--json").output)
    assert oodbench.plugins() == told["plugins"]
    assert {each["name"] for each in oodbench.plugins("distance")} >= {"mahalanobis", "knn"}


@pytest.mark.slow
def test_tables_verdicts_and_the_page_of_a_study(trained: None, tmp_path: Path) -> None:
    claim = {"says": "so", "left": {"distance": "cosine"}, "right": {"distance": "knn(k=3)"}}
    path = write(tmp_path / "s.yaml", outliers=None, seed=[0], claims={"c": claim})
    rows = oodbench.run(path, device="cpu")
    tables = oodbench.tables(path)
    assert {"leaderboard", "best", "thresholds"} <= tables.keys()
    assert len(tables["leaderboard"]) > 1
    (told,) = oodbench.verdict(str(path)).itertuples()
    assert (told.claim, told.verdict) == ("c", "not enough data")
    assert told.difference == pytest.approx(by_hand(rows))
    page = oodbench.write_report(path, tmp_path / "page.html")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(oodbench.recommend(path)).startswith("Of ")
    assert call("verdict", path).exit_code == 0


def by_hand(rows: pd.DataFrame) -> float:
    """Return cosine less k-NN: means over sets, then over what else differs, thresholds that rank alike once."""
    once = rows[rows["threshold"] == "pooled"].groupby(["training", "distance", "clustering"])["auroc"].mean()
    other = rows[rows["threshold"] != "pooled"].groupby(["training", "distance", "clustering"])["auroc"].mean()
    cosine = pd.concat([once, other]).groupby("distance").mean()
    return float(100 * (cosine["cosine"] - cosine["knn(k=3)"]))


def test_it_has_a_version_and_metrics_and_starts_without_torch() -> None:
    assert oodbench.__version__.count(".") >= 2
    assert oodbench.metrics.ranking(np.zeros(2), np.ones(2))["auroc"] == 1
    with pytest.raises(AttributeError, match="no attribute 'detectors'"):
        oodbench.detectors  # noqa: B018
    code = "import sys, oodbench; print(sorted({'torch', 'pandas', 'sklearn'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def cells() -> Iterator[str]:
    notebook = json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for cell in cells():
        exec(compile(cell, "python.ipynb", "exec"), space)
    assert space["fitted"].predict(space["ood"]).mean() > space["fitted"].predict(space["test"]).mean()
