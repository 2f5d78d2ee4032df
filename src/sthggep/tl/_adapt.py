"""Adaptation of a model to the measured spots of a slide, before it predicts the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from sthggep._slides._anndata import is_spatialdata, table_of
from sthggep.tl._fit import fit

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

    from sthggep._inputs._compute import Compute
    from sthggep._slides._places import Places
    from sthggep.model import HGGEP


@dataclass(frozen=True)
class MeasuredSpots:
    """Which spots are measured, and where their counts are; see :func:`sthggep.tl.predict`."""

    which: str | bool | Sequence[bool] | pd.Series | AnnData | SpatialData
    min_counts: int
    layer: str | None


def adapt_model(
    model: HGGEP,
    data: AnnData | SpatialData,
    measured: MeasuredSpots,
    places: Places,
    compute: Compute,
    window: int | str | None,
) -> HGGEP:
    """Update a model by the measured spots of a slide, or of another slide of the same tissue.

    Parameters
    ----------
    model
        The model, which does not change.
    data
        The slide to predict.
    measured
        Its measured spots.
    places
        Where things are in ``data``.
    compute
        Device, batch size and progress.
    window
        Most spots of a window.
    """
    _refuse_gradients(model)
    slide: Any = data
    mask: Any = measured.which
    if isinstance(mask, AnnData) or is_spatialdata(mask):
        slide, mask = mask, True
    elif (
        isinstance(mask, str)
        and mask in getattr(data, "tables", {})
        and mask not in table_of(data, places.table_key).obs
    ):
        places, mask = replace(places, table_key=mask, shapes_key=None), True
    if isinstance(mask, bool | np.bool_):
        # All spots with enough counts: named one by one, since others of the tissue are predicted
        mask = np.ones(table_of(slide, places.table_key).n_obs, dtype=bool)
    keywords: dict[str, Any] = {"measured": mask, "min_counts": measured.min_counts, "layer": measured.layer}
    options: dict[str, Any] = {
        "device": str(compute.device),
        "batch_size": compute.batch_size,
        "show_progress_bar": compute.show_progress,
    }
    return fit(slide, model=model, window=window, **keywords, **vars(places), **options)


def _refuse_gradients(model: HGGEP) -> None:
    """Refuse networks without a closed form, whose training takes epochs that the user should choose."""
    from sthggep.nn import ClosedFormNet

    if not all(isinstance(member, ClosedFormNet) for member in model.members):
        msg = (
            "`measured` updates models with a closed form (`preset='default'`); the networks of this model are trained by "
            "gradients. Train them first, and choose the epochs: `model = sthggep.tl.fit(data, model=model, measured=..., "
            "max_epochs=...)`, then predict without `measured`."
        )
        raise ValueError(msg)
