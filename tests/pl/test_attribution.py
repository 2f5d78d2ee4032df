from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataArray

from sthggep import HGGEP, pl, tl
from sthggep._slides._resolve import resolve_one
from sthggep.tl import Attribution

Make = Callable[..., AnnData]
STEP = 25  # pixels of a square of 50 µm


class Known(Attribution):
    """An attribution whose map is known: values grow with x and y, from -1 to 1; a field of view has a tenth of all."""

    asked: tuple[object, ...] = ()

    def map(self, size_um: float = 50.0, *, device: str = "auto", show_progress_bar: bool = True) -> DataArray:
        Known.asked = (size_um, device, show_progress_bar)
        x, y = 80 + STEP / 2 + STEP * np.arange(22), 90 + STEP / 2 + STEP * np.arange(14)
        fields = [name.removesuffix(" own") for name in self.table if name.endswith(" own")]
        whole = np.linspace(-1, 1, len(x) * len(y)).reshape(len(y), len(x))
        return DataArray(
            np.stack([*[0.1 * whole] * len(fields), whole]),
            dims=("part", "y", "x"),
            coords={"part": [*fields, "all"], "y": y, "x": x},
            attrs={"size_um": size_um},
        )


@pytest.fixture
def known(section: Make) -> Callable[..., Known]:
    """Return a function that makes attributions of the section."""

    def make(
        *fields: str,
        network: float = 0.0,
        kind: str = "features",
        encoding: str = "tissue",
        units: str = "log of counts",
    ) -> Known:
        slide = resolve_one(section())
        rng = np.random.default_rng(0)
        columns = [f"{size} {what}" for size in fields or ("80 µm",) for what in ("own", "neighbors")]
        columns += ["mean", "network"]
        table = pd.DataFrame(rng.normal(size=(slide.n_spots, len(columns))), slide.adata.obs_names, columns)
        table["mean"] = 3.0
        table["network"] *= network
        model = SimpleNamespace(inputs=SimpleNamespace(kind=kind, encoding=encoding))
        return Known("FASN", table, units, "S1", model, slide, None)

    return make


def panels(figure: Figure) -> list[Axes]:
    """Return the panels of the tissue, without the bars."""
    return figure.axes[:-1]


def widths(figure: Figure) -> list[float]:
    return [bar.get_width() for bar in figure.axes[-1].patches]


def notes(figure: Figure) -> str:
    return figure.subfigs[0].get_supxlabel()


def test_panels_and_their_titles(known):
    figure = pl.attribution(known(), parts=["all", "80 µm"])
    titles = ["FASN predicted", "all fields of view", "field of view of 80 µm", "importance"]
    assert [ax.get_title() for ax in figure.axes] == titles
    assert figure.axes[0].get_ylabel() == "S1"
    assert notes(figure) == ""
    assert len(pl.attribution(known()).axes) == 3


def test_prediction_as_circles_to_scale(known):
    carried = known()
    ax = pl.attribution(carried).axes[0]
    (circles,) = ax.collections
    np.testing.assert_array_equal(circles.get_offsets(), carried.slide.xy)
    np.testing.assert_array_equal(circles.get_widths(), np.full(24, 50.0))
    np.testing.assert_allclose(circles.get_array(), carried.prediction, rtol=1e-6)
    np.testing.assert_allclose(circles.get_clim(), np.percentile(carried.prediction, [2, 98]), rtol=1e-5)
    assert circles.get_cmap().name == "viridis"


def test_map_lies_on_the_colored_tissue(known):
    carried = known()
    figure = pl.attribution(carried, parts=["80 µm", "all"], alpha=0.4)
    expected = carried.map()
    for ax, part in zip(panels(figure)[1:], ["80 µm", "all"], strict=True):
        tissue, squares = ax.images
        assert np.ptp(np.asarray(tissue.get_array())[..., :3], axis=-1).max() > 50  # not gray
        assert squares.get_extent() == [80, 80 + 22 * STEP, 90 + 14 * STEP, 90]
        np.testing.assert_array_equal(squares.get_array(), expected.sel(part=part))
        assert squares.get_alpha() == 0.4
        assert squares.get_cmap().name == "RdBu_r"
        # The view holds the whole map, and is the same in all panels
        assert ax.get_xlim() == figure.axes[0].get_xlim()
        assert ax.get_xlim()[0] <= 80
        assert ax.get_xlim()[1] >= 80 + 22 * STEP
        assert ax.get_ylim()[0] >= 90 + 14 * STEP
        assert ax.get_aspect() == 1


def test_colors_are_symmetric_and_shared(known):
    carried = known()
    maps = panels(pl.attribution(carried, parts=["all", "80 µm"]))[1:]
    highest = np.percentile(np.abs(carried.map()), 98)
    for ax in maps:
        np.testing.assert_allclose(ax.images[1].get_clim(), [-highest, highest])
        (bar,) = ax.child_axes
        assert bar.get_xlabel() == "adds to FASN\n(log of counts)"
        np.testing.assert_allclose(bar.get_xlim(), [-highest, highest])
        ticks = [text.get_text() for text in bar.get_xticklabels()]
        assert [ticks[0][0], float(ticks[1])] == ["−", 0]
        assert ticks[0][1:] == ticks[2]
    alone = pl.attribution(carried, parts=["80 µm"], vmax=0.05, cmap="PuOr").axes[1].images[1]
    assert alone.get_clim() == (-0.05, 0.05)
    assert alone.get_cmap().name == "PuOr"


