"""Colors of clusters that were found in different tables, so that one color means one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import has_key, listing, unique
from sthggep._slides._anndata import table_of
from sthggep.pl._agreement import match_colors, palette

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def cluster_colors(
    data: AnnData | SpatialData, columns: Sequence[str], *, table_key: str = "table"
) -> dict[str, dict[str, str]]:
    """Give clusters of several columns of ``obs`` colors that can be compared, for scanpy's and squidpy's figures.

    Clusterings of a prediction, of counts and of labels number their clusters each for itself, and scanpy colors by the
    number: cluster 0 of one is as blue as cluster 0 of the other, though they have no spot in common. Here each cluster
    takes the color of the category of the first column that it shares most spots with, one each, as in
    :func:`sthggep.pl.agreement`. Clusters that are left over take colors that no earlier column has.

    Parameters
    ----------
    data
        Slide with the columns. To compare clusters of two tables, copy the column of one to the other.
    columns
        Categorical columns of ``obs``; the first one, such as a pathologist's labels, leads.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The color of each category of each column. The function also writes them, in the order of the categories, to
    ``uns[f"{column}_colors"]`` of the table, where scanpy and squidpy look for them. It replaces colors that are there.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A column is not categorical, or is named twice.

    Examples
    --------
    >>> predicted.obs["leiden of the counts"] = measured.obs["leiden"]
    >>> sthggep.pl.cluster_colors(predicted, ["domain", "leiden", "leiden of the counts"])
    >>> squidpy.pl.spatial_scatter(predicted, color=["domain", "leiden", "leiden of the counts"])
    """
    adata = table_of(data, table_key)
    if not len(columns):
        msg = "`columns` is empty. Name the columns of obs that hold clusters, the leading one first."
        raise ValueError(msg)
    unique(columns, "`columns`", "Name each column once.")
    clusters = {column: _categories(adata, column) for column in columns}
    first, *others = columns
    names = [str(name) for name in clusters[first].cat.categories]
    colors = {first: dict(zip(names, palette(), strict=False))}
    if len(names) > len(colors[first]):
        msg = f"obs[{first!r}] has {len(names)} categories; up to {len(palette())} can have a color of their own."
        raise ValueError(msg)
    for column in others:
        taken = {color for own in colors.values() for color in own.values()}
        colors[column] = match_colors(_text(clusters[first]), _text(clusters[column]), colors[first], taken)
    for column, own in colors.items():
        # A category without a spot also needs a color
        adata.uns[f"{column}_colors"] = [own.get(str(name), "#D9D9D9") for name in clusters[column].cat.categories]
    return colors


def _categories(adata: AnnData, column: str) -> pd.Series:
    values = pd.Series(has_key(adata.obs, column, "obs", "Name the columns that hold clusters."))
    if not isinstance(values.dtype, pd.CategoricalDtype):
        msg = (
            f"obs[{column!r}] must be categorical, since scanpy colors the categories in their order; found {values.dtype}, such "
            f"as {listing(values.head(3))}. Call `adata.obs[{column!r}] = adata.obs[{column!r}].astype('category')` first."
        )
        raise ValueError(msg)
    return values


def _text(values: pd.Series) -> pd.Series:
    """Names of the categories as text; missing values stay."""
    return values.astype(object).where(values.notna(), None).map(str, na_action="ignore")
