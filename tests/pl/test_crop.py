"""Parts of a section in gene maps: boxes, regions, and the axes of a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.axes import Axes

from sthggep import datasets, io, pl, pp
from sthggep._image._level import Level
from sthggep._keys import UNITS
from sthggep._slides._slide import Slide
from sthggep.pl._tissue import image_of_box, view_of

Make = Callable[..., AnnData]
BOX = (150.0, 450.0, 50.0, 250.0)  # left, right, top, bottom: spots at x 200 to 400, y 100 and 200


def xy(ax: Axes) -> np.ndarray:
    """Positions of the spots that a map shows, sorted."""
    positions = np.asarray(ax.collections[0].get_offsets())
    return positions[np.lexsort(positions.T)]


def in_box(adata: AnnData) -> np.ndarray:
    x, y = adata.obsm["spatial"].T
    return (x > 150) & (x < 450) & (y > 50) & (y < 250)


def bar_length(ax: Axes) -> float:
    """Length of the scale bar as a share of the panel's width."""
    (line,) = ax.lines
    return np.ptp(line.get_xdata()) / abs(np.ptp(ax.get_xlim()))


def test_crop_shows_box_and_spots(section: Make):
    adata = section()
    figure = pl.gene_map(adata, "ACTB", crop_coord=BOX)
    for ax in figure.axes:
        assert ax.get_xlim() == pytest.approx(BOX[:2], abs=2)
        assert ax.get_ylim() == pytest.approx(BOX[:1:-1], abs=2)  # y points down
    expected = adata.obsm["spatial"][in_box(adata)]
    for ax in figure.axes[1:]:
        np.testing.assert_array_equal(xy(ax), expected)
    # Each spot has its own value
    shown = figure.axes[2].collections[0]
    np.testing.assert_array_equal(shown.get_offsets(), expected)
    np.testing.assert_array_equal(shown.get_array(), adata.obsm["hggep"][in_box(adata), 0])
    # The image stays in place: red is x, green is y
    picture = figure.axes[0].images[0]
    left, right, bottom, top = picture.get_extent()
    pixels = np.asarray(picture.get_array(), dtype=float)
    for x, y in expected:
        row, column = int((y - top) / (bottom - top) * len(pixels)), int((x - left) / (right - left) * pixels.shape[1])
        assert pixels[row, column, :2] == pytest.approx((x / 800 * 255, y / 600 * 255), abs=3)
    assert "PCC: over all spots of the section" in figure.get_supxlabel()


def test_colors_and_scale_bar_follow_the_crop(section: Make):
    adata = section()
    whole, figure = pl.gene_map(adata, "ACTB"), pl.gene_map(adata, "ACTB", crop_coord=BOX)
    observed, predicted = (np.asarray(ax.collections[0].get_array()) for ax in figure.axes[1:])
    assert figure.axes[2].collections[0].get_clim() == pytest.approx(
        np.percentile(np.concatenate([observed, predicted]), [2, 98]), rel=1e-5
    )
    assert figure.axes[0].texts[0].get_text() == "100 µm"  # 0.3 of 600 µm at most
    assert whole.axes[0].texts[0].get_text() == "200 µm"
    # The correlation is of the section, whatever is shown
    assert figure.axes[2].get_title() == whole.axes[2].get_title()


def test_scale_bar_follows_the_limits_of_a_user(section: Make):
    ax = pl.gene_map(section(), "ACTB").axes[0]
    ax.set_xlim(300, 340)
    (line,) = ax.lines
    assert line.get_xdata()[0] == pytest.approx(300)
    assert 0.1 < bar_length(ax) <= 0.3
    assert ax.texts[0].get_text() == "20 µm"
    assert ax.texts[0].get_position()[0] == pytest.approx(305)
    ax.set_xlim(600, 100)
    assert ax.lines[0].get_xdata()[0] == pytest.approx(100)


