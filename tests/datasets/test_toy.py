"""The toy tissue: its genes follow quantities that its image shows."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from sthggep.datasets._toy import toy

SMALL = {"size_um": (900.0, 700.0)}


@pytest.fixture(scope="module")
def section() -> ad.AnnData:
    return toy(size_um=(2600, 2400), pitch_um=110, n_genes=32)


def full_image(adata: ad.AnnData) -> np.ndarray:
    (record,) = adata.uns["spatial"].values()
    return record["images"].get("fullres", record["images"]["hires"])


def cut(adata: ad.AnnData, side_um: float = 110) -> list[np.ndarray]:
    half = round(side_um / adata.uns["toy"]["mpp"] / 2)
    image = np.pad(full_image(adata), ((half, half), (half, half), (0, 0)), constant_values=255)
    return [image[y : y + 2 * half, x : x + 2 * half] for x, y in np.rint(adata.obsm["spatial"]).astype(int)]


def family(adata: ad.AnnData, name: str) -> np.ndarray:
    return np.asarray(adata.layers["true_rate"][:, adata.var["family"] == name])


def correlations(rates: np.ndarray, quantity: np.ndarray) -> np.ndarray:
    return np.corrcoef(rates.T, quantity)[-1, :-1]


def test_layout_of_the_table(section):
    assert list(section.obs.columns) == ["patient", "section", "array_x", "array_y", "domain", "library_size"]
    assert section.obs["section"].cat.categories.tolist() == ["toy1"]
    assert section.obs["patient"].cat.categories.tolist() == ["toy1"]
    assert section.obs_names[0] == f"{section.obs['array_x'].iloc[0]}x{section.obs['array_y'].iloc[0]}"
    assert section.obs_names.is_unique
    assert section.var_names.is_unique
    assert section.obs["array_x"].dtype == section.obs["array_y"].dtype == np.int64
    assert set(section.obs["domain"].cat.categories) == {"tumor", "stroma", "immune", "adipose"}
    assert section.obs["domain"].nunique() == 4
    assert section.obsm["spatial"].shape == (section.n_obs, 2)
    assert section.obsm["spatial"].dtype == np.float64
    assert section.var_names[:9].tolist() == [
        "NUCL1", "PLEO1", "STRO1", "IMMU1", "FAT1", "NICH1", "NOISE1", "RARE1", "NUCL2",
    ]  # fmt: skip


def test_names_can_be_chosen():
    adata = toy(section="A1", patient="A", **SMALL)
    assert set(adata.uns["spatial"]) == {"A1"}
    assert set(adata.obs["section"]) == {"A1"}
    assert set(adata.obs["patient"]) == {"A"}


def test_image_record_of_a_large_and_of_a_small_section(section):
    record = section.uns["spatial"]["toy1"]
    assert record["images"]["fullres"].shape == (2400, 2600, 3)
    assert record["images"]["fullres"].dtype == record["images"]["hires"].dtype == np.uint8
    assert max(record["images"]["hires"].shape) == 2000
    assert record["scalefactors"]["tissue_hires_scalef"] == pytest.approx(2000 / 2600)
    assert record["scalefactors"]["spot_diameter_fullres"] == 55
    assert record["metadata"]["pitch_um"] == 110
    assert record["metadata"]["mpp"] == 1
    small = toy(**SMALL).uns["spatial"]["toy1"]
    assert set(small["images"]) == {"hires"}
    assert small["scalefactors"]["tissue_hires_scalef"] == 1


def test_spots_lie_under_tissue_and_inside_the_image(section):
    height, width = full_image(section).shape[:2]
    assert (section.obsm["spatial"] > 0).all()
    assert (section.obsm["spatial"] < [width, height]).all()
    glass = np.array([(patch.min(axis=2) > 225).mean() for patch in cut(section)])
    not_fat = section.obs["domain"] != "adipose"
    assert np.median(glass[not_fat]) < 0.05
    corner = full_image(section)[:40, :40]
    assert corner.mean() > 235


def test_one_seed_is_one_section():
    first, second = toy(seed=4, **SMALL), toy(seed=4, **SMALL)
    assert (first.X != second.X).nnz == 0
    np.testing.assert_array_equal(full_image(first), full_image(second))
    np.testing.assert_array_equal(first.layers["true_rate"], second.layers["true_rate"])
    pd.testing.assert_frame_equal(first.obs, second.obs)


def test_other_seeds_are_other_sections_of_one_species():
    first, second = toy(seed=4, **SMALL), toy(seed=5, **SMALL)
    assert (full_image(first) != full_image(second)).mean() > 0.5
    pd.testing.assert_frame_equal(first.var, second.var)
    # the common factor cancels between two genes of one family: the rest follows their quantity in the same way
    for adata in (first, second):
        rate, level = np.log(adata.layers["true_rate"]), adata.obsm["morphology"]["fiber"]
        ratio = rate[:, adata.var_names.get_loc("STRO2")] - rate[:, adata.var_names.get_loc("STRO1")]
        slope = adata.var.loc["STRO2", "slope"] - adata.var.loc["STRO1", "slope"]
        np.testing.assert_allclose(np.polyfit(level, ratio, 1)[0], slope / 0.4, rtol=1e-3)


def test_fewer_genes_are_the_first_of_more():
    many, few = toy(seed=4, **SMALL), toy(seed=4, n_genes=12, **SMALL)
    pd.testing.assert_frame_equal(few.var.astype(str), many.var.iloc[:12].astype(str))
    # the depth is divided among the genes: the rates differ by one factor
    ratio = many.layers["true_rate"][:, :12] / few.layers["true_rate"]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_sections_differ_in_stain():
    hues = [full_image(toy(seed=seed, **SMALL)).reshape(-1, 3) for seed in range(4)]
    # the ratio of optical densities in red and in blue depends on the stain, not on its amount
    ratios = []
    for pixels in hues:
        density = -np.log(pixels[pixels.min(axis=1) < 150] / 245)
        ratios.append(density[:, 0].sum() / density[:, 2].sum())
    assert np.std(ratios) > 0.02


def test_tissue_does_not_depend_on_resolution():
    fine, coarse = toy(mpp=0.5, **SMALL), toy(mpp=2, **SMALL)
    assert full_image(fine).shape == (1400, 1800, 3)
    assert full_image(coarse).shape == (350, 450, 3)
    np.testing.assert_array_equal(fine.layers["true_rate"], coarse.layers["true_rate"])
    np.testing.assert_allclose(fine.obsm["spatial"] * 0.5, coarse.obsm["spatial"] * 2)
    shrunk = full_image(fine).reshape(350, 4, 450, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), full_image(coarse).ravel())[0, 1] > 0.9


def test_bands_join_without_a_seam(section):
    rows = full_image(section).astype(float).mean(axis=2)
    step = np.abs(np.diff(rows, axis=0)).mean(axis=1)
    # rows 511 and 512 belong to different bands
    assert step[511] < 1.4 * np.median(step[480:540])
    assert step[1023] < 1.4 * np.median(step[990:1050])


def test_counts_follow_the_true_rate():
    adata = toy(counts_per_spot=1e6, pitch_um=60, n_genes=16, size_um=(1500, 1500))
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert (adata.X.data >= 0).all()
    assert (adata.X.data == np.rint(adata.X.data)).all()
    counts = adata.X.toarray()
    expected = adata.layers["true_rate"] * adata.obs["library_size"].to_numpy()[:, None]
    assert np.mean(counts / expected) == pytest.approx(1, abs=0.02)
    for gene in range(adata.n_vars):
        assert np.corrcoef(counts[:, gene], expected[:, gene])[0, 1] > 0.6
    # variance = mean + 0.1 mean²: at this depth the second term dominates
    assert np.std(counts / expected) == pytest.approx(np.sqrt(0.1), abs=0.03)
    assert np.std(np.log(adata.obs["library_size"])) == pytest.approx(0.3, abs=0.05)


def test_depth_and_rare_genes(section):
    assert section.layers["true_rate"].sum(axis=1).mean() == pytest.approx(2000, rel=0.1)
    per_gene = pd.Series(np.asarray(section.X.mean(axis=0)).ravel(), index=section.var["family"].astype(str))
    assert (per_gene["RARE"] < 1.5).all()
    assert (per_gene.drop("RARE") > 5).all()


def test_rates_follow_visible_quantities(section):
    from skimage.color import rgb2hed

    patches = cut(section)
    stain = np.array([rgb2hed(patch).mean(axis=(0, 1)) for patch in patches])
    white = np.array([(patch.min(axis=2) > 225).mean() for patch in patches])
    assert (correlations(family(section, "NUCL"), stain[:, 0]) > 0.6).all()
    assert (correlations(family(section, "RARE"), stain[:, 0]) > 0.6).all()
    assert (correlations(family(section, "STRO"), stain[:, 1]) > 0.6).all()
    assert (correlations(family(section, "FAT"), white) > 0.8).all()
    # the noise genes follow none of these quantities, not even through the total (bound: four standard errors)
    bound = 4 / np.sqrt(section.n_obs)
    for quantity in (*stain[:, :2].T, white):
        assert (np.abs(correlations(family(section, "NOISE"), quantity)) < bound).all()


def test_drawn_nuclei_have_the_recorded_size(section):
    from skimage.filters import threshold_otsu
    from skimage.measure import label, regionprops_table

    dense = (section.obs["domain"].isin(["tumor", "immune"])).to_numpy()
    # in red, hematoxylin absorbs and eosin hardly does
    size = []
    red = full_image(section)[..., 0]
    threshold = threshold_otsu(red[::3, ::3])
    for patch in cut(section):
        areas = regionprops_table(label(patch[..., 0] < threshold), properties=("area",))["area"]
        size.append(np.median(areas[areas > 8]) if (areas > 8).any() else np.nan)
    sizes = pd.Series(size)[dense]
    assert np.corrcoef(np.log(sizes), section.obsm["morphology"]["size"][dense])[0, 1] > 0.5


def test_niche_describes_the_surroundings_of_the_spot(section):
    morphology, tree = section.obsm["morphology"], cKDTree(section.obsm["spatial"])
    around = [[j for j in near if j != i] for i, near in enumerate(tree.query_ball_point(section.obsm["spatial"], 350))]
    neighbors = np.array([morphology["immune"].iloc[near].mean() for near in around])
    own_share = np.corrcoef(morphology["niche"], morphology["immune"])[0, 1]
    assert np.corrcoef(morphology["niche"], neighbors)[0, 1] > own_share + 0.1


@pytest.mark.parametrize(("layout", "neighbors"), [("square", 4), ("hex", 6)])
@pytest.mark.parametrize("mpp", [1.0, 2.5])
def test_pitch_in_microns(layout, neighbors, mpp):
    adata = toy(layout=layout, pitch_um=100, mpp=mpp, size_um=(1200, 900))
    distance, _ = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], k=8)
    near = distance[:, 1:] * mpp < 100.5
    np.testing.assert_allclose(distance[:, 1] * mpp, 100, rtol=1e-9)
    assert near.sum(axis=1).max() == neighbors
    assert adata.uns["spatial"]["toy1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(50 / mpp)
    step = np.array([1, 1]) if layout == "square" else np.array([0.5, np.sqrt(3) / 2])
    array = adata.obs[["array_x", "array_y"]].to_numpy()
    offset = adata.obsm["spatial"] * mpp - array * step * 100
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape))
    if layout == "hex":
        assert (array.sum(axis=1) % 2 == 0).all()


def test_size_scales_the_image_and_the_spots():
    small, large = toy(size_um=(800, 800), mpp=2), toy(size_um=(1600, 800), mpp=2)
    assert full_image(small).shape == (400, 400, 3)
    assert full_image(large).shape == (400, 800, 3)
    assert 1.5 < large.n_obs / small.n_obs < 3


def test_spatialdata_holds_the_same(section):
    from spatialdata import get_extent
    from spatialdata.models import get_table_keys
    from spatialdata.transformations import get_transformation

    sdata = toy(size_um=(2600, 2400), pitch_um=110, n_genes=32, as_spatialdata=True)
    assert sdata.coordinate_systems == ["toy1"]
    table, image, circles = sdata["table"], sdata["toy1_full_image"], sdata["toy1"]
    assert [sdata["toy1_full_image"][f"scale{k}"]["image"].shape[1:] for k in range(3)] == [
        (2400, 2600), (1200, 1300), (600, 650),
    ]  # fmt: skip
    np.testing.assert_array_equal(image["scale0"]["image"].to_numpy().transpose(1, 2, 0), full_image(section))
    assert (table.X != section.X).nnz == 0
    np.testing.assert_array_equal(table.layers["true_rate"], section.layers["true_rate"])
    assert set(table.uns["spatial"]["toy1"]) == {"metadata"}
    region, region_key, instance_key = get_table_keys(table)
    assert region == "toy1"
    assert set(table.obs[region_key]) == {"toy1"}
    rows = circles.loc[table.obs[instance_key]]
    to_pixels = np.linalg.inv(
        get_transformation(image, to_coordinate_system="toy1").to_affine_matrix(("x", "y"), ("x", "y"))
    ) @ get_transformation(circles, to_coordinate_system="toy1").to_affine_matrix(("x", "y"), ("x", "y"))
    centers = np.column_stack([rows.geometry.x, rows.geometry.y, np.ones(len(rows))]) @ to_pixels.T
    np.testing.assert_allclose(centers[:, :2], section.obsm["spatial"])
    assert (rows["radius"] == 27.5).all()
    assert get_extent(image, coordinate_system="toy1")["x"] == (0, 2600)


def test_anndata_survives_the_disk(tmp_path):
    adata = toy(n_genes=8, **SMALL)
    adata.write_h5ad(tmp_path / "toy.h5ad")
    adata.write_zarr(tmp_path / "toy.zarr")
    for back in (ad.read_h5ad(tmp_path / "toy.h5ad"), ad.read_zarr(tmp_path / "toy.zarr")):
        assert (back.X != adata.X).nnz == 0
        np.testing.assert_array_equal(back.layers["true_rate"], adata.layers["true_rate"])
        np.testing.assert_array_equal(full_image(back), full_image(adata))
        pd.testing.assert_frame_equal(back.obs, adata.obs)
        pd.testing.assert_frame_equal(back.obsm["morphology"], adata.obsm["morphology"])
        assert back.uns["toy"]["layout"] == "square"
        assert back.uns["toy"]["size_um"].tolist() == [900, 700]


def test_spatialdata_survives_the_disk(tmp_path):
    from spatialdata import read_zarr

    sdata = toy(n_genes=8, layout="hex", as_spatialdata=True, **SMALL)
    sdata.write(tmp_path / "toy.zarr")
    back = read_zarr(tmp_path / "toy.zarr")
    np.testing.assert_array_equal(back["table"].layers["true_rate"], sdata["table"].layers["true_rate"])
    np.testing.assert_array_equal(
        back["toy1_full_image"]["scale0"]["image"].to_numpy(), sdata["toy1_full_image"]["scale0"]["image"].to_numpy()
    )
    assert back.coordinate_systems == ["toy1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mpp": 0}, "`mpp` must be a positive number; found 0"),
        ({"pitch_um": float("nan")}, "`pitch_um` must be a positive number"),
        ({"size_um": (1000, -5)}, "`size_um` must be a positive number"),
        ({"size_um": 3000}, "width and the height"),
        ({"layout": "triangle"}, "'triangle'"),
        ({"n_genes": 0}, "`n_genes` must be a whole number, 1 or more; found 0"),
        ({"seed": -1}, "`seed` must be a whole number, 0 or more; found -1"),
        ({"counts_per_spot": -1}, "`counts_per_spot` must be"),
        ({"size_um": (150, 150), "pitch_um": 400}, "No spot lies under tissue.*Pass a larger `size_um`"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        toy(**options)
