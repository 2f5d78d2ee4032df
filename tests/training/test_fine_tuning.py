"""Fine-tuning of a trained model: new tissue is learned, little is forgotten, and the model itself does not change."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from sthggep import HGGEP, datasets, tl
from sthggep._inputs._inputs import Inputs
from sthggep._training._fine_tuning import with_genes
from sthggep._training._update import _with_change
from sthggep.nn import FeatureHGGEPNet, HGGEPNet
from sthggep.nn._programs import GenePrograms, of_fewer_genes

QUIET = {"show_progress_bar": False}
OPTIONS = {"device": "cpu", "n_members": 2, "max_epochs": 6, **QUIET}
N_GENES = 16


def toy(seed: int, shifted: bool = False):
    """A section with user features; in shifted tissue both stain (the features) and expression differ."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=4.0, n_genes=N_GENES)
    values = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.obsm["X_mine"] = values
    if shifted:
        slide.obsm["X_mine"] = values * 1.5 + 3
        # Genes swap roles: a gene that follows nuclei here follows collagen in the other tissue
        slide.X = slide.X[:, np.roll(np.arange(N_GENES), 2)].copy()
    return slide


@pytest.fixture(scope="module")
def tissue():
    return {name: toy(seed, name != "old") for seed, name in enumerate(("old", "new", "test"))} | {"old2": toy(5)}


@pytest.fixture(scope="module")
def parent(tissue, with_networks) -> HGGEP:
    genes = list(tissue["old"].var_names)
    with with_networks():
        return tl.fit([tissue["old"], tissue["old2"]], genes=genes, obsm="X_mine", **OPTIONS)


@pytest.fixture(scope="module")
def child(tissue, parent) -> HGGEP:
    return tl.fit(tissue["new"], model=parent, **OPTIONS)


def score(model: HGGEP, slide) -> float:
    tl.predict(slide, model, key_added="found", **QUIET)
    return float(tl.evaluate(slide, "found")["pearson"].mean())


def predicted(model: HGGEP, slide) -> np.ndarray:
    tl.predict(slide, model, key_added="found", **QUIET)
    return slide.obsm["found"]


def rmse(model: HGGEP, slide) -> float:
    tl.predict(slide, model, key_added="found", **QUIET)
    return float(tl.evaluate(slide, "found")["rmse"].mean())


# ---------------------------------------------------------------- new tissue


def test_new_tissue_is_learned(tissue, parent, child):
    assert score(child, tissue["test"]) > score(parent, tissue["test"]) + 0.1
    assert rmse(child, tissue["test"]) < rmse(parent, tissue["test"]) - 0.05


def test_old_tissue_changes_the_model_little(tissue, parent):
    tuned_on_old = tl.fit([tissue["old"], tissue["old2"]], model=parent, **OPTIONS)
    fresh = toy(6)
    assert score(tuned_on_old, fresh) == pytest.approx(score(parent, fresh), abs=0.03)


def test_few_spots_change_the_model_little(tissue, parent):
    first, most = (np.arange(tissue["new"].n_obs) < n for n in (6, 60))
    few, many = (
        tl.fit(tissue["new"], model=parent, measured=mask, validation=None, **OPTIONS) for mask in (first, most)
    )
    old, *new = (predicted(model, tissue["test"]) for model in (parent, few, many))
    changes = [np.abs(values - old).mean() for values in new]
    assert 0 < changes[0] < 0.7 * changes[1]


def test_the_parent_does_not_change(tissue, parent):
    before = {name: value.clone() for name, value in parent.members.state_dict().items()}
    record, name = deepcopy(parent.training), parent.id
    tl.fit(tissue["new"], model=parent, **{**OPTIONS, "max_epochs": 1})
    for key, value in parent.members.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert (parent.training, parent.id) == (record, name)
    assert not any(module.training for module in parent.members.modules())


def test_unchanged_parts_and_the_record(parent, child):
    assert (child.genes, child.inputs, child.preset) == (parent.genes, parent.inputs, parent.preset)
    assert [type(m) for m in child.members] == [FeatureHGGEPNet] * 2
    for old, new in zip(parent.members, child.members, strict=True):
        # Networks stay; their scores are written in the joined programs
        assert torch.equal(old.project[0][1].weight, new.project[0][1].weight)
        assert torch.equal(old.blend, new.blend)
        assert new.config["rank"] == len(new.programs.loadings) > 0
    assert len(child.history) == 0
    assert child.training.model == parent.id != child.id
    assert child.training.model_sections == ["toy1", "toy6"]
    assert child.training.sections == ["toy2"]


def test_seed_and_disk(tissue, parent, child, tmp_path):
    parent.save(tmp_path / "parent")
    for folder in (tmp_path / "parent", str(tmp_path / "parent")):
        assert tl.fit(tissue["new"], model=folder, **OPTIONS).id == child.id
    child.save(tmp_path / "tuned")
    back = HGGEP.load(tmp_path / "tuned")
    assert back.id == child.id
    assert back.training.model == parent.id
    third = tl.fit(tissue["old"], model=back, **{**OPTIONS, "max_epochs": 1})
    assert third.training.model_sections == ["toy1", "toy6", "toy2"]


