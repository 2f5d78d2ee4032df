"""Pseudo-spots: their places, all further calls on them, and the details that a denser map recovers."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import RBFInterpolator
from skimage.filters import gaussian
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Identity, get_transformation

from sthggep import datasets, io, pl, pp, tl
from sthggep._slides._resolve import resolve_image, resolve_one
from sthggep._slides._tissue_mask import tissue_mask
from sthggep.datasets import _toy_genes, _toy_tissue

QUIET = {"show_progress_bar": False}


def tissue_of(slide: ad.AnnData) -> _toy_tissue.Tissue:
    """The tissue that a toy section was rendered from."""
    params = slide.uns["toy"]
    seed = np.random.SeedSequence(params["seed"]).spawn(4)[0]
    return _toy_tissue.grow(seed, tuple(float(side) for side in params["size_um"]))


def truth(slide: ad.AnnData, xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """True expression of toy tissue at any place, on the scale of predictions."""
    params = slide.uns["toy"]
    genes = _toy_genes.gene_table(params["n_genes"])
    quantities = _toy_tissue.measure(tissue_of(slide), xy_um)
    expected = _toy_genes.expected_counts(genes, quantities, params["counts_per_spot"], np.random.default_rng(0))
    return np.log10(1 + 1e4 * expected / expected.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def section() -> ad.AnnData:
    """Tissue that no model was trained on."""
    return datasets.toy(seed=2, size_um=(1600.0, 1400.0), mpp=2.0, n_genes=20)


@pytest.fixture
def slide_file(section: ad.AnnData, tmp_path: Path) -> Path:
    """The image alone, as a tiled pyramid that states its microns per pixel."""
    image = section.uns["spatial"]["toy3"]["images"]["hires"]
    options = {"photometric": "rgb", "tile": (128, 128), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        tif.write(image, subifds=1, resolution=(5000, 5000), **options)
        small = np.asarray(Image.fromarray(image).resize((400, 350), Image.Resampling.BOX))
        tif.write(small, subfiletype=1, resolution=(2500, 2500), **options)
    return tmp_path / "slide.tif"


def image_only(image: object, mpp: float | None = 2.0, scale: float = 1.0) -> ad.AnnData:
    library = {
        "images": {"hires": image},
        "scalefactors": {"tissue_hires_scalef": scale},
        "metadata": {} if mpp is None else {"mpp": mpp},
    }
    return ad.AnnData(uns={"spatial": {"S": library}})


# --- places ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "layout"), [(100.0, "square"), (55.0, "square"), (80.0, "hex")])
def test_the_grid_is_a_lattice_in_microns_over_the_tissue(section: ad.AnnData, spacing: float, layout: str):
    grid = pp.tissue_grid(section, spacing_um=spacing, layout=layout)
    assert grid.n_vars == 0
    assert grid.obs_names.is_unique
    slide = resolve_one(grid)
    assert (slide.name, slide.mpp, slide.spot_diameter) == ("toy3", 2.0, spacing / 2)
    assert slide.pitch() * slide.mpp == pytest.approx(spacing)
    gaps = np.linalg.norm(slide.xy[:, None] - slide.xy[None], axis=2)
    assert np.sort(gaps, axis=1)[:, 1].max() * 2 == pytest.approx(spacing)
    # all of the grid lies on tissue, and the grid covers all tissue
    tissue = tissue_of(section)
    share = _toy_tissue.tissue_share(tissue, slide.xy * 2)
    assert share.min() > 0.2
    assert np.mean(share > 0.5) > 0.93
    full = np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(5, 1600, 10), np.arange(5, 1400, 10))])
    inside = full[_toy_tissue.sample(tissue.inside, full, 10.0) > 0.9]
    nearest = np.array([np.linalg.norm(slide.xy * 2 - at, axis=1).min() for at in inside[::7]])
    assert np.mean(nearest < spacing) > 0.99
    assert grid.obs["tissue_fraction"].between(0.5, 1).all()


def test_the_grid_shares_only_the_image_of_the_source(section: ad.AnnData):
    before = section.copy()
    grid = pp.tissue_grid(section, spacing_um=200, size_um=120, min_tissue=0.7, tissue="auto")
    images, source_images = (data.uns["spatial"]["toy3"]["images"] for data in (grid, section))
    assert all(images[name] is source_images[name] for name in source_images)
    assert grid.uns["tissue_grid"] == {
        "tool": "sthggep",
        "spacing_um": 200.0,
        "size_um": 120.0,
        "layout": "square",
        "min_tissue": 0.7,
        "tissue": "auto",
        "mpp": 2.0,
        "mpp_source": "metadata",
    }
    assert section.uns["spatial"]["toy3"]["scalefactors"] == before.uns["spatial"]["toy3"]["scalefactors"]
    assert section.uns["spatial"]["toy3"]["metadata"] == before.uns["spatial"]["toy3"]["metadata"]
    assert set(section.uns) == set(before.uns)


def test_microns_come_from_the_spots_of_a_measured_slide(section: ad.AnnData):
    bare = section.copy()
    bare.uns["spatial"] = {"toy3": {**bare.uns["spatial"]["toy3"], "metadata": {"pitch_um": 200.0}}}
    grid = pp.tissue_grid(bare, spacing_um=100)
    assert grid.uns["tissue_grid"]["mpp_source"] == "spot pitch"
    np.testing.assert_allclose(grid.obsm["spatial"], pp.tissue_grid(section, spacing_um=100).obsm["spatial"])


def test_an_image_without_spots(section: ad.AnnData):
    library = section.uns["spatial"]["toy3"]
    grid = pp.tissue_grid(image_only(library["images"]["hires"]), spacing_um=100)
    np.testing.assert_array_equal(grid.obsm["spatial"], pp.tissue_grid(section, spacing_um=100).obsm["spatial"])
    half = np.asarray(Image.fromarray(library["images"]["hires"]).resize((400, 350), Image.Resampling.BOX))
    coarse = pp.tissue_grid(image_only(half, scale=0.5), spacing_um=100)
    common = set(map(tuple, coarse.obsm["spatial"])) & set(map(tuple, grid.obsm["spatial"]))
    assert len(common) > 0.9 * max(coarse.n_obs, grid.n_obs)
    with pytest.raises(ValueError, match="microns per pixel are not known"):
        pp.tissue_grid(image_only(half, mpp=None))
    assert pp.tissue_grid(image_only(half, mpp=None), mpp=4.0).n_obs > 100
    with pytest.raises(KeyError, match="has no image"):
        pp.tissue_grid(ad.AnnData())


# --- tissue -------------------------------------------------------------------------------------------------------


def overlap(slide: ad.AnnData) -> float:
    """Intersection over union of the detected tissue and the rendered tissue."""
    mask = tissue_mask(resolve_image(slide))
    height, width = mask.shape
    size = slide.uns["toy"]["size_um"]
    x, y = np.meshgrid((np.arange(width) + 0.5) * size[0] / width, (np.arange(height) + 0.5) * size[1] / height)
    truth_mask = _toy_tissue.sample(tissue_of(slide).inside, np.column_stack([x.ravel(), y.ravel()]), 10.0) > 0.5
    truth_mask = truth_mask.reshape(mask.shape)
    return float((mask & truth_mask).sum() / (mask | truth_mask).sum())


@pytest.mark.parametrize("mpp", [1.0, 2.0, 4.0])
def test_tissue_is_detected_at_any_resolution(mpp: float):
    assert overlap(datasets.toy(seed=3, size_um=(1600.0, 1600.0), mpp=mpp, n_genes=1)) > 0.96


def test_tissue_is_detected_on_tinted_shaded_and_dirty_glass(section: ad.AnnData):
    image = section.uns["spatial"]["toy3"]["images"]["hires"].astype(float)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    shade = 1 - 0.4 * (x / width)[..., None] * np.array([0.2, 1.0, 0.5])  # towards magenta on the right
    # a fiducial mark, out of focus
    mark = gaussian((np.hypot(x - 30, y - 30) < 20).astype(float), 12)[..., None]
    dirty = np.clip(image * shade * (1 - 0.5 * mark), 0, 255).astype(np.uint8)
    other = section.copy()
    other.uns["spatial"] = image_only(dirty).uns["spatial"]
    assert overlap(other) > 0.95


def test_images_of_only_glass_and_of_only_tissue(section: ad.AnnData):
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(240, 2, (500, 600, 3)), 0, 255).astype(np.uint8)
    with pytest.raises(
        ValueError, match=r"'S' \(1200 × 1000 µm.*none of 120 places lies on at least 50% tissue.*`tissue="
    ):
        pp.tissue_grid(image_only(glass))
    inside = section.uns["spatial"]["toy3"]["images"]["hires"][200:500, 200:600]
    assert pp.tissue_grid(image_only(inside)).n_obs == 8 * 6


PLACES_UM = {  # left and top of 200 µm of glass in a section of 1200 × 1000 µm
    "left": (0, 400),
    "right": (1000, 400),
    "top": (500, 0),
    "bottom": (500, 800),
    "top left": (0, 0),
    "bottom right": (1000, 800),
}


def tissue_with_glass(rng: np.random.Generator, left: int, top: int) -> ad.AnnData:
    """Textured tissue all over the image, with a square of smooth glass 200 µm wide."""
    image = np.clip(rng.normal((170, 90, 160), 40, (500, 600, 3)), 0, 255).astype(np.uint8)
    image[top // 2 : top // 2 + 100, left // 2 : left // 2 + 100] = 240
    return image_only(image)


@pytest.mark.parametrize("place", PLACES_UM)
def test_glass_between_tissue_and_the_border_is_glass(place: str):
    left, top = PLACES_UM[place]
    grid = pp.tissue_grid(tissue_with_glass(np.random.default_rng(0), left, top), spacing_um=50)
    x, y = 2.0 * grid.obsm["spatial"].T
    on_glass = (x > left) & (x < left + 200) & (y > top) & (y < top + 200)
    # At the rim a place has glass and tissue
    assert on_glass.sum() <= 7
    assert grid.obs["tissue_fraction"][on_glass].max() < 0.9
    assert (~on_glass).sum() == 24 * 20 - 16


def test_a_hole_of_that_size_within_tissue_is_tissue():
    grid = pp.tissue_grid(tissue_with_glass(np.random.default_rng(0), 500, 400), spacing_um=50)
    assert grid.n_obs == 24 * 20


@pytest.mark.parametrize("name", ["B4", "MOB3"])
@pytest.mark.filterwarnings("ignore:.*dropped:UserWarning")
def test_real_tissue_is_detected(data_root: Path, name: str):
    slide = datasets.mob(name) if name.startswith("MOB") else datasets.her2st(name)
    grid = pp.tissue_grid(slide, spacing_um=100)
    # it holds the spots, which were selected by eye, and is not much larger than the area of the spots
    away = np.linalg.norm(slide.obsm["spatial"][:, None] - grid.obsm["spatial"][None], axis=2)
    mpp = grid.uns["tissue_grid"]["mpp"]
    assert np.mean(away.min(axis=1) * mpp < 80) > 0.99
    assert np.mean(away.min(axis=0) * mpp < 250) > 0.95


def test_a_mask_of_the_user(section: ad.AnnData):
    image = section.uns["spatial"]["toy3"]["images"]["hires"]
    mask = np.zeros((14, 16), dtype=np.uint8)
    mask[:, :8] = 7
    grid = pp.tissue_grid(section, spacing_um=100, tissue=mask)
    assert grid.obsm["spatial"][:, 0].max() < 400
    assert grid.n_obs == 8 * 14
    assert grid.uns["tissue_grid"]["tissue"] == "mask"
    edge = pp.tissue_grid(section, spacing_um=100, size_um=400, tissue=mask, min_tissue=0.3)
    assert edge.obsm["spatial"][:, 0].max() == pytest.approx(425)  # 150 of 400 µm to the right are still tissue
    assert pp.tissue_grid(section, spacing_um=100, tissue=None).n_obs == 16 * 14
    with pytest.raises(ValueError, match="which is 800 wide and 700 high; its own width and height, 14 and 16"):
        pp.tissue_grid(section, tissue=mask.T)
    with pytest.raises(ValueError, match="must be a mask"):
        pp.tissue_grid(section, tissue=image)
    with pytest.raises(KeyError, match=r"'otsu.* is not in labels, which holds nothing.*None, a mask"):
        pp.tissue_grid(section, tissue="otsu")


def test_labels_of_squidpy(slide_file: Path):
    from squidpy.experimental.im import detect_tissue

    sdata = io.read_slide(slide_file)
    detect_tissue(sdata, "image")
    grid = pp.tissue_grid(sdata, spacing_um=100, tissue="image_tissue")
    assert grid.uns["tissue_grid"]["tissue"] == "image_tissue"
    own_grid = pp.tissue_grid(sdata, spacing_um=100)
    # a threshold of brightness misses fat and pale collagen
    assert 0.5 * own_grid.n_obs < grid.n_obs < own_grid.n_obs
    sdata.labels["part"] = Labels2DModel.parse(np.ones((700, 400), int), dims=("y", "x"))
    with pytest.raises(ValueError, match=r"labels\['part'\] must be a mask of the whole image"):
        pp.tissue_grid(sdata, tissue="part")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spacing_um": 0}, "`spacing_um` must be a positive number"),
        ({"size_um": -1}, "`size_um` must be a positive number"),
        ({"min_tissue": 50}, "`min_tissue` must be a share from 0 to 1, found 50"),
        ({"layout": "hexagonal"}, "Unknown layout 'hexagonal'.*'square', 'hex'"),
        ({"spacing_um": 5000}, "`spacing_um` is 5000, wider than the slide"),
    ],
)
def test_bad_options(section: ad.AnnData, options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        pp.tissue_grid(section, **options)


# --- SpatialData --------------------------------------------------------------------------------------------------


def test_from_a_file_to_a_map_and_back(slide_file: Path, light_model, tmp_path: Path, caplog):
    pytest.importorskip("spatialdata_plot")
    sdata = io.read_slide(slide_file)
    with caplog.at_level(logging.INFO, logger="sthggep"):
        grid = pp.tissue_grid(sdata, spacing_um=160)
    assert f"{grid.n_obs} pseudo-spots, 160 µm apart" in caplog.text
    assert sdata.tables["tissue_grid"] is grid
    tl.predict(sdata, light_model, **QUIET)
    assert np.isfinite(grid.obsm["hggep"]).all()
    figure = pl.gene_map(sdata, "NUCL1")
    assert [ax.get_title() for ax in figure.axes] == ["H&E", "NUCL1 predicted"]
    (circles,) = figure.axes[1].collections
    np.testing.assert_allclose(circles.get_array(), grid.obsm["hggep"][:, 0])
    np.testing.assert_allclose(circles.get_offsets(), grid.obsm["spatial"])

    # the grid names the file of the image
    only_grid = grid.copy()
    tl.predict(only_grid, light_model, key_added="again", **QUIET)
    np.testing.assert_allclose(only_grid.obsm["again"], grid.obsm["hggep"], atol=1e-4)

    sdata.write(tmp_path / "s.zarr")
    copy = sd.read_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(copy["tissue_grid"].obsm["hggep"], grid.obsm["hggep"])
    assert resolve_one(copy).mpp == 2.0
    copy["predicted"] = tl.to_adata(copy)
    copy.write_element("predicted")
    reread = sd.read_zarr(tmp_path / "s.zarr")
    axes = (
        reread.pl.render_images("image")
        .pl.render_shapes("tissue_grid_spots", color="NUCL1", table_name="predicted", method="matplotlib")
        .pl.show(return_ax=True)
    )
    (collection,) = axes.collections
    assert len(collection.get_paths()) == grid.n_obs
    # each spot has the color of the gene and its place
    centers = np.array([path.get_extents().corners().mean(axis=0) for path in collection.get_paths()])
    np.testing.assert_allclose(centers, grid.obsm["spatial"], atol=0.5)
    shades = collection.get_facecolor()[:, :3] @ [0.3, 0.6, 0.1]
    assert np.corrcoef(shades, grid.obsm["hggep"][:, 0])[0, 1] > 0.9


def test_denser_than_a_measured_spatialdata(section: ad.AnnData, light_model):
    sdata = datasets.toy(seed=2, size_um=(1600.0, 1400.0), mpp=2.0, n_genes=20, as_spatialdata=True)
    before = sdata["table"].copy()
    grid = pp.tissue_grid(sdata, spacing_um=200, key_added="dense")
    np.testing.assert_allclose(grid.obsm["spatial"], pp.tissue_grid(section, spacing_um=200).obsm["spatial"])
    assert set(sdata.tables) == {"table", "dense"}
    tl.predict(sdata, light_model, table_key="dense", **QUIET)
    assert "hggep" not in sdata["table"].obsm
    assert list(sdata["table"].uns) == list(before.uns)
    with pytest.raises(KeyError, match=r"tl\.predict"):
        tl.evaluate(sdata)
    assert len(pl.gene_map(sdata, "NUCL1", table_key="dense").axes) == 2


def test_the_grid_of_a_rotated_image_is_rotated():
    y, x = np.mgrid[:300, :400]
    image = np.stack([x % 256, y % 256, x // 256 * 16 + y // 256]).astype(np.uint8)
    angle = np.deg2rad(30)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 30], [np.sin(angle), np.cos(angle), -20], [0, 0, 1]])
    systems = {"global": Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y")), "pixels": Identity()}
    element = Image2DModel.parse(image, dims=("c", "y", "x"), transformations=systems)
    sdata = SpatialData(images={"he": element})
    grid = pp.tissue_grid(sdata, spacing_um=20, tissue=None, mpp=0.5)
    shapes = sdata["tissue_grid_spots"]
    assert get_transformation(shapes, get_all=True) == get_transformation(element, get_all=True)
    world = sd.transform(shapes, to_coordinate_system="global").geometry
    expected = grid.obsm["spatial"] @ matrix[:2, :2].T + matrix[:2, 2]
    np.testing.assert_allclose(np.column_stack([world.x, world.y]), expected, atol=1e-9)
    for system in ("global", "pixels"):
        patches = pp.patches(sdata, size_px=10, coordinate_system=system)
        np.testing.assert_allclose(patches.slide.xy, grid.obsm["spatial"], atol=1e-9)
        corner = patches.boxes()[7, :2].astype(int)
        expected_patch = np.moveaxis(image[:, corner[1] : corner[1] + 10, corner[0] : corner[0] + 10], 0, -1)
        np.testing.assert_array_equal(patches[7], expected_patch)


def test_several_images_need_a_choice(slide_file: Path):
    sdata = io.read_slide(slide_file)
    sdata.images["other"] = Image2DModel.parse(
        np.zeros((3, 50, 50), np.uint8), dims=("c", "y", "x"), c_coords=["r", "g", "b"]
    )
    with pytest.raises(ValueError, match=r"several images \('image', 'other'\)"):
        pp.tissue_grid(sdata)
    assert not sdata.tables
    assert pp.tissue_grid(sdata, image_key="image").n_obs > 100
    with pytest.raises(KeyError, match="'scan' is not in the images"):
        pp.tissue_grid(io.read_slide(slide_file), image_key="scan")
    with pytest.raises(KeyError, match="The images are not in coordinate system 'lab'; they are in 'global'"):
        pp.tissue_grid(io.read_slide(slide_file), coordinate_system="lab")


def test_a_grid_is_replaced_and_nothing_else(slide_file: Path):
    sdata = io.read_slide(slide_file)
    first = pp.tissue_grid(sdata, spacing_um=200)
    second = pp.tissue_grid(sdata, spacing_um=100)
    assert second.n_obs > 3 * first.n_obs
    assert sdata["tissue_grid"] is second
    assert len(sdata["tissue_grid_spots"]) == second.n_obs
    sdata["mine"] = ad.AnnData(np.ones((2, 2)))
    pp.tissue_grid(sdata, spacing_um=200, table_key="tissue_grid", key_added="coarse")
    for name in ("mine", "image", "MINE"):
        with pytest.raises(ValueError, match=rf"'{name.lower()}' exists already.*another `key_added=`"):
            pp.tissue_grid(sdata, table_key="tissue_grid", key_added=name)
    assert set(sdata.tables) == {"tissue_grid", "mine", "coarse"}
    assert set(sdata.shapes) == {"tissue_grid_spots", "coarse_spots"}


def test_the_slide_is_not_read_whole(slide_file: Path):
    sdata = io.read_slide(slide_file)
    tree = sdata["image"]

    def never(_block):
        msg = "full resolution read"
        raise AssertionError(msg)

    full = tree["scale0"]["image"]
    tree["scale0"]["image"] = full.copy(
        data=da.map_blocks(never, full.data, dtype=full.dtype, meta=np.empty((0, 0, 0)))
    )
    with pytest.raises(AssertionError, match="full resolution read"):
        tree["scale0"]["image"].compute()
    assert pp.tissue_grid(sdata, spacing_um=100).n_obs > 100


# --- what a denser map recovers -----------------------------------------------------------------------------------


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(a.shape[1])])


def test_a_map_between_the_spots_follows_the_truth(section: ad.AnnData, toy: ad.AnnData):
    """Spots are 200 µm apart; the map is twice as dense, and each of its places is at least 70 µm from a spot."""
    second = datasets.toy(seed=1, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=toy.n_vars)
    model = tl.fit([toy, second], genes=list(toy.var_names), size_um=100, n_members=0, **QUIET)
    grid = pp.tissue_grid(section, spacing_um=100)
    for slide in (section, grid):
        tl.predict(slide, model, **QUIET)
    xy = grid.obsm["spatial"] * 2.0
    gaps = np.linalg.norm(xy[:, None] - section.obsm["spatial"][None] * 2, axis=2).min(axis=1)
    assert gaps.min() > 70
    true = truth(section, xy)
    follows = (section.var["family"] != "NOISE").to_numpy()

    def between(values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Interpolate values at the spots to the places of the map."""
        return RBFInterpolator(section.obsm["spatial"], values, neighbors=12, kernel="linear")(grid.obsm["spatial"])

    raw = section.X.toarray()
    measured = np.log10(1 + 1e4 * raw / raw.sum(axis=1, keepdims=True))
    dense = correlation(grid.obsm["hggep"], true)
    interpolated = correlation(between(section.obsm["hggep"]), true)
    of_counts = correlation(between(measured), true)
    assert dense[follows].mean() > 0.8
    assert dense[follows].mean() > interpolated[follows].mean() + 0.03
    assert dense[follows].mean() > of_counts[follows].mean() + 0.05
    # the map holds most of the detail between the spots that interpolation cannot show
    true_detail = true - between(truth(section, section.obsm["spatial"] * 2.0))
    predicted_detail = grid.obsm["hggep"] - between(section.obsm["hggep"])
    assert correlation(predicted_detail, true_detail)[follows].mean() > 0.5
    # the map invents no pattern for genes that follow no visible quantity
    assert np.abs(dense[~follows]).max() < 0.3


