"""Requests to predict a slide, checked against the model before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import gene_list, has_key, listing, may_write, one_of, predicted_genes, unique, warn_user
from sthggep._encoders._freshness import refuse_stale
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import resolve
from sthggep._table._gene_names import as_named

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._keys import PredictionKeys
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.model._calibration import Interval, IntervalOf
    from sthggep.model._forward import Quantities


@dataclass(frozen=True)
class PredictionOptions:
    """What :func:`sthggep.tl.predict` predicts and how it names it; of a cohort, the same for all slides."""

    key_added: str = "hggep"
    genes: Sequence[str] | None = None
    """Some of the model's genes; ``None`` for all."""
    latent: bool = False
    counts: bool | str = False
    """Whether to predict expected counts, or the column of ``obs`` that holds their size factors."""
    interval: float | None = None
    """Level of the intervals; ``None`` for none."""
    interval_of: str = "measurement"
    window: int | str | None = "auto"
    """Most spots that are predicted at a time."""


@dataclass(frozen=True)
class Request:
    """A request to predict one slide that the model can fulfill."""

    table: AnnData
    keys: PredictionKeys
    arrays: list[str]
    """Keys of ``obsm`` for the arrays beside the prediction."""
    genes: list[str]
    quantities: Quantities
    interval: Interval | None
    size_factors: NDArray[np.float32] | None
    """What expected counts of each row of the table are multiplied by."""
    slides: list[Slide]
    """Sections to predict, with the stain of the model."""


def check_request(model: HGGEP, data: AnnData | SpatialData, places: Places, options: PredictionOptions) -> Request:
    """Check a request before work starts: what the model can predict of this slide, and what may be overwritten."""
    from sthggep._inputs._windows import check_window
    from sthggep.model._forward import Quantities

    table = table_of(data, places.table_key)
    keys = prediction_keys(options.key_added)
    may_write(table, keys.obsm)
    if keys.novelty in table.obs and keys.source not in table.obs and keys.uns not in table.uns:
        msg = (
            f"obs[{keys.novelty!r}] exists already and sthggep did not write it; it is left alone. Pass another `key_added=`, or "
            "rename the column first."
        )
        raise ValueError(msg)
    interval = check_interval(model, options.interval, options.interval_of)
    requested = {
        keys.latent: options.latent,
        keys.counts: options.counts,
        keys.lower: interval,
        keys.upper: interval,
    }
    arrays = [name for name, value in requested.items() if value]
    for name in arrays:
        may_write(table, name, of=keys.uns)
    genes, columns = model.genes, None
    if options.genes is not None:
        genes = requested_genes(model, options.genes)
        columns = predicted_genes(genes, model.genes, "the model")
    size_factors = read_size_factors(model, table, options.counts)
    slides = resolve(data, places, need_image=model.inputs.needs_image)
    refuse_stale(data, places, model.inputs.obsm)
    for slide in slides:
        check_fit(model, slide)
        check_window(model.inputs, slide, options.window)
    novelty = None if model.calibration is None else model.calibration.novelty
    quantities = Quantities(columns, options.latent, bool(options.counts), novelty)
    slides = [model.normalized(slide) for slide in slides]
    return Request(table, keys, arrays, genes, quantities, interval, size_factors, slides)


def check_fit(model: HGGEP, slide: Slide) -> None:
    """Refuse a slide that the model cannot read; warn where its patches show another field of view."""
    from sthggep._inputs._stages import array_positions
    from sthggep._table._user_features import check_feature_names, read_user_features

    inputs = model.inputs
    if inputs.kind == "obsm":
        widths = model.members[0].config["feature_dims"]  # type: ignore[index]
        for key, expected in zip(inputs.obsm, widths, strict=True):
            width = read_user_features(slide, key).shape[1]
            if width != expected:
                msg = f"obsm[{key!r}] holds {width} features a spot, but the model was trained on {expected}."
                raise ValueError(msg)
            check_feature_names(slide, key, model.training.obsm_columns.get(key), "the model's training")
        return
    if inputs.reference:
        array_positions(slide)
    if any(size is not None for size in inputs.sizes_um):
        slide.require_mpp()
        return
    trained = [mpp for mpp in model.training.mpp if mpp]
    if trained and slide.mpp and not 0.8 < slide.mpp / float(np.median(trained)) < 1.25:
        msg = (
            f"Section {slide.name!r} has {slide.mpp:.3g} µm/px, the model was trained at {np.median(trained):.3g}: "
            f"its patches of {inputs.size_px} px show another field of view. Resample the image, or train in microns."
        )
        warn_user(msg)


def requested_genes(model: HGGEP, genes: Sequence[str]) -> list[str]:
    """The genes to predict, each of them once and among those of the model."""
    names = as_named(gene_list(genes), model.genes)
    predicted_genes(names, model.genes, "the model (`model.genes` lists all)")
    unique(names, "The genes to predict", "List each once.")
    return names


def check_interval(model: HGGEP, level: float | None, of: str) -> Interval | None:
    """Check the level of an interval, and that the model can give it."""
    from sthggep.model._calibration import INTERVALS, Interval

    one_of(of, INTERVALS, "interval_of")
    if level is None:
        if of != INTERVALS[0]:
            msg = f"`interval_of={of!r}` needs `interval`: pass `interval=0.9`, for instance, too."
            raise ValueError(msg)
        return None
    if of == "expression" and model.targets is not None:
        msg = "Targets have no counting noise that could be taken out. Leave `interval_of` out."
        raise ValueError(msg)
    if model.calibration is None:
        msg = (
            "`interval` needs predictions of tissue that was held out of the training, but this model has none: it was "
            "fitted with `validation=None`, on very few spots, or by an earlier version. Fit it again with `validation='auto'`."
        )
        raise ValueError(msg)
    return Interval(float(level), cast("IntervalOf", of))


def check_count_head(model: HGGEP) -> None:
    """Refuse `counts` for a model whose networks have no head for counts."""
    if not model.has_counts:
        from sthggep._training._presets import PRESETS

        presets = [name for name, preset in PRESETS.items() if preset.recipe.count_nll]
        msg = (
            f"The model ({model.preset}) has no head for counts. It predicts {model.units}, and the mean of a logarithm "
            "does not determine the mean count. Leave `counts` out, or fit a model by a preset with such a head: "
            f"{listing(presets)}."
        )
        raise ValueError(msg)


def read_size_factors(model: HGGEP, table: AnnData, counts: bool | str) -> NDArray[np.float32] | None:
    """Size factors for expected counts, if `counts` names a column; refuses a model without a head for counts."""
    if not counts:
        return None
    check_count_head(model)
    if not isinstance(counts, str):
        return None
    factors = has_key(table.obs, counts, "obs", "Pass the column of size factors, or `counts=True`.")
    values = np.asarray(factors, dtype=np.float32)
    if not np.isfinite(values).all() or (values < 0).any():
        msg = f"obs[{counts!r}] must hold a size factor for each spot: finite numbers of 0 or more."
        raise ValueError(msg)
    return values
