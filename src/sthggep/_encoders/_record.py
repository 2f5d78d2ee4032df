"""The record in ``uns`` of features in ``obsm``: encoder, field of view, sections, and a stamp of each spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._encoders._cache import image_fingerprint
from sthggep._encoders._entry import AROUND_UM
from sthggep._encoders._reference_windows import TissueMoments
from sthggep._keys import TOOL

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._image._recolor import Recoloring
    from sthggep._slides._slide import Slide

Hashes = NDArray[np.uint64]
MOST_COLUMNS = 32  # of the features of a spot, which its stamp covers
# Relative. From the pitch of the spots a half of a section gets another size than the whole, in the fifth digit
MPP_TOLERANCE = 1e-3


class Stamps(NamedTuple):
    """Hashes of features and position of each spot: they hold in any order, for some of the spots, under other names."""

    values: Hashes
    positions: Hashes

    @classmethod
    def of(cls, values: NDArray[Any], xy: NDArray[np.float64]) -> Stamps:
        """Compute the stamps of spots."""
        step = max(1, -(-values.shape[1] // MOST_COLUMNS))
        return cls(_hash_rows(np.asarray(values[:, ::step], dtype=np.float32)), _hash_rows(np.round(xy, 2)))

    def pairs(self) -> Hashes:
        """One hash for features and position together."""
        return _hash_rows(np.column_stack([self.values, self.positions]))

    def take(self, rows: NDArray[np.bool_]) -> Stamps:
        """Select spots."""
        return Stamps(self.values[rows], self.positions[rows])


class FeatureSections(NamedTuple):
    """The sections of a record of features, with the stamps of their spots."""

    names: list[str]
    mpp: NDArray[np.float64]
    mpp_source: list[str]
    images: list[str]
    stamps: Stamps
    number: NDArray[np.int64]
    """Section of each spot."""
    moments: list[TissueMoments | None]
    """Mean and spread of the features over the tissue; ``None`` for features of patches."""

    def moments_of(self, image: str, mpp: float | None) -> TissueMoments | None:
        """Return the moments of the tissue on this image at this resolution."""
        same_mpp = np.isclose(self.mpp, np.nan if mpp is None else mpp, rtol=MPP_TOLERANCE)
        found = (self.moments[i] for i, each in enumerate(self.images) if each == image and same_mpp[i])
        return next(found, None)

    def fresh(self, stamps: Stamps, image: str, mpp: float | None) -> NDArray[np.bool_]:
        """Which spots have features of these positions on this image at this resolution."""
        same_image = np.array([each == image for each in self.images], dtype=bool)
        same_mpp = np.isclose(self.mpp, np.nan if mpp is None else mpp, rtol=MPP_TOLERANCE)
        rows = (same_image & same_mpp)[self.number]
        return np.isin(stamps.pairs(), self.stamps.take(rows).pairs())

    def without(self, names: Sequence[str]) -> FeatureSections:
        """Leave out some sections."""
        stay = [i for i, name in enumerate(self.names) if name not in names]
        rows = np.isin(self.number, stay)
        return FeatureSections(
            [self.names[i] for i in stay],
            self.mpp[stay],
            [self.mpp_source[i] for i in stay],
            [self.images[i] for i in stay],
            self.stamps.take(rows),
            np.searchsorted(stay, self.number[rows]),
            [self.moments[i] for i in stay],
        )

    def add(
        self, slide: Slide, values: NDArray[np.float32], image: str, moments: TissueMoments | None = None
    ) -> FeatureSections:
        """Add a section with its features."""
        new = Stamps.of(values, slide.xy)
        return FeatureSections(
            [*self.names, slide.name],
            np.append(self.mpp, np.nan if slide.mpp is None else slide.mpp),
            [*self.mpp_source, slide.mpp_source],
            [*self.images, image],
            Stamps(*(np.concatenate(pair) for pair in zip(self.stamps, new, strict=True))),
            np.append(self.number, np.full(slide.n_spots, len(self.names))),
            [*self.moments, moments],
        )

    def to_record(self) -> dict[str, object]:
        """The entries of a record in ``uns``."""
        known = [each for each in self.moments if each is not None]
        tissue = (
            {
                f"tissue_{name}": np.array(values)
                for name, values in zip(_MOMENTS, zip(*known, strict=True), strict=True)
            }
            if known
            else {}
        )
        return tissue | {
            "sections": np.array(self.names, dtype=object),
            "mpp": self.mpp,
            "mpp_source": np.array(self.mpp_source, dtype=object),
            "images": np.array(self.images, dtype=object),
            "spots": np.column_stack([*self.stamps, self.number.astype(np.uint64)]),
        }


NO_SECTIONS = FeatureSections([], np.zeros(0), [], [], Stamps(*np.zeros((2, 0), np.uint64)), np.zeros(0, np.int64), [])
_MOMENTS = ("windows", "mean", "spread")


def read_sections(record: Mapping[str, Any]) -> FeatureSections:
    """Read the sections of a record in ``uns``; none if merging objects broke the record."""
    names, mpp, sources, images = (
        list(np.atleast_1d(record.get(name, ()))) for name in ("sections", "mpp", "mpp_source", "images")
    )
    spots = np.asarray(record.get("spots", np.zeros((0, 3))))
    whole = len(names) == len(mpp) == len(sources) == len(images) and spots.ndim == 2 and spots.shape[1] == 3
    if not whole or (len(spots) and int(spots[:, 2].max()) >= len(names)):
        return NO_SECTIONS
    moments = _read_moments(record, len(names))
    if moments is None:
        return NO_SECTIONS
    values, positions, number = spots.astype(np.uint64).T
    texts = [list(map(str, each)) for each in (names, sources, images)]
    return FeatureSections(
        texts[0],
        np.asarray(mpp, np.float64),
        texts[1],
        texts[2],
        Stamps(values, positions),
        number.astype(np.int64),
        moments,
    )


def _read_moments(record: Mapping[str, Any], n_sections: int) -> list[TissueMoments | None] | None:
    """Read the moments of the tissue of each section; ``None`` if they are not whole."""
    if record.get("encoding", "patches") != "tissue":
        return [None] * n_sections
    n, mean, spread = (np.asarray(record.get(f"tissue_{name}", ())) for name in _MOMENTS)
    if n.shape != (n_sections,) or mean.ndim != 2 or len(mean) != n_sections or mean.shape != spread.shape:
        return None
    return [
        TissueMoments(int(k), m, s)
        for k, m, s in zip(n, mean.astype(np.float32), spread.astype(np.float32), strict=True)
    ]


def feature_record(
    frozen: FrozenEncoder, size_um: float, *, flips: bool, encoding: str, stain: Recoloring | None = None
) -> dict[str, object]:
    """Return the record of features: all that they depend on besides the image."""
    record: dict[str, object] = {
        "tool": TOOL,
        "encoder": frozen.entry.name,
        "weights": frozen.weights,
        "size_um": size_um,
        "size_px": frozen.entry.size_px,
        "flips": flips,
    }
    if encoding != "patches":
        record |= {"encoding": encoding, "around_um": list(AROUND_UM)}
        if frozen.maps.input_px is not None:
            record["context_px"] = frozen.maps.context_px
    return record if stain is None else record | {"stain": stain.id}


def has_features(
    table: AnnData, key: str, record: Mapping[str, object], slide: Slide | None = None, image: str | None = None
) -> bool:
    """Whether the table holds these features of all spots, or of a section as its image, positions and mpp are now.

    ``image`` is the fingerprint of the image; by default the function computes it.
    """
    if not matches_record(table, key, record):
        return False
    values = np.asarray(table.obsm[key] if slide is None else table.obsm[key][slide.rows])
    if not np.isfinite(values).all():
        return False
    if slide is None:
        return True
    sections, stamps = read_sections(table.uns[key]), Stamps.of(values, slide.xy)
    return bool(sections.fresh(stamps, image or image_fingerprint(slide.levels), slide.mpp).all())


def matches_record(table: AnnData, key: str, record: Mapping[str, object]) -> bool:
    """Whether the features under ``key`` have this record."""
    stored = table.uns.get(key)
    if key not in table.obsm or not isinstance(stored, Mapping):
        return False
    # The record of features of patches, or without stain normalization, has no entry for it
    return all(_plain(stored.get(name)) == _plain(record.get(name)) for name in {*record, "encoding", "stain"})


def other_encoding(table: AnnData, key: str, record: Mapping[str, object]) -> str | None:
    """Return how features of the same encoder and field of view were made otherwise; ``None`` if there are none such."""
    stored = table.uns.get(key)
    if key not in table.obsm or not isinstance(stored, Mapping):
        return None
    if any(_plain(stored.get(name)) != record[name] for name in ("encoder", "weights", "size_um")):
        return None
    found, wanted = ((str(each.get("encoding", "patches")), bool(each.get("flips"))) for each in (stored, record))
    return None if found == wanted else f"encoding={found[0]!r}, flips={found[1]}"


def _plain(value: object) -> object:
    """A list where a file holds an array."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def has_uncolored_features(table: AnnData, key: str, encoder: str, section: str) -> bool:
    """Whether the table holds this encoder's features of a section without stain normalization."""
    stored = table.uns.get(key)
    if key not in table.obsm or not isinstance(stored, Mapping) or stored.get("encoder") != encoder:
        return False
    return section in read_sections(stored).names and not stored.get("stain")


def _hash_rows(values: NDArray[Any]) -> Hashes:
    """Hash each row of a matrix of numbers."""
    out = np.zeros(len(values), np.uint64)
    for column in values.T:
        # Adding 0 makes the two zeros of floating-point numbers one
        out = out * np.uint64(31) + pd.util.hash_array(np.ascontiguousarray(column + column.dtype.type(0)))
    return out
