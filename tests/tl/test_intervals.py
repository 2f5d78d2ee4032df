"""Intervals of `tl.predict`: what is written, read back and refused."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from sthggep import HGGEP, tl
from sthggep.model._calibration import PROBABILITIES, Calibration

QUIET = {"show_progress_bar": False}


@pytest.fixture
def calibrated(model) -> HGGEP:
    """A model whose errors are known: gene by gene, normal quantiles of another width."""
    from scipy.stats import norm

    widths = np.linspace(0.1, 1.0, len(model.genes), dtype=np.float32)
    quantiles = (norm.ppf(PROBABILITIES)[:, None] * widths).astype(np.float32)
    return HGGEP(
        list(model.members),
        model.genes,
        model.inputs,
        preset=model.preset,
        encoder_state=model.encoder_state,
        training=model.training,
        calibration=Calibration(quantiles, np.full(len(widths), 0.5, np.float32)),
    )


def test_ends_lie_around_the_prediction(calibrated, slides):
    slide = slides[2]
    tl.predict(slide, calibrated, interval=0.9, **QUIET)
    expected = 1.645 * np.linspace(0.1, 1.0, len(calibrated.genes))
    predicted, lower, upper = (slide.obsm[f"hggep{end}"] for end in ("", "_lower", "_upper"))
    np.testing.assert_allclose(upper - predicted, np.tile(expected, (len(predicted), 1)), atol=2e-3)
    np.testing.assert_allclose(lower, np.maximum(predicted - expected, 0), atol=2e-3)
    assert slide.uns["hggep"]["interval"] == {"level": 0.9, "of": "measurement"}
    assert set(slide.uns["hggep"]["obsm"]) == {"hggep_lower", "hggep_upper"}
    tl.predict(slide, calibrated, interval=0.9, interval_of="expression", key_added="mean", **QUIET)
    np.testing.assert_allclose(slide.obsm["mean_upper"] - predicted, (upper - predicted) / 2, atol=1e-5)
    assert slide.uns["mean"]["interval"]["of"] == "expression"
    # A later call without intervals leaves none behind
    tl.predict(slide, calibrated, **QUIET)
    assert not {"hggep_lower", "hggep_upper"} & set(slide.obsm)
    assert "interval" not in slide.uns["hggep"]


def test_some_genes_have_their_own_ends(calibrated, slides):
    slide, genes = slides[2], [calibrated.genes[5], calibrated.genes[1]]
    tl.predict(slide, calibrated, interval=0.8, **QUIET)
    tl.predict(slide, calibrated, interval=0.8, genes=genes, key_added="some", **QUIET)
    for end in ("_lower", "_upper"):
        np.testing.assert_allclose(slide.obsm[f"some{end}"], slide.obsm[f"hggep{end}"][:, [5, 1]], atol=1e-6)


def test_intervals_go_with_the_prediction(calibrated, slides, tmp_path):
    slide, path = slides[2], tmp_path / "big.zarr"
    tl.predict(slide, calibrated, interval=0.9, **QUIET)
    table = tl.to_adata(slide)
    for end in ("lower", "upper"):
        np.testing.assert_array_equal(table.layers[end], slide.obsm[f"hggep_{end}"])
    tl.predict(slide, calibrated, interval=0.9, key_added="big", out=path, **QUIET)
    stored = anndata.read_zarr(path)
    np.testing.assert_allclose(stored.layers["upper"], slide.obsm["hggep_upper"], atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(tl.to_adata(slide, "big").layers["lower"]), slide.obsm["hggep_lower"], atol=1e-6
    )
    slide.write_h5ad(tmp_path / "slide.h5ad")
    assert anndata.read_h5ad(tmp_path / "slide.h5ad").uns["hggep"]["interval"] == {"level": 0.9, "of": "measurement"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": 90}, r"`interval` must be a share such as 0.9, from 0.5 to 0.99, found 90"),
        ({"interval": 0.2}, r"found 0.2"),
        ({"interval": True}, r"found True"),
        ({"interval_of": "expression"}, "needs `interval`: pass `interval=0.9`"),
        ({"interval": 0.9, "interval_of": "mean"}, "Unknown interval_of 'mean'.*'measurement', 'expression'"),
    ],
)
def test_odd_intervals_are_refused(calibrated, slides, options, words):
    before = set(slides[2].obsm)
    with pytest.raises((ValueError, TypeError), match=words):
        tl.predict(slides[2], calibrated, **options, **QUIET)
    assert set(slides[2].obsm) == before


def test_shell_writes_intervals(calibrated, slides, shell):
    calibrated.save(shell.folder / "model")
    slides[2].write_h5ad(shell.folder / "a.h5ad")
    result = shell("predict", "a.h5ad", "--model", "model", "--out", "p.h5ad", "--interval", "0.9")
    assert result.exit_code == 0, result.output
    predicted = anndata.read_h5ad(shell.folder / "p.h5ad")
    assert (predicted.obsm["hggep_lower"] <= np.maximum(predicted.obsm["hggep"], 0)).all()  # counts are not negative
    assert (predicted.obsm["hggep_upper"] >= predicted.obsm["hggep"]).all()
