"""What a model can be asked of a slide, and what it cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import gene_list, has_key, listing, may_write, predicted_genes, unique, warn_user
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import resolve

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._keys import PredictionKeys
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP


class Asked(NamedTuple):
    """What is to be predicted of a slide, once all of it was found to be possible."""

    table: AnnData
    key: PredictionKeys
    beside: list[str]
    """Arrays that are wanted beside the prediction."""
    genes: list[str]
    depth: NDArray[np.float32] | None
    """Size factors of expected counts."""
    slides: list[Slide]


def look(
    model: HGGEP,
    data: AnnData | SpatialData,
    places: Places,
    *,
    key_added: str,
    genes: Sequence[str] | None,
    latent: bool,
    counts: bool | str,
    uncertainty: bool,
    window: int | str | None,
) -> Asked:
    """Refuse, before work starts, what the model cannot say of this slide, and what must not be written to it."""
    from sthggep._inputs._windows import check_window

    table = table_of(data, places.table_key)
    key = prediction_keys(key_added)
    may_write(table, key.obsm)
    asked_for = {key.latent: latent, key.counts: counts, key.std: uncertainty}
    beside = [name for name, asked in asked_for.items() if asked]
    for name in beside:
        may_write(table, name, of=key.uns)
    if uncertainty:
        check_several(model)
    chosen = model.genes if genes is None else chosen_genes(model, genes)
    depth = depth_of(model, table, counts)
    slides = resolve(data, places, need_image=model.inputs.needs_image)
    for slide in slides:
        check_fit(model, slide)
        check_window(model.inputs, slide, window)
    return Asked(table, key, beside, chosen, depth, [model.normalized(slide) for slide in slides])


def check_fit(model: HGGEP, slide: Slide) -> None:
    """Refuse a slide that the model cannot look at; warn where it would look at another field of view."""
    from sthggep._inputs._stages import array_positions
    from sthggep._table._user_features import check_feature_names, read_user_features

    inputs = model.inputs
    if inputs.kind == "obsm":
        widths = model.members[0].config["feature_dims"]  # type: ignore[index]
        for key, width in zip(inputs.obsm, widths, strict=True):
            found = read_user_features(slide, key).shape[1]
            if found != width:
                msg = f"obsm[{key!r}] holds {found} features a spot, but the model was trained on {width}."
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


def chosen_genes(model: HGGEP, genes: Sequence[str]) -> list[str]:
    """The genes asked for, all of which the model predicts."""
    names = gene_list(genes)
    predicted_genes(names, model.genes, "the model (all names are in its `genes`)")
    unique(names, "The genes to predict", "List each once.")
    return names


def check_several(model: HGGEP) -> None:
    """One network alone agrees with itself."""
    if len(model.members) < 2:
        msg = (
            "`uncertainty` is how far networks differ, but this model has one. Fit one with `n_members=` of 3 or more."
        )
        raise ValueError(msg)


def check_counts(model: HGGEP) -> None:
    """Counts come from a head of their own."""
    if not model.has_counts:
        from sthggep._training._presets import PRESETS

        able = [name for name, preset in PRESETS.items() if preset.recipe.count_nll]
        msg = (
            f"The model ({model.preset}) has no head for counts: it predicts {model.units}, and counts cannot be had from "
            "that, since the mean of a logarithm is not the logarithm of the mean. Leave `counts` out, or fit a model by "
            f"a preset with such a head: {listing(able)}."
        )
        raise ValueError(msg)


def depth_of(model: HGGEP, table: AnnData, counts: bool | str) -> NDArray[np.float32] | None:
    """Size factors that expected counts are multiplied by; refuses what the model cannot say."""
    if not counts:
        return None
    check_counts(model)
    if not isinstance(counts, str):
        return None
    factors = has_key(table.obs, counts, "obs", "Pass the column of size factors, or `counts=True`.")
    values = np.asarray(factors, dtype=np.float32)
    if not np.isfinite(values).all() or (values < 0).any():
        msg = f"obs[{counts!r}] must hold a size factor for each spot: numbers that are not negative."
        raise ValueError(msg)
    return values
