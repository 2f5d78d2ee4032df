"""Predictions beside rows that were sorted, subset, renamed, moved or concatenated, or predicted region by region."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, pl, pp, tl

QUIET = {"show_progress_bar": False}
MERGES = ["same", "unique", "first"]


def toy(seed: int, **options) -> AnnData:
    slide = datasets.toy(seed=seed, size_um=(1500.0, 1500.0), mpp=4.0, n_genes=6, **options)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


def fitted(slide: AnnData, seed: int = 0, genes: slice = slice(None)) -> HGGEP:
    return tl.fit(slide, genes=list(slide.var_names[genes]), obsm="X_mine", n_members=1, max_epochs=1, seed=seed,
                  validation=None, **QUIET)  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> tuple[AnnData, AnnData]:
    return toy(0), toy(2)


@pytest.fixture(scope="module")
def model(drawn) -> HGGEP:
    return fitted(drawn[0])


@pytest.fixture
def two(drawn) -> tuple[AnnData, AnnData]:
    """A section that the model was trained on, and a new one."""
    return drawn[0].copy(), drawn[1].copy()


def marks(data: AnnData, **options) -> dict[str, object]:
    return tl.summary(data, n_boot=0, **options)["trained_on"].to_dict()


# ---------------------------------------------------------------- files


@pytest.fixture(params=[".h5ad", ".zarr"])
def linked(two, model, tmp_path, request) -> AnnData:
    """A new slide whose prediction is in a file."""
    tl.predict(two[1], model, out=tmp_path / f"out{request.param}", **QUIET)
    return two[1]


@pytest.mark.handles("sthggep reads the prediction from the file by the names of the spots.")
@pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda n: np.random.default_rng(0).permutation(n), id="rows in another order"),
        pytest.param(lambda n: np.arange(n)[::2], id="some of the rows"),
        pytest.param(lambda n: np.random.default_rng(0).permutation(n)[: n // 2], id="some rows in another order"),
    ],
)
def test_files_are_read_by_name(linked, two, model, take):
    usual = linked.copy()
    del usual.uns["hggep"]
    tl.predict(usual, model, **QUIET)
    rows = take(usual.n_obs)
    part = linked[rows].copy()
    np.testing.assert_allclose(tl.to_adata(part).X, usual.obsm["hggep"][rows], atol=1e-6)
    pd.testing.assert_series_equal(tl.evaluate(part)["pearson"], tl.evaluate(usual[rows].copy())["pearson"], atol=1e-6)


def renamed(slide: AnnData) -> AnnData:
    slide.obs_names = [f"{name}-1" for name in slide.obs_names]
    return slide


def renumbered(slide: AnnData) -> AnnData:
    """Sorted, and then named by the earlier names in their earlier order."""
    names = slide.obs_names.copy()
    slide = slide[np.random.default_rng(0).permutation(slide.n_obs)].copy()
    slide.obs_names = names
    return slide


def moved(slide: AnnData) -> AnnData:
    slide.obsm["spatial"] = slide.obsm["spatial"] - 5
    return slide


@pytest.mark.handles("sthggep rejects the prediction in the file and states the reason.")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(renamed, "Not in the file: .*-1'.*renamed", id="spots renamed"),
        pytest.param(renumbered, "is of other places", id="rows sorted and renamed in the old order"),
        pytest.param(moved, "is of other places", id="spots moved"),
        pytest.param(
            lambda s: anndata.concat([s, s], index_unique="-", uns_merge="first"),
            "must have one row a spot|must have a place of its own",
            id="two slides concatenated",
        ),
    ],
)
def test_files_of_other_rows_are_refused(linked, change, words):
    changed = change(linked)
    for call in (tl.evaluate, tl.to_adata, lambda data: pl.gene_map(data, str(data.var_names[0]))):
        with pytest.raises(ValueError, match=words):
            call(changed)
    path = changed.uns["hggep"].pop("path")
    with pytest.raises(ValueError, match=r"other spots|other places"):
        tl.attach(changed, path)


def test_attached_slides_know_what_the_model_was_trained_on(two, model, tmp_path):
    slide = two[0]
    tl.predict(slide.copy(), model, out=tmp_path / "out.h5ad", **QUIET)
    tl.attach(slide, tmp_path / "out.h5ad")
    slide.uns["spatial"] = {"other": next(iter(slide.uns["spatial"].values()))}
    assert marks(slide) == {"other": True}
    again = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert again.obs["hggep_source"].str.endswith("(trained on)").all()


# ---------------------------------------------------------------- the mark of training tissue


@pytest.mark.handles("`trained_on` follows the rows of the section.")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("index_unique", [None, "-"])
def test_the_mark_survives_concat(two, model, merge, reverse, index_unique):
    for slide in two:
        tl.predict(slide, model, **QUIET)
    if index_unique is None:
        renamed(two[1])
    parts = {"a": two[0], "b": two[1]}
    parts = dict(reversed(parts.items())) if reverse else parts
    both = anndata.concat(parts, label="section", index_unique=index_unique, uns_merge=merge)
    assert marks(both, library_key="section") == {"a": True, "b": False}


@pytest.mark.handles("`trained_on` stays True.")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s[::2].copy(), id="some of the rows"),
        pytest.param(renamed, id="spots renamed"),
        pytest.param(lambda s: s[::-1].copy(), id="rows in another order"),
    ],
)
def test_the_mark_follows_the_rows(two, model, change, tmp_path):
    slide = two[0]
    tl.predict(slide, model, **QUIET)
    slide = change(slide)
    slide.uns["spatial"] = {"other": next(iter(slide.uns["spatial"].values()))}
    slide.write_h5ad(tmp_path / "slide.h5ad")
    slide.write_zarr(tmp_path / "slide.zarr")
    for data in (slide, anndata.read_h5ad(tmp_path / "slide.h5ad"), anndata.read_zarr(tmp_path / "slide.zarr")):
        with pytest.warns(UserWarning, match="trained on"):
            assert marks(data) == {"other": True}


def test_a_lost_mark_is_not_known(two, model):
    tl.predict(two[1], model, **QUIET)
    del two[1].obs["hggep_source"]
    with pytest.warns(UserWarning, match="Whether the model was trained on 'toy3' is not known"):
        assert np.isnan(marks(two[1])["toy3"])


# ---------------------------------------------------------------- records


@pytest.mark.handles("The error says that `concat` dropped the record of the prediction, and how to keep it.")
@pytest.mark.parametrize("merge", [None, "only"], ids=["concat without uns_merge", "concat with uns_merge=only"])
def test_concat_without_records(two, model, merge):
    for slide in two:
        tl.predict(slide, model, **QUIET)
    both = anndata.concat({"a": two[0], "b": two[1]}, label="section", index_unique="-", uns_merge=merge)
    with pytest.raises(KeyError, match=r"has no record in uns.*uns_merge='same'"):
        tl.evaluate(both, library_key="section")
    with pytest.raises(ValueError, match=r"record in uns was lost.*uns_merge='same'"):
        tl.predict(both, model, library_key="section", **QUIET)
    del both.obsm["hggep"]
    tl.predict(both, model, library_key="section", **QUIET)
    assert np.isfinite(both.obsm["hggep"]).all()


@pytest.mark.parametrize("merge", MERGES)
def test_concat_of_predictions_of_different_genes(two, model, merge):
    """Columns of one would get the gene names of the other."""
    tl.predict(two[0], model, **QUIET)
    tl.predict(two[1], model, genes=model.genes[::-1], **QUIET)
    both = anndata.concat({"a": two[0], "b": two[1]}, label="section", index_unique="-", uns_merge=merge)
    words = (
        "are of another model or of other genes" if merge == "first" else "merged the records of different predictions"
    )
    with pytest.raises(ValueError, match=words):
        tl.evaluate(both, library_key="section")


@pytest.mark.handles("sthggep does not take the counts in `X` for the prediction.")
@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda s: s.obsm.pop("hggep"), id="the array deleted, the record left"),
        pytest.param(lambda s: s.uns.update(hggep={"tool": "sthggep"}), id="an interrupted call"),
        pytest.param(lambda s: s.uns.update(hggep={}), id="an empty record"),
    ],
)
def test_halves_of_a_prediction(two, model, lose):
    slide = two[1]
    tl.predict(slide, model, **QUIET)
    expected = slide.obsm["hggep"].copy()
    lose(slide)
    for call in (tl.evaluate, tl.to_adata, tl.top_genes):
        with pytest.raises((KeyError, ValueError), match=r"tl\.predict|record in uns"):
            call(slide)
    if not slide.uns["hggep"]:
        del slide.obsm["hggep"]
    tl.predict(slide, model, **QUIET)
    np.testing.assert_array_equal(slide.obsm["hggep"], expected)


# ---------------------------------------------------------------- regions


@pytest.fixture
def regions():
    from spatialdata import concatenate

    parts = {}
    for seed, name in enumerate("ab"):
        parts[name] = datasets.toy(seed=seed, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=6, as_spatialdata=True)
        table = parts[name]["table"]
        table.obsm["X_mine"] = table.obsm.pop("morphology").to_numpy(dtype=np.float32)
    return concatenate(parts, concatenate_tables=True)


@pytest.mark.parametrize("out", [None, ".h5ad"])
def test_regions_one_after_the_other(regions, out, tmp_path):
    table = regions["table"]
    model = tl.fit(regions, genes=list(table.var_names[:4]), obsm="X_mine", n_members=2, max_epochs=1, validation=None,
                   **QUIET)  # fmt: skip
    tl.predict(regions, model, key_added="whole", latent=True, **QUIET)
    names = list(table.obs["region"].unique())
    for i, name in enumerate(names):
        path = {} if out is None else {"out": tmp_path / f"{i}{out}"}
        tl.predict(regions, model, shapes_key=name, latent=True, **path, **QUIET)
    result = tl.to_adata(regions)
    np.testing.assert_allclose(result.X, table.obsm["whole"], atol=1e-6)
    np.testing.assert_allclose(result.obsm["X_hggep"], table.obsm["X_whole"], atol=1e-5)
    assert list(table.uns["hggep"]["params"]["sections"]) == names
    assert len(table.uns["hggep"]["params"]["mpp"]) == len(names)
    # The same region again
    tl.predict(regions, model, shapes_key=names[0], latent=True, **QUIET)
    assert sorted(table.uns["hggep"]["params"]["sections"]) == sorted(names)
    np.testing.assert_allclose(tl.to_adata(regions).X, table.obsm["whole"], atol=1e-6)


@pytest.mark.handles(
    "`tl.predict` rejects the call before work starts, because it would erase the prediction of the other region."
)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"seed": 1}, id="a second region by another model"),
        pytest.param({"genes": True}, id="a second region with other genes"),
        pytest.param({"latent": True}, id="a second region with an embedding"),
    ],
)
def test_other_predictions_of_a_second_region(regions, options):
    table = regions["table"]
    fit = {"genes": list(table.var_names[:4]), "obsm": "X_mine", "n_members": 1, "max_epochs": 1, "validation": None}
    model = tl.fit(regions, **fit, **QUIET)
    first, second = table.obs["region"].unique()
    tl.predict(regions, model, shapes_key=first, **QUIET)
    before = table.obsm["hggep"].copy()
    if seed := options.pop("seed", 0):
        model = tl.fit(regions, seed=seed, **fit, **QUIET)
    if options.pop("genes", False):
        options["genes"] = model.genes[:2]
    with pytest.raises(ValueError, match=r"holds predictions of \d+ other spots.*would erase them.*key_added"):
        tl.predict(regions, model, shapes_key=second, **options, **QUIET)
    np.testing.assert_array_equal(table.obsm["hggep"], before)
    tl.predict(regions, model, shapes_key=second, key_added="other", **options, **QUIET)
    tl.predict(regions, model, **options, **QUIET)
    assert np.isfinite(table.obsm["hggep"]).all()


def test_hypergraphs_of_regions_one_after_the_other(regions):
    table = regions["table"]
    pp.hypergraph(regions, key_added="whole")
    first, second = table.obs["region"].unique()
    pp.hypergraph(regions, shapes_key=second)
    pp.hypergraph(regions, shapes_key=first)
    pp.hypergraph(regions, shapes_key=second)
    order = np.argsort(table.uns["hypergraph"]["spot"])
    np.testing.assert_array_equal(
        table.obsm["hypergraph"].toarray()[:, order],
        table.obsm["whole"].toarray()[:, np.argsort(table.uns["whole"]["spot"])],
    )
    with pytest.raises(ValueError, match="would erase them"):
        pp.hypergraph(regions, shapes_key=first, n_spatial=3)
