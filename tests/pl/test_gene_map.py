from __future__ import annotations

import logging
from collections.abc import Callable

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from sthggep import pl
from sthggep._table._prediction_rows import MEASURED

SOURCE = "0" * 16  # of the rows of a prediction

Make = Callable[..., AnnData]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes]


def by_label(figure: Figure) -> dict[str, mpl.axes.Axes]:
    return {ax.get_label(): ax for ax in figure.axes}


def spots(ax) -> EllipseCollection:
    (collection,) = ax.collections
    return collection


def is_gray(ax) -> bool:
    return np.ptp(np.asarray(ax.images[0].get_array())[..., :3], axis=-1).max() == 0


def by_hand(adata: AnnData, gene: int) -> np.ndarray:
    """log10(1 + counts per 10,000 of the panel): the panel is the first four columns."""
    counts = adata.X.toarray()[:, :4].astype(float)
    return np.log10(1 + counts[:, gene] / counts.sum(axis=1) * 1e4)


def test_columns_and_correlation_in_the_title(section: Make):
    adata = section()
    figure = pl.gene_map(adata, "FASN")
    r = np.corrcoef(by_hand(adata, 1), adata.obsm["hggep"][:, 1])[0, 1]
    assert titles(figure) == ["H&E", "FASN observed", f"FASN predicted  PCC {r:.2f}"]
    assert figure.axes[0].get_ylabel() == "S1"
    assert figure.axes[0].images
    assert not figure.axes[0].collections


def test_values_and_one_color_scale(section: Make):
    adata = section()
    _, observed, predicted = pl.gene_map(adata, "ACTB").axes
    np.testing.assert_allclose(spots(observed).get_array(), by_hand(adata, 0), rtol=1e-5)
    np.testing.assert_allclose(spots(predicted).get_array(), adata.obsm["hggep"][:, 0])
    pooled = np.concatenate([by_hand(adata, 0), adata.obsm["hggep"][:, 0]])
    assert spots(observed).get_clim() == spots(predicted).get_clim()
    np.testing.assert_allclose(spots(observed).get_clim(), np.percentile(pooled, [2, 98]), rtol=1e-5)


def test_each_map_of_several_genes_has_its_own_values(section: Make):
    adata = section()
    axes = by_label(pl.gene_map(adata, ["CD74", "ACTB", "FASN"]))
    for gene, column in (("CD74", 3), ("ACTB", 0), ("FASN", 1)):
        predicted, observed = (spots(axes[f"S1: {gene} {kind}"]) for kind in ("predicted", "observed"))
        np.testing.assert_array_equal(predicted.get_array(), adata.obsm["hggep"][:, column])
        np.testing.assert_allclose(observed.get_array(), by_hand(adata, column), rtol=1e-5)


def test_gray_tissue_has_the_brightness_of_the_colors(section: Make):
    tissue, _, gray = pl.gene_map(section(), "ACTB", bw=True, alpha_img=1.0).axes
    colors, shown = (np.asarray(ax.images[0].get_array(), dtype=float)[..., :3] for ax in (tissue, gray))
    red, green, blue = np.moveaxis(colors, -1, 0)
    assert np.ptp(red - green) > 100
    np.testing.assert_allclose(shown, np.repeat((0.299 * red + 0.587 * green + 0.114 * blue)[..., None], 3, -1), atol=1)


def test_color_bars_and_units(section: Make):
    figure = pl.gene_map(section(), ["ACTB", "CD74"])
    axes = by_label(figure)
    for gene in ("ACTB", "CD74"):
        assert not axes[f"S1: {gene} observed"].child_axes
        (bar,) = axes[f"S1: {gene} predicted"].child_axes
        assert bar.get_xlim() == pytest.approx(spots(axes[f"S1: {gene} observed"]).get_clim())
        assert " ".join(bar.get_xlabel().split()) == "log10(1 + counts per 10,000 of the panel)"
    assert figure.get_supxlabel() == ""