def test_neighbors_of_denser_spots_are_as_distant_as_in_training(toy: ad.AnnData):
    """At the places of the spots a denser map has the predictions of the spots: their neighbors are the same."""
    model = tl.fit(
        toy, genes=list(toy.var_names[:8]), obsm="morphology", n_members=1, max_epochs=5, validation=None, **QUIET
    )
    assert model.pitch_um == pytest.approx(200)
    sparse = datasets.toy(seed=4, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=8)
    array = sparse.obs[["array_x", "array_y"]].to_numpy()
    shifts = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    places = np.concatenate([2 * array + shift for shift in shifts])
    xy = np.concatenate([sparse.obsm["spatial"] + shift * 50.0 for shift in shifts])
    dense = ad.AnnData(obs={"array_x": places[:, 0], "array_y": places[:, 1]}, obsm={"spatial": xy})
    dense.obs_names = [f"{x}x{y}" for x, y in places]
    dense.obsm["morphology"] = _toy_tissue.measure(tissue_of(sparse), xy * 2.0).set_index(dense.obs_names)
    dense.uns["spatial"] = sparse.uns["spatial"]
    for slide in (sparse, dense):
        tl.predict(slide, model, **QUIET)
    model.training.pitch_um = []  # as models of earlier versions
    tl.predict(dense, model, key_added="nearest", **QUIET)
    n = sparse.n_obs
    # a difference remains, since features are scaled over all spots of the section
    difference, difference_of_nearest = (
        np.abs(dense.obsm[key][:n] - sparse.obsm["hggep"]).mean() for key in ("hggep", "nearest")
    )
    assert difference < 0.5 * difference_of_nearest
    assert difference < 0.1 * sparse.obsm["hggep"].std(axis=0).mean()
