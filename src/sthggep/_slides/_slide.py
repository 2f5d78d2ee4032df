"""One section with its spots and its image; `_resolve` reads it from an AnnData or SpatialData."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._keys import ARRAY_COLUMNS
from sthggep._log import NOTEBOOK, ONCE, log
from sthggep._slides._lattice import lattice_pitch
from sthggep._slides._values import read_column

if TYPE_CHECKING:
    from sthggep._image._level import Level
    from sthggep._image._recolor import Recoloring

LARGEST_ARRAY = 1e9  # places a side; larger numbers are no array
LARGE_PX = 64 << 20  # 192 MB


@dataclass(frozen=True)
class Slide:
    """One section: spots in full-resolution pixels, and the image in one or several resolutions."""

    name: str
    adata: AnnData
    rows: NDArray[np.intp]
    xy: NDArray[np.float64]
    levels: tuple[Level, ...] = field(default=(), repr=False)
    mpp: float | None = None
    mpp_source: str = ""
    spot_diameter: float | None = None
    image: str | None = None
    stain: Recoloring | None = field(default=None, repr=False)

    @property
    def n_spots(self) -> int:
        """Number of spots of this section."""
        return len(self.rows)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the image, in full-resolution pixels."""
        level = self.levels[0]
        return level.shape[1] / level.scale[0], level.shape[0] / level.scale[1]

    def array_xy(self) -> NDArray[np.int64] | None:
        """Return array positions (column, row) of the spots, shape (n_spots, 2), or ``None`` if ``obs`` holds none."""
        positions = self.array_positions()
        if positions is None or not (np.abs(positions) < LARGEST_ARRAY).all():
            return None
        return np.rint(positions).astype(np.int64)

    def array_positions(self) -> NDArray[np.float64] | None:
        """Return array positions as ``obs`` holds them, refined ones with decimals; NaN for values without a number."""
        for columns in ARRAY_COLUMNS:
            if all(column in self.adata.obs for column in columns):
                both = [read_column(self.adata.obs, column).iloc[self.rows] for column in columns]
                return np.column_stack(
                    [
                        pd.to_numeric(column.astype(object), errors="coerce").to_numpy(
                            dtype=np.float64, na_value=np.nan
                        )
                        for column in both
                    ]
                )
        return None

    def pitch(self) -> float:
        """Full-resolution pixels between nearest spots: of the fitted array, else the median distance to the nearest."""
        array_xy = self.array_xy()
        if array_xy is not None and self.n_spots > 2:
            try:
                return lattice_pitch(array_xy, self.xy)
            except ValueError:
                log.info(
                    "Section %s: spots do not follow their array positions; the pitch is the distance to the nearest spot.",
                    self.name,
                    extra=ONCE | NOTEBOOK,
                )
        if self.n_spots < 2:
            return 1.0
        from scipy.spatial import cKDTree

        nearest = cKDTree(self.xy).query(self.xy, k=2)[0][:, 1]
        return float(np.median(nearest[nearest > 0])) if (nearest > 0).any() else 1.0

    def denser_than(self, pitch_um: float | None) -> int:
        """Ratio of ``pitch_um`` to the pitch of the spots, as a whole number; 1 if either is unknown."""
        array_xy = self.array_xy()
        if pitch_um is None or self.mpp is None or array_xy is None or self.n_spots < 3:
            return 1
        try:
            return max(1, round(pitch_um / (lattice_pitch(array_xy, self.xy) * self.mpp)))
        except ValueError:  # the spots do not follow their array
            return 1

    def require_mpp(self) -> float:
        """Return microns per full-resolution pixel; if unknown, an error says how to pass it."""
        if self.mpp is None:
            msg = (
                f"Section {self.name!r}: microns per pixel are not known (no metadata, no array positions with a known "
                "pitch). Pass `mpp=`, microns per full-resolution pixel: see the scanner, about 0.25 at 40x and 0.5 at 20x."
            )
            raise ValueError(msg)
        return self.mpp

    def thumbnail(self, max_px: int = 1500) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Return a thumbnail of the whole image.

        Returns
        -------
        uint8 array (height, width, 3), and the factors (x, y) from full-resolution pixels to its pixels.
        """
        from PIL import Image

        enough = [level for level in self.levels if max(level.shape) >= max_px]
        level = enough[-1] if enough else self.levels[0]
        height, width = level.shape
        shrink = min(1.0, max_px / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        # A single large resolution does not fit into memory
        by = 1 if height * width < LARGE_PX else 2 ** int(np.log2(max(1.0, 1 / shrink)))
        whole = level.downsample(by) if by > 1 else level.read(np.array([[0, 0, width, height]]))[0]
        box = (0, 0, width / by, height / by)
        small = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX, box, reducing_gap=3.0))
        return small, (level.scale[0] * size[0] / width, level.scale[1] * size[1] / height)