def test_color_bars_stand_under_the_maps_that_they_measure(section: Make):
    """Under the middle of both maps, at any resolution and size of the figure, and in the middle of one map."""
    for options, kinds in (({}, ("observed", "predicted")), ({"observed": False}, ("predicted",))):
        figure = pl.gene_map(section(), ["ACTB", "CD74"], **options)
        for dpi in (100, 300):
            figure.set_dpi(dpi)
            figure.canvas.draw()
            for gene in ("ACTB", "CD74"):
                maps = [by_label(figure)[f"S1: {gene} {kind}"] for kind in kinds]
                boxes = [ax.get_window_extent() for ax in maps]
                bar = maps[-1].child_axes[0].get_window_extent()
                assert bar.y1 < boxes[0].y0
                assert boxes[0].y0 - bar.y1 < 0.1 * dpi
                assert (bar.x0 + bar.x1) / 2 == pytest.approx((boxes[0].x0 + boxes[-1].x1) / 2, abs=0.01 * dpi)


def test_color_bar_is_as_opaque_as_the_spots(section: Make):
    (bar,) = by_label(pl.gene_map(section(), "ACTB", alpha=0.4))["S1: ACTB predicted"].child_axes
    assert {round(mesh.get_alpha(), 2) for mesh in bar.collections if mesh.get_array() is not None} == {0.4}


def test_spots_are_to_scale_and_on_the_image(section: Make):
    adata = section()
    image, observed, predicted = pl.gene_map(adata, "ACTB").axes
    for ax in (observed, predicted):
        np.testing.assert_array_equal(spots(ax).get_offsets(), adata.obsm["spatial"])
        np.testing.assert_array_equal(spots(ax).get_widths(), np.full(adata.n_obs, 50.0))
        np.testing.assert_array_equal(spots(ax).get_heights(), np.full(adata.n_obs, 50.0))
        assert ax.get_aspect() == 1
        assert ax.yaxis_inverted()
    # Colors of the gradient: red is x, green is y; the image lies under the spots
    (picture,) = image.images
    left, right, bottom, top = picture.get_extent()
    pixels = np.asarray(picture.get_array(), dtype=float)
    for x, y in adata.obsm["spatial"]:
        column = int((x - left) / (right - left) * pixels.shape[1])
        row = int((y - top) / (bottom - top) * pixels.shape[0])
        assert pixels[row, column, 0] == pytest.approx(x / 800 * 255, abs=2)
        assert pixels[row, column, 1] == pytest.approx(y / 600 * 255, abs=2)


@pytest.mark.parametrize("width", [4, 8])
def test_circles_grow_with_the_figure(section: Make, width: float):
    """The circles cover the same share of the panel at any size of the figure."""
    figure = pl.gene_map(section(), "ACTB", image=False, observed=False, figsize=(width, 0.6 * width), dpi=250)
    figure.canvas.draw()
    (ax,) = figure.axes
    x0, y0, x1, y1 = np.rint(ax.get_window_extent().extents).astype(int)
    panel = np.asarray(figure.canvas.buffer_rgba())[::-1][y0:y1, x0:x1, :3]
    share = (panel < 250).any(axis=-1).mean()
    area = abs(np.ptp(ax.get_xlim()) * np.ptp(ax.get_ylim()))
    assert share == pytest.approx(24 * np.pi * 25**2 / area, rel=0.06)


def test_view_is_cropped_to_the_spots(section: Make):
    adata = section()
    figure = pl.gene_map(adata, "ACTB", spot_size=20)
    left, right = figure.axes[0].get_xlim()
    bottom, top = figure.axes[0].get_ylim()
    assert (left, right, top, bottom) == pytest.approx((70, 630, 70, 430), abs=4)  # 1.5 diameters around the centers


