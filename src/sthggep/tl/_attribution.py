"""`tl.attribution`: which fields of view, neighbors and places carried a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked, checked_methods
from sthggep._checks import positive
from sthggep._device import resolve_device
from sthggep._docs import document_places
from sthggep._imports import import_whole
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData
    from xarray import DataArray

    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.model._attribution import Target
    from sthggep.nn._stages import Moments

MOST_SQUARES = 4_000_000
WHOLE = "all"


@checked_methods
@dataclass(frozen=True)
class Attribution:
    """What carried the prediction of a gene or of a gene program, by :func:`sthggep.tl.attribution`."""

    name: str
    """The gene, or ``"program <number>"``."""
    table: pd.DataFrame
    """Parts of the prediction of each spot (rows), which add up to it. The columns are ``"<field of view> own"`` and
    ``"<field of view> neighbors"`` for each field of view, ``"mean"`` (what the model predicts for tissue like the mean of
    the section) and ``"network"`` (the share of the networks, 0 for a closed form)."""
    units: str
    """Scale of the prediction and of its parts."""
    section: str
    model: HGGEP = field(repr=False)
    slide: Slide = field(repr=False)
    target: Target = field(repr=False)
    moments: Sequence[Moments] | None = field(default=None, repr=False)

    @property
    def prediction(self) -> pd.Series:
        """The prediction of each spot, the sum of its parts."""
        return self.table.sum(axis=1).rename(self.name)

    @property
    def importance(self) -> pd.Series:
        """Share of each part in the variance of the prediction over the spots; the shares add up to 1.

        It is the covariance of the part with the prediction, over the variance of the prediction. A part that works
        against the others has a negative share.
        """
        whole = self.prediction
        centered = whole - whole.mean()
        variance = float((centered**2).mean())
        shares = self.table.apply(lambda part: float(((part - part.mean()) * centered).mean()))
        return (shares / variance if variance else shares * np.nan).rename("importance")

    def map(self, size_um: float = 50.0, *, device: str = "auto", show_progress_bar: bool = True) -> DataArray:
        """Map what the tissue adds to the prediction, in squares of ``size_um``.

        The value of a square is what its tissue would add to the prediction of a spot whose windows, own and around, held
        nothing else. It is relative to the mean tissue of the section, and exact: the closed form is linear in the
        encoder's feature maps. A cell of these maps sees more than its square (up to some tens of microns at the smallest
        field of view, several hundred at the largest). Glass has values, too. The share of networks, where they take part,
        is not in the map.

        Parameters
        ----------
        size_um
            Side of the squares in microns.
        device
            Device of the encoder.
        show_progress_bar
            Show progress.

        Returns
        -------
        Array (part, y, x), on the scale of the prediction. The parts are the fields of view, and ``"all"``, their sum.
        The coordinates ``y`` and ``x`` are the centers of the squares in full-resolution pixels; ``attrs`` holds
        ``size_um``. The squares cover the spots and half of the smallest field of view around them, inside the image.

        Raises
        ------
        ValueError
            The model does not read the tissue, or there are too many squares.

        Examples
        --------
        >>> carried = sthggep.tl.attribution(slide, model, "FASN")
        >>> carried.map(size_um=50).sel(part="all").plot()
        """
        from xarray import DataArray

        from sthggep.model._attribution import map_tissue

        if self.model.inputs.encoding != "tissue":
            msg = (
                "A map needs a model that reads feature maps of the tissue (`tl.fit(encoding='tissue')`). This one is "
                f"{self.model!r}. `table` holds the parts of its prediction by field of view."
            )
            raise ValueError(msg)
        x, y = self._lay_squares(positive(size_um, "`size_um`"), min(self.model.inputs.fields_of_view))
        encoder = self.model.encoder(device=device)
        assert encoder is not None
        centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        values = map_tissue(
            self.model,
            self.slide,
            self.target,
            encoder,
            centers=centers,
            size_um=size_um,
            moments=self.moments,
            show=show_progress_bar,
        )
        stacked = np.concatenate([values, values.sum(axis=0, keepdims=True)]).reshape(-1, len(y), len(x))
        names = [f"{size:g} µm" for size in self.model.inputs.fields_of_view]
        return DataArray(
            stacked,
            dims=("part", "y", "x"),
            coords={"part": [*names, WHOLE], "y": y, "x": x},
            name=self.name,
            attrs={"size_um": size_um, "units": self.units, "section": self.section},
        )

    def _lay_squares(self, size_um: float, around_um: float) -> tuple[np.ndarray, np.ndarray]:
        """Lay the centers of the squares along x and along y."""
        step, margin = (um / self.slide.require_mpp() for um in (size_um, around_um / 2))
        low = np.maximum(self.slide.xy.min(axis=0) - margin, 0)
        high = np.minimum(self.slide.xy.max(axis=0) + margin, self.slide.size)
        counts = np.maximum(np.ceil((high - low) / step), 1)
        if counts.prod() > MOST_SQUARES:
            least = size_um * (counts.prod() / MOST_SQUARES) ** 0.5
            msg = f"`size_um={size_um:g}` makes {counts.prod():.3g} squares, {MOST_SQUARES:,} at most. Pass {least:.2g} or more."
            raise ValueError(msg)
        x, y = (start + step * (np.arange(int(n)) + 0.5) for start, n in zip(low, counts, strict=True))
        return x, y


@checked
@document_places
def attribution(
    data: AnnData | SpatialData,
    model: HGGEP | str | Path | None = None,
    gene: str | None = None,
    *,
    program: int | None = None,
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
) -> Attribution:
    """Say what carried the prediction of a gene: which fields of view, which neighbors, and which places.

    The closed form of the default preset is a sum over the features of each field of view, so its parts are exact. The
    share of networks, where they take part, is one part. The parts say what the model read, not what causes expression.

    Parameters
    ----------
    data
        One section with spots and an H&E image. The function does not change it, and reads no counts.
    model
        A trained model of the default preset, the folder of a saved one, or a name. Default: the bundled model.
    gene
        A gene of the model.
    program
        In place of ``gene``: the number of a gene program, from 0, of a model without networks.
    {places}
    batch_size
        Patches encoded at a time, for models that read patches.
    device
        Device of the encoder.
    show_progress_bar
        Show progress.

    Returns
    -------
    An object with the ``table`` of parts (spots × parts; a row adds up to the prediction), their ``importance``, and
    ``map(size_um)``, what each square of the tissue adds. :func:`sthggep.pl.attribution` draws it.

    Raises
    ------
    KeyError, ValueError
        The model does not predict the gene, has no closed form, or cannot read the slide; both or none of ``gene`` and
        ``program`` are passed.

    See Also
    --------
    sthggep.pl.attribution : Draw the map beside the prediction.
    sthggep.pl.patch_gallery : Patches that carry a gene most and least.

    Examples
    --------
    >>> carried = sthggep.tl.attribution(slide, model, "FASN")
    >>> carried.importance
    >>> sthggep.pl.attribution(carried)
    """
    import_whole("torch", "lightning", "torch_geometric")
    from sthggep._inputs._compute import Compute
    from sthggep.model._attribution import split_prediction
    from sthggep.model._load import load_model
    from sthggep.tl._request import check_fit

    if (gene is None) == (program is None):
        msg = "Pass either `gene`, a gene of the model, or `program`, the number of a gene program."
        raise ValueError(msg)
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    loaded = load_model(model)
    name, target = _find_target(loaded, gene, program)
    slide = resolve_one(data, places, need_image=loaded.inputs.needs_image)
    check_fit(loaded, slide)
    slide = loaded.normalized(slide)
    compute = Compute(resolve_device(device), batch_size, show_progress_bar)
    parts = split_prediction(loaded, slide, target, loaded.encoder(device=str(compute.device)), compute)
    inputs = loaded.inputs
    stages = inputs.obsm if inputs.kind == "obsm" else tuple(f"{size:g} µm" for size in inputs.fields_of_view)
    columns = {
        f"{stage} {what}": parts.stages[:, i, k]
        for i, stage in enumerate(stages)
        for k, what in enumerate(("own", "neighbors"))
    }
    table = pd.DataFrame(
        {**columns, "mean": parts.mean, "network": parts.network}, index=slide.adata.obs_names[slide.rows]
    )
    units = loaded.units if program is None else "program score"
    return Attribution(name, table, units, slide.name, loaded, slide, target, parts.moments)


def _find_target(model: HGGEP, gene: str | None, program: int | None) -> tuple[str, Target]:
    """Find the gene or the program in the model, or say what there is."""
    from sthggep.model._attribution import Target
    from sthggep.nn import ClosedFormNet
    from sthggep.tl._request import requested_genes

    first = model.members[0]
    if not isinstance(first, ClosedFormNet):
        msg = f"A model of the default preset was expected, which has a closed form; this one is {model!r}."
        raise ValueError(msg)
    if gene is not None:
        (name,) = requested_genes(model, [gene])
        return name, Target(model.genes.index(name), None)
    assert program is not None
    rank = len(first.programs.damp)
    if type(first) is not ClosedFormNet or not 0 <= program < rank:
        there = (
            "has networks, each with programs of its own"
            if type(first) is not ClosedFormNet
            else f"has programs 0 to {rank - 1}"
        )
        msg = f"`program={program}`: this model {there}."
        raise ValueError(msg)
    return f"program {program}", Target(None, program)