# ---------------------------------------------------------------- genes


def test_some_of_its_genes(tissue, parent):
    genes = parent.genes[::-1][:13]
    child = tl.fit(tissue["new"], model=parent, genes=genes, **OPTIONS)
    assert child.genes == genes
    assert [member.programs.loadings.shape[1] for member in child.members] == [13, 13]
    assert score(child, tissue["test"]) > 0.2
    assert rmse(child, tissue["test"]) < 0.6  # on the scale of the smaller panel


def test_fewer_genes_than_programs(tissue, parent):
    genes = parent.genes[::3][:5]
    child = tl.fit(tissue["new"], model=parent, genes=genes, **OPTIONS)
    assert all(len(member.programs.loadings) <= 5 == member.programs.loadings.shape[1] for member in child.members)
    without_tuning = HGGEP(
        [with_genes(m, [parent.genes.index(g) for g in genes]) for m in parent.members], genes, parent.inputs
    )
    assert score(child, tissue["test"]) > score(without_tuning, tissue["test"]) + 0.1
    assert rmse(child, tissue["test"]) < 0.6 * rmse(without_tuning, tissue["test"])
    # A model that already has fewer genes than programs can be fine-tuned on even fewer genes
    third = tl.fit(tissue["new"], model=child, genes=genes[:0:-1], **{**OPTIONS, "max_epochs": 1})
    assert all(len(member.programs.loadings) <= 4 == member.programs.loadings.shape[1] for member in third.members)


def test_the_order_of_the_genes_does_not_matter(tissue, parent):
    options = {**OPTIONS, "validation": None, "max_epochs": 1}
    in_order = tl.fit(tissue["new"], model=parent, **options)
    reversed_order = tl.fit(tissue["new"], model=parent, genes=parent.genes[::-1], **options)
    tl.predict(tissue["test"], in_order, key_added="straight", **QUIET)
    tl.predict(tissue["test"], reversed_order, key_added="turned", genes=parent.genes, **QUIET)
    np.testing.assert_allclose(tissue["test"].obsm["turned"], tissue["test"].obsm["straight"], atol=1e-3)


@pytest.mark.parametrize("columns", [[11, 0, 3, 4, 5, 6, 7, 8, 2], [11, 0, 3], [4]])  # of 8 programs
@pytest.mark.parametrize("head", [None, "zinb", "nb"])
def test_selected_outputs_do_not_change(head, columns):
    torch.manual_seed(0)
    net = FeatureHGGEPNet([5], 12, dim=16, heads=2, count_head=head).eval()
    net.blend.fill_(0.3)
    net.programs.damp.copy_(torch.linspace(1.0, 0.2, 8))
    torch.nn.init.normal_(net.shortcut.weight)
    neighbors = torch.tensor([[0, 1], [1, 0], [2, 1]])
    inputs = ([torch.randn(3, 5)], neighbors, torch.zeros(3, 2, 2), torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), 2)
    selected = with_genes(net, columns).eval()
    with torch.no_grad():
        whole, part = net(*inputs), selected(*inputs)
    assert selected.programs.loadings.shape == (min(8, len(columns)), len(columns))
    for name in ("expression", "mean", "dropout", "r", "p"):
        if (full := getattr(whole, name)) is not None:
            torch.testing.assert_close(getattr(part, name), full[:, columns])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"genes": ["STRO1", "ACTB"]}, KeyError, r"1 of 2 genes are not in the model.*cannot add genes.*'ACTB'"),
        ({"genes": ["STRO1", "STRO1"]}, ValueError, "more than once"),
        (
            {"genes": ["STRO1"]},
            ValueError,
            r"one gene, 'STRO1'.*always 1 for a single gene.*predict\(data, model, genes",
        ),
        ({"preset": "paper"}, ValueError, "`preset='paper'` was passed"),
        ({"obsm": "X_mine"}, ValueError, "you passed `obsm`"),
        ({"encoder": "shufflenet", "weights": "random"}, ValueError, "you passed `encoder`, `weights`"),
        ({"model": "no/such/folder"}, FileNotFoundError, "no/such/folder"),
        ({"model": 3}, TypeError, "`model` must be an HGGEP or text or a path, found 3"),
    ],
)
def test_bad_arguments_are_refused(tissue, parent, options, error, words):
    with pytest.raises(error, match=words):
        tl.fit(tissue["new"], **({"model": parent} | OPTIONS | options))


