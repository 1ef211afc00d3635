"""Spaces against scikit-learn; everything is fitted on training features only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

from oodbench.scoring import spaces
from oodbench.study.settings import Space


@pytest.fixture
def train() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return 5 + torch.randn(80, 6, generator=rng) @ torch.randn(6, 6, generator=rng)


NEW = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))


def test_raw_features_stay_as_they_are(train: Tensor) -> None:
    assert torch.equal(spaces.fit(Space(), train)[0](NEW), NEW)


def test_unit(train: Tensor) -> None:
    found = spaces.fit(Space(unit=True), train)[0](torch.cat([NEW, torch.zeros(1, 6)]))
    np.testing.assert_allclose(found[:-1], normalize(NEW.numpy()), rtol=1e-5)
    assert not found[-1].any()


def test_zscore(train: Tensor) -> None:
    expected = StandardScaler().fit(train.double().numpy()).transform(NEW.double().numpy())
    np.testing.assert_allclose(spaces.fit(Space(zscore=True), train)[0](NEW), expected, rtol=1e-4, atol=1e-5)


def test_a_constant_dimension_is_only_centred(train: Tensor) -> None:
    train[:, 2] = 3.0
    found = spaces.fit(Space(zscore=True), train)[0](NEW)
    torch.testing.assert_close(found[:, 2], NEW[:, 2] - 3)


def test_pca(train: Tensor) -> None:
    pca = PCA(3).fit(train.double().numpy())
    found = spaces.fit(Space(pca=3), train)[0](NEW).numpy()
    expected = pca.transform(NEW.double().numpy())
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-4, atol=1e-4)


def test_steps_are_taken_in_their_order(train: Tensor) -> None:
    """SSD's: unit norm, then z-score by the statistics of unit-norm training features; then PCA of that."""
    plain = normalize(train.double().numpy())
    scaler = StandardScaler().fit(plain)
    pca = PCA(2).fit(scaler.transform(plain))
    expected = pca.transform(scaler.transform(normalize(NEW.double().numpy())))
    found = spaces.fit(Space(unit=True, zscore=True, pca=2), train)[0](NEW).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)


def test_views_keep_their_axis(train: Tensor) -> None:
    transform = spaces.fit(Space(unit=True, zscore=True, pca=4), train)[0]
    assert transform(NEW.expand(3, 20, 6)).shape == (3, 20, 4)


def test_pca_wider_than_the_features_is_an_error(train: Tensor) -> None:
    with pytest.raises(ValueError, match="pca=7 of 80 training items with 6 dimensions"):
        spaces.fit(Space(pca=7), train)[0]


def test_label() -> None:
    assert Space(views=10, crop=0.54).label == "penultimate views=10 crop=0.54"
    assert Space(layer="projection", unit=True, pca=30, views=5).label == "projection views=5 unit pca=30"
    assert Space().label == "penultimate"
