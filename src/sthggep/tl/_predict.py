"""Expression of a slide's spots, by a trained model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import may_write
from sthggep._keys import TOOL, prediction_keys
from sthggep._slide import resolve, table_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slide import Slide
    from sthggep.model import HGGEP


def predict(
    data: AnnData | SpatialData,
    model: HGGEP | str | Path | None = None,
    *,
    key_added: str = "hggep",
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    batch_size: int = 64,
    device: str = "auto",
    show_progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Predict the expression of every spot from the H&E around it.

    Parameters
    ----------
    data
        Slide with spots and an image; one or several sections. Counts are not needed and not looked at.
    model
        A trained model, or the folder it was saved to.
    key_added
        Name of the prediction.
    image_key, table_key, shapes_key, spatial_key, coordinate_system, library_key
        Where things are; see :func:`sthggep.pp.patches`. ``library_key`` is the column of ``obs`` that tells sections apart.
    mpp
        Microns per full-resolution pixel. ``None`` takes metadata, else the spot pitch.
    batch_size
        Patches encoded at a time.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    show_progress_bar
        Show progress.
    copy
        Return a changed copy, and leave ``data`` alone.

    Returns
    -------
    ``None``, or the copy. Writes to the table:

    ``obsm[key_added]`` : float32 (n_obs, n_genes)
        The prediction, NaN for spots of regions that were not asked for.
    ``uns[key_added]`` : dict
        ``genes`` (of the columns), ``units``, ``model``, ``versions``, ``params`` and, where the model knows it,
        ``training_ceiling``: each gene's noise ceiling on the training slides, for :func:`sthggep.tl.top_genes`.

    Raises
    ------
    FileNotFoundError
        There is no such model.
    KeyError, ValueError
        No image, spots outside it, or a key that sthggep did not write.

    See Also
    --------
    sthggep.tl.to_adata : predictions as ``X``.
    """
    found = load_model(model)
    if copy:
        from sthggep.pp._features import copied

        data = copied(data)
    table = table_of(data, table_key)
    key = prediction_keys(key_added)
    may_write(table, key.obsm)
    slides = resolve(
        data,
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
        need_image=found.inputs.needs_image,
    )
    for slide in slides:
        _check(found, slide)
    values = np.full((table.n_obs, len(found.genes)), np.nan, dtype=np.float32)
    for slide in slides:
        values[slide.rows] = found.predict_slide(slide, batch_size=batch_size, device=device, show=show_progress_bar)
    table.obsm[key.obsm] = values
    table.uns[key.uns] = {
        "tool": TOOL,
        "genes": np.array(found.genes, dtype=object),
        "units": found.units,
        "model": found.id,
        "versions": versions(),
        "params": {
            "preset": found.preset,
            "sections": np.array([slide.name for slide in slides], dtype=object),
            "mpp": np.array([slide.mpp or np.nan for slide in slides]),
            "mpp_source": np.array([slide.mpp_source for slide in slides], dtype=object),
        },
    }
    if "ceiling" in found.training:
        table.uns[key.uns]["training_ceiling"] = np.array(found.training["ceiling"], dtype=np.float64)
    return data if copy else None


def load_model(model: object) -> HGGEP:
    """The model itself, or the one of that name or folder."""
    from sthggep.model import HGGEP

    if isinstance(model, HGGEP):
        return model
    if model is None:
        msg = (
            "No model comes with this version of sthggep: pass one. "
            "Train it by `model = sthggep.tl.fit(slides)`, or give the folder of a saved one."
        )
        raise ValueError(msg)
    if isinstance(model, Path):
        return HGGEP.load(model)
    if isinstance(model, str):
        return HGGEP.from_pretrained(model)
    msg = f"`model` must be an HGGEP, or the folder of a saved one, found {type(model).__name__}."
    raise TypeError(msg)


def _check(model: HGGEP, slide: Slide) -> None:
    """Refuse a slide that the model cannot look at; warn where it would look at another field of view."""
    from sthggep._data import array_positions, given_features

    inputs = model.inputs
    if inputs.kind == "obsm":
        widths = model.members[0].config["feature_dims"]  # type: ignore[index]
        for key, width in zip(inputs.obsm, widths, strict=True):
            found = given_features(slide, key).shape[1]
            if found != width:
                msg = f"obsm[{key!r}] holds {found} features a spot, but the model was trained on {width}."
                raise ValueError(msg)
        return
    if inputs.reference:
        array_positions(slide)
    if any(size is not None for size in inputs.sizes_um):
        slide.require_mpp()
        return
    trained = [mpp for mpp in model.training.get("mpp", []) if mpp]
    if trained and slide.mpp and not 0.8 < slide.mpp / float(np.median(trained)) < 1.25:
        msg = (
            f"Section {slide.name!r} has {slide.mpp:.3g} µm/px, the model was trained at {np.median(trained):.3g}: "
            f"its patches of {inputs.size_px} px show another field of view. Resample the image, or train in microns."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)


def versions() -> dict[str, str]:
    """Versions that a prediction depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("sthggep", "torch", "anndata")}
