"""The H&E of the report page, in tiles of several resolutions: within the page, or in a folder beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

from sthggep._image._level import Level

if TYPE_CHECKING:
    from PIL.Image import Image

    from sthggep._slides._slide import Slide
    from sthggep.pl._tissue import View

SIDE = 512  # pixels of a tile
QUALITY = 80
MOST_PX = 6_000_000  # of the finest resolution in a page
LARGE_PX = 64 << 20  # a larger single resolution is made smaller before tiles are cut
Keep: TypeAlias = "Callable[[int, int, int, bytes], None]"
"""Takes the number of the resolution (0 is the finest), of column and row of a tile, and its JPEG."""


class Tiles(TypedDict):
    """Size of the finest resolution in pixels, side of its tiles, and all tiles; each resolution is half as wide."""

    width: int
    height: int
    side: int
    images: list[list[str]]
    """JPEGs of each resolution, finest first, row after row; empty where a folder holds them."""
    folder: str | None
    """Address of the folder, as seen from the page."""


@dataclass(frozen=True)
class Pyramid:
    """A part of a section's image, cut into tiles."""

    level: Level
    view: View
    width: int
    height: int

    @classmethod
    def of(cls, slide: Slide, view: View, most_px: float = math.inf) -> Pyramid:
        """The part of a section that ``view`` shows, as fine as its image, or with at most so many pixels."""
        finest = slide.levels[0].scale
        size = np.array([view.width * finest[0], view.height * finest[1]])
        size *= min(1.0, math.sqrt(most_px / size.prod()))
        width, height = (max(1, round(side)) for side in size)
        level = next(
            each for each in reversed(slide.levels) if _is_enough(each, view, width) or each is slide.levels[0]
        )
        by = 2 ** int(math.log2(max(1.0, level.scale[0] * view.width / width)))
        if by > 1 and math.prod(level.shape) > LARGE_PX:
            level = Level(level.downsample(by), (level.scale[0] / by, level.scale[1] / by))
        return cls(level, view, width, height)

    @property
    def n_levels(self) -> int:
        """Number of resolutions, of which the coarsest is one tile."""
        return 1 + max(0, math.ceil(math.log2(max(self.width, self.height) / SIDE)))

    def grid(self, number: int) -> tuple[int, int]:
        """Columns and rows of tiles of a resolution."""
        width, height = self._size(number)
        return -(-width // SIDE), -(-height // SIDE)

    def save(self, keep: Keep) -> None:
        """Make all tiles; few of them are in memory at a time."""
        self._make(self.n_levels - 1, 0, 0, keep)

    def _size(self, number: int) -> tuple[int, int]:
        return -(-self.width // 2**number), -(-self.height // 2**number)

    def _make(self, number: int, column: int, row: int, keep: Keep) -> Image:
        """Make a tile, after the four finer ones of which it consists."""
        from PIL import Image

        if number == 0:
            tile = self._read(column, row)
        else:
            columns, rows = self.grid(number - 1)
            finer = [
                (x, y, self._make(number - 1, 2 * column + x, 2 * row + y, keep))
                for y in (0, 1)
                for x in (0, 1)
                if 2 * column + x < columns and 2 * row + y < rows
            ]
            width = sum(part.width for x, y, part in finer if y == 0)
            height = sum(part.height for x, y, part in finer if x == 0)
            whole = Image.new("RGB", (width, height))
            for x, y, part in finer:
                whole.paste(part, (x * SIDE, y * SIDE))
            tile = whole.reduce(2)
        buffer = BytesIO()
        tile.save(buffer, format="JPEG", quality=QUALITY)
        keep(number, column, row, buffer.getvalue())
        return tile

    def _read(self, column: int, row: int) -> Image:
        """Read a tile of the finest resolution."""
        from PIL import Image

        left, top = column * SIDE, row * SIDE
        width, height = min(SIDE, self.width - left), min(SIDE, self.height - top)
        # Pixels of the image for a pixel of the tile
        x_step = self.view.width * self.level.scale[0] / self.width
        y_step = self.view.height * self.level.scale[1] / self.height
        x0 = self.view.left * self.level.scale[0] + left * x_step
        y0 = self.view.top * self.level.scale[1] + top * y_step
        x1, y1 = x0 + width * x_step, y0 + height * y_step
        corner = math.floor(x0), math.floor(y0)
        pixels = self.level.read(np.array([[*corner, math.ceil(x1), math.ceil(y1)]]))[0]
        box = (x0 - corner[0], y0 - corner[1], x1 - corner[0], y1 - corner[1])
        return Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, box)


def tiles_in_page(slide: Slide, view: View, most_bytes: int) -> Tiles:
    """Tiles as text, as fine as ``most_bytes`` allow."""
    most_px = float(MOST_PX)
    while True:
        pyramid = Pyramid.of(slide, view, most_px)
        images = _as_text(pyramid)
        size = sum(len(text) for level in images for text in level)
        if size <= most_bytes or pyramid.n_levels == 1:
            return {"width": pyramid.width, "height": pyramid.height, "side": SIDE, "images": images, "folder": None}
        # Coarser pixels hold more detail each, so that the bytes fall more slowly than the pixels
        most_px = 0.9 * pyramid.width * pyramid.height * most_bytes / size


def _as_text(pyramid: Pyramid) -> list[list[str]]:
    images = [[""] * math.prod(pyramid.grid(number)) for number in range(pyramid.n_levels)]

    def keep(number: int, column: int, row: int, tile: bytes) -> None:
        images[number][row * pyramid.grid(number)[0] + column] = base64.b64encode(tile).decode()

    pyramid.save(keep)
    return images


def tiles_in_folder(slide: Slide, view: View, folder: Path, address: str) -> Tiles:
    """Tiles in a folder, as fine as the image: ``<resolution>/<column>_<row>.jpg``."""
    pyramid = Pyramid.of(slide, view)
    for number in range(pyramid.n_levels):
        (folder / str(number)).mkdir(parents=True)

    def keep(number: int, column: int, row: int, tile: bytes) -> None:
        (folder / str(number) / f"{column}_{row}.jpg").write_bytes(tile)

    pyramid.save(keep)
    return {"width": pyramid.width, "height": pyramid.height, "side": SIDE, "images": [], "folder": address}


def _is_enough(level: Level, view: View, width: int) -> bool:
    """Whether a resolution has the pixels of so wide a part."""
    return level.scale[0] * view.width >= 0.99 * width