def test_scale_bar(section: Make):
    ax = pl.gene_map(section(), "ACTB").axes[0]  # 650 pixels across, 2 µm each
    (line,) = ax.lines
    (label,) = ax.texts
    assert np.ptp(line.get_xdata()) * 2.0 == pytest.approx(200)
    assert label.get_text() == "200 µm"
    ax = pl.gene_map(section(), "ACTB", mpp=10.0).axes[0]
    assert np.ptp(ax.lines[0].get_xdata()) * 10.0 == pytest.approx(1000)
    assert ax.texts[0].get_text() == "1 mm"


def test_several_genes_and_sections_share_a_scale_per_gene(section: Make):
    data = {"left": section("A", 0), "right": section("B", 1)}
    figure = pl.gene_map(data, ["ACTB", "CD74"])
    assert len(figure.axes) == 10
    assert [ax.get_ylabel() for ax in figure.axes[::5]] == ["left", "right"]
    scales = [
        [spots(ax).get_clim() for ax in figure.axes if ax.get_title().startswith(gene)] for gene in ("ACTB", "CD74")
    ]
    assert [len(limits) for limits in scales] == [4, 4]
    assert [len(set(limits)) for limits in scales] == [1, 1]
    assert scales[0][0] != scales[1][0]


def test_image_is_drawn_once_a_section(section: Make):
    data = {"left": section("A", 0), "right": section("B", 1)}
    figure = pl.gene_map(data, ["ACTB", "CD74", "FASN"])
    kinds = [f"{gene} {kind}" for gene in ("ACTB", "CD74", "FASN") for kind in ("observed", "predicted")]
    assert list(by_label(figure)) == [f"{name}: {panel}" for name in data for panel in ("H&E", *kinds)]
    assert [ax.get_label() for ax in figure.axes if ax.get_title() == "H&E"] == ["left: H&E", "right: H&E"]
    # The maps show the H&E in color, or with `bw` in gray
    assert not any(is_gray(ax) for ax in figure.axes)
    gray = [is_gray(ax) for ax in pl.gene_map(data["left"], "ACTB", bw=True).axes]
    assert gray == [False, True, True]
    # Titles say which gene, and the correlation in that section
    r = np.corrcoef(by_hand(data["right"], 1), data["right"].obsm["hggep"][:, 1])[0, 1]
    assert by_label(figure)["right: FASN predicted"].get_title() == f"FASN predicted  PCC {r:.2f}"
    # Two genes in a row; the H&E takes the place of a fourth gene, so that none is empty
    places = {label: ax.get_subplotspec() for label, ax in by_label(figure).items()}
    assert [places[f"left: {kind}"].colspan.start for kind in ("H&E", *kinds)] == [0, 2, 3, 0, 1, 2, 3]
    assert len(places["left: H&E"].colspan) == 2
    assert [places[f"{name}: {panel}"].rowspan.start for name in data for panel in ("H&E", *kinds[::2])] == [
        *(0, 0, 1, 1),
        *(2, 2, 3, 3),
    ]


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("n", range(1, 12))
def test_no_half_of_a_row_is_empty(n: int, image: bool, observed: bool):
    from sthggep.pl._map_layout import arrange

    n_kinds = 1 + observed
    beside, leads = arrange(n, n_kinds, image, None)
    in_last_row = (n + leads) % beside or beside
    assert in_last_row > beside / 2
    assert image or not leads
    assert beside * n_kinds <= (4 if image or observed else 5)


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"genes_per_row": 1}, 3),
        ({"genes_per_row": 9}, 9),
        ({"observed": False}, 5),
        ({"observed": False, "image": False}, 4),
        ({"image": False}, 4),
    ],
)
def test_genes_in_a_row(section: Make, options: dict[str, object], columns: int):
    figure = pl.gene_map(section(), ["ACTB", "CD74", "FASN", "ERBB2"], **options)
    grids = {ax.get_gridspec() for ax in figure.axes}
    assert [grid.ncols for grid in grids] == [columns]
    assert figure.get_figwidth() <= 7.2001
    rows = 4 // ((columns - options.get("image", True)) // (1 + options.get("observed", True)))
    assert [grid.nrows for grid in grids] == [rows]
    firsts = [ax for ax in figure.axes if ax.get_subplotspec().colspan.start == 0]
    assert {ax.get_ylabel() for ax in firsts} == {"S1"}
    assert [len(ax.lines) for ax in firsts] == [1] + [0] * (len(firsts) - 1)  # one scale bar
    with pytest.raises(ValueError, match="`genes_per_row` must be a positive whole number"):
        pl.gene_map(section(), "ACTB", genes_per_row=0)


