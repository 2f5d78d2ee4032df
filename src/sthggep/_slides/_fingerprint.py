"""Fingerprints of sections, by which the same tissue is recognized: image, array, counts, positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import has_key
from sthggep._disk._digest import digest
from sthggep._slides._array_places import FEWEST_PLACES, FULL, MOST_PLACES, ArrayPlaces, places_of, same_places
from sthggep._slides._lattice import is_interleaved
from sthggep._slides._measured import codes_of
from sthggep._slides._picture import Picture, picture_of, same_picture

if TYPE_CHECKING:
    from sthggep._slides._overlay import Map
    from sthggep._slides._slide import Slide

SAMPLES_ACROSS = 256  # pixels of the sample of the coarsest resolution, a side
NAME_BITS = 20
# Names that readers give to the spots or cells of every section
GENERIC_NAMES = {"section", "cell_labels", "cell_circles", "cell_boundaries", "nucleus_boundaries", "tissue_grid_spots"}
# A spot with this many counts hardly has a duplicate in another section
RICH = 50


@dataclass(frozen=True)
class SpotCodes:
    """A number for each spot that identifies its counts; ``rich`` holds those of spots with many counts."""

    codes: NDArray[np.float64]
    rich: NDArray[np.float64]

    @classmethod
    def of(cls, codes: NDArray[np.float64], totals: NDArray[np.float64]) -> SpotCodes:
        """Select the codes of spots with many counts."""
        return cls(codes, np.unique(codes[totals >= RICH]))


@dataclass(frozen=True)
class SectionFingerprint:
    """Fingerprint of one section; a part that would not identify it is ``None`` or empty."""

    name: str | None
    image: str | None
    picture: Picture | None
    places: ArrayPlaces | None
    positions: NDArray[np.float64]
    """Irregular positions, one row a spot."""
    xy: NDArray[np.float64]
    pitch: float
    counts: SpotCodes
    """By genes and counts."""
    sizes: SpotCodes
    """By counts alone, whatever the genes are called."""
    depth: Map | None
    """Standardized logarithm of the total count at each place of the array, 0 at free places."""

    @property
    def content(self) -> str:
        """Hash of the image, the positions, the counts and the order of the spots."""
        return digest(str(self.image), self.xy, self.counts.codes)


def section_fingerprint(slide: Slide, name: str, layer: str | None) -> SectionFingerprint:
    """Compute the fingerprint of a section that the user calls ``name``."""
    values = _counts(slide, layer)
    totals = np.asarray(values.sum(axis=1), dtype=np.float64).ravel()
    return SectionFingerprint(
        name=None if name in GENERIC_NAMES else name,
        image=_image(slide),
        picture=picture_of(slide),
        places=places_of(slide),
        positions=_positions(slide.xy),
        xy=slide.xy,
        pitch=slide.pitch(),
        counts=SpotCodes.of(_codes_by_gene(values, slide.adata.var_names), totals),
        sizes=SpotCodes.of(_codes_of_sizes(values), totals),
        depth=_depth(slide, totals),
    )


@dataclass(frozen=True)
class ModelFingerprint:
    """Fingerprint by which a model recognizes a section that it was trained on; it holds no counts."""

    name: str
    image: str | None = None
    layout: str | None = None
    """Hash of the occupied places, also of those too few for :class:`ArrayPlaces`."""
    picture: Picture | None = None
    places: ArrayPlaces | None = None
    measured: str | None = None
    """Codes of the names of its spots that the model was trained on; ``None`` for all."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON."""
        parts = {
            "measured": self.measured,
            "image": self.image,
            "layout": self.layout,
            "picture": self.picture and self.picture.to_dict(),
            "places": self.places and self.places.to_dict(),
        }
        return {"name": self.name} | {part: value for part, value in parts.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelFingerprint:
        """Read the plain types of :meth:`to_dict`, also those of earlier versions."""
        picture, places = values.get("picture"), values.get("places")
        return cls(
            str(values["name"]),
            values.get("image"),
            values.get("layout"),
            None if picture is None else Picture.from_dict(picture),
            None if places is None else ArrayPlaces.from_dict(places),
            values.get("measured"),
        )

    def same_tissue(self, other: ModelFingerprint) -> bool:
        """Whether both belong to one section, perhaps turned, cropped, recolored or without some of its spots."""
        hashes = ((self.image, other.image), (self.layout, other.layout))
        return (
            any(a is not None and a == b for a, b in hashes)
            or same_places(self.places, other.places)
            or same_picture(self.picture, other.picture)
        )


def model_fingerprint(slide: Slide, measured: NDArray[np.bool_] | None = None) -> ModelFingerprint:
    """Compute the fingerprint of name, pixels and occupied places of the array, and of the spots that are measured."""
    codes = None if measured is None else codes_of(slide.adata.obs_names[slide.rows[measured]])
    return ModelFingerprint(slide.name, _image(slide), _layout(slide), picture_of(slide), places_of(slide), codes)


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


def _positions(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The different positions; none if they fill a regular grid, as those of many sections do."""
    rounded = np.unique(np.round(xy, 2) + 0.0, axis=0)
    # A hexagonal array fills half of its rows and columns, and tissue some half of the array
    on_grid = len(np.unique(rounded[:, 0])) * len(np.unique(rounded[:, 1])) <= 4 * len(rounded)
    return rounded[:0] if on_grid or len(rounded) < 3 else rounded


def _counts(slide: Slide, layer: str | None) -> sparse.csr_matrix | NDArray[np.float64]:
    """The counts of a section; without any, a matrix without genes."""
    adata = slide.adata
    matrix = adata.X if layer is None else has_key(adata.layers, layer, "layers", "Pass the layer of raw counts.")
    if matrix is None:
        return np.zeros((slide.n_spots, 0))
    values = matrix[slide.rows]
    values = values.compute() if hasattr(values, "compute") else values
    return sparse.csr_matrix(values) if sparse.issparse(values) else np.asarray(values, dtype=np.float64)


def _codes_by_gene(values: sparse.csr_matrix | NDArray[np.float64], genes: pd.Index) -> NDArray[np.float64]:
    """Sum of the counts of each spot, each times a whole number hashed from the name of the gene.

    The sum is exact and depends neither on the order of the genes nor on genes without counts.
    """
    if not values.shape[1]:
        return np.zeros(values.shape[0])
    names = pd.util.hash_array(np.array([str(gene) for gene in genes], dtype=object))
    weights = (names >> np.uint64(64 - NAME_BITS)).astype(np.float64)
    return np.asarray(values @ weights, dtype=np.float64).ravel()


def _codes_of_sizes(values: sparse.csr_matrix | NDArray[np.float64]) -> NDArray[np.float64]:
    """Number of genes of each spot with each count, each times a whole number hashed from the count."""
    stored: sparse.csr_matrix = sparse.csr_matrix(values)
    hashed = (pd.util.hash_array(stored.data.astype(np.float64)) >> np.uint64(64 - NAME_BITS)).astype(np.float64)
    by_count = sparse.csr_matrix((np.where(stored.data == 0, 0, hashed), stored.indices, stored.indptr), stored.shape)
    return np.asarray(by_count.sum(axis=1), dtype=np.float64).ravel()


def _depth(slide: Slide, totals: NDArray[np.float64]) -> Map | None:
    """The map of total counts on the array; ``None`` without an array or without differences."""
    array_xy, logs = slide.array_xy(), np.log1p(np.maximum(totals, 0))
    if array_xy is None or not np.isfinite(logs).all() or np.ptp(logs) == 0:
        return None
    column, row = (array_xy - array_xy.min(axis=0)).T
    shape = int(row.max()) + 1, int(column.max()) + 1
    if np.prod(shape) > MOST_PLACES:
        return None
    depth = np.zeros(shape)
    depth[row, column] = (logs - logs.mean()) / logs.std()
    return depth