def test_a_crop_is_as_sharp_as_the_image(section: Make):
    """Only the box is read, from the coarsest level that is sharp enough: here the only one, of 2 pixels."""
    adata = section()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3000, 4000, 3), dtype=np.uint8)
    adata.uns["spatial"]["S1"]["images"] = {"hires": image}
    adata.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"] = 5.0
    picture = pl.gene_map(adata, "ACTB", crop_coord=BOX).axes[0].images[0]
    np.testing.assert_array_equal(picture.get_array(), image[250:1250, 750:2250])
    whole = np.asarray(pl.gene_map(adata, "ACTB").axes[0].images[0].get_array())
    assert max(whole.shape) < 1000


def test_coarse_levels_serve_large_boxes():
    """A box of a pyramid is read from the level that is just fine enough."""
    from sthggep._slides._resolve import resolve_one

    slide = resolve_one(datasets.toy(size_um=(2000.0, 2000.0), as_spatialdata=True, n_genes=4))
    widths = sorted(level.shape[1] for level in slide.levels)
    assert len(widths) > 1
    read = []
    for level in slide.levels:
        level.read = lambda boxes, level=level, read=level.read: read_boxes.append(level.scale[0]) or read(boxes)
    read_boxes = read
    low, high = np.array([500.0, 500.0]), np.array([1500.0, 1500.0])
    for max_px in (200, 1600):
        view = image_of_box(slide, low, high, max_px)
        assert (view.left, view.right) == pytest.approx((500, 1500), abs=10)
        assert max(view.image.shape) < 2 * max_px
    assert read == [min(level.scale[0] for level in slide.levels), 1.0]


def exact_slide(*scales: float) -> Slide:
    """A slide of 1000 × 800 full-resolution pixels, whose finest pixels hold their place, at some resolutions."""
    y, x = np.mgrid[:800, :1000]
    image = np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)
    levels = [Level(image[:: round(1 / scale), :: round(1 / scale)], scale=(scale, scale)) for scale in scales]
    spots = np.array([[200.3, 150.6], [400.0, 300.0]])
    return Slide("S", AnnData(np.zeros((2, 1))), np.arange(2), spots, tuple(levels))


def test_a_crop_is_cut_at_whole_pixels():
    """The view names the borders of the pixels that are shown, so that spots and tissue stay together."""
    slide = exact_slide(1.0)
    image = slide.levels[0].array
    low, high = np.array([100.4, 50.6]), np.array([301.2, 151.8])
    view = image_of_box(slide, low, high, 500)
    assert (view.left, view.right, view.top, view.bottom) == (100, 302, 50, 152)
    np.testing.assert_array_equal(view.image, image[50:152, 100:302])
    # A smaller picture consists of whole blocks of pixels: 4 × 4 here, without the last two rows and columns
    view = image_of_box(slide, low, high, 50)
    assert (view.left, view.right, view.top, view.bottom) == (100, 300, 50, 150)
    blocks = image[50:150, 100:300].reshape(25, 4, 50, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(view.image, blocks, atol=0.51)
    # The part of the spots, too: 60 pixels around them
    view = view_of(slide, 60.0)
    assert (view.left, view.right, view.top, view.bottom) == (140, 460, 90, 360)
    np.testing.assert_array_equal(view.image, image[90:360, 140:460])


def test_a_crop_is_read_from_a_resolution_that_is_fine_enough():
    slide = exact_slide(1.0, 0.5, 0.25)
    low, high = np.array([100.0, 100.0]), np.array([500.0, 300.0])
    widths = {most: image_of_box(slide, low, high, most).image.shape[1] for most in (400, 300, 201, 200, 101, 100)}
    assert widths == {400: 400, 300: 400, 201: 400, 200: 200, 101: 200, 100: 100}


def test_spots_at_the_border_of_a_box_are_seen(section: Make):
    """Spots of 50 pixels whose centers lie 10 pixels outside of the box are shown, those 30 pixels outside are not."""
    near = pl.gene_map(section(), "ACTB", crop_coord=(110, 190, 110, 170)).axes[1]
    np.testing.assert_array_equal(xy(near), [(100, 100), (200, 100)])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((450, 150, 50, 250), r"\(left, right, top, bottom\).*left below right.*found \(450, 150, 50, 250\)"),
        ((150, 450, 250, 50), "top below bottom"),
        ((150, 450, 250), r"one box for each of the 1 section; found 3"),
        ((150, 450, 250, float("nan")), "four numbers"),
        ((5000, 6000, 50, 250), "outside the image, 800 wide and 600 high"),
        ((340, 360, 140, 160), "holds no spot. Spots span x from 100 to 600, y from 100 to 400"),
        ([(1, 2, 3, 4), (1, 2, 3, 4)], "found 2"),
    ],
)
def test_boxes_that_are_none(section: Make, box: object, message: str):
    with pytest.raises(ValueError, match=message):
        pl.gene_map(section(), "ACTB", crop_coord=box)


