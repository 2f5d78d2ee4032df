"""The interface that LazySlide needs of a model that predicts from features; the package itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sthggep import HGGEP, nn, tl
from sthggep._inputs._inputs import Inputs
from sthggep.model._record import TrainingRecord

N = 12


@runtime_checkable
class FeaturePrediction(Protocol):
    """Methods that LazySlide 0.13 calls."""

    model: Any
    name: str

    def get_transform(self): ...
    def to(self, device): ...
    def try_compile(self, **options): ...
    def predict(self, features, coords=None, *args, **kwargs): ...


def run(model: Any, features: Any, corners: np.ndarray, device: str = "cpu") -> pd.DataFrame:
    """Predict as `lazyslide.tl.feature_prediction` does: in batches, unless the model reads whole slides."""
    assert isinstance(model, FeaturePrediction)
    model.to(device)
    n = len(corners)
    step = n if model.whole_slide else 5
    parts = []
    with torch.inference_mode():
        for at in (slice(start, start + step) for start in range(0, n, step)):
            out = model.predict(features[at], corners[at]) if model.needs_coords else model.predict(features[at])
            assert isinstance(out, Mapping)
            assert all(np.shape(column) == (len(corners[at]),) for column in out.values())
            parts.append(pd.DataFrame(dict(out)))
    return pd.concat(parts)


@pytest.fixture
def model() -> HGGEP:
    torch.manual_seed(0)
    net = nn.FeatureHGGEPNet([4, 2], 3, dim=16, heads=2)
    net.blend.fill_(1.0)
    return HGGEP(
        [net], ["A", "B", "C"], Inputs("obsm", obsm=("X_uni", "X_far")), training=TrainingRecord(pitch_um=[200.0])
    )


@pytest.fixture
def tiles() -> tuple[np.ndarray, np.ndarray]:
    """Features of tiles, and their upper left corners."""
    corners = np.stack(np.meshgrid(np.arange(N), np.arange(N)), axis=-1).reshape(-1, 2) * 256.0 + 1000
    return np.random.default_rng(1).normal(size=(len(corners), 6)).astype(np.float32), corners


def spots(features: np.ndarray, corners: np.ndarray) -> AnnData:
    out = AnnData(obs=pd.DataFrame(index=[f"tile{i}" for i in range(len(corners))]))
    for key, values in {"spatial": corners + 128, "X_uni": features[:, :4], "X_far": features[:, 4:]}.items():
        out.obsm[key] = values
    return out


def test_predictions_are_those_of_predict(model, tiles):
    predictions = run(model.as_lazyslide_model(), *tiles)
    assert list(predictions.columns) == ["A", "B", "C"]
    adata = spots(*tiles)
    tl.predict(adata, model, show_progress_bar=False)
    np.testing.assert_allclose(predictions, adata.obsm["hggep"], atol=1e-5)
    # Neighbors matter: the same tiles at other places have other predictions
    shuffled_predictions = run(model.as_lazyslide_model(), tiles[0], np.random.default_rng(0).permutation(tiles[1]))
    assert np.abs(predictions.to_numpy() - shuffled_predictions.to_numpy()).max() > 1e-3


def test_tiles_denser_than_the_training_spots(model, tiles):
    near = run(model.as_lazyslide_model(), *tiles)
    # 256 pixels of 0.39 µm are 100 µm: half the pitch of the training
    far = run(model.as_lazyslide_model(mpp=0.39), *tiles)
    dense = spots(*tiles)
    dense.obs[["array_x", "array_y"]] = ((tiles[1] - 1000) / 256).astype(int)
    tl.predict(dense, model, mpp=0.39, show_progress_bar=False)
    np.testing.assert_allclose(far, dense.obsm["hggep"], atol=1e-5)
    assert np.abs(near.to_numpy() - far.to_numpy()).max() > 1e-3


def test_unsuitable_models_and_features_are_refused(model, tiles):
    wrapped = model.as_lazyslide_model()
    with pytest.raises(ValueError, match=r"trained on 6 features a tile, found an array of shape \(144, 5\)"):
        wrapped.predict(tiles[0][:, :5], tiles[1])
    with pytest.raises(ValueError, match="`coords` must be"):
        wrapped.predict(tiles[0])
    image_model = HGGEP(list(model.members), model.genes, Inputs("features", sizes_um=(80.0, 160.0)))
    with pytest.raises(ValueError, match=r"reads shufflenet features of 80 µm.*obsm=.*tl\.predict"):
        image_model.as_lazyslide_model()
