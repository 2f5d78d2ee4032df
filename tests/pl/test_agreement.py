from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from sthggep import pl, tl
from sthggep.pl._agreement import MISSING, PALETTE, match_colors

Make = Callable[..., AnnData]


@pytest.fixture
def clustered_slide(section: Make) -> AnnData:
    """A section of three kinds of tissue, which the prediction separates in another order."""
    adata = section()
    third = adata.obs["array_x"].to_numpy() // 2
    adata.obs["label"] = pd.Categorical(np.array(["fat", "stroma", "tumor"])[third])
    adata.obsm["hggep"] += 3 * np.eye(3)[third][:, [0, 1, 2, 2]].astype(np.float32)
    tl.agreement(adata, labels_key="label", candidates=[3])
    return adata


def colors(ax) -> list[str]:
    (spots,) = ax.collections
    return [to_hex(color) for color in spots.get_facecolors()]


def test_clusters_take_the_colors_of_labels(clustered_slide: AnnData):
    he, labels, predicted, observed = pl.agreement(clustered_slide).axes
    own = dict(zip(("fat", "stroma", "tumor"), [c.lower() for c in PALETTE], strict=False))
    assert colors(labels) == [own[label] for label in clustered_slide.obs["label"]]
    assert colors(predicted) == colors(labels)
    assert colors(observed) != colors(labels)
    assert len(he.images) == len(labels.images) == 1
    assert (he.get_title(), labels.get_title()) == ("H&E", "labels: label")
    assert predicted.get_title() == "predicted: 3 clusters\nARI 1.00"
    ari = tl.agreement(clustered_slide, labels_key="label", candidates=[3]).loc["observed", "ari"]
    assert observed.get_title() == f"observed: 3 clusters\nARI {ari:.2f}"


def test_legend_names_the_labels(clustered_slide: AnnData):
    clustered_slide.obs.loc[clustered_slide.obs_names[0], "label"] = np.nan
    figure = pl.agreement(clustered_slide, image=False)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fat", "stroma", "tumor", "no label"]
    assert len(figure.axes) == 3
    assert colors(figure.axes[0])[0] == MISSING.lower()


def test_nothing_overlaps(clustered_slide: AnnData):
    figure = pl.agreement(clustered_slide)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for ax in figure.axes for text in (ax.title, *ax.texts)]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    whole = figure.bbox
    assert all(box.y0 >= whole.y0 and box.y1 <= whole.y1 + 1 for box in boxes)


def test_matching_is_optimal():
    labels = pd.Series(["a"] * 6 + ["b"] * 5)
    # a greedy match gives cluster 0 the color of a (4 spots), and cluster 1 none; 0 → b, 1 → a matches more spots
    clusters = pd.Series(["0"] * 4 + ["1"] * 2 + ["0"] * 5)
    assert match_colors(labels, clusters, {"a": "red", "b": "blue"}) == {"0": "blue", "1": "red"}


def test_further_clusters_have_new_colors():
    labels = pd.Series(["a"] * 4 + ["b"] * 4)
    clusters = pd.Series(list("00112233"))
    label_colors = {"a": PALETTE[0], "b": PALETTE[1]}
    matched_colors = match_colors(labels, clusters, label_colors)
    assert set(label_colors.values()) < set(matched_colors.values())
    assert len(set(matched_colors.values())) == 4


def test_other_labels_and_many_of_them(clustered_slide: AnnData):
    clustered_slide.obs["many"] = [f"{i:02d}" for i in range(clustered_slide.n_obs)]
    figure = pl.agreement(clustered_slide, labels_key="many")
    assert figure.axes[1].get_title() == "labels: many"
    assert len(set(colors(figure.axes[1]))) == clustered_slide.n_obs


def test_a_slide_without_counts(clustered_slide: AnnData, tmp_path):
    del clustered_slide.obs["hggep_clusters_observed"]
    figure = pl.agreement(clustered_slide, save=tmp_path / "a.png")
    assert [ax.get_title().split(":")[0] for ax in figure.axes] == ["H&E", "labels", "predicted"]
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_first_call_agreement(section: Make):
    with pytest.raises(KeyError, match=r"tl\.agreement"):
        pl.agreement(section())
