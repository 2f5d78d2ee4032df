"""Predictions in files of their own meet their slides; slides that lack a gene of the panel are scored by the others."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from click.testing import CliRunner

from sthggep import datasets, pl, tl
from sthggep._cli import main
from sthggep._slides._resolve import resolve_one
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._table._scores import column_pearson

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def model(slides):
    return tl.fit(slides[:2], genes=list(slides[0].var_names), obsm="X_mine", n_members=1, max_epochs=1, **QUIET)


@pytest.fixture(scope="module")
def slides():
    found = [datasets.toy(seed=seed, size_um=(1500.0, 1500.0), mpp=4.0, n_genes=10) for seed in range(3)]
    for slide in found:
        slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return found


@pytest.fixture
def slide(slides):
    return slides[2].copy()


@pytest.fixture(params=[".h5ad", ".zarr"])
def file(slide, model, tmp_path, request):
    """What a cohort writes of a slide: the prediction alone."""
    path = tmp_path / f"predicted{request.param}"
    tl.predict(slide.copy(), model, out=path, **QUIET)
    return path


def test_attached_predictions_are_scored_and_drawn_as_those_in_obsm(slide, model, file):
    usual = slide.copy()
    tl.predict(usual, model, **QUIET)
    expected = tl.evaluate(usual)
    tl.attach(slide, file)
    assert "hggep" not in slide.obsm
    np.testing.assert_allclose(tl.evaluate(slide)["pearson"], expected["pearson"], atol=1e-6)
    gene = slide.var_names[0]
    figure = pl.gene_map(slide, gene)
    assert any(f"PCC {expected.loc[gene, 'pearson']:.2f}" in ax.get_title() for ax in figure.axes)


def test_a_prediction_alone_is_read_and_says_where_its_counts_are(slide, model, file):
    read = anndata.read_zarr if file.suffix == ".zarr" else anndata.read_h5ad
    alone = read(file)
    tl.predict(slide, model, **QUIET)
    np.testing.assert_allclose(tl.to_adata(alone).X, slide.obsm["hggep"], atol=1e-6)
    assert tl.top_genes(alone, 2) == tl.top_genes(slide, 2)
    with pytest.raises(ValueError, match=r"by itself, without counts.*tl\.attach\(slide"):
        tl.evaluate(alone)
    figure = pl.gene_map(alone, slide.var_names[0], image=False)
    assert [ax.get_title() for ax in figure.axes if "observed" in ax.get_title()] == []


def test_what_cannot_be_attached(slide, file, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tl.attach(slide, tmp_path / "none.h5ad")
    with pytest.raises(ValueError, match="holds no prediction 'other'"):
        tl.attach(slide, file, key="other")
    with pytest.raises(ValueError, match="of other spots"):
        tl.attach(slide[1:].copy(), file)
    slide.uns["hggep"] = "mine"
    with pytest.raises(ValueError, match="did not write it"):
        tl.attach(slide, file)
    assert slide.uns["hggep"] == "mine"


def test_the_shell_scores_a_folder_of_predictions(slide, model, tmp_path):
    (tmp_path / "predicted").mkdir()
    slide.write_h5ad(tmp_path / "a.h5ad")
    tl.predict(slide.copy(), model, out=tmp_path / "predicted" / "a.h5ad", **QUIET)
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "a.h5ad"), "--predicted", str(tmp_path / "predicted")])
    assert done.exit_code == 0, done.output
    tl.predict(slide, model, **QUIET)
    assert f"{tl.evaluate(slide)['pearson'].mean():.3f}" in done.output


# ---------------------------------------------------------------- genes that a slide lacks


def test_a_slide_without_a_gene_of_the_panel(slide, model):
    gone, kept = str(slide.var_names[3]), [str(gene) for gene in np.delete(slide.var_names, 3)]
    tl.predict(slide, model, **QUIET)
    lacking = slide[:, kept].copy()
    with pytest.warns(
        UserWarning, match=rf"1 of the 10 genes of the panel of 'hggep' are not in var_names: '{gone}'.*other 9"
    ):
        scores = tl.evaluate(lacking)
    assert list(scores.index) == kept
    measured = log10_cp10k(read_panel_counts(slide, kept))
    np.testing.assert_allclose(
        scores["pearson"], column_pearson(np.delete(slide.obsm["hggep"], 3, axis=1), measured), atol=1e-6
    )
    with pytest.warns(UserWarning, match="leaves them out"):
        assert list(tl.evaluate(lacking, genes=kept[:2]).index) == kept[:2]
    with pytest.warns(UserWarning, match="leaves them out"):
        figure = pl.gene_map(lacking, [kept[0], gone])
    titles = {ax.get_label(): ax.get_title() for ax in figure.axes}
    name = resolve_one(lacking).name
    assert titles[f"{name}: {gone} predicted"].split() == [gone, "predicted"]  # no correlation
    assert [ax.get_label() for ax in figure.axes if "not measured" in [text.get_text() for text in ax.texts]] == [
        f"{name}: {gone} observed"
    ]
    assert titles[f"{name}: {kept[0]} predicted"].endswith(f"PCC {scores.loc[kept[0], 'pearson']:.2f}")
    with (
        pytest.warns(UserWarning, match="leaves them out"),
        pytest.raises(KeyError, match=f"1 of 1 genes are not in var_names: '{gone}'"),
    ):
        tl.evaluate(lacking, genes=[gone])


def test_a_slide_without_most_of_the_panel_is_refused(slide, model):
    tl.predict(slide, model, **QUIET)
    few = slide[:, :4].copy()
    with pytest.raises(KeyError, match="6 of 10 genes are not in var_names"):
        tl.evaluate(few)


def test_structure_is_compared_without_the_gene(slide, model):
    tl.predict(slide, model, **QUIET)
    with pytest.warns(UserWarning, match="leaves them out"):
        found = tl.agreement(slide[:, 1:].copy(), labels_key="domain")
    assert found["ari"].notna().all()
