"""The lattice of the spots: its pitch, microns per pixel, neighbors, and blocks of spots."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Neighbors are searched among array positions this far apart; those of Visium are (2, 0) and (1, 1).
_REACH = 4
# Rounding puts a few spots on places outside the array; all true neighbor offsets occur about equally often.
_PRESENT = 0.25
# Of scattered spots few are near each other, by chance. Differences of so many spots make up the array nearly always.
_FEW_PAIRS, _ENOUGH_SPOTS = 12, 10
# The neighbors after the nearest are 1.41 (square) and 1.73 (hexagonal) times as far.
_SAME_LENGTH = 1.2
# Beyond half a pitch of scatter the two sets of coordinates do not belong together.
_MAX_SCATTER = 0.5
# Above this fraction of unexplained variance, the array does not describe the pixel positions.
_UNEXPLAINED = 0.1


def lattice_mpp(array_xy: ArrayLike, xy: ArrayLike, pitch_um: float) -> float:
    """Compute microns per pixel of a slide whose spots stand on a printed lattice.

    Fits `pixel = A @ array + b` by least squares and measures the fitted lattice between nearest neighbors, so that
    jitter of single spots does not shorten the pitch (the median distance to the nearest spot is 3-8 % low).
    Neighbors are the array offsets that occur: on an interleaved array (legacy ST 2K, Visium) `(1, 0)` does not.

    Parameters
    ----------
    array_xy
        Array positions, `(n, 2)`, one row a spot: legacy ST `x, y`; Visium `array_col, array_row`.
    xy
        The same spots in pixels, `(n, 2)` as `(x, y)`.
    pitch_um
        Microns between nearest neighbors: legacy ST 200 (1K array) or 141 (2K array), Visium 100.

    Returns
    -------
    Microns per pixel.

    Raises
    ------
    ValueError
        If the coordinates are malformed, if no two spots are neighbors, or if the pixels do not follow the array.
    """
    return float(pitch_um) / lattice_pitch(array_xy, xy)


def lattice_pitch(array_xy: ArrayLike, xy: ArrayLike) -> float:
    """Compute the pixels between nearest neighbors of the fitted lattice (see :func:`lattice_mpp`)."""
    array, pixels = _check_positions(array_xy, "array positions"), _check_positions(xy, "pixel positions")
    if len(array) != len(pixels):
        msg = f"Expected one array position a spot, found {len(array)} for {len(pixels)} spots."
        raise ValueError(msg)
    centered_array, centered_pixels = array - array.mean(axis=0), pixels - pixels.mean(axis=0)
    matrix = np.linalg.lstsq(centered_array, centered_pixels, rcond=None)[0]
    lengths = np.linalg.norm(neighbor_offsets(array) @ matrix, axis=1)
    lengths = lengths[lengths > 0]
    if not lengths.size:
        msg = "All spots have the same pixel position; pass mpp (microns per pixel) instead."
        raise ValueError(msg)
    pitch = float(lengths[lengths <= lengths.min() * _SAME_LENGTH].mean())
    scatter = float(np.sqrt(np.mean(np.sum((centered_array @ matrix - centered_pixels) ** 2, axis=1))))
    if scatter > _MAX_SCATTER * pitch:
        msg = (
            f"The pixel positions do not follow the array positions: they scatter by {scatter:.1f} px about a lattice "
            f"of {pitch:.1f} px pitch. Check that both belong to the same spots, or pass mpp (microns per pixel)."
        )
        raise ValueError(msg)
    return pitch


def is_transposed(array_xy: ArrayLike, xy: ArrayLike) -> bool:
    """Whether the array lies mirrored along its diagonal: its columns down the image and its rows across.

    That is the case if x and y of the pixels are swapped. A rotated image is not mirrored.
    """
    array, pixels = _check_positions(array_xy, "array positions"), _check_positions(xy, "pixel positions")
    array, pixels = array - array.mean(axis=0), pixels - pixels.mean(axis=0)
    matrix = np.linalg.lstsq(array, pixels, rcond=None)[0]
    if np.square(array @ matrix - pixels).sum() > _UNEXPLAINED * np.square(pixels).sum():
        return False
    crosswise = np.abs(matrix[[0, 1], [1, 0]]).min() > np.abs(np.diag(matrix)).max()
    return bool(crosswise and np.linalg.det(matrix) < 0)


def neighbor_offsets(array_xy: ArrayLike) -> NDArray[np.float64]:
    """Find the array offsets `(m, 2)` at which spots have neighbors, each direction once.

    Of scattered spots, such as a small random choice, these are the offsets that differences of their positions add up to.

    Raises
    ------
    ValueError
        If no two spots are near each other on the array.
    """
    positions = np.unique(np.rint(_check_positions(array_xy, "array positions")).astype(np.int64), axis=0)
    positions -= positions.min(axis=0) - _REACH
    # One number a position, with room for every offset, so that one call tests membership.
    width = int(positions[:, 1].max()) + 2 * _REACH + 1
    codes = positions[:, 0] * width + positions[:, 1]
    steps = range(-_REACH, _REACH + 1)
    offsets = np.array([(dx, dy) for dx in steps for dy in steps if (dx, dy) > (0, 0)])
    n_pairs = np.array([np.isin(codes + dx * width + dy, codes).sum() for dx, dy in offsets])
    if n_pairs.max() < _FEW_PAIRS and len(positions) >= _ENOUGH_SPOTS:
        spanned = _in_lattice(offsets, positions - positions[0])
        n_pairs = spanned if spanned.any() else n_pairs
    if not n_pairs.any():
        msg = f"No two of the {len(positions)} spots are neighbors on the array; pass mpp (microns per pixel) instead."
        raise ValueError(msg)
    neighbors: NDArray[np.float64] = offsets[n_pairs >= _PRESENT * n_pairs.max()].astype(np.float64)
    return neighbors


def _in_lattice(offsets: NDArray[np.int64], differences: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether offsets are sums of whole multiples of these differences."""
    first, along = (0, 0), 0  # the lattice's basis: `first`, and (along, 0)
    for difference in differences.tolist():
        second = tuple(difference)
        while second[1]:  # Euclid's algorithm on the second coordinate
            times = first[1] // second[1]
            first, second = second, (first[0] - times * second[0], first[1] - times * second[1])
        along = gcd(along, second[0])
    if not along or not first[1]:  # all on a line
        return np.zeros(len(offsets), dtype=bool)
    times = offsets[:, 1] // first[1]
    return np.asarray((offsets[:, 1] % first[1] == 0) & ((offsets[:, 0] - times * first[0]) % along == 0))


