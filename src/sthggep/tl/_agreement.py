"""Whether a prediction shows the tissue's structure: its clusters against labels, beside those of plain alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._checks import positive
from sthggep._docs import document_places
from sthggep._keys import TOOL, PredictionKeys, prediction_keys
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep._table._labels import ari_nmi, read_labels
from sthggep._table._prediction import Prediction, explain_missing_values, read_measured, read_prediction
from sthggep.tl._clusters import Clusters, Points, check_method, cluster, principal_components

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide


@document_places
def agreement(
    data: AnnData | SpatialData,
    key: str = "hggep",
    *,
    labels_key: str,
    method: str = "kmeans",
    candidates: Sequence[float] | None = None,
    n_pcs: int = 10,
    layer: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    seed: int = 0,
) -> pd.DataFrame:
    """Cluster the spots of a section by their predicted expression, and compare the clusters with labels.

    Two rows stand beside the prediction: clusters of the measured expression, and clusters of the spots' coordinates
    alone. Labels lie in patches, and so do compact clusters of any kind: only what the prediction gains over the
    coordinates speaks for it.

    Parameters
    ----------
    data
        One section with a prediction and labels. Without counts there is no row of measured expression.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    labels_key
        Column of ``obs``: the label of each spot; spots without one are clustered and not compared. Clusters that were
        made from the counts (``obs["cluster"]`` of :func:`sthggep.datasets.her2st`) are no pathologist's annotation
        (``obs["label"]``): agreement with them says how much of the measured structure is predicted, not whether it
        is tissue that a pathologist would name.
    method
        ``"kmeans"``, or ``"leiden"`` on the graph of 15 nearest neighbors, scanpy's with Gaussian weights (it needs igraph:
        ``sthggep[leiden]``).
    candidates
        Numbers of clusters (k-means) or resolutions (Leiden) to choose from, by the highest mean silhouette on the points
        clustered. Labels are not looked at. One alone is taken as it is, so that ``[7]`` makes seven clusters in every
        row; ``None`` takes 3 to 10, or 0.4 to 2.
    n_pcs
        Principal components that stand for expression, predicted or measured.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    seed
        Of the clustering.

    Returns
    -------
    Rows ``predicted``, ``observed``, ``coordinates``; columns ``ari`` (adjusted Rand index: 1 for the same parts, 0 for
    chance), ``nmi`` (normalized mutual information; chance is above 0, and more so for many clusters), ``n_clusters``,
    ``chosen`` (of the candidates), ``silhouette``, ``n_spots`` (those with a label). Writes to the table:

    ``obs[f"{key}_clusters"]``, ``obs[f"{key}_clusters_observed"]`` : categorical
        Clusters of predicted and measured expression, ``"0"`` the largest.
    ``uns[f"{key}_agreement"]`` : dict
        ``scores`` (what is returned), ``labels_key``, ``method``, ``n_pcs``, ``seed``.

    Raises
    ------
    KeyError
        There is no such prediction, or no such column of labels.
    ValueError
        The counts are not raw, there are several sections, no spot has a label, the prediction is NaN somewhere, or a
        column to be written is there already and not ours.
    ImportError
        Leiden without igraph.

    See Also
    --------
    sthggep.pl.agreement : The maps side by side.
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key)
    table, keys = table_of(data, table_key), prediction_keys(key)
    slide = resolve_one(data, places, need_image=False)
    prediction = read_prediction(table, key)
    labels = read_labels(slide, labels_key)
    _may_write(table, keys, labels_key)
    check_method(method)
    points = _points(slide, prediction, int(positive(n_pcs, "`n_pcs`")), layer, seed)
    found = {name: cluster(values, method, candidates, seed) for name, values in points.items()}
    scores = pd.DataFrame({name: _row(labels, clusters) for name, clusters in found.items()}).T
    scores = scores.astype({"n_clusters": int, "n_spots": int}).rename_axis("clusters of")
    for name, column in (("predicted", keys.clusters), ("observed", keys.clusters_observed)):
        if name in found:
            table.obs[column] = _column(table, slide, found[name])
    table.uns[keys.agreement] = {
        "tool": TOOL,
        "scores": scores.copy(),
        "labels_key": labels_key,
        "method": method,
        "n_pcs": int(n_pcs),
        "seed": int(seed),
    }
    return scores


def _may_write(table: AnnData, keys: PredictionKeys, labels_key: str) -> None:
    """Refuse to overwrite something that sthggep did not write, or to compare clusters with themselves."""
    columns = (keys.clusters, keys.clusters_observed)
    if labels_key in columns:
        msg = f"obs[{labels_key!r}] holds clusters that this call would overwrite. Pass labels of another origin."
        raise ValueError(msg)
    record = table.uns.get(keys.agreement)
    if isinstance(record, Mapping) and record.get("tool") == TOOL:
        return
    foreign = [f"obs[{c!r}]" for c in columns if c in table.obs]
    foreign += [f"uns[{keys.agreement!r}]"] if record is not None else []
    if foreign:
        msg = (
            f"{', '.join(foreign)} is there already and sthggep did not write it; it is left alone. "
            "Rename or delete it first."
        )
        raise ValueError(msg)


def _points(slide: Slide, prediction: Prediction, n_pcs: int, layer: str | None, seed: int) -> dict[str, Points]:
    """What is clustered: predicted expression, what was measured where it was, coordinates."""
    predicted = prediction.take(slide.rows)
    if np.isnan(predicted).any():
        n = int(np.isnan(predicted).any(axis=1).sum())
        msg = (
            f"The prediction {prediction.key!r} is NaN in {n} of {slide.n_spots} spots of section {slide.name!r}. "
            "Call `sthggep.tl.predict` on this section first."
        )
        raise ValueError(msg)
    if slide.n_spots < 4:
        msg = f"Clustering needs at least 4 spots, section {slide.name!r} has {slide.n_spots}."
        raise ValueError(msg)
    points = {"predicted": principal_components(predicted, n_pcs, seed)}
    if why := explain_missing_values(slide, prediction, layer=layer):
        log.info("Section %s: nothing measured to cluster, since %s.", slide.name, why)
    else:
        measured = read_measured(slide, prediction, layer=layer)
        measured = measured[:, ~np.isnan(measured).all(axis=0)]  # genes that are not in the table
        points["observed"] = principal_components(measured, n_pcs, seed)
    points["coordinates"] = (slide.xy - slide.xy.mean(axis=0)) / slide.pitch()
    return points


def _row(labels: pd.Series, clusters: Clusters) -> dict[str, float]:
    ari, nmi = ari_nmi(labels, pd.Series(clusters.labels, index=labels.index))
    return {
        "ari": ari,
        "nmi": nmi,
        "n_clusters": clusters.n,
        "chosen": clusters.chosen,
        "silhouette": clusters.silhouette,
        "n_spots": int(labels.notna().sum()),
    }


def _column(table: AnnData, slide: Slide, clusters: Clusters) -> pd.Categorical[str]:
    """Clusters as a column of ``obs``; spots of other sections have none."""
    codes = np.full(table.n_obs, -1, dtype=np.int64)
    codes[slide.rows] = clusters.labels
    return pd.Categorical.from_codes(codes, categories=pd.Index([str(i) for i in range(clusters.n)]))