def test_sections_by_library_key(section: Make):
    first, second = section("A", 0), section("B", 1)
    joined = ad.concat([first, second], index_unique="-")
    joined.uns["spatial"] = first.uns["spatial"] | second.uns["spatial"]
    joined.uns["hggep"] = first.uns["hggep"]
    figure = pl.gene_map(joined, "ACTB", library_key="section", sections=["B", "A"])
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["B", "A"]
    np.testing.assert_allclose(spots(figure.axes[2]).get_array(), second.obsm["hggep"][:, 0])
    r = np.corrcoef(by_hand(second, 0), second.obsm["hggep"][:, 0])[0, 1]
    assert f"PCC {r:.2f}" in figure.axes[2].get_title()
    with pytest.raises(ValueError, match=r"'C'.*There is: 'A', 'B'"):
        pl.gene_map(joined, "ACTB", library_key="section", sections=["C"])


def test_limits(section: Make):
    adata = section()
    low, high = spots(pl.gene_map(adata, "ACTB", vmin=0, vmax="p50").axes[1]).get_clim()
    pooled = np.concatenate([by_hand(adata, 0), adata.obsm["hggep"][:, 0]])
    assert (low, high) == pytest.approx((0, np.median(pooled)), rel=1e-5)
    for wrong in ("99%", "p101", "high"):
        with pytest.raises(ValueError, match="percentile such as"):
            pl.gene_map(adata, "ACTB", vmax=wrong)
    with pytest.raises(ValueError, match="below"):
        pl.gene_map(adata, "ACTB", vmin=5, vmax=1)


def test_without_image(section: Make):
    adata = section()
    del adata.uns["spatial"]
    figure = pl.gene_map(adata, "ACTB", image=False)
    assert [title.split("  ")[0] for title in titles(figure)] == ["ACTB observed", "ACTB predicted"]
    assert not figure.axes[0].images
    with pytest.raises(KeyError, match="no image"):
        pl.gene_map(adata, "ACTB")


def test_without_counts_the_observed_map_is_left_out(section: Make, caplog: pytest.LogCaptureFixture):
    adata = section()
    bare = ad.AnnData(obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns))
    with caplog.at_level(logging.INFO, "sthggep"):
        figure = pl.gene_map(bare, "ACTB")
    assert titles(figure) == ["H&E", "ACTB predicted"]
    assert "no observed map" in caplog.text
    figure_of_both = pl.gene_map([adata, bare], "ACTB")
    assert titles(figure_of_both)[3:] == ["H&E", "ACTB observed", "ACTB predicted"]
    assert [text.get_text() for text in figure_of_both.axes[4].texts] == ["not measured"]
    assert titles(pl.gene_map(adata, "ACTB", observed=False)) == ["H&E", "ACTB predicted"]


def test_counts_that_are_not_raw(section: Make):
    adata = section()
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.X * 0.5
    with pytest.raises(ValueError, match=r"not whole.*layer=.*observed=False"):
        pl.gene_map(adata, "ACTB")
    r = np.corrcoef(np.asarray(spots(pl.gene_map(adata, "ACTB", layer="raw").axes[1]).get_array()), by_hand(adata, 0))
    assert r[0, 1] == pytest.approx(1)