def test_the_order_of_squidpy_is_recognized(section: Make):
    with pytest.raises(
        ValueError, match=r"Did you mean \(left, top, right, bottom\)\? Pass `crop_coord=\(130.0, 210.0, 170"
    ):
        pl.gene_map(section(), "ACTB", crop_coord=(130, 170, 210, 230))
    shown = pl.gene_map(section(), "ACTB", crop_coord=(130, 210, 170, 230)).axes[1]
    np.testing.assert_array_equal(xy(shown), [(200, 200)])


def test_a_box_for_each_section(section: Make):
    data = {"left": section("A", 0), "right": section("B", 1)}
    other = (250.0, 550.0, 150.0, 450.0)
    figure = pl.gene_map(data, "ACTB", crop_coord=[BOX, other])
    assert figure.axes[0].get_xlim() == pytest.approx(BOX[:2], abs=2)
    assert figure.axes[3].get_xlim() == pytest.approx(other[:2], abs=2)
    both = pl.gene_map(data, "ACTB", crop_coord=BOX)
    assert both.axes[3].get_xlim() == pytest.approx(BOX[:2], abs=2)


def test_regions_of_a_column(section: Make):
    adata = section()
    adata.obs["domain"] = np.where(adata.obsm["spatial"][:, 0] < 250, "tumor", "stroma")
    adata.obs["chosen"] = in_box(adata)
    tumor = adata.obsm["spatial"][(adata.obs["domain"] == "tumor").to_numpy()]
    ax = pl.gene_map(adata, "ACTB", region=("domain", "tumor")).axes[1]
    np.testing.assert_array_equal(xy(ax), tumor)
    assert ax.get_xlim() == pytest.approx((25, 275), abs=3)
    both = pl.gene_map(adata, "ACTB", region=("domain", "tumor", "stroma")).axes[1]
    assert len(xy(both)) == adata.n_obs
    chosen = pl.gene_map(adata, "ACTB", region="chosen").axes[1]
    np.testing.assert_array_equal(xy(chosen), adata.obsm["spatial"][in_box(adata)])
    # A box and a region: the region's spots in the box
    ax = pl.gene_map(adata, "ACTB", region=("domain", "tumor"), crop_coord=BOX).axes[1]
    np.testing.assert_array_equal(xy(ax), [(200, 100), (200, 200)])
    assert ax.get_xlim() == pytest.approx(BOX[:2], abs=2)


def test_polygon_in_pixels(section: Make):
    from shapely import box

    adata = section()
    ax = pl.gene_map(adata, "ACTB", region=box(150, 50, 450, 250)).axes[1]
    np.testing.assert_array_equal(xy(ax), adata.obsm["spatial"][in_box(adata)])
    with pytest.raises(ValueError, match=r"no spot lies in the polygon.*full-resolution pixels"):
        pl.gene_map(adata, "ACTB", region=box(5000, 5000, 6000, 6000))


