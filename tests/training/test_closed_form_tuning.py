"""Fine-tuning of a model without networks: only its closed form is adapted, and nothing is trained."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from sthggep import HGGEP, datasets, tl
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._training import _fine_tuning, _lightning
from sthggep._training._fine_tuning import with_genes
from sthggep._training._update import MeasuredTissue
from sthggep.nn import ClosedFormNet
from sthggep.nn._programs import spot_weights

QUIET = {"device": "cpu", "show_progress_bar": False}
N_GENES = 16


def toy(seed: int, *, shifted: bool = False):
    """A section with user features; in shifted tissue both stain (the features) and expression differ."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=N_GENES)
    values = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.obsm["X_mine"] = values * 1.5 + 3 if shifted else values
    if shifted:
        # Genes swap roles: a gene that follows nuclei here follows collagen in the other tissue
        slide.X = slide.X[:, np.roll(np.arange(N_GENES), 2)].copy()
    return slide


@pytest.fixture(scope="module")
def tissue():
    return {"old": toy(0), "old2": toy(5), "new": toy(1, shifted=True), "test": toy(2, shifted=True)}


@pytest.fixture(scope="module")
def parent(tissue) -> HGGEP:
    genes = list(tissue["old"].var_names)
    model = tl.fit([tissue["old"], tissue["old2"]], genes=genes, n_members=0, obsm="X_mine", **QUIET)
    assert [type(member) for member in model.members] == [ClosedFormNet]
    return model


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr(_lightning, "train_network", lambda *_, **__: pytest.fail("a network is trained"))


def scores(model: HGGEP, slide) -> tuple[float, float]:
    """Correlation and error of a prediction."""
    tl.predict(slide, model, key_added="found", **QUIET)
    table = tl.evaluate(slide, "found")
    return float(table["pearson"].mean()), float(table["rmse"].mean())


def predicted(model: HGGEP, slide) -> np.ndarray:
    """Prediction of all spots."""
    tl.predict(slide, model, key_added="found", **QUIET)
    return slide.obsm["found"]


def mask(n: int, of: int = 68) -> np.ndarray:
    """Mask of the first spots."""
    return np.arange(of) < n


def test_new_tissue_is_learned(tissue, parent, caplog):
    before = {name: value.clone() for name, value in parent.members.state_dict().items()}
    name = parent.id
    with caplog.at_level(logging.INFO, logger="sthggep"):
        child = tl.fit(tissue["new"], model=parent, **QUIET)
    (old,), (new,) = parent.members, child.members
    assert type(new) is ClosedFormNet
    assert new.config == old.config | {"rank": new.config["rank"], "prior_rank": new.config["prior_rank"]}
    torch.testing.assert_close(new.programs.loadings @ new.programs.loadings.T, torch.eye(new.config["rank"]))
    (r, error), (old_r, old_error) = scores(child, tissue["test"]), scores(parent, tissue["test"])
    assert r > old_r + 0.1
    assert error < old_error - 0.05
    assert len(child.history) == 0
    assert len(child.training.held_out_pearson) == N_GENES
    assert "closed form of" in caplog.text
    # The parent is as it was
    assert (parent.id, child.training.model) == (name, name)
    assert all(torch.equal(value, before[key]) for key, value in parent.members.state_dict().items())


def test_all_tissue_is_learned_from_whatever_is_held_out(tissue, parent):
    held_out, nothing = (
        tl.fit(tissue["new"], model=parent, validation=validation, **QUIET) for validation in ("blocks", None)
    )
    assert nothing.training.held_out_pearson is None
    assert held_out.training.held_out_pearson is not None
    for first, second in zip(
        held_out.members.state_dict().values(), nothing.members.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(first, second)


def test_few_spots_change_the_model_little(tissue, parent):
    few, many = (tl.fit(tissue["new"], measured=mask(n), model=parent, validation=None, **QUIET) for n in (6, 60))
    old, *new = (predicted(model, tissue["test"]) for model in (parent, few, many))
    changes = [np.abs(values - old).mean() for values in new]
    assert 0 < changes[0] < 0.7 * changes[1]


@pytest.mark.parametrize("columns", [list(range(15, 2, -1)), [0, 3, 6, 9, 12]], ids=["most", "fewer than programs"])
def test_some_of_its_genes(tissue, parent, columns):
    genes = [parent.genes[column] for column in columns]
    child = tl.fit(tissue["new"], model=parent, genes=genes, **QUIET)
    (old,), (new,) = parent.members, child.members
    assert child.genes == genes
    assert new.programs.loadings.shape == (new.config["rank"], len(genes))
    assert new.config["rank"] <= len(genes)
    untuned = HGGEP([with_genes(old, columns).eval()], genes, parent.inputs)
    (r, error), (old_r, old_error) = scores(child, tissue["test"]), scores(untuned, tissue["test"])
    assert r > old_r + 0.1
    assert error < 0.8 * old_error
    # Shares of fewer genes are on another scale: means are those of the new tissue alone
    raw = read_panel_counts(tissue["new"], genes)
    weight = spot_weights(torch.from_numpy(raw.sum(axis=1))).numpy()
    expected = np.average(log10_cp10k(raw), axis=0, weights=weight)
    np.testing.assert_allclose(np.average(predicted(child, tissue["new"]), axis=0, weights=weight), expected, atol=1e-4)


@pytest.mark.parametrize("columns", [[11, 0, 3, 4, 5, 6, 7, 8, 2], [11, 0, 3], [4]])  # of 8 programs
def test_selected_outputs_do_not_change(columns):
    torch.manual_seed(0)
    net = ClosedFormNet([5], 12).eval()
    net.programs.damp.copy_(torch.linspace(1.0, 0.2, 8))
    torch.nn.init.normal_(net.shortcut.weight)
    inputs = ([torch.randn(3, 5)], torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 1, 2))
    inputs += (torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), 2)
    selected = with_genes(net, columns).eval()
    with torch.no_grad():
        whole, part = net(*inputs).expression, selected(*inputs).expression
    torch.testing.assert_close(part, whole[:, columns])


