"""`tl.regions`: mean expression of regions of a slide, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import has_key, listing, warn_user
from sthggep._docs import document_places
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._polygons import polygon_labels
from sthggep._slides._resolve import resolve
from sthggep._table._evidence import REGION_SPOTS, UNLIKE, Evidence
from sthggep._table._labels import read_labels
from sthggep._table._prediction import explain_missing_values, read_measured, read_prediction
from sthggep._table._verdicts import FEWEST_PATIENTS, PRIOR_SECTIONS, mean_novelty, read_evidence

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide
    from sthggep._table._prediction import Prediction

PRIOR_SPOTS = 2.0
LEAST_MEASURED = 5  # measured spots of a region, with which they give an interval by themselves
UNLIKE_TISSUE = (
    f"the image is unlike the training tissue, and fewer than {FEWEST_PATIENTS} patients were held out in training, so nobody knows "
    "how far a new one may be off. Train on slides that are more like it."
)
ONE_SECTION = (
    "the model was trained on one section, so nobody knows how far the mean of another may be off. Pass `relative=True` or "
    "`difference=`, which need only differences within the section."
)
FROM_TRAINING, FROM_SPOTS, NONE = "held-out tissue", "measured spots", "none"

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


class Means(NamedTuple):
    """Mean of each gene in a region, with its interval; all are (genes,)."""

    mean: Numbers
    lower: Numbers
    upper: Numbers
    observed: Numbers
    n_spots: int
    n_measured: int
    method: str


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
    measured: str | Sequence[bool] | None = None,
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
        Side of squares in microns, in place of ``groupby``.
    measured
        Spots whose counts may be used: a column of ``obs`` that is true for them, or a mask (n_obs,). They should be a
        random choice of the region's spots; counts of other spots are not read. Default: intervals by the training alone.
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
        Mean of the measurements (of the spots in ``measured``, where that is given); NaN without counts.
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
    if (groupby is None) == (scale_um is None):
        msg = "Pass either `groupby`, a column of obs with the region of each spot, or `scale_um`, the side of squares."
        raise ValueError(msg)
    table, sections = table_of(data, table_key), resolve(data, places, need_image=False)
    prediction = read_prediction(table, key)
    columns = prediction.columns(genes)
    usable = _read_mask(table, measured)
    evidence = read_evidence(table, key, len(prediction.genes)).take(columns)
    pair = _check_pair(difference)
    parts, without = [], dict[str, str]()
    for slide in sections:
        if np.isnan(prediction.take(slide.rows[:1], [0])).any():
            continue
        if scale_um is not None:
            labels = _squares(slide, scale_um)
        elif groupby in table.obs:
            labels = read_labels(slide, str(groupby)).reset_index(drop=True)
        else:
            labels = polygon_labels(data, slide, str(groupby), table_key)
        of_patients = mean_novelty(table, slide, key) > unlike
        spread = _Spread.of(evidence, level, of_patients=of_patients, relative=relative)
        if not spread.known:
            without[slide.name] = UNLIKE_TISSUE if of_patients else ONE_SECTION
        values, truth = prediction.take(slide.rows, columns), _measurements(slide, prediction, columns, layer)
        if relative:
            values = values - values.mean(axis=0)
            truth = None if truth is None else truth - truth[... if usable is None else usable[slide.rows]].mean(axis=0)
        mask = None if usable is None else usable[slide.rows]
        if mask is not None and truth is None:
            msg = f"`measured` needs counts, and section {slide.name!r} has none of these genes."
            raise ValueError(msg)
        means = _means_by_region(labels, values, truth, mask, spread, level)
        if pair is not None:
            means |= _difference(means, pair, slide, spread)
        names = [prediction.genes[i] for i in columns]
        parts.append(_as_table(means, names).assign(**({"section": slide.name} if len(sections) > 1 else {})))
    if without:
        for reason in dict.fromkeys(without.values()):
            names = [name for name, why in without.items() if why == reason]
            warn_user(f"No interval for {listing(names)}: {reason} Or measure some spots, and pass `measured=`.")
    joined = pd.concat(parts, ignore_index=True)
    return joined[["section", *[c for c in joined if c != "section"]]] if "section" in joined else joined


def _check_pair(difference: Sequence[str] | None) -> tuple[str, str] | None:
    if difference is None:
        return None
    names = [difference] if isinstance(difference, str) else [str(name) for name in difference]
    if len(names) != 2 or names[0] == names[1]:
        msg = f"`difference` must name two regions, such as ('tumor', 'stroma'); found {listing(names)}."
        raise ValueError(msg)
    return names[0], names[1]


def _read_mask(table: AnnData, measured: str | Sequence[bool] | None) -> NDArray[np.bool_] | None:
    """Rows of the table whose counts may be used."""
    if measured is None:
        return None
    if isinstance(measured, str):
        values = has_key(table.obs, measured, "obs", "Pass the column that is true for measured spots, or a mask.")
    else:
        values = measured
    mask = np.asarray(pd.Series(np.asarray(values)).fillna(False))  # a value, not an option
    if mask.dtype != bool and set(np.unique(mask.astype(object))) <= {0, 1}:
        mask = mask.astype(bool)
    if mask.dtype != bool or mask.shape != (table.n_obs,):
        msg = f"`measured` must be true or false for each of the {table.n_obs} spots; found {mask.dtype} {mask.shape}."
        raise ValueError(msg)
    return mask


def _squares(slide: Slide, scale_um: float) -> pd.Series:
    """Name the square of each spot by its column and row."""
    cells = np.floor(slide.xy * slide.require_mpp() / scale_um).astype(np.int64)
    cells -= cells.min(axis=0)
    return pd.Series([f"{x},{y}" for x, y in cells], dtype=object)


def _measurements(slide: Slide, prediction: Prediction, columns: NDArray[np.intp], layer: str | None) -> Floats | None:
    """Measured values of the genes; ``None`` where the table holds none."""
    if explain_missing_values(slide, prediction, layer=layer):
        return None
    measured: Floats = read_measured(slide, prediction, layer=layer)[:, columns]
    return measured


class _Spread(NamedTuple):
    """Spread of the errors of regional means, and the quantile by which they make an interval."""

    within: Floats
    """(sizes, genes), by ``REGION_SPOTS``."""
    offset: Floats
    """(genes,): of the section as a whole."""
    quantile: float
    known: bool
    """Whether held-out tissue says how far means may be off."""
    known_within: bool
    """Whether it does so of differences within a section."""

    @classmethod
    def of(cls, evidence: Evidence, level: float, *, of_patients: bool, relative: bool) -> _Spread:
        """Take the spread of sections, or of patients where the tissue is unlike that of the training."""
        from scipy.stats import t

        n = len(evidence.patient_pearson) if of_patients else len(evidence.pearson)
        offset = evidence.patient_offset_spread if of_patients and n else evidence.offset_spread
        quantile = float(t.ppf((1 + level) / 2, n - 1 + PRIOR_SECTIONS))
        enough = n >= FEWEST_PATIENTS if of_patients else True
        offset = np.zeros_like(offset) if relative else offset
        known = enough and (relative or of_patients or n > 1)
        return cls(evidence.region_spread, offset, quantile, known, known_within=enough)

    def within_region(self, n_spots: int) -> Numbers:
        """Interpolate the spread for so many spots, between their logarithms; larger regions have that of the largest."""
        at = float(np.interp(np.log(n_spots), np.log(REGION_SPOTS), np.arange(len(REGION_SPOTS))))
        low, share = int(at), at - int(at)
        high = min(low + 1, len(REGION_SPOTS) - 1)
        return np.asarray((1 - share) * self.within[low] + share * self.within[high], dtype=np.float64)


def _means_by_region(
    labels: pd.Series,
    predicted: Floats,
    truth: Floats | None,
    mask: NDArray[np.bool_] | None,
    spread: _Spread,
    level: float,
) -> dict[str, Means]:
    means = {}
    for name in sorted(labels.dropna().unique()):
        rows = np.flatnonzero(labels.to_numpy() == name)
        used = rows if mask is None else rows[mask[rows]]
        nothing = np.full(predicted.shape[1], np.nan)
        observed = nothing if truth is None or not len(used) else truth[used].mean(axis=0, dtype=np.float64)
        if mask is not None and truth is not None and len(used) >= LEAST_MEASURED:
            prior = spread.within[0].astype(np.float64) ** 2
            mean, half = corrected_mean(predicted[rows], predicted[used], truth[used], level, prior)
            means[name] = Means(mean, mean - half, mean + half, observed, len(rows), len(used), FROM_SPOTS)
            continue
        mean = predicted[rows].mean(axis=0, dtype=np.float64)
        half = spread.quantile * np.hypot(spread.within_region(len(rows)), spread.offset)
        half = half if spread.known else nothing
        method = FROM_TRAINING if spread.known else NONE
        n_used = 0 if mask is None else len(used)
        means[name] = Means(mean, mean - half, mean + half, observed, len(rows), n_used, method)
    return means


def corrected_mean(
    predicted: Floats, at_measured: Floats, measured: Floats, level: float, prior: Numbers
) -> tuple[Numbers, Numbers]:
    """Mean of the measurements of all spots of a region from some of them, and half the width of its interval.

    Parameters
    ----------
    predicted
        Predictions (N, genes) of all spots.
    at_measured, measured
        Predictions and measurements (n, genes) of the measured ones.
    level
        Of the interval.
    prior
        Variance (genes,) of the errors of single spots on other tissue, which counts as much as two spots: few spots without
        counts of a gene do not mean that it has none.
    """
    from scipy.stats import t

    n, of_all = len(measured), predicted.mean(axis=0, dtype=np.float64)
    x, y = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (at_measured, measured))
    products, squares = (x * y).sum(axis=0), (x * x).sum(axis=0)
    slope = np.where(squares > 1e-12, products / np.maximum(squares, 1e-12), 0.0)
    remaining = 1 - min(n / len(predicted), 1)
    # Each spot's error by the slope of the others, so that a slope that fits by chance does not pass for one that helps
    leverage = 1 / n + x**2 / np.maximum(squares, 1e-12)
    others = (y - slope * x) / np.maximum(1 - leverage, 0.1) * (n - 1) / n
    halves = {}
    for corrected, errors in ((True, others), (False, y)):
        freedom = n - 1 - corrected
        variance = ((errors**2).sum(axis=0) * freedom / (n - 1) + PRIOR_SPOTS * prior) / (freedom + PRIOR_SPOTS)
        halves[corrected] = t.ppf((1 + level) / 2, freedom) * np.sqrt(variance / n * remaining)
    helps = (halves[True] < halves[False]) & (slope > 0)
    shift = np.where(helps, slope, 0.0) * (of_all - at_measured.mean(axis=0, dtype=np.float64))
    mean = measured.mean(axis=0, dtype=np.float64) + shift
    return np.asarray(mean), np.where(helps, halves[True], halves[False])


def _difference(means: dict[str, Means], pair: tuple[str, str], slide: Slide, spread: _Spread) -> dict[str, Means]:
    """Difference of two regions: what shifts the whole section drops out."""
    if absent := [name for name in pair if name not in means]:
        msg = f"`difference`: {listing(absent)} is no region of section {slide.name!r}. There is: {listing(means)}."
        raise ValueError(msg)
    first, second = (means[name] for name in pair)
    halves = [
        (each.upper - each.lower) / 2
        if each.method == FROM_SPOTS
        else spread.quantile * spread.within_region(each.n_spots)
        for each in (first, second)
    ]
    # Within a section, errors of regions were measured on like tissue only
    half = np.hypot(*halves) if spread.known_within or {first.method, second.method} == {FROM_SPOTS} else np.nan
    mean = first.mean - second.mean
    by_spots = {first.method, second.method} == {FROM_SPOTS}
    method = FROM_SPOTS if by_spots else FROM_TRAINING if spread.known_within else NONE
    counts = first.n_spots + second.n_spots, first.n_measured + second.n_measured
    row = Means(mean, mean - half, mean + half, first.observed - second.observed, *counts, method)
    return {f"{pair[0]} - {pair[1]}": row}


def _as_table(means: dict[str, Means], genes: Sequence[str]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "region": name,
                "gene": list(genes),
                "mean": each.mean,
                "lower": each.lower,
                "upper": each.upper,
                "n_spots": each.n_spots,
                "n_measured": each.n_measured,
                "observed": each.observed,
                "interval_from": each.method,
            }
        )
        for name, each in means.items()
    ]
    return pd.concat(parts, ignore_index=True)
