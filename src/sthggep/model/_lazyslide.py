"""A model with the interface of LazySlide's feature prediction; LazySlide is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from sthggep._slides._slide import Slide

if TYPE_CHECKING:
    from torch import nn

    from sthggep.model._predictor import Predictor


class LazySlideModel:
    """A model for ``lazyslide.tl.feature_prediction``: features and positions of all tiles in, one column a gene out.

    The prediction of a tile depends on its neighbors: ``needs_coords`` requests positions, ``whole_slide`` all tiles at once.
    """

    needs_coords: ClassVar[bool] = True
    whole_slide: ClassVar[bool] = True
    features_model_name: ClassVar[str | None] = None

    def __init__(self, predictor: Predictor, mpp: float | None = None) -> None:
        self.predictor, self.mpp, self.device = predictor, mpp, "cpu"

    @property
    def name(self) -> str:
        """Name of the table of predictions."""
        return "hggep"

    @property
    def model(self) -> nn.Module:
        """The networks."""
        return self.predictor.members

    def get_transform(self) -> None:
        """Return no transform: the model reads features, not images."""

    def to(self, device: object) -> LazySlideModel:
        """Set the device of later predictions."""
        self.device = str(device)
        return self

    def try_compile(self, **_: object) -> None:
        """Do nothing: the number of tiles differs between slides, so compilation would not pay."""

    def predict(self, features: object, coords: ArrayLike | None = None) -> dict[str, NDArray[np.float32]]:
        """Predict the expression of all tiles of a slide.

        Parameters
        ----------
        features
            ``(n_tiles, n_features)``, with the features of several stages side by side.
        coords
            Upper left corners (x, y) of the tiles in full-resolution pixels, ``(n_tiles, 2)``.

        Returns
        -------
        Predictions ``(n_tiles,)`` of each gene.

        Raises
        ------
        ValueError
            The number of features is not that of the training, or tile positions are missing.
        """
        values = features.toarray() if hasattr(features, "toarray") else np.asarray(features)
        widths = [int(width) for width in self.predictor.members[0].config["feature_dims"]]  # type: ignore[index]
        if values.ndim != 2 or values.shape[1] != sum(widths):
            msg = f"The model was trained on {sum(widths)} features a tile, found an array of shape {values.shape}."
            raise ValueError(msg)
        xy = np.empty(0) if coords is None else np.asarray(coords, dtype=np.float64)
        if xy.shape != (len(values), 2):
            msg = (
                f"`coords` must be (x, y) of all {len(values)} tiles, found an array of shape {xy.shape}. Predictions depend "
                "on neighboring tiles."
            )
            raise ValueError(msg)
        stages = np.split(values, np.cumsum(widths)[:-1], axis=1)
        expression = self.predictor.predict_slide(self._slide(stages, xy), device=self.device)
        return dict(zip(self.predictor.genes, expression.T, strict=True))

    def _slide(self, stages: list[NDArray[np.generic]], xy: NDArray[np.float64]) -> Slide:
        """Make a section with the tiles as its spots, on the array of the tiles."""
        table = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(xy)).astype(str)))
        for key, stage in zip(self.predictor.inputs.obsm, stages, strict=True):
            table.obsm[key] = stage
        slide = Slide("tiles", table, np.arange(len(xy)), xy, mpp=self.mpp)
        if self.mpp is not None:
            # If tiles are denser than the training spots, their neighbors are found on this array
            table.obs[["array_x", "array_y"]] = np.rint((xy - xy.min(axis=0)) / slide.pitch()).astype(np.int64)
        return slide
