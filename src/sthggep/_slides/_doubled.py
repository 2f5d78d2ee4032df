"""Several sections taken for one: spots on one place of the array, or of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import listing, warn_user
from sthggep._keys import ARRAY_COLUMNS

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

MANY = 0.1  # of the spots; cells rounded to pixels share a place now and then
MOST_SECTIONS = 1000


def check_places(slide: Slide) -> None:
    """Refuse spots that share a place of the array; without an array, warn if many share a place of the image."""
    positions = slide.array_positions()
    if positions is not None and np.isfinite(positions).all(axis=1).any():
        _refuse_shared_places(slide, positions)
        return
    shared = _duplicates(slide.xy)
    if slide.n_spots > 2 and shared.sum() >= MANY * slide.n_spots:
        warn_user(
            f"Section {slide.name!r}: {int(shared.sum())} of {slide.n_spots} spots have the coordinates of another spot. "
            f"Are these several sections? {_advice(slide, slide.xy)}"
        )


def _refuse_shared_places(slide: Slide, positions: NDArray[np.float64]) -> None:
    finite = np.isfinite(positions).all(axis=1)
    shared = _duplicates(positions) & finite
    if not shared.any() or (positions[finite] == positions[finite][0]).all():  # a column of zeros is no array
        return
    columns = next(pair for pair in ARRAY_COLUMNS if set(pair) <= set(slide.adata.obs))
    msg = (
        f"Section {slide.name!r}: each spot must have a place of its own on the array, but {int(shared.sum())} of "
        f"{slide.n_spots} stand where another does, by obs[{columns[0]!r}] and obs[{columns[1]!r}]: "
        f"{listing(slide.adata.obs_names[slide.rows[shared]], 3)}. Are these several sections? {_advice(slide, positions)} "
        "If several rows share a spot on purpose, rename these two columns."
    )
    raise ValueError(msg)


def _duplicates(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    return pd.DataFrame(places).duplicated().to_numpy()


def _advice(slide: Slide, places: NDArray[np.float64]) -> str:
    if "spatialdata_attrs" in slide.adata.uns:
        return "Give each section a region of its own in the table."
    columns = _columns_of_sections(slide, places)
    which = f" ({listing(columns, 3)} would do)" if columns else ""
    return (
        f"Pass the column of obs that names them as `library_key=`{which}, with the image of each in `uns['spatial']`: "
        "`anndata.concat` keeps them with `uns_merge='unique'`, if the sections have names of their own."
    )


def _columns_of_sections(slide: Slide, places: NDArray[np.float64]) -> list[str]:
    """Columns of ``obs`` under whose values no two spots share a place."""
    obs = slide.adata.obs.iloc[slide.rows]
    texts = [
        name
        for name in obs.columns.unique()
        # The marks of predictions differ between sections, and name none
        if isinstance(obs[name], pd.Series) and obs[name].dtype.kind in "OUi" and not str(name).endswith("_source")
    ]
    several = [name for name in texts if 1 < obs[name].astype(str).nunique() <= min(MOST_SECTIONS, slide.n_spots / 2)]
    frame = pd.DataFrame(places)
    return [str(name) for name in several if not frame.assign(of=obs[name].astype(str).to_numpy()).duplicated().any()]
