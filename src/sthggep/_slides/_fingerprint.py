"""Fingerprints of sections, cheap to compute: name, pixels, counts, positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import has_key
from sthggep._disk._digest import digest
from sthggep._slides._lattice import is_interleaved

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

SAMPLES_ACROSS = 256  # pixels of the sample of the coarsest resolution, a side
NAME_BITS = 20
# Names that readers give to the spots or cells of every section
GENERIC_NAMES = {"section", "cell_labels", "cell_circles", "cell_boundaries", "nucleus_boundaries", "tissue_grid_spots"}
# A spot with this many counts hardly has a duplicate in another section
RICH = 50
FEWEST_PLACES = 30
FULL = 0.9  # fraction of occupied places beyond which the gaps identify no section


@dataclass(frozen=True)
class SectionFingerprint:
    """Fingerprint of one section; a part that would not identify it is ``None``."""

    name: str | None
    image: str | None
    positions: str | None
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pitch: float
    codes: NDArray[np.float64]
    rich: NDArray[np.float64]

    @property
    def content(self) -> str:
        """Hash of the image, the positions, the counts and the order of the spots."""
        return digest(str(self.image), str(self.positions), self.low, self.high, self.codes)


def section_fingerprint(slide: Slide, name: str, layer: str | None) -> SectionFingerprint:
    """Compute the fingerprint of a section that the user calls ``name``."""
    codes, totals = _spot_codes(slide, layer)
    return SectionFingerprint(
        name=None if name in GENERIC_NAMES else name,
        image=_image(slide),
        positions=_positions(slide.xy),
        low=slide.xy.min(axis=0),
        high=slide.xy.max(axis=0),
        pitch=slide.pitch(),
        codes=codes,
        rich=np.unique(codes[totals >= RICH]),
    )


@dataclass(frozen=True)
class ModelFingerprint:
    """Fingerprint by which a model recognizes a section that it was trained on; it holds no counts."""

    name: str
    image: str | None
    layout: str | None

    def same_tissue(self, other: ModelFingerprint) -> bool:
        """Whether both belong to one section, perhaps at another resolution or with some of its spots."""
        return any(a is not None and a == b for a, b in ((self.image, other.image), (self.layout, other.layout)))


def model_fingerprint(slide: Slide) -> ModelFingerprint:
    """Compute the fingerprint of name, pixels and occupied places of the array."""
    return ModelFingerprint(slide.name, _image(slide), _layout(slide))


def _layout(slide: Slide) -> str | None:
    """Hash of the occupied places of the array; ``None`` if they are too few or too many to identify a section."""
    array_xy = slide.array_xy()
    if array_xy is None or slide.n_spots < FEWEST_PLACES:
        return None
    places = (array_xy - array_xy.min(axis=0))[np.lexsort(array_xy.T)]
    n_places = float(np.prod([len(np.unique(column)) for column in places.T]))
    if is_interleaved(array_xy):
        n_places = n_places / 2
    return None if slide.n_spots > FULL * n_places else digest(places)


def _image(slide: Slide) -> str | None:
    """Hash of pixels spread over the coarsest resolution; ``None`` without an image, or of one color throughout."""
    if not slide.levels:
        return None
    pixels = slide.levels[-1].sample(SAMPLES_ACROSS)
    return None if pixels.size == 0 or pixels.min() == pixels.max() else digest(str(pixels.shape), pixels)


def _positions(xy: NDArray[np.float64]) -> str | None:
    """Hash of the positions in any order; ``None`` if they fill a regular grid, as those of many sections do."""
    rounded = np.round(xy, 2)
    on_grid = len(np.unique(rounded[:, 0])) * len(np.unique(rounded[:, 1])) <= 2 * len(rounded)
    return None if on_grid or len(rounded) < 3 else digest(rounded[np.lexsort(rounded.T)])


def _spot_codes(slide: Slide, layer: str | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a number for each spot that identifies its counts, and its total count.

    The number is the sum of the counts, each times a whole number hashed from the name of the gene. The sum is exact and
    depends neither on the order of the genes nor on genes without counts.
    """
    import pandas as pd

    adata = slide.adata
    matrix = adata.X if layer is None else has_key(adata.layers, layer, "layers", "Pass the layer of raw counts.")
    if matrix is None:
        return np.zeros(slide.n_spots), np.zeros(slide.n_spots)
    values = matrix[slide.rows]
    values = values.compute() if hasattr(values, "compute") else values
    names = pd.util.hash_array(np.array([str(gene) for gene in adata.var_names], dtype=object))
    weights = (names >> np.uint64(64 - NAME_BITS)).astype(np.float64)
    weights_and_ones = np.column_stack([weights, np.ones(len(weights))])
    dense_or_sparse = values if sparse.issparse(values) else np.asarray(values, dtype=np.float64)
    sums = np.asarray(dense_or_sparse @ weights_and_ones, dtype=np.float64)
    return sums[:, 0], sums[:, 1]
