"""Layout of gene maps: panels, rows and their heights."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sthggep._checks import positive
from sthggep._table._verdicts import TRUSTED
from sthggep.pl._figure import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sthggep.pl._maps import GeneMaps

PAGE_INCHES = 7.2  # width of a journal's page
PANEL_INCHES = 2.1
LARGE_INCHES = 3.4  # of one or two panels
TALLEST_INCHES = 3.6
LETTER_INCHES = 0.062  # of titles
SMALL_LETTER_INCHES = 0.051  # of the labels of color bars
TITLE_INCHES = 0.2
GAP_INCHES = 0.12  # between panels
BAR_INCHES = 0.06
BAR_ROOM = 0.28  # height of a color bar with its numbers, or of a scale bar
LINE_INCHES = 0.125  # of text


def is_doubtful(verdict: str) -> bool:
    """Whether a map cannot be read spot by spot."""
    return verdict != TRUSTED[0]


@dataclass(frozen=True)
class MapLayout:
    """Layout of the panels: each section has rows of genes, and its H&E left of them or in place of the first gene."""

    kinds: list[str]
    image: bool
    beside: int
    rows: int
    leads: bool
    """Whether the H&E takes the place of the first gene, since the genes alone would leave a place empty."""
    panel: float
    break_at: str
    marked: bool
    """Whether titles have a line for a verdict."""
    units: str
    """Label of the color bars, in lines."""
    size: tuple[float, float]

    @property
    def columns(self) -> int:
        """Panels in a row."""
        return self.has_column + self.beside * len(self.kinds)

    @property
    def has_column(self) -> bool:
        """Whether the H&E stands in a column of its own."""
        return self.image and not self.leads

    def place(self, i: int) -> tuple[int, int]:
        """Row of the i-th gene within its section, and the column of its first map."""
        row, slot = divmod(i + self.leads, self.beside)
        return row, self.has_column + slot * len(self.kinds)

    def height(self, item: GeneMaps) -> float:
        """Inches of a map of this section."""
        return min(self.panel * item.view.height / item.view.width, TALLEST_INCHES)


def lay_out(
    maps: list[GeneMaps],
    names: list[str],
    kinds: list[str],
    image: bool,
    genes_per_row: int | None,
    own_axes: list[Axes] | None = None,
) -> MapLayout:
    """Arrange the panels of a new figure; of the user's axes only the width of a panel matters."""
    beside, leads = arrange(len(names), len(kinds), image, genes_per_row)
    n = (image and not leads) + beside * len(kinds)
    panel = min(LARGE_INCHES if n < 3 else PANEL_INCHES, (PAGE_INCHES - 0.3) / n - GAP_INCHES)
    if own_axes:
        panel = min(ax.bbox.width / figure_of(ax).dpi for ax in own_axes)
    longest = max(map(len, names)) + len(" predicted  PCC 0.00" if "observed" in kinds else " predicted")
    break_at = "\n" if LETTER_INCHES * longest > panel else " "
    marked = any(is_doubtful(verdict) for item in maps for verdict in item.verdicts)
    units = "; ".join(dict.fromkeys(item.units for item in maps))
    units = _wrap(units, panel * len(kinds) * (1.0 if image else 0.65))
    rows = -(-(len(names) + leads) // beside)
    layout = MapLayout(kinds, image, beside, rows, leads, panel, break_at, marked, units, (0.0, 0.0))
    height = sum(row_height(layout, item) for item in maps) * layout.rows + 0.1
    return replace(layout, size=(n * (panel + GAP_INCHES) + 0.3, height))


def _wrap(text: str, inches: float) -> str:
    """Break the label of a color bar into lines of about the same length."""
    lines = -(-len(text) // max(8, int(inches / SMALL_LETTER_INCHES)))
    return textwrap.fill(text, len(text) // lines + 4 if lines > 1 else len(text))


def arrange(n_genes: int, n_kinds: int, image: bool, genes_per_row: int | None) -> tuple[int, bool]:
    """Genes in a row, and whether the H&E takes the place of the first one: as few empty places as possible."""
    if genes_per_row is not None:
        most = min(int(positive(genes_per_row, "`genes_per_row`")), n_genes)
        choices = [most]
    else:
        most = min(4 // n_kinds, n_genes)
        choices = [most, most - 1] if most > 1 else [1]
        if n_kinds == 1 and not image and n_genes > most:
            choices.append(most + 1)
    arrangements = [
        (beside, leads) for beside in choices for leads in (False, True) if not leads or (image and beside > 1)
    ]
    return min(arrangements, key=lambda arrangement: (-(n_genes + arrangement[1])) % arrangement[0])


def row_height(layout: MapLayout, item: GeneMaps) -> float:
    """Inches of a map with its title and its bar."""
    bar = BAR_ROOM + LINE_INCHES * (1 + layout.units.count("\n"))
    return layout.height(item) + bar + (0.36 if layout.break_at == "\n" else 0.22) + 0.14 * layout.marked
