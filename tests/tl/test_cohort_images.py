"""Slides of a cohort whose image, in a file beside them, was replaced."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData
from PIL import Image

from sthggep import datasets, tl
from sthggep.tl._cohort._files import image_stamp, stamp


@pytest.fixture(params=[".h5ad", ".zarr"])
def slide(tmp_path: Path, request) -> Path:
    return write_slide(tmp_path, request.param)


def write_slide(tmp_path: Path, ending: str) -> Path:
    """A slide without pixels, and its image in `scan.tif` beside it."""
    adata: AnnData = datasets.toy(seed=0, size_um=(900.0, 900.0), mpp=4.0, n_genes=4)
    library = next(iter(adata.uns["spatial"].values()))
    (pixels,) = library["images"].values()
    Image.fromarray(pixels).save(tmp_path / "scan.tif")
    library["images"] = {}
    library["metadata"]["source_image_path"] = str(tmp_path / "scan.tif")
    del adata.obsm["morphology"]
    path = tmp_path / f"slide{ending}"
    (adata.write_h5ad if ending == ".h5ad" else adata.write_zarr)(path)
    return path


def rewrite(image: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)


def rewrite_in_time(image: Path) -> None:
    """The same size and the same time: only the content differs."""
    status = image.stat()
    rewrite(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == status.st_size


@pytest.mark.handles("`predict_cohort` does not keep the prediction of the earlier image.")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rewrite, id="the image file replaced"),
        pytest.param(rewrite_in_time, id="the image file replaced, its time set back"),
        pytest.param(lambda image: os.utime(image, ns=(1, 1)), id="another time of the image file"),
        pytest.param(Path.unlink, id="the image file deleted"),
    ],
)
def test_the_stamp_of_a_slide_covers_its_image(slide, change):
    before, slide_before = image_stamp(slide), stamp(slide)
    assert image_stamp(slide) == before
    change(slide.parent / "scan.tif")
    assert image_stamp(slide) != before
    assert stamp(slide) == slide_before


def test_a_slide_is_predicted_again_with_its_new_image(tmp_path, caplog):
    """And kept as long as nothing changes."""
    from distributed import Client

    slide, folder = write_slide(tmp_path, ".h5ad"), tmp_path
    model = tl.fit(anndata.read_h5ad(slide), size_um=160, weights="random", n_members=1, max_epochs=1, validation=None,
                   show_progress_bar=False)  # fmt: skip
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        options = {"out": folder / "out", "scheduler": client, "show_progress_bar": False}
        assert tl.predict_cohort([slide], model, **options)["status"].tolist() == ["written"]
        before = anndata.read_h5ad(folder / "out" / "slide.h5ad").X
        assert tl.predict_cohort([slide], model, **options)["status"].tolist() == ["kept"]
        rewrite_in_time(folder / "scan.tif")
        assert tl.predict_cohort([slide], model, **options)["status"].tolist() == ["written"]
    assert not np.allclose(anndata.read_h5ad(folder / "out" / "slide.h5ad").X, before)
    assert "its image file was changed since" in caplog.text


def test_the_stamp_covers_the_slide(slide):
    before = stamp(slide)
    for file in [slide] if slide.is_file() else sorted(slide.rglob("*")):
        os.utime(file, ns=(1, 1))
    assert stamp(slide) != before
