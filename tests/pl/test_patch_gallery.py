from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sthggep import pl
from sthggep._slides._resolve import resolve_one
from sthggep.pl._patch_gallery import KINDS, _spread
from sthggep.tl import Attribution

Make = Callable[..., AnnData]


@pytest.fixture
def ordered(section: Make) -> AnnData:
    """A section whose prediction of FASN is 1.00 at the first spot, and grows by 0.01 a spot."""
    adata = section()
    adata.obsm["hggep"][:, 1] = 1 + 0.01 * np.arange(24)
    return adata


def marks(figure: Figure) -> np.ndarray:
    """The dots on the tissue, in their order."""
    return np.array([line.get_xydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"])


def numbers(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text().isdecimal()]


def values(figure: Figure) -> list[float]:
    """The predicted values in the titles of the patches."""
    return [float(ax.get_title().split("\n")[0].removeprefix("predicted ")) for ax in figure.axes[1:]]


def test_highest_and_lowest_in_order(ordered: AnnData):
    figure = pl.patch_gallery(ordered, "FASN", n=3)
    assert values(figure) == [1.23, 1.22, 1.21, 1.0, 1.01, 1.02]
    assert [numbers(ax) for ax in figure.axes[1:]] == [[str(k)] for k in range(1, 7)]
    places = ordered.obsm["spatial"]
    np.testing.assert_array_equal(marks(figure), places[[23, 22, 21, 0, 1, 2]])
    assert numbers(figure.axes[0]) == [str(k) for k in range(1, 7)]
    colors = [to_rgb(line.get_color()) for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert colors == [to_rgb(KINDS[kind]) for kind in 3 * ["highest"] + 3 * ["lowest"]]
    assert [ax.get_ylabel() for ax in figure.axes[1:]] == ["highest", "", "", "lowest", "", ""]
    assert figure.get_suptitle() == "FASN in S1, log10(1 + counts per 10,000 of the panel)"


def test_patches_show_their_places(ordered: AnnData):
    figure = pl.patch_gallery(ordered, "FASN", n=2, size_um=100)
    for (x, y), ax in zip(marks(figure), figure.axes[1:], strict=True):
        patch = np.asarray(ax.images[0].get_array(), dtype=float)
        assert patch[..., 0].mean() == pytest.approx(x / 800 * 255, abs=2)  # red is x
        assert patch[..., 1].mean() == pytest.approx(y / 600 * 255, abs=2)  # green is y
        # 100 µm are 50 pixels, over which red grows
        assert np.ptp(patch[..., 0].mean(axis=0)) == pytest.approx(50 / 800 * 255, abs=2)


def test_observed_values_where_there_are_counts(ordered: AnnData):
    counts = ordered.X.toarray()[:, :4]
    observed = np.log10(1 + counts[:, 1] / counts.sum(axis=1) * 1e4)
    titles = [ax.get_title() for ax in pl.patch_gallery(ordered, "FASN", n=1).axes[1:]]
    assert titles == [f"predicted {value}\nobserved {observed[i]:.2f}" for value, i in (("1.23", 23), ("1.00", 0))]
    without = ["predicted 1.23", "predicted 1.00"]
    assert [ax.get_title() for ax in pl.patch_gallery(ordered, "FASN", n=1, observed=False).axes[1:]] == without
    bare = ordered[:, ["OTHER"]].copy()
    assert [ax.get_title() for ax in pl.patch_gallery(bare, "FASN", n=1).axes[1:]] == without
    ordered.X = ordered.X * 0.5
    with pytest.raises(ValueError, match=r"observed expression: .*pass `observed=False`"):
        pl.patch_gallery(ordered, "FASN")


def test_large_and_small_values_have_three_digits(ordered: AnnData):
    for factor, titles in (
        (1000, ["predicted 1230", "predicted 1000"]),
        (0.01, ["predicted 0.0123", "predicted 0.0100"]),
    ):
        scaled = ordered.copy()
        scaled.obsm["hggep"] *= factor
        assert [ax.get_title() for ax in pl.patch_gallery(scaled, "FASN", n=1, observed=False).axes[1:]] == titles


def test_patches_do_not_overlap(ordered: AnnData):
    """At 300 µm, every second spot of a row is near enough; 200 µm apart, all are."""
    options = {"n": 3, "size_um": 300.0, "observed": False}
    figure = pl.patch_gallery(ordered, "FASN", **options)
    places = marks(figure)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) * 2
    assert apart[~np.eye(6, dtype=bool)].min() >= 300
    assert values(figure) == [1.23, 1.21, 1.19, 1.0, 1.02, 1.04]
    close = pl.patch_gallery(ordered, "FASN", min_distance_um=0, **options)
    assert values(close) == [1.23, 1.22, 1.21, 1.0, 1.01, 1.02]


def test_few_spots_have_few_patches(ordered: AnnData):
    five = pl.patch_gallery(ordered[:5].copy(), "FASN", mpp=2.0, observed=False)
    assert values(five) == [1.04, 1.03, 1.02, 1.0, 1.01]
    (patch,) = pl.patch_gallery(ordered[:1].copy(), "FASN", mpp=2.0, observed=False).axes[1:]
    assert patch.get_ylabel() == "highest"


def test_spots_without_a_prediction_are_left_out(ordered: AnnData):
    ordered.obsm["hggep"][[0, 23], 1] = np.nan
    assert values(pl.patch_gallery(ordered, "FASN", n=1)) == [1.22, 1.01]


def test_scale_bar_in_the_first_patch(ordered: AnnData):
    patches = pl.patch_gallery(ordered, "FASN", n=2, size_um=160).axes[1:]
    (bar,) = patches[0].lines
    left, right = patches[0].get_xlim()
    assert np.ptp(bar.get_xdata()) / (right - left) * 160 == pytest.approx(50, rel=1e-3)
    assert "50 µm" in [text.get_text() for text in patches[0].texts]
    assert not any(ax.lines for ax in patches[1:])


def test_many_patches_break_into_lines(ordered: AnnData):
    figure = pl.patch_gallery(ordered, "FASN", n=8)
    places = [ax.get_subplotspec() for ax in figure.axes[1:]]
    assert [place.rowspan.start for place in places] == [*6 * [0], 1, 1, *6 * [2], 3, 3]
    assert [place.colspan.start for place in places] == 2 * [*range(6), 0, 1]
    assert figure.get_size_inches()[0] <= 7.3


def test_numbers_make_room_for_each_other():
    places = np.array([[x, y] for x in range(4) for y in range(3)], dtype=float)
    texts = _spread(places, 2.5)
    between, to_dots = (np.linalg.norm(texts[:, None] - others, axis=2) for others in (texts, places))
    assert between[~np.eye(12, dtype=bool)].min() > 0.9 * 2.5
    assert to_dots.min() > 0.6 * 2.5
    assert np.diagonal(to_dots).max() < 3 * 2.5
    np.testing.assert_array_equal(_spread(places * 10, 1.5), places * 10 - [0, 1.5])  # far apart, each above its dot


def test_prediction_of_an_attribution(ordered: AnnData):
    """Its values are those of the titles, whatever the table holds, and whatever the order of its rows."""
    slide = resolve_one(ordered)
    parts = {"80 µm own": 2 - 0.01 * np.arange(24), "80 µm neighbors": 0.0, "mean": 1.0, "network": 0.0}
    table = pd.DataFrame(parts, index=ordered.obs_names)
    model = SimpleNamespace(genes=["ACTB", "FASN", "ERBB2", "CD74"], targets=None)
    carried = Attribution("FASN", table, "log of counts", "S1", model, slide, None)
    del ordered.obsm["hggep"], ordered.uns["hggep"]
    figure = pl.patch_gallery(ordered[::-1].copy(), carried, n=2)
    assert values(figure) == [3.0, 2.99, 2.77, 2.78]
    np.testing.assert_array_equal(marks(figure), slide.xy[[0, 1, 23, 22]])
    assert all("observed" in ax.get_title() for ax in figure.axes[1:])
    assert figure.get_suptitle() == "FASN in S1, log of counts"
    program = Attribution("program 0", table, "program score", "S1", model, slide, None)
    assert not any("observed" in ax.get_title() for ax in pl.patch_gallery(ordered, program, n=2).axes[1:])
    ordered.obs_names = [f"other {name}" for name in ordered.obs_names]
    with pytest.raises(
        ValueError, match=r"of section 'S1' and has no value for spots .*Pass the slide that you passed"
    ):
        pl.patch_gallery(ordered, carried)


def test_one_section_of_several(section: Make):
    both = ad.concat([section("A"), section("B", seed=1)], index_unique="-", uns_merge="unique")
    both.uns["hggep"] = section().uns["hggep"]
    options = {"library_key": "section", "n": 2}
    with pytest.raises(ValueError, match=r"One section was expected, found 2: 'A', 'B'. Pass `section=`"):
        pl.patch_gallery(both, "FASN", **options)
    figure = pl.patch_gallery(both, "FASN", section="B", **options)
    highest = both.obsm["hggep"][24:, 1].max()
    assert values(figure)[0] == pytest.approx(highest, abs=0.006)


def test_errors(ordered: AnnData, tmp_path):
    with pytest.raises(KeyError, match="GNAS"):
        pl.patch_gallery(ordered, "GNAS")
    with pytest.raises(KeyError, match=r"Call `sthggep.tl.predict\(data, model, key_added='other'\)` first"):
        pl.patch_gallery(ordered, "FASN", key="other")
    with pytest.raises(ValueError, match="`n` must be a positive whole number"):
        pl.patch_gallery(ordered, "FASN", n=0)
    with pytest.raises(ValueError, match="`min_distance_um` must be a number of 0 or more"):
        pl.patch_gallery(ordered, "FASN", min_distance_um=-1)
    ordered.uns["spatial"]["S1"]["metadata"] = {}
    with pytest.raises(ValueError, match="mpp="):
        pl.patch_gallery(ordered, "FASN")
    pl.patch_gallery(ordered, "FASN", n=2, mpp=2.0, save=tmp_path / "patches.png")
    assert (tmp_path / "patches.png").stat().st_size > 10_000
