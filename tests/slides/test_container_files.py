"""Slide files under other endings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sthggep import io
from sthggep._slides._container_files import kind_of, read_container

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)


@pytest.mark.handles("The commands read the image, as `sthggep.io.read_slide` does.")
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(e, id=f"a TIFF named {e}" if e else "a TIFF without an ending")
        for e in (".btf", ".bif", ".scn", ".ndpi", ".qptiff", ".TIF", ".tf8", ".ome.tif", "", ".img")
    ],
)
def test_tiff_under_other_endings(tmp_path: Path, ending: str):
    path = tmp_path / f"slide{ending}"
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS, photometric="rgb", bigtiff=True)
    (tmp_path / "plain.tif").rename(path)
    assert kind_of(path) == "image"
    image = next(iter(io.read_slide(path, mpp=0.5).images["image"].children.values())).ds["image"]
    np.testing.assert_array_equal(np.moveaxis(image.to_numpy(), 0, -1), PIXELS)


@pytest.mark.handles("The commands read the image, as `sthggep.io.read_slide` does.")
@pytest.mark.parametrize(
    "ending", [pytest.param(e, id=f"an image named {e}") for e in (".bmp", ".BMP", ".jp2", ".png", ".JPG")]
)
def test_common_images(tmp_path: Path, ending: str):
    path = tmp_path / f"slide{ending}"
    Image.fromarray(PIXELS).save(path)
    io.read_slide(path, mpp=0.5)
    assert kind_of(path) == "image"


@pytest.mark.handles("The command rejects the file and lists the files that it reads.")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"gene\tcount\n", id="a text"),
        pytest.param(b"", id="an empty file"),
        pytest.param(b"PK\x03\x04" + b"\0" * 100, id="an archive"),
        pytest.param(b"\x1f\x8b" + b"\0" * 100, id="a broken gzip"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes):
    path = tmp_path / "slide.xyz"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"unknown ending.*\(\.zarr\), a folder of Space Ranger or an image \(TIFF, SVS"
    ):
        kind_of(path)


def test_an_image_holds_no_counts(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "slide.bmp")
    with pytest.raises(ValueError, match="bare image: it holds no counts"):
        read_container(tmp_path / "slide.bmp")
    with pytest.raises(FileNotFoundError, match=r"does not exist; .* Slides beside it: slide\.bmp"):
        kind_of(tmp_path / "slides.h5ad")