def test_units_of_the_prediction_are_under_it(known):
    (bar,) = pl.attribution(known()).axes[0].child_axes
    assert bar.get_xlabel() == "log of counts"


def test_bars_are_the_importance(known):
    carried = known()
    carried.table["80 µm neighbors"] = -0.5 * carried.table["80 µm own"]
    assert carried.importance["80 µm neighbors"] < -0.01
    figure = pl.attribution(carried)
    chart = figure.axes[-1]
    np.testing.assert_allclose(widths(figure), carried.importance.iloc[:2])
    assert [label.get_text() for label in chart.get_yticklabels()] == ["80 µm own", "80 µm neighbors"]
    assert chart.yaxis_inverted()
    texts = [f"{100 * share:.0f} %".replace("-", "−") for share in carried.importance.iloc[:2]]
    assert [text.get_text() for text in chart.texts] == texts


def test_networks_have_a_bar_and_no_share_of_the_maps(known):
    carried = known(network=0.5)
    figure = pl.attribution(carried)
    np.testing.assert_allclose(widths(figure), carried.importance[["80 µm own", "80 µm neighbors", "network"]])
    assert notes(figure) == "The maps show what the closed form adds, without the networks."


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"encoding": "patches"}, "reads the patch of each spot"), ({"kind": "obsm"}, "reads features of obsm")],
)
def test_models_without_a_map(known, caplog, options: dict[str, str], reason: str):
    with caplog.at_level(logging.INFO, logger="sthggep"):
        figure = pl.attribution(known(**options))
    assert [ax.get_title() for ax in figure.axes] == ["FASN predicted", "importance"]
    assert f"No map: the model {reason}" in notes(figure).replace("\n", " ")
    assert f"Section S1: no map of what the tissue adds, since the model {reason}" in caplog.text


def test_a_constant_prediction(known):
    carried = known()
    carried.table[:] = 1.0
    figure = pl.attribution(carried)
    assert widths(figure) == [0, 0, 0]
    assert [text.get_text() for text in figure.axes[-1].texts] == 3 * ["n/a"]


def test_no_parts_read_no_tissue(known):
    Known.asked = ()
    figure = pl.attribution(known(), parts=[])
    assert [ax.get_title() for ax in figure.axes] == ["FASN predicted", "importance"]
    assert Known.asked == ()
    pl.attribution(known(), size_um=100, device="cpu", show_progress_bar=False)
    assert Known.asked == (100, "cpu", False)


def test_scale_bars(known):
    for ax in panels(pl.attribution(known())):
        (line,) = ax.lines
        microns = np.ptp(line.get_xdata()) * 2
        assert ax.texts[0].get_text() == f"{microns:g} µm"


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap in print, with texts that stick out of the figure."""
    figure.canvas.draw()
    axes = [ax for parent in figure.axes for ax in (parent, *parent.child_axes)]
    for axis in (axis for ax in axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():  # matplotlib does not draw those beyond the axis
            tick.label1.set_visible(tick.label1.get_visible() and low <= tick.get_loc() <= high)
    texts = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_visible()]
    boxes = [(text, box.padded(-0.5)) for text, box in boxes if box.width > 0]
    inside = [(text, "figure") for text, box in boxes if not figure.bbox.padded(1).contains(*box.min)]
    inside += [(text, "figure") for text, box in boxes if not figure.bbox.padded(1).contains(*box.max)]
    return inside + [(a, b) for i, (a, one) in enumerate(boxes) for b, two in boxes[:i] if one.overlaps(two)]


@pytest.mark.parametrize("n_parts", [0, 1, 2, 3, 5])
def test_nothing_overlaps(known, n_parts: int):
    fields = ("80 µm", "160 µm", "320 µm", "640 µm")
    carried = known(*fields, network=0.5, units="log10(1 + counts per 10,000 of the panel)")
    figure = pl.attribution(carried, parts=["all", *fields][:n_parts])
    assert len(figure.axes) == n_parts + 2
    assert figure.get_size_inches()[0] <= 7.3
    assert overlaps(figure) == []


def test_figure_of_a_model(model: HGGEP, slides: list[AnnData], tmp_path):
    options = {"device": "cpu", "show_progress_bar": False}
    carried = tl.attribution(slides[2], model, "STRO1", **options)
    figure = pl.attribution(carried, size_um=200, save=tmp_path / "stroma.png", **options)
    np.testing.assert_array_equal(figure.axes[1].images[1].get_array(), carried.map(200, **options).sel(part="all"))
    assert (tmp_path / "stroma.png").stat().st_size > 10_000


def test_errors(known):
    with pytest.raises(ValueError, match=r"Unknown part of the map '160 µm'.*'all', '80 µm'"):
        pl.attribution(known(), parts=["160 µm"])
    with pytest.raises(ValueError, match="`vmax` must be a positive number"):
        pl.attribution(known(), vmax=0)
    with pytest.raises(TypeError, match=r"`attribution` must be what `sthggep\.tl\.attribution` returned"):
        pl.attribution("FASN")
