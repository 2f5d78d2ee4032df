"""Links from slides to prediction files; scores of slides that lack a gene of the panel."""

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
    sections = [datasets.toy(seed=seed, size_um=(1500.0, 1500.0), mpp=4.0, n_genes=10) for seed in range(3)]
    for slide in sections:
        slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return sections


@pytest.fixture
def slide(slides):
    return slides[2].copy()


@pytest.fixture(params=[".h5ad", ".zarr"])
def file(slide, model, tmp_path, request):
    """A file as a cohort writes it: the prediction alone."""
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


def test_a_file_of_predictions_is_read_and_refused_for_scores(slide, model, file):
    read_file = anndata.read_zarr if file.suffix == ".zarr" else anndata.read_h5ad
    predictions = read_file(file)
    tl.predict(slide, model, **QUIET)
    np.testing.assert_allclose(tl.to_adata(predictions).X, slide.obsm["hggep"], atol=1e-6)
    assert tl.top_genes(predictions, 2) == tl.top_genes(slide, 2)
    with pytest.raises(ValueError, match=r"by itself, without counts.*tl\.attach\(slide"):
        tl.evaluate(predictions)
    figure = pl.gene_map(predictions, slide.var_names[0], image=False)
    assert [ax.get_title() for ax in figure.axes if "observed" in ax.get_title()] == []


def test_bad_arguments_are_refused(slide, file, tmp_path):
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
    result = CliRunner().invoke(
        main, ["evaluate", str(tmp_path / "a.h5ad"), "--predicted", str(tmp_path / "predicted")]
    )
    assert result.exit_code == 0, result.output
    tl.predict(slide, model, **QUIET)
    assert f"{tl.evaluate(slide)['pearson'].mean():.3f}" in result.output


# ---------------------------------------------------------------- genes that a slide lacks


def test_a_slide_without_a_gene_of_the_panel(slide, model):
    absent, present = str(slide.var_names[3]), [str(gene) for gene in np.delete(slide.var_names, 3)]
    tl.predict(slide, model, **QUIET)
    incomplete = slide[:, present].copy()
    with pytest.warns(
        UserWarning, match=rf"1 of the 10 genes of the panel of 'hggep' are not in var_names: '{absent}'.*other 9"
    ):
        scores = tl.evaluate(incomplete)
    assert list(scores.index) == present
    measured = log10_cp10k(read_panel_counts(slide, present))
    np.testing.assert_allclose(
        scores["pearson"], column_pearson(np.delete(slide.obsm["hggep"], 3, axis=1), measured), atol=1e-6
    )
    with pytest.warns(UserWarning, match="leaves them out"):
        assert list(tl.evaluate(incomplete, genes=present[:2]).index) == present[:2]
    with pytest.warns(UserWarning, match="leaves them out"):
        figure = pl.gene_map(incomplete, [present[0], absent], marks=False)
    titles = {ax.get_label(): ax.get_title() for ax in figure.axes}
    name = resolve_one(incomplete).name
    assert titles[f"{name}: {absent} predicted"].split() == [absent, "predicted"]  # no correlation
    assert [ax.get_label() for ax in figure.axes if "not measured" in [text.get_text() for text in ax.texts]] == [
        f"{name}: {absent} observed"
    ]
    assert titles[f"{name}: {present[0]} predicted"].endswith(f"PCC {scores.loc[present[0], 'pearson']:.2f}")
    with (
        pytest.warns(UserWarning, match="leaves them out"),
        pytest.raises(KeyError, match=f"1 of 1 genes are not in var_names: '{absent}'"),
    ):
        tl.evaluate(incomplete, genes=[absent])


def test_a_slide_without_most_of_the_panel_is_refused(slide, model):
    tl.predict(slide, model, **QUIET)
    few = slide[:, :4].copy()
    with pytest.raises(KeyError, match="6 of 10 genes are not in var_names"):
        tl.evaluate(few)


def test_structure_is_compared_without_the_gene(slide, model):
    tl.predict(slide, model, **QUIET)
    with pytest.warns(UserWarning, match="leaves them out"):
        table = tl.agreement(slide[:, 1:].copy(), labels_key="domain")
    assert table["ari"].notna().all()