def lay_out(size: tuple[float, float], pitch: float, layout: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lay out array positions `(n, 2)` and centers `(n, 2)` of a centered lattice, a quarter pitch from the border.

    Parameters
    ----------
    size
        Width and height of the field.
    pitch
        Distance between nearest neighbors, in the same unit.
    layout
        `"square"` as on legacy ST arrays, `"hex"` as on Visium (array columns then count by twos).
    """
    step = np.array([pitch, pitch]) if layout == "square" else np.array([pitch / 2, pitch * np.sqrt(3) / 2])
    field = np.array(size)
    last = np.floor((field - pitch / 2) / step).astype(int)
    y, x = np.meshgrid(np.arange(last[1] + 1), np.arange(last[0] + 1), indexing="ij")
    array = np.column_stack([x.ravel(), y.ravel()])
    if layout == "hex":
        array = array[array.sum(axis=1) % 2 == 0]
    return array, (field - last * step) / 2 + array * step


def sublattices(array_xy: ArrayLike, factor: int) -> list[NDArray[np.intp]]:
    """Divide a lattice into `factor`² lattices with `factor` times the pitch; return the rows of each.

    The array may be square or interleaved (Visium, legacy 2K), with rows shifted by half a step.
    """
    array = np.rint(np.asarray(array_xy, dtype=np.float64)).astype(np.int64)
    if is_interleaved(array):
        # Steps along the row, and to the next row and half a step aside
        array = np.column_stack([(array[:, 0] - array[:, 1]) // 2, array[:, 1]])
    lattice = array[:, 0] % factor + factor * (array[:, 1] % factor)
    return [np.flatnonzero(lattice == number) for number in np.unique(lattice)]


def is_interleaved(array_xy: ArrayLike) -> bool:
    """Whether only every other place of the array has a spot, as on the legacy 2K array."""
    return not (np.abs(neighbor_offsets(array_xy)).sum(axis=1) == 1).any()


def _check_positions(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2:
        msg = f"Expected the {what} as an (n, 2) array of at least two spots, found shape {array.shape}."
        raise ValueError(msg)
    if not np.isfinite(array).all():
        msg = f"{int((~np.isfinite(array)).any(axis=1).sum())} {what} are NaN or infinite; drop those spots first."
        raise ValueError(msg)
    return array


BLOCKS_ACROSS = 4


def spatial_blocks(xy: NDArray[np.float64], fold: int, n_folds: int) -> NDArray[np.bool_]:
    """Select the spots of whole blocks of tissue, about one in ``n_folds``; the folds partition the spots."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    cell = np.minimum((xy - low) / np.maximum(high - low, 1e-9) * BLOCKS_ACROSS, BLOCKS_ACROSS - 1).astype(int)
    # Neighboring blocks fall into different folds, so that a fold spreads over the section
    return np.asarray((cell[:, 0] + 2 * cell[:, 1]) % n_folds == fold % n_folds)
