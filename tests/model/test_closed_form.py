"""Models without networks: the closed form of the default preset predicts alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from anndata import AnnData

from sthggep import HGGEP, datasets, pp, tl
from sthggep._inputs._compute import Compute
from sthggep._slides._resolve import resolve_one
from sthggep._training import _networks
from sthggep.model import _forward
from sthggep.model._forward import Quantities, gather, predict_windows
from sthggep.nn import ClosedFormNet

SIZES_UM = (320.0, 640.0)
QUIET = {"device": "cpu", "show_progress_bar": False}


def toy(seed: int) -> AnnData:
    return datasets.toy(seed=seed, size_um=(1600.0, 1200.0), mpp=2.0, n_genes=12)


@pytest.fixture(scope="module")
def tissue() -> list[AnnData]:
    """Sections without features: each prediction reads their images."""
    return [toy(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def alone(tissue) -> HGGEP:
    """The closed form of the default preset, solved on two sections."""
    return tl.fit(tissue[:2], genes=list(tissue[0].var_names), n_members=0, size_um=SIZES_UM, **QUIET)


@pytest.fixture
def slide(tissue) -> AnnData:
    return tissue[2].copy()


@pytest.fixture(scope="module")
def whole(tissue, alone) -> np.ndarray:
    """The prediction of a section by features of its spots."""
    return predicted(alone, tissue[2])


def predicted(model: HGGEP, table: AnnData, **options: object) -> np.ndarray:
    return tl.predict(table.copy(), model, copy=True, **QUIET, **options).obsm["hggep"]


def largest(mine: np.ndarray, other: np.ndarray, spread: np.ndarray) -> float:
    """Largest difference, in spreads of the gene over the section."""
    assert spread.min() > 0
    return float((np.abs(mine - other) / spread).max())


# ---------------------------------------------------------------- the model


def test_the_closed_form_is_one_linear_member(alone):
    (member,) = alone.members
    assert type(member) is ClosedFormNet
    assert member.config["linear"] is True
    assert member.config["feature_dims"] == [3 * 1360] * 2
    assert not member.training
    assert sum(weights.numel() for weights in member.parameters()) == 0
    assert alone.training.held_out_pearson is not None
    assert np.mean(alone.training.held_out_pearson) > 0.2


def test_nothing_is_said_of_networks(alone, tissue, slide, caplog):
    rank = alone.members[0].config["rank"]
    assert f"; closed form of {rank} gene programs, no network; trained on" in repr(alone)
    for text in (repr(alone), alone._repr_html_()):
        assert "network" not in text.replace("no network", "")
        assert "weights" not in text.split("closed form")[1].split(";")[0]
    assert len(alone.history) == 0
    with caplog.at_level("INFO", logger="sthggep"):
        tl.predict(slide, alone, latent=True, **QUIET)
    assert "network" not in caplog.text
    # Latent features are the scores of the gene programs
    scores = torch.from_numpy(slide.obsm["X_hggep"])
    assert scores.shape == (slide.n_obs, alone.members[0].config["rank"])
    np.testing.assert_allclose(alone.members[0].programs(scores), slide.obsm["hggep"], atol=1e-5)


def test_the_log_tells_the_outcome(tissue, caplog, monkeypatch):
    """Where the network earns no share, the model is the same as without a network."""
    monkeypatch.setattr(_networks, "choose_share", lambda *_: 0.0)
    options = {"size_um": 640.0, "max_epochs": 1, **QUIET}
    models = {}
    for n_members in (0, 3):
        caplog.clear()
        with caplog.at_level("INFO", logger="sthggep"):
            models[n_members] = tl.fit(tissue[:2], genes=list(tissue[0].var_names), n_members=n_members, **options)
        assert ("The network earns no share in the prediction on held-out tissue" in caplog.text) is (n_members > 0)
        assert ("training up to 3 networks beside it" in caplog.text) is (n_members > 0)
        assert re.search(
            r"Trained in \d+ s: closed form of \d+ gene programs?, PCC 0\.\d+ on held-out tissue", caplog.text
        )
    alone, tried = models.values()
    # The curve of the one network that was tried
    assert (len(alone.history), tried.history["member"].tolist()) == (0, [1])
    assert alone.training.held_out_pearson == tried.training.held_out_pearson
    for first, second in zip(alone.members.state_dict().values(), tried.members.state_dict().values(), strict=True):
        assert torch.equal(first, second)


def test_a_preset_without_a_closed_form_needs_networks(tissue):
    with pytest.raises(ValueError, match="`n_members=0` solves the closed form alone, which this preset does not have"):
        tl.fit(tissue[0], preset="paper", n_members=0, **QUIET)


def test_a_saved_model_is_the_same(alone, whole, tissue, tmp_path):
    alone.save(tmp_path / "model")
    back = HGGEP.load(tmp_path / "model")
    assert back.id == alone.id
    assert repr(back) == repr(alone)
    assert [type(member) for member in back.members] == [ClosedFormNet]
    np.testing.assert_array_equal(predicted(back, tissue[2]), whole)


# ---------------------------------------------------------------- company


def test_predictions_do_not_depend_on_company(alone, tissue, whole):
    table, spread = tissue[2], whole.std(axis=0)
    x = table.obsm["spatial"][:, 0]
    random_half = np.sort(np.random.default_rng(0).permutation(table.n_obs)[: table.n_obs // 2])
    for rows in (random_half, np.flatnonzero(x < np.median(x)), np.array([7])):
        assert largest(predicted(alone, table[rows].copy()), whole[rows], spread) < 1e-5
    prepared = table.copy()
    pp.features(prepared, size_um=SIZES_UM, encoding="tissue", flips=False, **QUIET)
    for rows in (slice(None), random_half, np.array([7])):
        assert largest(predicted(alone, prepared[rows].copy()), whole[rows], spread) < 1e-5


# ---------------------------------------------------------------- maps


def by_windows(model: HGGEP, table: AnnData, window: int | None, quantities: Quantities):
    compute = Compute(torch.device("cpu"), 8)
    options = {"encoder": model.encoder(device="cpu"), "compute": compute, "quantities": quantities}
    parts = list(predict_windows(model.ensemble, resolve_one(table), window=window, **options))
    return gather(parts), [len(rows) for rows, _ in parts]


def test_predictions_from_maps_are_those_from_features(alone, slide, monkeypatch):
    quantities = Quantities(columns=np.array([5, 0]), latent=True)
    monkeypatch.setattr(_forward, "InputSource", None)
    found, lengths = by_windows(alone, slide, 20, quantities)
    assert lengths == [20] * (slide.n_obs // 20) + [slide.n_obs % 20] * (slide.n_obs % 20 > 0)
    monkeypatch.undo()
    monkeypatch.setattr(_forward, "read_scores", None)
    expected, lengths = by_windows(alone, slide, None, quantities)
    assert lengths == [slide.n_obs]
    assert found.expression.shape == (slide.n_obs, 2)
    np.testing.assert_allclose(found.expression, expected.expression, rtol=0, atol=1e-5)
    assert largest(found.latent, expected.latent, expected.latent.std(axis=0)) < 1e-4


def test_public_predictions_in_windows(alone, slide, whole):
    np.testing.assert_allclose(predicted(alone, slide, window=20), whole, rtol=0, atol=1e-5)


def test_several_closed_forms_are_read_at_once(alone, slide):
    """Members of different ranks and weights: each has its own scores, and the prediction is their mean."""
    first = alone.members[0]
    second = ClosedFormNet(**{**first.config, "rank": first.config["rank"] - 1}).eval()
    small = {name: values.clone() for name, values in first.state_dict().items()}
    for name, values in second.state_dict().items():
        small[name] = small[name][tuple(slice(side) for side in values.shape)] * (0.5 if "weight" in name else 1.0)
    second.load_state_dict(small)
    both = HGGEP([first, second], alone.genes, alone.inputs, training=alone.training)
    compute = Compute(torch.device("cpu"), 8)
    options = {"encoder": alone.encoder(device="cpu"), "compute": compute}
    quantities = Quantities(latent=True)
    found, expected = (
        gather(predict_windows(both.ensemble, resolve_one(slide), window=window, quantities=quantities, **options))
        for window in (20, None)
    )
    assert found.latent.shape[1] == 2 * first.config["rank"] - 1
    np.testing.assert_allclose(found.expression, expected.expression, rtol=0, atol=1e-5)
    assert largest(found.latent, expected.latent, expected.latent.std(axis=0)) < 1e-4
