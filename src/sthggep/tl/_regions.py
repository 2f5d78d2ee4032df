"""`tl.regions`: mean expression of regions of a slide, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import listing, warn_user
from sthggep._docs import document_places
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._slides._measured import read_mask
from sthggep._slides._places import Places
from sthggep._slides._polygons import polygon_labels
from sthggep._slides._resolve import resolve
from sthggep._table._evidence import UNLIKE
from sthggep._table._labels import read_labels
from sthggep._table._prediction import explain_missing_values, read_measured, read_prediction
from sthggep._table._verdicts import FEWEST_PATIENTS, mean_novelty, read_evidence
from sthggep.tl._region_means import NONE, Spread, as_table, difference_of, means_by_region
from sthggep.tl._scored_sections import slides_with_prediction

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide
    from sthggep._table._prediction import Prediction

UNLIKE_TISSUE = (
    f"the image is unlike the training tissue, and fewer than {FEWEST_PATIENTS} patients were held out in training, so nobody knows "
    "how far a new one may be off. Train on slides that are more like it."
)
ONE_SECTION = (
    "one section was held out in training, so nobody knows how far the mean of another may be off. Pass `relative=True` or "
    "`difference=`, which need only differences within the section."
)


@checked
@document_places
def regions(
    data: AnnData | SpatialData,
    groupby: str | None = None,
    *,
    key: str = "hggep",
    genes: Sequence[str] | None = None,
    level: float = 0.9,
    scale_um: float | None = None,
    measured: str | Sequence[bool] | pd.Series | None = None,
    relative: bool = False,
    difference: Sequence[str] | None = None,
    unlike: float = UNLIKE,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    mpp: float | None = None,
) -> pd.DataFrame:
    """Compute the mean of each gene in each region of a slide, with an interval.

    Means over regions are known better than single spots: the noise of the counts averages out, and much of the model's
    error does.

    Parameters
    ----------
    data
        Slide with a prediction.
    groupby
        Column of ``obs`` with the region of each spot, or the polygons of a SpatialData (name of a shapes element; its index
        names the regions). Spots in no region are left out. Default: squares of ``scale_um``.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Some of the predicted genes. Default: all.
    level
        Probability with which the mean of the measurements of a region lies in its interval.
    scale_um
        Side of squares in microns, in place of ``groupby``. Regions are named ``"column,row"``, from the upper left.
    measured
        Spots whose counts may be used: a column of ``obs`` that is true for them, or a mask (n_obs,). They should be a
        random choice of the region's spots; counts of other spots are not read. A Series is aligned by the names of the spots.
        Default: intervals by the training alone.
    relative
        Means minus the mean of the section. What shifts the whole section drops out, so intervals are narrower, and a model
        of one training section can give them, too.
    difference
        Two regions: one more region, named ``"first - second"``, holds the difference of their means. What shifts the whole
        section drops out, so its interval is narrower. There are no differences between sections.
    unlike
        Mean novelty of a section above which its tissue counts as unlike that of the training; as in
        :func:`sthggep.tl.trust`. With fewer than three held-out patients there is no interval then.
    layer
        Layer of the raw counts, for ``observed`` and ``measured``. Default: the first that holds counts.
    {places}

    Returns
    -------
    A DataFrame with a row for each region and gene, on the scale of the prediction:

    ``section``, ``region``, ``gene``
        Of the row; ``section`` if there are several.
    ``mean``, ``lower``, ``upper``
        Mean over the spots, and the interval in which the mean of measurements lies; NaN where none can be given.
    ``n_spots``, ``n_measured``
        Spots in the region, and those among them whose counts were used.
    ``observed``
        Mean of the measurements (of the spots in ``measured``, where that is given), also relative to the section with
        ``relative``; NaN without counts.
    ``interval_from``
        ``"held-out tissue"``, ``"measured spots"``, or ``"none"``.

    Raises
    ------
    KeyError
        There is no such prediction, column or gene.
    ValueError
        Neither or both of ``groupby`` and ``scale_um`` are given, the model holds no predictions of held-out tissue, a mask
        has another length, or a region of ``difference`` is absent.

    See Also
    --------
    sthggep.tl.trust : Which genes can be trusted at all.

    Notes
    -----
    Held-out tissue: errors of regional means have two parts. Within a section they were measured on compact regions of 1 to
    81 spots of held-out tissue, and are read off for the number of spots; regions that are scattered err less. The mean
    error of a whole section was measured on the held-out sections (of the patients, on a section of unlike tissue). Both
    together, with a quantile of Student's t, make the interval.

    Measured spots: with five or more of them in a region, the mean is that of all predictions, corrected by the measured
    ones: ``a * mean(predicted) + mean(measured - a * predicted)``, where ``a`` is fitted on the measured spots and is 0 if
    predictions do not help. This is prediction-powered inference (Angelopoulos et al. 2023) for a finite number of spots.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> means = sthggep.tl.regions(slide, "label", genes=["FASN", "GNAS"])
    >>> means.pivot(index="region", columns="gene", values="mean")
    """
    places = Places(
        table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key, mpp=mpp
    )
    if not 0 < level < 1:
        msg = f"`level` must lie between 0 and 1, such as 0.9; found {level:g}."
        raise ValueError(msg)
    if (groupby is None) == (scale_um is None):
        msg = "Pass either `groupby`, a column of obs with the region of each spot, or `scale_um`, the side of squares."
        raise ValueError(msg)
    table, sections = table_of(data, table_key), resolve(data, places, need_image=False)
    prediction = read_prediction(table, key)
    columns = prediction.columns(genes)
    usable = None if measured is None else read_mask(table, measured)
    evidence = read_evidence(table, key, len(prediction.genes)).take(columns)
    pair = _check_pair(difference)
    parts, without = [], dict[str, str]()
    for slide in slides_with_prediction(sections, prediction):
        labels = _label_spots(data, slide, groupby, scale_um, table_key)
        values = prediction.take(slide.rows, columns)
        truth = _measurements(slide, prediction, columns, layer, required=usable is not None)
        mask = None if usable is None else usable[slide.rows]
        of_patients = mean_novelty(table, slide, key) > unlike
        spread = Spread.of(evidence, level, of_patients=of_patients, relative=relative)
        means = means_by_region(labels, values, truth, mask, spread, level)
        judged = means
        if pair is not None:
            # Of the means themselves: relative ones share the rest of the section, and their errors are not independent
            plain = spread if not relative else Spread.of(evidence, level, of_patients=of_patients, relative=False)
            own = means_by_region(labels, values, truth, mask, plain, level) if relative else means
            # A difference may have its interval, although its two regions have none
            judged = difference_of(own, pair, slide.name, plain)
            means |= judged
        if any(each.method == NONE for each in judged.values()):
            without[slide.name] = UNLIKE_TISSUE if of_patients else ONE_SECTION
        names = [prediction.genes[i] for i in columns]
        parts.append(as_table(means, names, slide.name if len(sections) > 1 else None))
    for reason in dict.fromkeys(without.values()):
        found = [name for name, why in without.items() if why == reason]
        warn_user(f"No interval for {listing(found)}: {reason} Or measure some spots, and pass `measured=`.")
    return pd.concat(parts, ignore_index=True)


def _label_spots(
    data: AnnData | SpatialData, slide: Slide, groupby: str | None, scale_um: float | None, table_key: str
) -> pd.Series:
    """Name the region of each spot of a section; missing for spots in none."""
    if scale_um is not None:
        return _squares(slide, scale_um)
    if groupby in slide.adata.obs:
        return _labels(slide, str(groupby))
    return polygon_labels(data, slide, str(groupby), table_key)


def _check_pair(difference: Sequence[str] | None) -> tuple[str, str] | None:
    """Check that a difference names two regions."""
    if difference is None:
        return None
    names = [difference] if isinstance(difference, str) else [str(name) for name in difference]
    if len(names) != 2 or names[0] == names[1]:
        msg = f"`difference` must name two regions, such as ('tumor', 'stroma'); found {listing(names)}."
        raise ValueError(msg)
    return names[0], names[1]


def _labels(slide: Slide, groupby: str) -> pd.Series:
    """Read the region of each spot; refuse a column of measured numbers."""
    values = slide.adata.obs[groupby]
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 != 0).any():
        msg = f"obs[{groupby!r}] holds numbers with decimals, not regions. Pass a column of names, or cut it first: `pandas.cut`."
        raise ValueError(msg)
    return read_labels(slide, groupby).reset_index(drop=True)


def _squares(slide: Slide, scale_um: float) -> pd.Series:
    """Name the square of each spot by its column and row."""
    cells = np.floor(slide.xy * slide.require_mpp() / scale_um).astype(np.int64)
    cells -= cells.min(axis=0)
    return pd.Series([f"{x},{y}" for x, y in cells], dtype=object)


def _measurements(
    slide: Slide, prediction: Prediction, columns: NDArray[np.intp], layer: str | None, *, required: bool
) -> NDArray[np.float32] | None:
    """Measured values of the genes; ``None`` where the table holds none that are required."""
    if why := explain_missing_values(slide, prediction, layer=layer):
        if required:
            msg = f"`measured` needs the measurements of section {slide.name!r}, but {why}."
            raise ValueError(msg)
        return None
    try:
        measured: NDArray[np.float32] = read_measured(slide, prediction, layer=layer)[:, columns]
    except ValueError as reason:
        if required:
            raise
        log.info("Section %s: no `observed`: %s", slide.name, reason)
        return None
    return measured
