"""Layout of gene maps: panels, rows and their heights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sthggep._checks import positive
from sthggep._table._verdicts import TRUSTED

if TYPE_CHECKING:
    from sthggep.pl._maps import GeneMaps

PAGE_INCHES = 7.2  # width of a journal's page
PANEL_INCHES = 2.1
TALLEST_INCHES = 3.6
LETTER_INCHES = 0.062  # of titles
GAP_INCHES = 0.12  # between panels
BAR_INCHES = 0.06
BAR_ROOM = 0.3  # height of a color bar with its numbers, or of a scale bar


def is_doubtful(verdict: str) -> bool:
    """Whether a map cannot be read spot by spot."""
    return verdict != TRUSTED[0]


@dataclass(frozen=True)
class MapLayout:
    """Layout of the panels: each section has rows of genes, and its H&E left of the first row."""

    kinds: list[str]
    image: bool
    beside: int
    rows: int
    panel: float
    break_at: str
    marked: bool
    """Whether titles have a line for a verdict."""
    size: tuple[float, float]

    @property
    def columns(self) -> int:
        """Panels in a row."""
        return self.image + self.beside * len(self.kinds)

    def height(self, item: GeneMaps) -> float:
        """Inches of a map of this section."""
        return min(self.panel * item.view.height / item.view.width, TALLEST_INCHES)


def lay_out(
    maps: list[GeneMaps], names: list[str], kinds: list[str], image: bool, genes_per_row: int | None
) -> MapLayout:
    beside = 4 // len(kinds) if genes_per_row is None else int(positive(genes_per_row, "`genes_per_row`"))
    beside = min(beside, len(names))
    n = image + beside * len(kinds)
    panel = min(PANEL_INCHES, (PAGE_INCHES - 0.3) / n - GAP_INCHES)
    longest = max(map(len, names)) + len(" predicted  PCC 0.00" if "observed" in kinds else " predicted")
    break_at = "\n" if LETTER_INCHES * longest > panel else " "
    marked = any(is_doubtful(verdict) for item in maps for verdict in item.verdicts)
    layout = MapLayout(kinds, image, beside, -(-len(names) // beside), panel, break_at, marked, (0.0, 0.0))
    height = sum(row_height(layout, item) for item in maps) * layout.rows + 0.35
    return replace(layout, size=(n * (panel + GAP_INCHES) + 0.3, height))


def row_height(layout: MapLayout, item: GeneMaps) -> float:
    """Inches of a map with its title and its bar."""
    return layout.height(item) + BAR_ROOM + (0.36 if layout.break_at == "\n" else 0.22) + 0.14 * layout.marked