def test_polygons_of_a_spatialdata():
    from geopandas import GeoDataFrame
    from shapely import box
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    sdata = datasets.toy(size_um=(1600.0, 1600.0), n_genes=4, as_spatialdata=True)
    table = sdata["table"]
    table.obsm["hggep"] = np.random.default_rng(0).random((table.n_obs, 4), dtype=np.float32)
    genes = np.array(table.var_names)
    table.uns["hggep"] = {"tool": "sthggep", "genes": genes, "units": UNITS, "model": "m", "params": {}}
    system = next(iter(sdata.coordinate_systems))
    polygons = GeoDataFrame(geometry=[box(300, 300, 900, 900), box(900, 900, 1500, 1500)], index=["nest", "rim"])
    sdata["areas"] = ShapesModel.parse(polygons, transformations={system: Identity()})
    positions = np.asarray(table.obsm["spatial"])
    for region, low, high in ((("areas", "nest"), 300, 900), ("areas", 300, 1500)):
        shown = xy(pl.gene_map(sdata, genes[0], region=region).axes[-1])
        inside = ((positions > low) & (positions < high)).all(axis=1)
        if region == "areas":
            inside &= ((positions < 900).all(axis=1)) | ((positions > 900).all(axis=1))
        expected = positions[inside]
        np.testing.assert_allclose(shown, expected[np.lexsort(expected.T)])
    with pytest.raises(ValueError, match=r"regions of 'areas' are 'nest', 'rim'; 'edge' is not among them"):
        pl.gene_map(sdata, genes[0], region=("areas", "edge"))
    with pytest.raises(KeyError, match=r"neither a column of obs.*nor a shapes element"):
        pl.gene_map(sdata, genes[0], region="nowhere")


def test_regions_that_are_none(section: Make):
    adata = section()
    adata.obs["domain"] = np.where(adata.obsm["spatial"][:, 0] < 250, "tumor", "stroma")
    with pytest.raises(
        ValueError, match=r"are 'stroma', 'tumor'; 'fat' is not among them.*region=\('domain', 'tumor'\)"
    ):
        pl.gene_map(adata, "ACTB", region=("domain", "fat"))
    with pytest.raises(ValueError, match="none is named"):
        pl.gene_map(adata, "ACTB", region="domain")
    with pytest.raises(KeyError, match=r"'domains' is not in obs"):
        pl.gene_map(adata, "ACTB", region=("domains", "tumor"))


def test_one_axes_takes_one_large_map(section: Make):
    adata = section()
    figure, ax = plt.subplots(figsize=(5, 4))
    assert pl.gene_map(adata, "FASN", ax=ax, crop_coord=BOX, alpha=0.6) is ax
    assert figure.axes == [ax]
    assert ax.get_title().startswith("FASN predicted  PCC")
    assert ax.images
    assert np.ptp(np.asarray(ax.images[0].get_array())[..., :3], axis=-1).max() > 0  # in color
    assert ax.get_xlim() == pytest.approx(BOX[:2], abs=2)
    # The colors are of the prediction alone, and the two bars do not overlap
    predicted = adata.obsm["hggep"][in_box(adata), 1]
    assert ax.collections[0].get_clim() == pytest.approx(np.percentile(predicted, [2, 98]), rel=1e-5)
    for limits in (BOX[:2], (200, 300)):
        ax.set_xlim(limits)
        figure.canvas.draw()
        (bar,) = ax.child_axes
        panel, box = ax.get_window_extent(), bar.get_window_extent()
        assert ax.texts[0].get_window_extent().x1 < bar.get_tightbbox().x1
        assert ax.lines[0].get_window_extent().x1 < box.x0 < box.x1 < panel.x1
        assert box.y1 < panel.y0
    assert figure.get_supxlabel() == ""
    plt.close(figure)


def test_one_axes_is_as_sharp_as_print_and_breaks_long_titles(section: Make):
    adata = section()
    adata.uns["spatial"]["S1"]["images"] = {"hires": np.full((3000, 4000, 3), 200, dtype=np.uint8)}
    adata.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"] = 5.0
    titles = {}
    for side in (1.0, 6.0):
        figure, ax = plt.subplots(figsize=(side, side))
        pl.gene_map(adata, "ACTB", ax=ax)
        assert 1600 <= ax.images[0].get_array().shape[1] < 3200  # of 3,250 pixels under the spots
        titles[side] = ax.get_title()
        plt.close(figure)
    assert titles[6.0].startswith("ACTB predicted  PCC")
    assert titles[1.0].startswith("ACTB\npredicted  PCC")


