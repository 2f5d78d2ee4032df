"""Parts of predictions: they add up, and maps hold what the windows of the spots add."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, tl
from sthggep._encoders._entry import AROUND_UM
from sthggep.model._attribution import map_tissue
from sthggep.tl import Attribution

CPU = {"device": "cpu", "show_progress_bar": False}
GENE = "STRO1"
AROUND = (0.0, *AROUND_UM)
Context = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def closed_form(_sections: list[AnnData], fit_options: dict[str, object]) -> HGGEP:
    """A small model without networks, solved on the first two sections."""
    return tl.fit(_sections[:2], genes=list(_sections[0].var_names), **{**fit_options, "n_members": 0})


def predicted(slide: AnnData, model: HGGEP, gene: str) -> np.ndarray:
    tl.predict(slide, model, key_added="again", **CPU)
    return slide.obsm["again"][:, model.genes.index(gene)]


def check_parts(carried: Attribution, slide: AnnData, expected: np.ndarray) -> None:
    """The parts of each spot add up to its prediction, and the shares of the parts to 1."""
    assert carried.table.index.equals(slide.obs_names)
    np.testing.assert_allclose(carried.table.sum(axis=1), expected, rtol=0, atol=1e-4 + 1e-6 * np.abs(expected).max())
    pd.testing.assert_series_equal(carried.prediction, carried.table.sum(axis=1).rename(carried.name))
    assert carried.importance.sum() == pytest.approx(1, abs=1e-4)
    covariance = np.cov(carried.table.to_numpy().T, carried.prediction)
    np.testing.assert_allclose(carried.importance, covariance[-1, :-1] / covariance[-1, -1], atol=1e-4)


def morphology(seed: int) -> AnnData:
    """A section whose features are the truth about it."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=8)
    slide.obsm["truth"] = slide.obsm["morphology"].to_numpy(np.float32)
    slide.obsm["squares"] = slide.obsm["truth"] ** 2
    return slide


# ---------------------------------------------------------------- parts


def test_parts_of_a_closed_form_on_the_tissue(closed_form: HGGEP, slides: list[AnnData]):
    slide = slides[2]
    carried = tl.attribution(slide, closed_form, GENE, **CPU)
    check_parts(carried, slide, predicted(slide, closed_form, GENE))
    fields = ["320 µm own", "320 µm neighbors", "640 µm own", "640 µm neighbors"]
    assert list(carried.table) == [*fields, "mean", "network"]
    assert (carried.name, carried.units, carried.section) == (GENE, closed_form.units, "toy3")
    assert (carried.table["network"] == 0).all()
    assert carried.table["mean"].nunique() == 1
    assert (carried.table[fields].std() > 1e-4).all()
    # The section's mean tissue is what the parts are relative to, and the spots stand for it roughly
    assert abs(carried.table[fields].mean().sum()) < carried.prediction.std()


def test_parts_of_a_model_with_networks(model: HGGEP, slides: list[AnnData]):
    slide = slides[2]
    carried = tl.attribution(slide, model, GENE, **CPU)
    check_parts(carried, slide, predicted(slide, model, GENE))
    assert carried.table["network"].std() > 1e-3


def test_parts_of_a_gene_program(closed_form: HGGEP, slides: list[AnnData]):
    slide = slides[2]
    tl.predict(slide, closed_form, latent=True, **CPU)
    carried = tl.attribution(slide, closed_form, program=1, **CPU)
    check_parts(carried, slide, slide.obsm["X_hggep"][:, 1])
    assert (carried.name, carried.units) == ("program 1", "program score")
    assert (carried.table["mean"] == 0).all()


def test_parts_of_a_model_that_reads_patches():
    """Its neighbors are those of the hyperedges."""
    train, new = (datasets.toy(seed=seed, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=8) for seed in (0, 1))
    options = {"weights": "random", "encoding": "patches", "size_um": 320, "n_members": 0, **CPU}
    patches = tl.fit(train, genes=list(train.var_names), validation=None, **options)
    carried = tl.attribution(new, patches, GENE, **CPU)
    check_parts(carried, new, predicted(new, patches, GENE))
    assert list(carried.table)[:2] == ["320 µm own", "320 µm neighbors"]
    assert carried.table["320 µm neighbors"].std() > 1e-3
    with pytest.raises(ValueError, match=r"needs a model that reads feature maps of the tissue .*encoding='tissue'"):
        carried.map()