def test_constant_gene_has_no_correlation(section: Make):
    adata = section()
    adata.obsm["hggep"][:, 0] = 1.0
    assert titles(pl.gene_map(adata, "ACTB"))[-1] == "ACTB predicted  PCC n/a"
    figure = pl.gene_map(adata, "ACTB", observed=False)
    figure.canvas.draw()
    low, high = spots(figure.axes[1]).get_clim()
    assert low < 1 < high


def test_gene_that_was_not_predicted(section: Make):
    with pytest.raises(
        KeyError, match=r"Not among the 4 genes.*: 'fasn1' \(did you mean 'FASN'\?\), 'OTHER'\. A"
    ) as error:
        pl.gene_map(section(), ["ACTB", "fasn1", "OTHER"])
    assert "sthggep.tl.fit(slides, genes=sthggep.pp.gene_panel(slides, include=['fasn1', 'OTHER']))" in str(error.value)
    with pytest.raises(KeyError, match=r"Not among the 4 genes.*: 'fasn' \(did you mean 'FASN'\?\)\.['\"]$"):
        pl.gene_map(section(), "fasn")
    with pytest.raises(ValueError, match="empty"):
        pl.gene_map(section(), [])
    with pytest.raises(KeyError, match=r"tl\.predict"):
        pl.gene_map(section(), "ACTB", key="elsewhere")


def test_one_spot(section: Make):
    figure = pl.gene_map(section()[:1].copy(), "ACTB")
    figure.canvas.draw()
    assert "PCC n/a" in titles(figure)[-1]


def test_data_and_settings_of_the_user_do_not_change(section: Make, tmp_path):
    adata = section()
    before = adata.copy()
    settings = dict(mpl.rcParams)
    pl.gene_map(adata, "ACTB", save=tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").stat().st_size > 1000
    assert dict(mpl.rcParams) == settings
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    assert list(adata.uns) == list(before.uns)


def test_no_text_is_small_clipped_or_overlapping(section: Make):
    slides = [section("A long section name"), section("B", 1)]
    figure = pl.gene_map(slides, ["ACTB", "CD74"], title="Chosen before", region=("array_x", *range(5)))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = []
    for ax in [*figure.axes, *(bar for axes in figure.axes for bar in axes.child_axes)]:
        left, right = ax.get_xlim()
        numbers = [text for text in ax.get_xticklabels() if left <= text.get_position()[0] <= right]
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts, *numbers):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= 7
                boxes.append(text.get_window_extent(renderer))
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    boxes += [text.get_window_extent(renderer) for text in (figure._supxlabel, figure._suptitle)]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_tissue_of_the_training_is_marked(section: Make):
    training, new = section("seen"), section("new")
    for adata in (training, new):
        adata.uns["hggep"]["params"] = {"learned_from": np.array(["seen"], dtype=object)}
    figure = pl.gene_map({"seen": training, "new": new}, "FASN")
    names = [ax.get_ylabel() for ax in figure.axes if ax.get_label().endswith("H&E")]
    assert names == ["seen\n(trained on)", "new"]


def with_verdicts(adata: AnnData, z: list[float], novelty: np.ndarray) -> AnnData:
    """The same slide with a record of held-out tissue, on which the test statistic of each gene was this."""
    from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence

    n = len(z)
    ones, scales = np.ones(n, np.float32), np.ones((len(SCALES_UM), n), np.float32)
    rows, none = np.tile(np.array(z, np.float32) / 10, (2, 1)), np.empty((0, n), np.float32)
    evidence = Evidence(
        rows,
        10 * rows,
        none,
        none,
        ones,
        ones,
        scales,
        scales,
        np.ones((len(REGION_SPOTS), n), np.float32),
        np.ones(len(REGION_LEVELS), np.float32),
        ones,
        none,
    )
    adata.uns["hggep"]["evidence"] = evidence.to_arrays()
    adata.obs["hggep_novelty"] = novelty.astype(np.float32)
    return adata


