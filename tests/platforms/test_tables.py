"""Tables of users: log-normalized, with Ensembl ids, with spots off the tissue. Results stay the same."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from PIL import Image

from sthggep import pl, pp, tl
from sthggep._slides._resolve import resolve_one

FIT = {"obsm": "morphology", "n_members": 1, "max_epochs": 3, "validation": None, "show_progress_bar": False}
ENSEMBL = "ENSG{:011d}.{}"


@pytest.fixture
def plain(toy: AnnData) -> AnnData:
    return toy.copy()


@pytest.fixture
def normalized_with_ids(toy: AnnData) -> AnnData:
    """The same section in another form: normalized, Ensembl ids with versions, counts in a layer."""
    adata = toy.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.var["gene_symbols"] = adata.var_names.astype(str)
    adata.var_names = [ENSEMBL.format(i, i % 7 + 1) for i in range(adata.n_vars)]
    return adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()


def test_another_form_of_the_table_gives_the_same_model_and_scores(
    plain: AnnData, normalized_with_ids: AnnData, caplog
):
    genes = list(plain.var_names)
    model = tl.fit(plain, genes=genes, **FIT)
    with caplog.at_level(logging.INFO, logger="sthggep"):
        assert tl.fit(normalized_with_ids, genes=genes, **FIT).id == model.id
    assert "Reading raw counts from layers['counts']" in caplog.text
    assert "Matching genes by var['gene_symbols']" in caplog.text
    scores = []
    for slide in (plain, normalized_with_ids):
        with warnings.catch_warnings():
            # no warning about genes that are not in the table
            warnings.filterwarnings("error", message="None of the model's")
            warnings.filterwarnings("ignore", message="The prediction is of tissue")
            tl.predict(slide, model, show_progress_bar=False)
        scores.append(tl.evaluate(slide))
        figure = pl.gene_map(slide, "NUCL1", image=False)
        assert [ax.get_title().split("  ")[0] for ax in figure.axes] == ["NUCL1 observed", "NUCL1 predicted"]
    pd.testing.assert_frame_equal(*scores)
    assert list(scores[1].index) == genes
    rows = tl.agreement(normalized_with_ids, labels_key="domain")
    assert list(rows.index) == ["predicted", "observed", "coordinates"]


def test_panel_of_ensembl_ids_on_a_table_with_symbols(plain: AnnData, normalized_with_ids: AnnData):
    model = tl.fit(normalized_with_ids, genes=list(normalized_with_ids.var_names), **FIT)
    plain.var["gene_ids"] = [ENSEMBL.format(i, 9) for i in range(plain.n_vars)]
    tl.predict(plain, model, show_progress_bar=False)
    tl.predict(normalized_with_ids, model, show_progress_bar=False)
    pd.testing.assert_frame_equal(tl.evaluate(plain), tl.evaluate(normalized_with_ids))


def test_counts_in_raw(plain: AnnData):
    adata = plain.copy()
    adata.raw = plain
    adata.X = adata.X.log1p()
    few = adata[:, :6].copy()
    assert tl.fit(few, genes=list(plain.var_names), **FIT).id == tl.fit(plain, genes=list(plain.var_names), **FIT).id


def test_spots_off_the_tissue_are_not_used_for_training_scores_or_predictions(plain: AnnData, caplog):
    off = np.arange(plain.n_obs) % 4 == 0
    whole, genes = plain.copy(), list(plain.var_names)
    whole.obs["in_tissue"] = np.where(off, 0, 1)
    whole.X[off] = 7
    part = plain[~off].copy()
    with caplog.at_level(logging.INFO, logger="sthggep"):
        model = tl.fit(whole, genes=genes, **FIT)
    assert (
        f"leaves out {off.sum()} of {len(off)} spots, which are off the tissue (obs['in_tissue'] is 0)" in caplog.text
    )
    assert model.id == tl.fit(part, genes=genes, **FIT).id
    assert pp.gene_panel(whole, n_top=5) == pp.gene_panel(part, n_top=5)
    for slide in (whole, part):
        tl.predict(slide, model, show_progress_bar=False)
    np.testing.assert_array_equal(np.isnan(whole.obsm["hggep"]).all(axis=1), off)
    np.testing.assert_allclose(whole.obsm["hggep"][~off], part.obsm["hggep"], atol=1e-6)
    pd.testing.assert_frame_equal(tl.evaluate(whole), tl.evaluate(part))
    assert list(tl.to_adata(whole).obs_names) == list(part.obs_names)
    assert len(pl.gene_map(whole, "NUCL1", image=False).axes[0].collections[0].get_offsets()) == part.n_obs
    for values in (off, pd.Categorical(np.where(off, "0", "1")), np.where(off, 0.0, np.nan)):
        whole.obs["in_tissue"] = ~off if values is off else values
        assert resolve_one(whole).n_spots == part.n_obs


# --- an image file beside a table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["svs", "tif", "jpg"])
def test_an_image_file_beside_a_table(kind: str, tmp_path: Path):
    y, x = np.mgrid[:300, :400]
    image = np.stack([x // 2, y // 2, np.zeros_like(x)], axis=-1).astype(np.uint8)
    path = tmp_path / f"slide.{kind}"
    if kind == "jpg":
        Image.fromarray(image).save(path, quality=95)
    elif kind == "svs":
        description = (
            "Aperio Image Library v12.0.15\r\n400x300 [0,0 400x300] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5032"
        )
        tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), description=description, metadata=None)
    else:
        tifffile.imwrite(path, image, photometric="rgb", resolution=(19873, 19873), resolutionunit="CENTIMETER")
    xy = np.array([[100.0, 80.0], [200.0, 150.0], [310.0, 220.0]])
    adata = ad.AnnData(np.ones((3, 2), np.float32), obsm={"spatial": xy})
    adata.uns["spatial"] = {"S": {"metadata": {"source_image_path": str(path)}}}
    slide = resolve_one(adata)
    patches = pp.patches(adata, size_px=8)[:]
    np.testing.assert_allclose(patches[..., :2].mean(axis=(1, 2)) * 2 + 1, xy, atol=2)
    if kind == "jpg":
        assert slide.mpp is None
        return
    assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.5032, rel=1e-3), "image file")
    adata.uns["spatial"]["S"]["metadata"]["mpp"] = 0.25
    assert resolve_one(adata).mpp == 0.25
    # the spot pitch takes precedence over the file, which may be an export
    adata.uns["spatial"]["S"]["metadata"] = {"source_image_path": str(path), "pitch_um": 100.0}
    adata.obs["array_x"], adata.obs["array_y"] = [0, 1, 0], [0, 0, 1]
    adata.obsm["spatial"] = np.array([[100.0, 100.0], [200.0, 100.0], [100.0, 200.0]])
    assert (resolve_one(adata).mpp, resolve_one(adata).mpp_source) == (pytest.approx(1.0), "spot pitch")
