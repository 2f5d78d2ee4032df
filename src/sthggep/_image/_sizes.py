"""Sizes that no slide has: images are refused by their header, before memory is allocated."""

from __future__ import annotations

from pathlib import Path

MOST_PIXELS = 1 << 38  # read in parts; the largest scans have some 2**36
MOST_WHOLE = 1 << 30  # read whole: 3 GB of RGB
MOST_BLOCK = 1 << 31  # bytes of one tile or strip, which is decoded whole
# Packed beyond these ratios, an image holds nothing: blank H&E is packed about 1000-fold, tissue 10- to 40-fold
MOST_PACKED, MOST_SPARSE = 500, 50_000
UNSUSPICIOUS = 1 << 28  # bytes that may be packed in any way


def check_whole(path: Path, width: int, height: int, n_bytes: int, stored: int) -> None:
    """Check the size of an image that is decoded whole, ``n_bytes`` from ``stored`` bytes of a file."""
    _check_sides(path, width, height)
    if width * height > MOST_WHOLE:
        msg = (
            f"{path} states {width:,} x {height:,} pixels, too many for a format that is read whole. Convert it to a "
            "tiled TIFF, of which sthggep reads parts."
        )
        raise ValueError(msg)
    if n_bytes > UNSUSPICIOUS and n_bytes > MOST_PACKED * stored:
        raise _hollow(path, width, height, stored)


def check_in_parts(path: Path, width: int, height: int, n_bytes: int, stored: int) -> None:
    """Check the size of an image that is read in parts."""
    _check_sides(path, width, height)
    if width * height > MOST_PIXELS or (n_bytes > 16 * UNSUSPICIOUS and n_bytes > MOST_SPARSE * max(stored, 1)):
        raise _hollow(path, width, height, stored)


def check_block(path: Path, n_bytes: int, stored: int) -> None:
    """Check the size of the tiles or strips of an image, the largest of which has ``stored`` bytes in the file."""
    if n_bytes > MOST_BLOCK or (n_bytes > UNSUSPICIOUS and n_bytes > MOST_PACKED * max(stored, 1)):
        msg = (
            f"{path} would be decoded in blocks of {n_bytes / 1e9:.1f} GB, stored in {stored:,} bytes at most. The file "
            "is damaged, or must be converted to a TIFF of smaller tiles."
        )
        raise ValueError(msg)


def _check_sides(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        msg = f"{path} holds an empty image of {width} x {height} pixels. Fetch or export the file again."
        raise ValueError(msg)


def _hollow(path: Path, width: int, height: int, stored: int) -> ValueError:
    return ValueError(
        f"{path} states {width:,} x {height:,} pixels in {stored:,} bytes, which no slide has: the file is truncated or "
        "damaged. Fetch or export the file again."
    )
