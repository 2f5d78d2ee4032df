"""Names of channels: which are red, green and blue, and which are stains of a fluorescence image."""

from __future__ import annotations

import re
from collections.abc import Sequence

_COLORS = {"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b", "a": "a", "alpha": "a"}
# What writers call channels that nobody named: 0, C1, Channel 2, Channel:0:1, band_3, dim_0
_NUMBERED = re.compile(r"(c|ch|chan|channel|band|sample|dim|image|gr[ae]y)?[\s_:#-]*[\d:]*", re.IGNORECASE)
# A single channel of a name like these is a fluorescence image
_STAINS = re.compile(
    r"dapi|hoechst|fluor|fitc|tritc|rhodamine|texas.?red|cy[- ]?[2357]|alexa|\baf ?\d{3}|[grycb]fp|cherry|draq|sytox|"
    r"\bcd\d|pan.?ck|cytokeratin|keratin|vimentin|boundary|18s|sma\b|antibod|ph[ae]lloidin|wga|membrane|nucle",
    re.IGNORECASE,
)


def color_channels(names: Sequence[object]) -> list[int] | None:
    """Return the positions of red, green, blue and, where there is one, alpha; of unnamed channels, or one, all.

    ``None`` means that the names are those of stains, or that their number is not that of an image in color or gray.
    """
    words = ["" if name is None else str(name).strip().lower() for name in names]
    colors = [_COLORS.get(word) for word in words]
    if {"r", "g", "b"} <= set(colors) and all(colors.count(color) == 1 for color in "rgb"):
        return [colors.index(color) for color in "rgba" if color in colors]
    if len(words) == 1:
        return None if _STAINS.search(words[0]) else [0]
    unnamed = all(_NUMBERED.fullmatch(word) for word in words)
    return list(range(len(words))) if unnamed and len(words) in (3, 4) else None


def are_colors(names: Sequence[object]) -> bool:
    """Whether channels are called red, green and blue."""
    return {"r", "g", "b"} <= {_COLORS.get(str(name).strip().lower()) for name in names}
