"""Sections of an AnnData: where patches come from, how large a pixel is, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sthggep import pp, tl
from sthggep._image._level import Level
from sthggep._slides._anndata import table_of
from sthggep._slides._library_images import source_levels
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve, resolve_one

WIDTH, HEIGHT = 400, 300


def exact_image(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Pixels that hold their position: red x, green y (modulo 256), blue the number of the block of 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


def ramp(width: int = WIDTH, height: int = HEIGHT, step: int = 2) -> NDArray[np.uint8]:
    """Red is x / step, green y / step: this survives resampling."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x // step, y // step, np.zeros_like(x)], axis=-1).astype(np.uint8)


def center(patch: NDArray[np.uint8], step: float = 2) -> NDArray[np.float64]:
    """Center (x, y) of a window of the ramp, in its pixels."""
    return patch[..., :2].mean(axis=(0, 1)) * step + step / 2


def span(patch: NDArray[np.uint8], step: float = 2) -> float:
    """Width of a window of the ramp, in its pixels."""
    left, right = patch[:, 0, 0].mean() * step, patch[:, -1, 0].mean() * step
    return float((right - left) * patch.shape[1] / (patch.shape[1] - 1))


def section(
    image: object = None,
    xy: object = ((100.0, 80.0), (200.0, 150.0), (310.0, 220.0)),
    *,
    key: str = "fullres",
    scale: float = 1.0,
    name: str = "S1",
    metadata: dict | None = None,
    obs: dict | None = None,
) -> ad.AnnData:
    xy = np.asarray(xy, dtype=float)
    adata = ad.AnnData(
        np.arange(len(xy) * 2, dtype=np.float32).reshape(-1, 2),
        obs=pd.DataFrame(obs or {}, index=[f"spot{i}" for i in range(len(xy))]),
        var=pd.DataFrame(index=["G1", "G2"]),
    )
    adata.obsm["spatial"] = xy
    library: dict = {"images": {}, "scalefactors": {}, "metadata": metadata or {}}
    if image is not None:
        library["images"][key] = image
        library["scalefactors"][f"tissue_{key}_scalef"] = scale
    adata.uns["spatial"] = {name: library}
    return adata