def test_tuning_survives_the_disk_and_can_go_on(tissue, parent, tmp_path):
    child = tl.fit(tissue["new"], model=parent, **QUIET)
    child.save(tmp_path / "child")
    back = HGGEP.load(tmp_path / "child")
    assert back.id == child.id
    assert tl.fit(tissue["new"], model=parent, **QUIET).id == child.id
    third = tl.fit(tissue["old"], model=back, **QUIET)
    assert [type(member) for member in third.members] == [ClosedFormNet]
    assert third.training.model_sections == ["toy1", "toy6", "toy2"]


def test_model_keeps_what_an_update_needs(tissue, parent):
    (net,) = parent.members
    # Rows of both sections, weighted as in the ridge
    slides = (tissue["old"], tissue["old2"])
    raw = [read_panel_counts(slide, parent.genes) for slide in slides]
    weights = [spot_weights(torch.from_numpy(each.sum(axis=1))) for each in raw]
    features = [torch.from_numpy(slide.obsm["X_mine"]) for slide in slides]
    x = [net.scale[0](each) for each in features]
    prior = net.prior
    own = torch.cat([each * w.sqrt()[:, None] for each, w in zip(x, weights, strict=True)])
    total = own.square().sum() * 1.0
    # The other half of the features are means over hyperedges; all directions together hold all rows
    assert float(prior.values.sum()) > float(total)
    gram = (prior.vectors.T * prior.values) @ prior.vectors
    torch.testing.assert_close(gram[: own.shape[1], : own.shape[1]], own.T @ own, rtol=1e-2, atol=1e-2)
    standardized = [torch.from_numpy(log10_cp10k(each)) for each in raw]
    squares = 0
    for z, w in zip(standardized, weights, strict=True):
        share = (w / w.sum())[:, None]
        mean = (share * z).sum(dim=0)
        spread = (share * (z - mean).square()).sum(dim=0).sqrt().clamp_min(0.02)
        squares = squares + (w[:, None] * ((z - mean) / spread @ net.programs.loadings.T).square()).sum(dim=0)
    torch.testing.assert_close(net.prior_strengths, squares / torch.cat(weights).sum(), rtol=1e-3, atol=1e-3)


def test_model_without_a_prior_is_updated_too(tissue, parent):
    (old,) = parent.members
    config = {name: value for name, value in old.config.items() if name != "prior_rank"}
    bare = ClosedFormNet(**config).eval()
    bare.load_state_dict({name: value for name, value in old.state_dict().items() if not name.startswith("prior_")})
    former = HGGEP([bare], parent.genes, parent.inputs, preset=parent.preset, training=parent.training)
    child = tl.fit(tissue["new"], model=former, **QUIET)
    assert child.members[0].prior is None
    assert scores(child, tissue["test"])[0] > scores(parent, tissue["test"])[0] + 0.1


def test_parts_of_the_tissue_are_learned_from_as_if_the_rest_were_not_there(tissue, parent, monkeypatch):
    calls, original = [], _fine_tuning.update_model
    monkeypatch.setattr(_fine_tuning, "update_model", lambda *args: calls.append(args) or original(*args))
    tl.fit(tissue["new"], model=parent, **QUIET)
    ((model, genes, windows, parts),) = calls
    assert len(parts) == 5
    _, solved = original(model, genes, windows, parts)
    for part, net in zip(parts, solved, strict=True):
        assert 0 < sum(int(w.train.sum()) for w in part) < tissue["new"].n_obs
        ((alone,), _) = original(model, genes, part, [])
        inputs = windows[0].inputs
        torch.testing.assert_close(net(*inputs).expression, alone(*inputs).expression, rtol=1e-4, atol=1e-4)


def test_many_measured_spots_are_thinned_by_section():
    values = torch.arange(10.0)
    tissue = MeasuredTissue(values[:, None], values[:, None], values[:, None], values, torch.tensor([0] * 4 + [1] * 6))
    some = tissue.take(3, torch.arange(10) >= 4)
    assert some.weights.tolist() == [4.0, 6.0, 8.0]
    assert some.section.tolist() == [0, 0, 0]  # sections are numbered anew
    assert tissue.take(5).section.tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(tissue.take(10).features, tissue.take(99).features)
