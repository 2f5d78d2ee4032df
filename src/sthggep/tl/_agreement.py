"""Agreement of clusters with labels: predicted expression, measured expression, coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import accepts_results, positive
from sthggep._docs import document_places
from sthggep._keys import TOOL, PredictionKeys, prediction_keys
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep._slides._results import write_results
from sthggep._table._labels import ari_nmi, read_labels
from sthggep._table._prediction import Prediction, explain_missing_values, read_measured, read_prediction
from sthggep.tl._clusters import Clusters, Points, check_method, cluster, principal_components

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide


@checked
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
    """Cluster the spots of a section by predicted expression and compare the clusters with labels.

    The function scores two references beside the prediction: clusters of the measured expression, and clusters of the
    spots' coordinates alone. Labels form compact regions, as clusters of coordinates do, so only the gain of the
    prediction over the coordinates counts.

    Parameters
    ----------
    data
        One section with a prediction and labels. Without counts there is no row of measured expression.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    labels_key
        Column of ``obs`` with the label of each spot; spots without a label are clustered but not compared. Labels
        made from the counts (``obs["cluster"]`` of :func:`sthggep.datasets.her2st`) are not a pathologist's annotation
        (``obs["label"]``): agreement with them measures how much of the measured structure the model predicts, not
        whether the clusters are tissue types.
    method
        ``"kmeans"``, or ``"leiden"`` on scanpy's graph of 15 nearest neighbors with Gaussian weights, which needs
        igraph (``sthggep[leiden]``).
    candidates
        Numbers of clusters (k-means) or resolutions (Leiden). The function takes the one with the highest mean
        silhouette, without the labels. A single candidate is taken as it is: ``[7]`` gives seven clusters in every
        row. Default: 3 to 10 clusters, or resolutions of 0.4 to 2.
    n_pcs
        Number of principal components of the predicted and of the measured expression.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    seed
        Seed of the clustering.

    Returns
    -------
    A DataFrame with rows ``predicted``, ``observed`` and ``coordinates``; columns ``ari`` (adjusted
    Rand index: 1 for equal partitions, 0 for chance), ``nmi`` (normalized mutual information; chance is above 0, and
    higher for many clusters), ``n_clusters``, ``chosen`` (candidate), ``silhouette``, ``n_spots`` (with a label).
    Writes these fields to the table:

    ``obs[f"{key}_clusters"]``, ``obs[f"{key}_clusters_observed"]`` : categorical
        Clusters of predicted and measured expression; ``"0"`` is the largest.
    ``uns[f"{key}_agreement"]`` : dict
        ``scores`` (the DataFrame), ``labels_key``, ``method``, ``n_pcs``, ``seed``.

    Raises
    ------
    KeyError
        There is no such prediction, or no such column of labels.
    ValueError
        The counts are not raw, there are several sections, no spot has a label, the prediction is NaN for some spots,
        or sthggep did not write a column that the function would overwrite.
    ImportError
        ``method="leiden"`` without igraph.

    See Also
    --------
    sthggep.pl.agreement : Draw the clusters side by side.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.tl.agreement(slide, labels_key="label")
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key)
    table, keys = table_of(data, table_key), prediction_keys(key)
    slide = resolve_one(data, places, need_image=False)
    prediction = read_prediction(table, key)
    labels = read_labels(slide, labels_key)
    _may_write(table, keys, labels_key)
    check_method(method)
    points = _points(slide, prediction, int(positive(n_pcs, "`n_pcs`")), layer, seed)
    clusters = {name: cluster(values, method, candidates, seed) for name, values in points.items()}
    scores = pd.DataFrame({name: _row(labels, partition) for name, partition in clusters.items()}).T
    scores = scores.astype({"n_clusters": int, "n_spots": int}).rename_axis("clusters of")
    columns = {"predicted": keys.clusters, "observed": keys.clusters_observed}
    record = {
        "tool": TOOL,
        "scores": scores.copy(),
        "labels_key": labels_key,
        "method": method,
        "n_pcs": int(n_pcs),
        "seed": int(seed),
    }
    write_results(
        table,
        obs={columns[name]: _column(table, slide, clusters[name]) for name in columns if name in clusters},
        uns={keys.agreement: record},
    )
    return scores


def _may_write(table: AnnData, keys: PredictionKeys, labels_key: str) -> None:
    """Refuse to overwrite fields that sthggep did not write, and to compare clusters with themselves."""
    accepts_results(table)
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
            f"{', '.join(foreign)} exists already and sthggep did not write it; it is left alone. "
            "Rename or delete it first."
        )
        raise ValueError(msg)


def _points(slide: Slide, prediction: Prediction, n_pcs: int, layer: str | None, seed: int) -> dict[str, Points]:
    """Points to cluster: predicted expression, measured expression if there is any, coordinates."""
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
        log.info("Section %s: no clusters of measured expression, since %s.", slide.name, why)
    else:
        measured = read_measured(slide, prediction, layer=layer)
        measured = measured[:, ~np.isnan(measured).all(axis=0)]  # without genes that the table lacks
        points["observed"] = principal_components(measured, n_pcs, seed)
    points["coordinates"] = (slide.xy - slide.xy.mean(axis=0)) / slide.pitch()
    return points


def _row(labels: pd.Series, clusters: Clusters) -> dict[str, float]:
    """Agreement and size of one set of clusters."""
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
    """Clusters as a column of ``obs``; missing for spots of other sections."""
    codes = np.full(table.n_obs, -1, dtype=np.int64)
    codes[slide.rows] = clusters.labels
    return pd.Categorical.from_codes(codes, categories=pd.Index([str(i) for i in range(clusters.n)]))