def test_parts_of_a_model_of_features(with_networks: Context):
    train, new = morphology(0), morphology(1)
    options = {"obsm": ["truth", "squares"], "n_members": 2, "max_epochs": 2, **CPU}
    with with_networks():
        features = tl.fit(train, genes=list(train.var_names), **options)
    tables = []
    for share in (0.0, 0.25):
        for member in features.members:
            member.blend.fill_(share)
        carried = tl.attribution(new, features, GENE, **CPU)
        check_parts(carried, new, predicted(new, features, GENE))
        tables.append(carried.table)
    alone, with_share = tables
    assert list(alone) == ["truth own", "truth neighbors", "squares own", "squares neighbors", "mean", "network"]
    np.testing.assert_allclose(alone["network"], 0, atol=1e-6)
    assert with_share["network"].std() > 1e-3
    # The networks take their share from each part of the closed form
    np.testing.assert_allclose(with_share.iloc[:, :4], 0.75 * alone.iloc[:, :4], atol=1e-5)
    with pytest.raises(ValueError, match="needs a model that reads feature maps"):
        carried.map()


def test_parts_of_targets_are_on_their_scale():
    train, new = morphology(0), morphology(1)
    train.obsm["fat and fiber"] = 1000 * train.obsm["morphology"][["fat", "fiber"]]
    targets = tl.fit(train, targets="fat and fiber", obsm="squares", n_members=2, max_epochs=2, **CPU)
    carried = tl.attribution(new, targets, "fiber", **CPU)
    check_parts(carried, new, predicted(new, targets, "fiber"))
    assert carried.units == "as in obsm['fat and fiber']"
    mean = train.obsm["fat and fiber"]["fiber"].mean()
    np.testing.assert_allclose(carried.table["mean"], mean, rtol=0.05)
    assert carried.table["squares own"].std() > 50


def test_a_constant_prediction_has_no_shares(closed_form: HGGEP, slides: list[AnnData]):
    carried = tl.attribution(slides[2], closed_form, GENE, **CPU)
    carried.table[:] = 1.0
    assert carried.importance.isna().all()


# ---------------------------------------------------------------- maps


def keep_window(model: HGGEP, window: int) -> HGGEP:
    """The model with weights on one of the windows alone: 0 is a spot's own, the others are around it."""
    alone = copy.deepcopy(model)
    for net in alone.members:
        at = 0
        for width in net.feature_dims:
            part = net.shortcut.weight.data[at : at + width].reshape(net.n_windows, -1, net.shortcut.weight.shape[1])
            part[:window], part[window + 1 :] = 0, 0
            at += width
    return alone


@pytest.mark.parametrize(
    ("which", "window"), [("model", 0), *(("closed_form", window) for window in range(len(AROUND)))]
)
def test_map_over_a_window_is_what_the_window_adds(which: str, window: int, slides: list[AnnData], request):
    """A square as large as a window, on a spot, equals the part of this window in the spot's prediction."""
    alone = keep_window(request.getfixturevalue(which), window)
    carried = tl.attribution(slides[2], alone, GENE, **CPU)
    slide, encoder = carried.slide, alone.encoder(device="cpu")
    for i, size in enumerate((320.0, 640.0)):
        options = {"centers": slide.xy, "size_um": size + AROUND[window]}
        squares = map_tissue(alone, slide, carried.target, encoder, **options)[i]
        own, neighbors = (carried.table[f"{size:g} µm {kind}"].to_numpy() for kind in ("own", "neighbors"))
        added, other = (own, neighbors) if window == 0 else (neighbors, own)
        assert added.std() > 1e-4
        np.testing.assert_allclose(squares, added, atol=1e-5)
        np.testing.assert_allclose(other, 0, atol=1e-6)


@pytest.fixture(scope="module")
def carried(closed_form: HGGEP, _sections: list[AnnData]) -> Attribution:
    return tl.attribution(_sections[2], closed_form, GENE, **CPU)