def test_unsuitable_slides_are_refused(tissue, parent):
    incomplete = tissue["new"][:, :-1].copy()
    with pytest.raises(
        KeyError,
        match=r"1 of 16 genes are not in var_names of section .* \(fine-tuning trains on the genes of `model`\).*leave them out of `genes`",
    ):
        tl.fit(incomplete, model=parent, **OPTIONS)
    genes = list(incomplete.var_names)
    assert tl.fit(incomplete, model=parent, genes=genes, **{**OPTIONS, "max_epochs": 1}).genes == genes
    narrow = tissue["new"].copy()
    narrow.obsm["X_mine"] = narrow.obsm["X_mine"][:, 1:]
    with pytest.raises(ValueError, match=r"holds 5 features a spot, but the model was trained on 6"):
        tl.fit(narrow, model=parent, **OPTIONS)


# ---------------------------------------------------------------- closed forms


def test_programs_keep_their_scores():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(60, 9, generator=generator) @ torch.randn(9, 9, generator=generator)
    programs, ones = GenePrograms(9, rank=3), torch.ones(60)
    (scores,) = programs.start([target], [ones])
    mean, loadings = programs.mean.clone(), programs.loadings.clone()
    (new_scores,) = programs.adapt([target + 1], [ones], share=0.25)
    torch.testing.assert_close(new_scores, scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(programs.mean, mean + 0.25, rtol=1e-4, atol=1e-4)
    assert torch.equal(programs.loadings, loadings)


def test_measured_and_predicted_scores_agree_with_fewer_genes():
    generator = torch.Generator().manual_seed(0)
    loadings = torch.linalg.qr(torch.randn(9, 9, generator=generator))[0][:6]
    scores, columns = torch.randn(40, 6, generator=generator), [7, 0, 4]
    new, damp, turn = of_fewer_genes(loadings[:, columns], torch.ones(6))
    torch.testing.assert_close(damp, torch.ones(3))
    # Scores measured on three genes in the new programs equal the converted old scores
    torch.testing.assert_close(
        scores @ loadings[:, columns] @ torch.linalg.pinv(new), scores @ turn, rtol=1e-3, atol=1e-4
    )
    # Each program keeps its damping
    new, damp, turn = of_fewer_genes(loadings[:, columns], torch.linspace(1, 0.1, 6))
    torch.testing.assert_close(scores @ turn * damp @ new, scores * torch.linspace(1, 0.1, 6) @ loadings[:, columns])
    assert (damp > 0.1).all()
    assert (damp < 1).all()


@pytest.mark.parametrize("blend", [0.0, 0.25, 1.0])
def test_change_counts_whole_beside_any_share_of_the_network(blend):
    generator = torch.Generator().manual_seed(0)
    net = FeatureHGGEPNet([5], 12, rank=4, dim=16, heads=2, linear=True).eval()
    net.blend.fill_(blend)
    net.programs.damp.copy_(torch.linspace(1.0, 0.2, 4))
    net.programs.spread.fill_(2.0)
    net.shortcut.weight.normal_(generator=generator)
    x, change = torch.randn(3, 5, generator=generator), torch.randn(5, 2, generator=generator)
    loadings, damp = torch.linalg.qr(torch.randn(12, 2, generator=generator))[0].T, torch.tensor([1.0, 0.5])
    neighbors = torch.tensor([[0, 1], [1, 0], [2, 1]])
    inputs = ([x], neighbors, torch.zeros(3, 2, 2), torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), 2)
    with torch.no_grad():
        before, after = net(*inputs).expression, _with_change(net, 0.5, change, loadings, damp)(*inputs).expression
        features = net.shortcut.spread(net._joined(net.scaled([x])), None)
    torch.testing.assert_close(after, 0.5 * before + 2 * (features @ change * damp) @ loadings, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- other networks, real encoders


def test_networks_on_patches_can_be_fine_tuned():
    slide = datasets.toy(seed=0, size_um=(900.0, 900.0), mpp=2.0, n_genes=6)
    torch.manual_seed(0)
    net = HGGEPNet(6, dim=16, depth=1, heads=2, hypergraph_dim=8, fusion_layers=1)
    parent = HGGEP([net], list(slide.var_names), Inputs("patches"), preset="paper")
    options = {"device": "cpu", "max_epochs": 1, "validation": None, **QUIET}
    child = tl.fit(slide, model=parent, trainer_kwargs={"precision": "32-true"}, **options)
    assert rmse(child, slide) < rmse(parent, slide)
    assert torch.allclose(child.members[0].backbone.conv5[0].weight, net.backbone.conv5[0].weight, atol=1e-4)
    smaller = tl.fit(
        slide, model=parent, genes=list(slide.var_names)[3:5], trainer_kwargs={"precision": "32-true"}, **options
    )
    assert smaller.members[0].config["n_genes"] == 2


def test_the_encoder_is_that_of_the_parent(slides, model, monkeypatch):
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # the test fails if something is downloaded
    child = tl.fit(slides[2], model=model, **{**OPTIONS, "max_epochs": 1})
    assert child.training.encoder_weights == model.training.encoder_weights
    for name, value in child.encoder_state.items():
        assert torch.equal(value, model.encoder_state[name])
    tl.predict(slides[1], child, **QUIET)
    assert np.isfinite(slides[1].obsm["hggep"]).all()
