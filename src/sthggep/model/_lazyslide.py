"""A model as LazySlide's feature prediction wants it, which is asked by name and never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._slides._slide import Slide

if TYPE_CHECKING:
    from torch import nn

    from sthggep.model._predictor import Predictor


class LazySlideModel:
    """What ``lazyslide.tl.feature_prediction`` calls: features and places of all tiles in, a column a gene out.

    Tiles are tied to their neighbors, hence ``needs_coords``, and in batches they would miss some: ``whole_slide``.
    """

    needs_coords: ClassVar[bool] = True
    whole_slide: ClassVar[bool] = True
    features_model_name: ClassVar[str | None] = None

    def __init__(self, predictor: Predictor, mpp: float | None = None) -> None:
        self.predictor, self.mpp, self.device = predictor, mpp, "cpu"

    @property
    def name(self) -> str:
        """What the table of predictions is called after."""
        return "hggep"

    @property
    def model(self) -> nn.Module:
        """The networks."""
        return self.predictor.members

    def get_transform(self) -> None:
        """No image is looked at."""

    def to(self, device: Any) -> LazySlideModel:
        """Predict on this device from now on."""
        self.device = str(device)
        return self

    def try_compile(self, **_: Any) -> None:
        """Not compiled: every slide has another number of tiles."""

    def predict(self, features: Any, coords: Any = None) -> dict[str, NDArray[np.float32]]:
        """Expression of all tiles of a slide.

        Parameters
        ----------
        features
            ``(n_tiles, n_features)``; those of several stages side by side.
        coords
            Upper left corners (x, y) of the tiles in full-resolution pixels, ``(n_tiles, 2)``.

        Returns
        -------
        ``(n_tiles,)`` of each gene.

        Raises
        ------
        ValueError
            Other features than the model was trained on, or no places of the tiles.
        """
        values = features.toarray() if hasattr(features, "toarray") else np.asarray(features)
        widths = [int(width) for width in self.predictor.members[0].config["feature_dims"]]  # type: ignore[index]
        if values.ndim != 2 or values.shape[1] != sum(widths):
            msg = f"The model was trained on {sum(widths)} features a tile, found an array of shape {values.shape}."
            raise ValueError(msg)
        xy = np.empty(0) if coords is None else np.asarray(coords, dtype=np.float64)
        if xy.shape != (len(values), 2):
            msg = f"`coords` must be (x, y) of all {len(values)} tiles, found an array of shape {xy.shape}: tiles are tied to neighbors."
            raise ValueError(msg)
        stages = np.split(values, np.cumsum(widths)[:-1], axis=1)
        found = self.predictor.predict_slide(self._slide(stages, xy), device=self.device)
        return dict(zip(self.predictor.genes, found.T, strict=True))

    def _slide(self, stages: list[NDArray[Any]], xy: NDArray[np.float64]) -> Slide:
        """The tiles as spots of a section, on the array that they were cut on."""
        table = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(xy)).astype(str)))
        for key, stage in zip(self.predictor.inputs.obsm, stages, strict=True):
            table.obsm[key] = stage
        slide = Slide("tiles", table, np.arange(len(xy)), xy, mpp=self.mpp)
        if self.mpp is not None:
            # Where tiles are denser than the spots that were learned from, neighbors are looked for on this array
            table.obs[["array_x", "array_y"]] = np.rint((xy - xy.min(axis=0)) / slide.pitch()).astype(np.int64)
        return slide
