from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import pl
from sthggep.pl._agreement import PALETTE

Make = Callable[..., AnnData]


@pytest.fixture
def clustered(section: Make) -> AnnData:
    """Labels in three strips; clusters of a prediction that are the same strips with other numbers, and of counts."""
    adata = section()
    x = adata.obs["array_x"].to_numpy()
    adata.obs["domain"] = pd.Categorical(np.array(["tumor", "stroma", "fat"])[x // 2])
    adata.obs["leiden"] = pd.Categorical((2 - x // 2).astype(str))
    # The middle strip is split, so one cluster is left over
    counts = np.where((x == 3), 3, x // 2)
    adata.obs["of counts"] = pd.Categorical(counts.astype(str))
    return adata


def test_clusters_of_the_same_spots_have_the_same_color(clustered: AnnData):
    colors = pl.cluster_colors(clustered, ["domain", "leiden", "of counts"])
    assert colors["leiden"] == {
        "2": colors["domain"]["tumor"],
        "1": colors["domain"]["stroma"],
        "0": colors["domain"]["fat"],
    }
    # The leading column has the colors of `pl.agreement`, in the order of its categories
    assert colors["domain"] == dict(zip(("fat", "stroma", "tumor"), PALETTE, strict=False))
    assert colors["of counts"]["0"] == colors["domain"]["tumor"]
    assert colors["of counts"]["2"] == colors["domain"]["fat"]
    middle = {colors["of counts"]["1"], colors["of counts"]["3"]}
    assert colors["domain"]["stroma"] in middle
    assert len(middle - set(colors["domain"].values())) == 1


def test_scanpy_finds_them(clustered: AnnData):
    from scanpy.plotting._tools.scatterplots import _get_palette

    colors = pl.cluster_colors(clustered, ["domain", "leiden"])
    assert clustered.uns["domain_colors"] == [colors["domain"][name] for name in ("fat", "stroma", "tumor")]
    for column in ("domain", "leiden"):
        assert _get_palette(clustered, column) == colors[column]


def test_clusters_that_are_left_over_share_no_color(clustered: AnnData):
    """Two clusterings without a relation to each other take different new colors."""
    clustered.obs["domain"] = pd.Categorical(["one"] * clustered.n_obs)
    colors = pl.cluster_colors(clustered, ["domain", "leiden", "of counts"])
    taken = [color for own in colors.values() for color in own.values()]
    first = colors["domain"]["one"]
    assert taken.count(first) == 3  # the largest cluster of each
    others = [color for color in taken if color != first]
    assert len(set(others)) == len(others)


def test_missing_values_and_empty_categories_keep_their_place(clustered: AnnData):
    clustered.obs["leiden"] = clustered.obs["leiden"].cat.add_categories(["9"])
    clustered.obs.loc[clustered.obs_names[:3], "leiden"] = np.nan
    pl.cluster_colors(clustered, ["domain", "leiden"])
    assert len(clustered.uns["leiden_colors"]) == 4
    assert clustered.uns["leiden_colors"][3] == "#D9D9D9"  # no spot, no color
    assert "#D9D9D9" not in clustered.uns["leiden_colors"][:3]


def test_a_cluster_without_a_common_spot_takes_a_new_color(clustered: AnnData):
    """Labels are missing where one of two clusters lies; that both are left over does not make them one."""
    x = clustered.obs["array_x"].to_numpy()
    clustered.obs["domain"] = pd.Categorical(np.where(x < 3, "tumor", np.where(x == 3, "fat", None)))
    clustered.obs["leiden"] = pd.Categorical(np.where(x <= 3, "inside", "outside"))
    colors = pl.cluster_colors(clustered, ["domain", "leiden"])
    assert colors["leiden"]["inside"] == colors["domain"]["tumor"]
    assert colors["leiden"]["outside"] not in colors["domain"].values()


def test_refusals(clustered: AnnData):
    clustered.obs["text"] = "a"
    before = dict(clustered.uns)
    with pytest.raises(ValueError, match=r"obs\['text'\] must be categorical.*astype\('category'\)"):
        pl.cluster_colors(clustered, ["domain", "text"])
    with pytest.raises(KeyError, match="'absent' is not in obs"):
        pl.cluster_colors(clustered, ["domain", "absent"])
    with pytest.raises(ValueError, match="more than once: 'domain'"):
        pl.cluster_colors(clustered, ["domain", "domain"])
    with pytest.raises(ValueError, match="`columns` is empty"):
        pl.cluster_colors(clustered, [])
    assert dict(clustered.uns) == before