def state(value: object) -> object:
    """Convert the content of an object to plain values, for comparison."""
    if isinstance(value, ad.AnnData):
        parts = ("obs", "var", "obsm", "varm", "layers", "obsp", "uns", "X")
        return {part: state(getattr(value, part)) for part in parts}
    if isinstance(value, pd.DataFrame):
        return value.index.tolist(), {name: (str(value[name].dtype), list(map(str, value[name]))) for name in value}
    if hasattr(value, "items"):
        return {name: state(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()
    return repr(value)


def assert_refused(adata: ad.AnnData, error: type[Exception], words: str, call=None, **options: object) -> None:
    """Check that the call raises with these words and changes nothing."""
    before = state(adata)
    with pytest.raises(error, match=words):
        (call or resolve)(adata, **options)
    assert state(adata) == before


# --- where patches come from --------------------------------------------------------------------------------------


def test_patches_in_full_resolution_pixels():
    image = exact_image()
    patches = pp.patches(section(image), size_px=20)
    assert patches.shape == (3, 20, 20, 3)
    np.testing.assert_array_equal(patches[0], image[70:90, 90:110])
    np.testing.assert_array_equal(patches[:], np.stack([image[y - 10 : y + 10, x - 10 : x + 10] for x, y in XY]))
    np.testing.assert_array_equal(patches.boxes()[2], [300, 210, 320, 230])


XY = ((100, 80), (200, 150), (310, 220))


def test_indexing_is_that_of_an_array():
    patches = pp.patches(section(exact_image()), size_px=10)
    array = patches[:]
    assert len(patches) == 3
    np.testing.assert_array_equal(patches[[2, 0]], array[[2, 0]])
    np.testing.assert_array_equal(patches[-1], array[2])
    np.testing.assert_array_equal(patches[np.array([False, True, False])], array[[1]])
    assert patches[0:0].shape == (0, 10, 10, 3)
    assert [len(batch) for batch in patches.batches(2)] == [2, 1]
    with pytest.raises(ValueError, match="batch_size"):
        next(patches.batches(0))
    with pytest.raises(IndexError):
        patches[3]


def test_centers_between_pixels():
    image = exact_image()
    adata = section(image, [[100.7, 80.2], [100.3, 80.6], [101.0, 79.0]])
    pixels = pp.patches(adata, size_px=20)
    # as published: truncated
    np.testing.assert_array_equal(pixels.boxes()[:, :2], [[90, 70], [90, 70], [91, 69]])
    np.testing.assert_array_equal(pixels[1], image[70:90, 90:110])
    microns = pp.patches(adata, size_um=10, size_px=20, mpp=0.5)
    np.testing.assert_array_equal(microns.boxes()[:, :2], [[91, 70], [90, 71], [91, 69]])
    assert np.ptp(microns.boxes()[:, [0, 2]], axis=1).tolist() == [20, 20, 20]


@pytest.mark.parametrize(("mpp", "width"), [(2.0, 20), (1.0, 40), (0.5, 80), (0.4, 100)])
def test_field_of_view_in_microns(mpp: float, width: int):
    patches = pp.patches(section(ramp()), size_um=40, size_px=32, mpp=mpp)
    for patch, (x, y), box in zip(patches[:], XY, patches.boxes(), strict=True):
        assert (box[2] - box[0], box[3] - box[1]) == (width, width)
        assert patch.shape == (32, 32, 3)
        np.testing.assert_allclose(center(patch), (x, y), atol=0.6)
        assert span(patch) == pytest.approx(width, abs=2)


def test_a_window_of_fractional_width_is_centered():
    patches = pp.patches(section(ramp()), size_um=50.9, size_px=51, mpp=1.0)
    np.testing.assert_allclose((patches.boxes()[:, :2] + patches.boxes()[:, 2:]) / 2, XY, atol=0.5)


def test_hires_with_its_scale_factor():
    # the image has a quarter of the full resolution, which the coordinates of the spots refer to
    patches = pp.patches(section(ramp(), np.array(XY) * 4.0, key="hires", scale=0.25), size_um=160, size_px=16, mpp=1.0)
    assert patches.level.scale == (0.25, 0.25)
    for patch, xy in zip(patches[:], XY, strict=True):
        np.testing.assert_allclose(center(patch), xy, atol=0.6)
    np.testing.assert_array_equal(patches.boxes()[0], [320, 240, 480, 400])
    # with a size in full-resolution pixels, the field of view is the same, enlarged
    coarse = pp.patches(section(ramp(), np.array(XY) * 4.0, key="hires", scale=0.25), size_px=160)
    np.testing.assert_array_equal(coarse.boxes(), patches.boxes())
    assert coarse[0].shape == (160, 160, 3)


def test_the_coarsest_resolution_with_enough_pixels_is_used():
    adata = section(ramp(800, 600, 4), np.array(XY) * 2.0)
    library = adata.uns["spatial"]["S1"]
    library["images"] |= {"lowres": ramp(40, 30, 1), "hires": ramp(200, 150, 1)}
    library["scalefactors"] |= {"tissue_lowres_scalef": 0.05, "tissue_hires_scalef": 0.25}
    assert [level.scale[0] for level in resolve_one(adata).levels] == [1.0, 0.25]
    for size_um, scale, width in [(100, 1.0, 100), (160, 0.25, 40)]:
        patches = pp.patches(adata, size_um=size_um, size_px=40, mpp=1.0)
        assert patches.level.scale[0] == scale
        assert patches[0].shape == (40, 40, 3)
        # both ramps hold a quarter of the full-resolution position
        np.testing.assert_allclose(center(patches[0], 4), (200, 160), atol=4)
        assert span(patches[0], 4) == pytest.approx(size_um, abs=5), width


def test_lowres_is_used_only_on_request():
    adata = section(ramp(40, 30, 1), np.array(XY), key="lowres", scale=0.1)
    assert_refused(adata, KeyError, r"only 'lowres'; pass `image_key=`")
    assert resolve_one(adata, Places(image_key="lowres")).levels[0].scale == (0.1, 0.1)
    assert_refused(adata, KeyError, "'fullres' is not in .*'lowres'", places=Places(image_key="fullres"))


def test_patches_at_the_border_are_padded_with_white():
    image = exact_image() // 2
    patches = pp.patches(section(image, [[3.0, 4.0], [WIDTH - 2.0, HEIGHT - 5.0], [0.0, HEIGHT]]), size_px=20)
    first, second, corner = patches[:]
    assert (first[:6] == 255).all()
    assert (first[:, :7] == 255).all()
    np.testing.assert_array_equal(first[6:, 7:], image[:14, :13])
    assert (second[15:] == 255).all()
    assert (second[:, 12:] == 255).all()
    np.testing.assert_array_equal(second[:15, :12], image[HEIGHT - 15 :, WIDTH - 12 :])
    np.testing.assert_array_equal(corner[:10, 10:], image[HEIGHT - 10 :, :10])
    assert (corner[10:] == 255).all()


def test_a_window_larger_than_the_image():
    patches = pp.patches(section(np.zeros((30, 40, 3), np.uint8), [[20.0, 15.0]]), size_um=80, size_px=80, mpp=1.0)
    assert (patches[0][25:55, 20:60] == 0).all()
    assert patches[0].mean() == pytest.approx(255 * (1 - 1200 / 6400))


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image / 255.0,
        lambda image: image.astype(np.float32),
        lambda image: image.astype(np.uint16) * 257,
        lambda image: np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1),
        lambda image: da.from_array(image, chunks=(64, 64, 3)),
    ],
    ids=["float 0-1", "float 0-255", "16 bit", "RGBA", "dask"],
)
def test_kinds_of_images_give_the_same_patches(convert):
    image = exact_image()
    np.testing.assert_array_equal(pp.patches(section(convert(image)), size_px=20)[0], image[70:90, 90:110])