def test_map_is_laid_over_the_spots(carried: Attribution):
    values = carried.map(size_um=100.0, **CPU)
    assert values.dims == ("part", "y", "x")
    assert values["part"].values.tolist() == ["320 µm", "640 µm", "all"]
    assert values.name == GENE
    assert values.attrs == {"size_um": 100.0, "units": carried.units, "section": "toy3"}
    np.testing.assert_allclose(values.sel(part="all"), values[:2].sum("part"), atol=1e-5)
    low, high = carried.slide.xy.min(axis=0), carried.slide.xy.max(axis=0)
    for axis, name in enumerate(("x", "y")):
        centers = values[name].values
        np.testing.assert_allclose(np.diff(centers), 50.0)  # 100 µm at 2 µm a pixel
        # Half a field of view of 320 µm around the spots is 80 pixels, as far as the image goes
        assert centers[0] - 25 == pytest.approx(max(low[axis] - 80, 0))
        assert 0 <= centers[-1] + 25 - min(high[axis] + 80, 1000) < 50


def test_large_squares_are_means_of_small_ones(carried: Attribution):
    small, large = (carried.map(size_um=size, **CPU) for size in (100.0, 200.0))
    rows, columns = small.shape[1] // 2, small.shape[2] // 2
    fours = small.values[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2)
    np.testing.assert_allclose(large.values[:, :rows, :columns], fours.mean(axis=(2, 4)), atol=1e-5)
    np.testing.assert_allclose(large["x"][:columns], small["x"].values[: 2 * columns].reshape(-1, 2).mean(axis=1))


def test_map_shows_the_cause_of_a_gene():
    """Fat and fibers determine these genes of the toy tissue, and what their squares add follows them."""
    train = [datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=8) for seed in range(2)]
    options = {"size_um": 160, "n_members": 0, "validation": None, **CPU}
    model = tl.fit(train, genes=list(train[0].var_names), **options)
    new = datasets.toy(seed=5, size_um=(1600.0, 1400.0), mpp=2.0, n_genes=8)
    for gene in ("FAT1", "STRO1"):
        carried = tl.attribution(new, model, gene, **CPU)
        squares = {"centers": carried.slide.xy, "size_um": 110.0}  # what the toy tissue is measured in
        added = map_tissue(model, carried.slide, carried.target, model.encoder(device="cpu"), **squares).sum(axis=0)
        truth = new.obsm["morphology"][new.var.loc[gene, "quantity"]]
        assert np.corrcoef(added, truth)[0, 1] > 0.5


# ---------------------------------------------------------------- errors


def test_one_of_gene_and_program(closed_form: HGGEP, toy: AnnData):
    for options in ({}, {"gene": GENE, "program": 0}):
        with pytest.raises(ValueError, match="Pass either `gene`, a gene of the model, or `program`"):
            tl.attribution(toy, closed_form, **options)


def test_unknown_genes_and_programs(closed_form: HGGEP, model: HGGEP, toy: AnnData):
    with pytest.raises(KeyError, match="STRO99"):
        tl.attribution(toy, closed_form, "STRO99")
    rank = len(closed_form.members[0].programs.damp)
    with pytest.raises(ValueError, match=rf"`program={rank}`: this model has programs 0 to {rank - 1}"):
        tl.attribution(toy, closed_form, program=rank)
    with pytest.raises(ValueError, match="has networks, each with programs of its own"):
        tl.attribution(toy, model, program=0)


def test_models_without_a_closed_form():
    train = datasets.toy(size_um=(1000.0, 1000.0), mpp=8.0, n_genes=4)
    options = {"weights": "random", "max_epochs": 1, "validation": None, **CPU}
    published = tl.fit(train, genes=list(train.var_names), preset="paper", **options)
    with pytest.raises(ValueError, match="A model of the default preset was expected, which has a closed form"):
        tl.attribution(train, published, GENE)


def test_too_many_squares(carried: Attribution):
    with pytest.raises(ValueError, match=r"`size_um=0.1` makes .* squares, 4,000,000 at most. Pass 0.\d+ or more"):
        carried.map(size_um=0.1, **CPU)
    with pytest.raises(ValueError, match="`size_um` must be a positive number"):
        carried.map(size_um=0.0)