def test_marks_of_genes_and_spots_that_cannot_be_trusted(section: Make):
    plain = section()
    genes = [str(gene) for gene in plain.uns["hggep"]["genes"]]
    novelty = np.where(np.arange(plain.n_obs) % 3 == 0, 0.99, 0.3)
    adata = with_verdicts(section(), [9.0, 0.0, 2.8][: len(genes)] + [9.0] * (len(genes) - 3), novelty)
    figure = pl.gene_map(adata, genes[:3])
    axes = by_label(figure)
    trusted, noise, weak = (axes[f"S1: {gene} predicted"] for gene in genes[:3])
    assert "(" not in trusted.get_title()
    assert trusted.title.get_color() == axes["S1: H&E"].title.get_color()
    assert noise.get_title().endswith("\n(not predicted)")
    assert noise.title.get_color() == "0.5"
    assert weak.get_title().endswith("\n(only means over regions)")
    assert "(" not in axes[f"S1: {genes[1]} observed"].get_title()
    hatched = [c for c in trusted.collections if c.get_hatch()]
    assert len(hatched) == 1
    np.testing.assert_allclose(hatched[0].get_offsets(), adata.obsm["spatial"][novelty > 0.95])
    assert not [c for c in axes[f"S1: {genes[0]} observed"].collections if c.get_hatch()]
    assert "unlike the training tissue" in figure.get_supxlabel()
    unmarked = pl.gene_map(adata, genes[:3], marks=False)
    assert not any(c.get_hatch() for ax in unmarked.axes for c in ax.collections)
    assert not any("(not" in title for title in titles(unmarked))
    # Nothing is known of held-out tissue: nothing is marked
    assert titles(pl.gene_map(plain, genes[:3])) == titles(unmarked)


def test_a_line_surrounds_the_spots_whose_counts_were_used(section: Make):
    adata = section()
    half = adata.obsm["spatial"][:, 0] < 350
    adata.obs["hggep_source"] = np.where(half, f"{SOURCE}{MEASURED}", SOURCE)
    figure = pl.gene_map(adata, ["ACTB"])
    for kind in ("observed", "predicted"):
        lines = [c for c in by_label(figure)[f"S1: ACTB {kind}"].collections if c.get_label() == "measured spots"]
        assert [line.get_linestyle()[0][1] is None for line in lines] == [True, False]  # white, then black and dashed
        (ring,) = lines[1].get_segments()
        low, high = adata.obsm["spatial"][half].min(axis=0), adata.obsm["spatial"][half].max(axis=0)
        reach = 0.8 * 100
        np.testing.assert_allclose(ring.min(axis=0), low - reach, atol=3)
        np.testing.assert_allclose(ring.max(axis=0), high + reach, atol=3)
        distance = np.linalg.norm(ring[:, None] - adata.obsm["spatial"][half], axis=2).min(axis=1)
        np.testing.assert_allclose(distance, reach, atol=6)  # kinks between circles
    assert "dashed: around the spots whose counts the model was trained on" in figure.get_supxlabel()
    unmarked = pl.gene_map(adata, ["ACTB"], marks=False)
    assert "measured spots" not in [c.get_label() for ax in unmarked.axes for c in ax.collections]
    assert "dashed" not in unmarked.get_supxlabel()
    # Scattered spots have a line each
    adata.obs["hggep_source"] = np.where(np.arange(adata.n_obs) % 12 == 0, f"{SOURCE}{MEASURED}", SOURCE)
    axes = by_label(pl.gene_map(adata, ["ACTB"], observed=False))["S1: ACTB predicted"]
    assert len([c for c in axes.collections if c.get_label() == "measured spots"][1].get_segments()) == 2


def test_no_tick_is_minus_zero(section: Make):
    (bar,) = by_label(pl.gene_map(section(), ["ACTB"], vmin=-0.01, vmax=3))["S1: ACTB predicted"].child_axes
    assert next(text.get_text() for text in bar.get_xticklabels()) == "0.0"