def test_a_list_of_axes_takes_all_panels(section: Make):
    figure, axes = plt.subplots(1, 3)
    assert pl.gene_map(section(), "ACTB", ax=axes) is axes
    assert [ax.get_title().split("  ")[0].replace("\n", " ") for ax in axes] == [
        "H&E",
        "ACTB observed",
        "ACTB predicted",
    ]
    with pytest.raises(
        ValueError, match=r"each of the 3 panels \('S1: H&E', 'S1: ACTB observed', 'S1: ACTB predicted'\), found 2"
    ):
        pl.gene_map(section(), "ACTB", ax=list(axes[:2]))
    pl.gene_map(section(), "ACTB", ax=list(axes[:2]), observed=False)
    plt.close(figure)


def test_axes_that_do_not_fit(section: Make):
    figure, ax = plt.subplots()
    with pytest.raises(ValueError, match="found 2 genes of 1 section"):
        pl.gene_map(section(), ["ACTB", "FASN"], ax=ax)
    with pytest.raises(ValueError, match="found 1 gene of 2 sections"):
        pl.gene_map([section("A"), section("B")], "ACTB", ax=ax)
    for option in ({"figsize": (3, 3)}, {"genes_per_row": 2}, {"title": "x"}):
        with pytest.raises(ValueError, match=f"`ax` and `{next(iter(option))}` do not go together"):
            pl.gene_map(section(), "ACTB", ax=ax, **option)
    for wrong, message in ((figure, "found 'Figure'"), ([ax, figure], "found 'Figure'")):
        with pytest.raises(TypeError, match=f"`ax` must be a matplotlib Axes or a list of them, {message}"):
            pl.gene_map(section(), "ACTB", ax=wrong)
    with pytest.raises(ValueError, match="found 0"):
        pl.gene_map(section(), "ACTB", ax=[])
    assert not ax.has_data()  # refused before drawing
    plt.close(figure)


def test_size_is_a_factor_on_the_spots(section: Make):
    for options, diameter in (({"size": 1.5}, 75), ({"size": 0.5, "spot_size": 30}, 15)):
        circles = pl.gene_map(section(), "ACTB", **options).axes[1].collections[0]
        np.testing.assert_array_equal(circles.get_widths(), np.full(24, diameter))


def test_genes_that_the_figure_chooses(section: Make):
    adata = section()
    adata.uns["hggep"]["held_out_pearson"] = np.array([0.1, 0.9, 0.3, 0.8])
    figure = pl.gene_map(adata)
    assert [ax.get_label() for ax in figure.axes[1::2]] == ["S1: FASN observed", "S1: CD74 observed"]
    assert figure.get_supxlabel() == "genes: the 2 of highest correlation on tissue held out in the training"
    assert pl.gene_map(adata, "FASN", title="the best before").get_suptitle() == "the best before"
    _, ax = plt.subplots()
    assert pl.gene_map(adata, ax=ax).get_title().startswith("FASN")


def test_saved_figures_have_the_resolution_of_print(section: Make, tmp_path: Path):
    from PIL import Image

    figure = pl.gene_map(section(), "ACTB", save=tmp_path / "map.png")
    figure.savefig(tmp_path / "own.png")
    for name, dpi in (("map", 300), ("own", 200)):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width == pytest.approx(figure.get_figwidth() * dpi, abs=2)


def test_a_grid_goes_by_the_name_of_its_slide(tmp_path: Path):
    from PIL import Image

    adata = datasets.toy(size_um=(1200.0, 1200.0), n_genes=4)
    Image.fromarray(next(iter(adata.uns["spatial"].values()))["images"]["hires"]).save(tmp_path / "biopsy 7.tif")
    sdata = io.read_slide(tmp_path / "biopsy 7.tif", mpp=1.0)
    grid = pp.tissue_grid(sdata, spacing_um=200)
    grid.obsm["hggep"] = np.random.default_rng(0).random((grid.n_obs, 2), dtype=np.float32)
    record = {"tool": "sthggep", "genes": np.array(["A", "B"]), "units": UNITS, "model": "m", "params": {}}
    for table in (grid, next(iter(sdata.tables.values()))):
        table.obsm["hggep"], table.uns["hggep"] = grid.obsm["hggep"], record
    ax = pl.gene_map(sdata, "A").axes[0]
    assert ax.get_ylabel().replace("\n", " ") == "biopsy 7, pseudo-spots"
    assert pl.gene_map({"mine": sdata}, "A").axes[0].get_ylabel() == "mine"
