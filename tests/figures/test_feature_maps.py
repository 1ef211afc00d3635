"""Features on two planes: against singular vectors, and what is kept of features, classes and scores."""

from __future__ import annotations

from pathlib import Path

import kept_features as kept
import numpy as np
import pandas as pd
import pytest

from oodbench.figures import feature_maps as maps
from oodbench.figures.feature_maps import FeatureMap
from oodbench.store.artifacts import Store


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "IMAGES", 60)


def only(rows: pd.DataFrame, store: Store) -> FeatureMap:
    ((found,), _) = maps.feature_maps(rows, store, list(rows.index))
    return found


def of(found: FeatureMap, name: str) -> pd.DataFrame:
    return found.points[found.points["set"] == name]


@pytest.mark.parametrize("unit", [False, True])
def test_pca_is_that_of_the_images_shown(unit: bool, tmp_path: Path) -> None:
    rows = kept.rows(unit=unit)
    found = only(rows, kept.filled(tmp_path, rows))
    points = found.points
    x = np.stack([kept.features(name)[at] for name, at in zip(points["set"], points["position"], strict=True)])
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    for i, name in enumerate(("pca_x", "pca_y")):
        projected = centred @ axes[i]
        turned = projected * np.sign(projected @ points[name])  # an axis has no sign
        np.testing.assert_allclose(points[name], turned, atol=1e-5)
    assert found.explained == pytest.approx(tuple(100 * singular[:2] ** 2 / (singular**2).sum()), rel=1e-5)
    assert ("unit length" in found.space) == unit


def test_groups_that_are_far_apart_are_so_on_the_plane_of_tsne(tmp_path: Path) -> None:
    rows = kept.rows()
    points = only(rows, kept.filled(tmp_path, rows)).points
    xy = points[["tsne_x", "tsne_y"]].to_numpy()
    apart = np.linalg.norm(xy[:, None] - xy, axis=2)
    np.fill_diagonal(apart, np.inf)
    name = (points["class"] + points["set"]).to_numpy()
    assert (name[apart.argmin(1)] == name).mean() > 0.99


def test_images_are_drawn_from_each_set_and_bear_their_class(tmp_path: Path) -> None:
    rows = kept.rows()
    store = kept.filled(tmp_path, rows)
    found, again = only(rows, store), only(rows, store)
    pd.testing.assert_frame_equal(found.points, again.points)
    assert found.images == kept.COUNTS
    shown = {"digits": maps.IMAGES, "near set": maps.IMAGES // 2, "far set": kept.COUNTS["far set"]}
    for name, count in shown.items():
        assert of(found, name)["position"].nunique() == len(of(found, name)) == min(count, kept.COUNTS[name])
        assert set(of(found, name)["group"]) == {kept.OOD.get(name, "ID")}
    assert of(found, "digits")["class"].tolist() == [kept.CLASSES[i % 3] for i in of(found, "digits")["position"]]
    assert set(of(found, "near set")["class"]) == {""}


def test_colours_are_kept_scores_and_nothing_where_none_are_kept(tmp_path: Path) -> None:
    rows = kept.rows()
    found = only(rows, kept.filled(tmp_path, rows[rows["ood"] == "near set"]))  # features of both sets all the same
    assert [rows.loc[label, "cell"] for label in found.scored] == ["simclr cosine 0"]
    for name in ("digits", "near set"):
        told = of(found, name)[f"score {found.scored[0]}"]
        assert told.tolist() == kept.score(name, "simclr cosine 0")[of(found, name)["position"]].tolist()
    assert of(found, "far set")[f"score {found.scored[0]}"].isna().all()


def test_trainings_come_in_the_order_of_rows_and_those_without_features_are_counted(tmp_path: Path) -> None:
    rows = kept.rows("simclr", "supcon", "csi")
    store = kept.filled(tmp_path, rows[rows["training"] != "supcon"])
    found, lacking = maps.feature_maps(rows, store, [*reversed(rows.index)])
    assert [rows.loc[each.row, "training"] for each in found] == ["csi", "simclr"]
    assert [rows.loc[each.row, "seed"] for each in found] == [0, 0]  # of the second run there are no features
    assert lacking == 1


def test_the_plain_image_is_shown_of_several_views(tmp_path: Path) -> None:
    rows = kept.rows()
    rows["detector"] = rows["detector"].str.replace('"views": 1', '"views": 3')
    store = Store(tmp_path)
    for split in ("train", "test"):
        kept.prepared(store, split)
    for name, content in (("digits", "data of digits, test"), ("near set", "data of near set")):
        kept.bank(store, "simclr 0", content, kept.features(name), views=3)
    found = only(rows, store)
    assert "the first view" in found.space
    assert found.points["pca_x"].std() > 1  # other views are zeros


def test_features_that_are_alike_or_of_a_damaged_set_are_no_map(tmp_path: Path) -> None:
    rows = kept.rows()
    alike = kept.filled(tmp_path / "alike", rows, lambda name: np.ones((kept.COUNTS[name], 6), np.float32))
    assert maps.feature_maps(rows, alike, list(rows.index)) == ([], 1)
    damaged = kept.filled(tmp_path / "damaged", rows)
    for file in (tmp_path / "damaged" / "data").rglob("y.npy"):
        file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert maps.feature_maps(rows, damaged, list(rows.index)) == ([], 1)
    assert maps.feature_maps(rows, Store(tmp_path / "nowhere"), list(rows.index)) == ([], 1)