def test_grayscale_image():
    gray = exact_image()[..., 0]
    patch = pp.patches(section(gray), size_px=20)[0]
    np.testing.assert_array_equal(patch, np.repeat(gray[70:90, 90:110, None], 3, axis=-1))


def test_image_with_other_channels_is_refused():
    assert_refused(section(np.zeros((300, 400, 7), np.uint8)), ValueError, "found 7")


# --- only a file --------------------------------------------------------------------------------------------------


def test_image_from_a_source_image_path(tmp_path: Path):
    image = exact_image()
    Image.fromarray(image).save(tmp_path / "slide.png")
    adata = section(metadata={"source_image_path": str(tmp_path / "slide.png")})
    np.testing.assert_array_equal(pp.patches(adata, size_px=20)[0], image[70:90, 90:110])
    (tmp_path / "slide.png").unlink()
    assert_refused(adata, FileNotFoundError, r"slide\.png.*does not exist")


def test_truncated_source_image(tmp_path: Path):
    Image.fromarray(exact_image()).save(tmp_path / "slide.jpg")
    whole = (tmp_path / "slide.jpg").read_bytes()
    (tmp_path / "slide.jpg").write_bytes(whole[: len(whole) // 2])
    adata = section(metadata={"source_image_path": str(tmp_path / "slide.jpg")})
    assert_refused(adata, ValueError, "truncated")
    assert_refused(adata, ValueError, "truncated", call=pp.features, size_um=30, weights="random", mpp=1.0)


def test_the_source_file_is_used_with_hires_only_if_it_is_the_same_image(tmp_path: Path, caplog):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "tile": (64, 64)}
        tif.write(ramp(800, 600, 4), subifds=1, **options)
        tif.write(ramp(400, 300, 2), subfiletype=1, **options)
    adata = section(
        ramp(600, 450, 3), np.array(XY) * 2.0, key="hires", scale=0.75, metadata={"source_image_path": str(path)}
    )
    # finest first, from either source
    assert [level.scale[0] for level in resolve_one(adata).levels] == [1.0, 0.75, 0.5]
    patch = pp.patches(adata, size_px=40)[0]
    np.testing.assert_allclose(center(patch, 4), (200, 160), atol=1)
    tifffile.imwrite(path, ramp(600, 800))
    with caplog.at_level(logging.WARNING, logger="sthggep"):
        assert [level.scale[0] for level in resolve_one(adata).levels] == [0.75]
    assert "does not fit its hires image" in caplog.text
    assert resolve_one(adata, Places(image_key="hires")).levels[0].scale == (0.75, 0.75)


def test_the_source_file_is_compared_by_width_and_by_height(tmp_path: Path):
    """A smaller image may have another scale along x than along y."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, ramp(800, 600, 4), photometric="rgb")
    small = Image.fromarray(ramp(800, 600, 4))
    smaller = Level(np.asarray(small.resize((400, 150))), scale=(400 / 800, 150 / 600))
    levels = source_levels(path, [smaller], "S1")
    assert [(level.shape, level.scale) for level in levels] == [((600, 800), (1.0, 1.0))]
    transposed = Level(np.asarray(small.resize((150, 400))), scale=(150 / 800, 400 / 600))
    assert len(source_levels(path, [transposed], "S1")) == 1
    for other in ((0.25, 0.5), (0.5, 0.5), (0.25, 0.25)):
        assert source_levels(path, [Level(smaller.array, scale=other)], "S1") == []


# --- lazy ---------------------------------------------------------------------------------------------------------


class RecordingArray:
    """An array that records each read."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.reads: list[str] = []

    def __getitem__(self, index):
        self.reads.append(str(index))
        return self.array[index]

    def __dask_tokenize__(self):
        return id(self)


def test_chunks_are_read_on_access_and_each_once():
    source = RecordingArray(exact_image(512, 512))
    meta = np.empty((0, 0, 0), np.uint8)
    image = da.from_array(source, chunks=(128, 128, 3), asarray=False, meta=meta)
    xy = np.random.default_rng(0).uniform(60, 450, (60, 2))
    patches = pp.patches(section(image, xy), size_px=64)
    assert source.reads == []
    assert repr(patches)
    patches[0]
    assert 1 <= len(source.reads) <= 4
    patches[:]
    assert len(source.reads) == len(set(source.reads)) == 16


# --- several sections ---------------------------------------------------------------------------------------------


def two_sections() -> ad.AnnData:
    first = section(exact_image(), name="A")
    second = section(255 - exact_image(), [[50.0, 60.0], [70.0, 80.0]], name="B")
    joined = ad.concat({"A": first, "B": second}, label="slide", index_unique="-", uns_merge=None)
    joined.uns["spatial"] = {**first.uns["spatial"], **second.uns["spatial"]}
    return joined[[3, 0, 1, 4, 2]].copy()


def test_sections_of_one_anndata():
    adata = two_sections()
    slides = {slide.name: slide for slide in resolve(adata, Places(library_key="slide"))}
    assert slides["A"].rows.tolist() == [1, 2, 4]
    assert slides["B"].rows.tolist() == [0, 3]
    assert all(slide.adata is adata for slide in slides.values())
    np.testing.assert_array_equal(slides["B"].xy, [[50, 60], [70, 80]])
    from sthggep.pp import Patches

    np.testing.assert_array_equal(Patches(slides["B"], size_px=20)[0], 255 - exact_image()[50:70, 40:60])
    np.testing.assert_array_equal(Patches(slides["A"], size_px=20)[0], exact_image()[70:90, 90:110])


def test_one_of_several_sections():
    adata = two_sections()
    assert_refused(adata, ValueError, r"several sections: 'A', 'B'.*library_key")
    assert_refused(
        adata, ValueError, "One section was expected, found 2", call=resolve_one, places=Places(library_key="slide")
    )
    assert_refused(adata, KeyError, r"'batch' is not in obs, which holds 'slide'", places=Places(library_key="batch"))
    section_b = adata[adata.obs["slide"] == "B"].copy()
    np.testing.assert_array_equal(
        pp.patches(section_b, library_key="slide", size_px=20)[0], 255 - exact_image()[50:70, 40:60]
    )


def test_sections_without_an_image_or_a_name():
    adata = two_sections()
    adata.obs["slide"] = adata.obs["slide"].astype(str).replace("B", "C")
    assert_refused(
        adata, KeyError, r"'C' has no image.*holds the sections 'A', 'B'", places=Places(library_key="slide")
    )
    adata.obs["slide"] = adata.obs["slide"].replace("C", None)
    assert_refused(adata, ValueError, "missing for 2 spots", places=Places(library_key="slide"))


# --- microns per pixel --------------------------------------------------------------------------------------------


def hexagons(mpp: float, jitter: float = 0.0, pitch_um: float = 100.0) -> ad.AnnData:
    row, col = np.divmod(np.arange(12 * 12), 12)
    keep = (row + col) % 2 == 0
    row, col = row[keep], col[keep]
    pixels = np.column_stack([col * pitch_um / 2, row * pitch_um * np.sqrt(3) / 2]) / mpp + 20
    pixels += np.random.default_rng(0).normal(0, jitter, pixels.shape)
    side = int(pixels.max()) + 50
    return section(np.zeros((side, side, 3), np.uint8), pixels, obs={"array_row": row, "array_col": col})


def squares(**metadata: float) -> ad.AnnData:
    """Spots 200 pixels apart."""
    y, x = np.divmod(np.arange(36), 6)
    pixels = np.column_stack([x, y]) * 200.0 + 20
    image = np.zeros((1200, 1200, 3), np.uint8)
    return section(image, pixels, obs={"array_x": x, "array_y": y}, metadata=dict(metadata))


def test_microns_from_the_visium_pitch(caplog):
    with caplog.at_level(logging.INFO, logger="sthggep"):
        slide = resolve_one(hexagons(0.5))
    assert slide.mpp == pytest.approx(0.5, rel=1e-6)
    assert slide.mpp_source == "spot pitch"
    assert "0.5 µm/px, from the spot pitch" in caplog.text
    assert slide.pitch() == pytest.approx(200, rel=1e-6)
    assert "the image that is read" not in caplog.text
    coarse = hexagons(0.5)
    library = coarse.uns["spatial"]["S1"]
    library["images"] = {"hires": library["images"]["fullres"][::4, ::4]}
    library["scalefactors"] = {"tissue_hires_scalef": 0.25}
    with caplog.at_level(logging.INFO, logger="sthggep"):
        resolve_one(coarse)
    assert "0.5 µm/px, from the spot pitch, of full resolution; the image that is read has 2." in caplog.text


def test_jitter_does_not_change_the_pitch():
    # the median distance to the nearest spot is several percent low here
    assert resolve_one(hexagons(0.5, jitter=10)).mpp == pytest.approx(0.5, rel=0.01)


def test_microns_from_the_pitch_of_legacy_arrays():
    assert resolve_one(squares(pitch_um=200.0)).mpp == pytest.approx(1.0)
    assert resolve_one(squares()).mpp is None  # the kind of array is unknown


def test_square_arrays_are_not_taken_for_visium():
    # bins of Visium HD have array_row and array_col too; 100 µm would be wrong by an order of magnitude
    adata = squares()
    adata.obs = adata.obs.rename(columns={"array_x": "array_col", "array_y": "array_row"})
    assert resolve_one(adata).mpp is None


def test_argument_precedes_metadata_and_metadata_precede_pitch(recwarn):
    adata = squares(pitch_um=200.0, mpp=1.1)
    assert (resolve_one(adata).mpp, resolve_one(adata).mpp_source) == (1.1, "metadata")
    slide = resolve_one(adata, Places(mpp=0.9))
    assert (slide.mpp, slide.mpp_source) == (0.9, "argument")
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    with pytest.warns(UserWarning, match=r"you passed `mpp=0.2`, but by the distance of the spots it is 1\."):
        assert resolve_one(adata, Places(mpp=0.2)).mpp == 0.2
    adata.uns["spatial"]["S1"]["metadata"] = {"pitch_um": 200.0, "mpp": None}
    adata.uns["spatial"]["S1"]["scalefactors"]["microns_per_pixel"] = 1.2
    assert resolve_one(adata).mpp == 1.2


@pytest.mark.parametrize("mpp", [0, -1.0, np.nan, np.inf])
def test_invalid_microns_are_refused(mpp: float):
    assert_refused(squares(), ValueError, "`mpp` must be a positive number", places=Places(mpp=mpp))
    adata = squares()
    adata.uns["spatial"]["S1"]["metadata"]["mpp"] = mpp
    with pytest.raises(ValueError, match=r"\['metadata'\]\['mpp'\] .*pass `mpp=`"):
        resolve(adata)


def test_unknown_microns_say_what_to_pass():
    adata = section(exact_image())
    with pytest.raises(ValueError, match=r"`mpp=`.*0.5 at 20x"):
        pp.patches(adata, size_um=100)
    assert pp.patches(adata, size_px=20).width == 20
    with pytest.raises(ValueError, match="`size_um` must be a positive"):
        pp.patches(adata, size_um=-5, mpp=1)


def test_positions_that_do_not_follow_the_array(caplog):
    adata = squares(pitch_um=200.0)
    adata.obsm["spatial"] = np.random.default_rng(0).permutation(adata.obsm["spatial"])
    slide = resolve_one(adata)
    assert slide.mpp is None
    assert "cannot compute microns per pixel from the spots" in caplog.text
    assert slide.pitch() == pytest.approx(200)  # from the nearest spots


def test_array_positions():
    np.testing.assert_array_equal(resolve_one(squares()).array_xy()[:3], [[0, 0], [1, 0], [2, 0]])
    adata = hexagons(0.5)
    np.testing.assert_array_equal(resolve_one(adata).array_xy(), adata.obs[["array_col", "array_row"]])
    adata.obs["array_col"] = np.nan
    assert resolve_one(adata).array_xy() is None
    assert resolve_one(section(exact_image())).array_xy() is None


# --- refusals ------------------------------------------------------------------------------------------------------


def test_no_image():
    assert_refused(section(), KeyError, r"has no image: uns\['spatial'\]\['S1'\]\['images'\] was expected, found none")
    adata = section()
    del adata.uns["spatial"]
    assert_refused(adata, KeyError, "has no image")
    assert resolve_one(adata, need_image=False).levels == ()


def test_table_of_a_visium_spatialdata_has_no_image():
    adata = section(metadata={"chemistry_description": "Visium"})
    adata.uns["spatial"]["S1"] = {"metadata": {}}
    assert_refused(adata, KeyError, "Pass the SpatialData that holds the image")


def test_image_without_scale_factor():
    adata = section(exact_image(), key="hires")
    adata.uns["spatial"]["S1"]["scalefactors"] = {"tissue_lowres_scalef": 0.1}
    assert_refused(adata, KeyError, "'tissue_hires_scalef'.*expected, found 'tissue_lowres_scalef'")
    adata.uns["spatial"]["S1"]["scalefactors"] = {"tissue_hires_scalef": 0.0}
    assert_refused(adata, ValueError, "tissue_hires_scalef must be a positive")


def test_spots_outside_the_image():
    assert_refused(
        section(exact_image(), np.array(XY) + 1000.0), ValueError, r"3 of 3 spots lie outside.*Check the scale factor"
    )
    one_outside = section(exact_image(), [*XY, (900.0, 100.0)])
    assert_refused(one_outside, ValueError, r"1 of 4 spots lie outside.*400 wide and 300 high.*'spot3'")
    assert_refused(one_outside, ValueError, "outside", call=pp.patches, size_px=10)


def test_swapped_coordinates_are_named_in_the_error():
    adata = section(exact_image(), [[80.0, 100.0], [150.0, 390.0]])
    assert_refused(adata, ValueError, r"1 of 2 spots lie outside.*fit when x and y are swapped")


def test_a_spot_on_the_edge_is_inside():
    assert resolve_one(section(exact_image(), [[0.0, 0.0], [WIDTH, HEIGHT]])).n_spots == 2


def test_missing_coordinates():
    adata = section(exact_image(), [[10.0, 10.0], [np.nan, 20.0], [np.inf, 5.0]])
    assert_refused(adata, ValueError, r"2 spots without coordinates \(NaN\): 'spot1', 'spot2'")
    assert_refused(adata, ValueError, "without coordinates", need_image=False)
    one_place = section(exact_image(), [[10.0, 20.0]] * 3)
    assert_refused(one_place, ValueError, "all 3 spots have the same coordinates")
    assert_refused(
        section(exact_image()),
        KeyError,
        "'X_spatial' is not in obsm, which holds 'spatial'",
        places=Places(spatial_key="X_spatial"),
    )
    flat = section(exact_image())
    flat.obsm["flat"] = np.zeros((3, 1))
    assert_refused(flat, ValueError, r"must hold the \(x, y\).*\(3, 1\)", places=Places(spatial_key="flat"))


@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_duplicate_names():
    adata = section(exact_image())
    adata.obs_names = ["a", "b", "a"]
    assert_refused(adata, ValueError, "Spot names.*found more than once: 'a'.*obs_names_make_unique")
    adata = section(exact_image())
    adata.var_names = ["G", "G"]
    assert_refused(adata, ValueError, "Gene names.*'G'.*var_names_make_unique")


def test_empty_and_tiny_sections():
    assert_refused(section(exact_image(), np.empty((0, 2))), ValueError, "no spots")
    slide = resolve_one(section(exact_image(), [[10.0, 20.0]]))
    assert (slide.n_spots, slide.mpp, slide.pitch()) == (1, None, 1.0)
    same_place = resolve_one(section(exact_image(), [[10.0, 20.0], [10.0, 20.0]]))
    assert same_place.pitch() == 1.0


@pytest.mark.parametrize("data", ["slide.h5ad", None, np.zeros((3, 3)), [ad.AnnData(np.zeros((3, 3)))]])
def test_objects_that_are_no_slide(data: object):
    advice = {str: "anndata.read_h5ad", list: "loop over a list"}.get(type(data), "Pass one slide")
    for call in (resolve, table_of, pp.patches, pp.hypergraph, lambda d: pp.features(d, size_um=10), tl.predict):
        with pytest.raises(TypeError, match=rf"must be an AnnData or a SpatialData, found .*\. .*{advice}"):
            call(data)


# --- thumbnails -----------------------------------------------------------------------------------------------


def test_thumbnail_keeps_places():
    slide = resolve_one(section(ramp()))
    small, scale = slide.thumbnail(100)
    assert small.shape == (75, 100, 3)
    assert scale == (0.25, 0.25)
    x, y = 41, 20
    np.testing.assert_allclose(small[y, x, :2] * 2.0 + 1, ((x + 0.5) / scale[0], (y + 0.5) / scale[1]), atol=2)
    whole, one = slide.thumbnail(1000)
    assert (whole.shape, one) == ((300, 400, 3), (1.0, 1.0))


def test_spot_diameter_and_size():
    adata = section(exact_image(), np.array(XY) * 2.0, key="hires", scale=0.5)
    assert resolve_one(adata).spot_diameter is None
    adata.uns["spatial"]["S1"]["scalefactors"]["spot_diameter_fullres"] = np.float32(55)
    slide = resolve_one(adata)
    assert slide.spot_diameter == 55.0
    assert slide.size == (800.0, 600.0)


def test_thumbnail_of_a_large_image_is_made_in_parts(monkeypatch: pytest.MonkeyPatch):
    image = np.kron(np.arange(30 * 25).reshape(30, 25, 1) % 251, np.ones((100, 100, 3))).astype(np.uint8)
    source = RecordingArray(image)
    lazy = da.from_array(source, chunks=(1024, 1024, 3), asarray=False, meta=np.empty((0, 0, 0), np.uint8))
    slide = resolve_one(section(lazy))
    monkeypatch.setattr("sthggep._slides._slide.LARGE_PX", 1 << 40)
    expected, scale = slide.thumbnail(200)
    monkeypatch.setattr("sthggep._slides._slide.LARGE_PX", 1 << 20)
    source.reads.clear()
    reopened = resolve_one(section(lazy))
    thumbnail, scale_in_parts = reopened.thumbnail(200)
    assert scale == scale_in_parts
    assert thumbnail.shape == expected.shape
    assert np.abs(thumbnail.astype(int) - expected).mean() < 1
    assert len(source.reads) == len(set(source.reads)) == 9
