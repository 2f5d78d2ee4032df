"""Files of tensors from anybody: read without running code in them, and refused where they would unpack to more than they are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from sthggep._checks import counted, listing

if TYPE_CHECKING:
    from torch import Tensor

NOT_TENSORS = "it is no whole file of `torch.save`, or holds more than tensors and plain types"
MOST_HEADER_BYTES = 16 << 20  # the names and shapes of 100,000 tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    ValueError
        The file is broken, or its header is too large; the message is the reason alone.
    """
    from safetensors.torch import load_file

    try:
        _check_header(path)
        return load_file(path)
    except Exception as reason:
        raise ValueError(explain(reason)) from reason


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
    if n_bytes > MOST_HEADER_BYTES:
        msg = f"a header of at most {MOST_HEADER_BYTES:,} bytes was expected, found {n_bytes:,}"
        raise ValueError(msg)


def read_torch(path: Path, *, checked: bool = False) -> object:
    """Read tensors and plain types that ``torch.save`` wrote, without running code in the file.

    Parameters
    ----------
    path
        The file.
    checked
        Compare the checksums in the file, too: for files that sthggep wrote.

    Raises
    ------
    ValueError
        The file is broken, unpacks to more than its size, or holds more than tensors and plain types; the message is the
        reason alone.
    """
    import torch

    _check_archive(path, checked=checked)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:
        raise ValueError(NOT_TENSORS) from reason  # torch's own advice is to run the code in the file


def _check_archive(path: Path, *, checked: bool) -> None:
    """Refuse an archive whose parts are larger than it, or damaged; ``torch.save`` compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
            damaged = archive.testzip() if checked and n_bytes <= size else None
    except Exception as reason:
        raise ValueError(NOT_TENSORS) from reason
    if n_bytes > size:
        msg = f"it unpacks to {n_bytes:,} bytes from {size:,}"
        raise ValueError(msg)
    if damaged is not None:
        msg = f"its part {damaged!r} is damaged"
        raise ValueError(msg)


def explain(reason: BaseException, most: int = 200) -> str:
    """Return the first line of an exception's message, shortened; the name of its class if it has none."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return shorten(lines[0], most, placeholder=" …") if lines else type(reason).__name__


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite: so would be every prediction.

    Raises
    ------
    ValueError
        A tensor holds such a value.
    """
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        msg = (
            f"the weights hold NaN or infinity, in {len(broken)} of {counted(tensors, 'tensor')}: {listing(broken, 3)}"
        )
        raise ValueError(msg)


def refuse_other_shapes(tensors: Mapping[str, Tensor], expected: Iterable[tuple[str, Tensor]]) -> set[str]:
    """Refuse tensors of another shape or type than expected; return the names of those expected.

    Raises
    ------
    ValueError
        A tensor is missing or another one. What is expected after it is not looked at.
    """
    names = set()
    for name, value in expected:
        if name not in tensors:
            msg = f"the weights {name!r} are missing"
            raise ValueError(msg)
        stored = tensors[name]
        if stored.shape != value.shape or stored.dtype != value.dtype:
            msg = (
                f"the weights {name!r} must have shape {tuple(value.shape)} and type {value.dtype}, found "
                f"{tuple(stored.shape)} and {stored.dtype}"
            )
            raise ValueError(msg)
        names.add(name)
    return names
