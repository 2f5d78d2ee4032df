"""Progress of long work: a bar on a terminal and in a notebook, else a line in the log now and then."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sthggep._log import log

# Seconds between lines that stand in for bars: a log file of hours stays readable
EVERY = 30.0


class Progress:
    """Steps of one piece of work.

    Parameters
    ----------
    bar
        Bar of tqdm; it may be disabled.
    lines
        Whether lines stand in for it.
    total
        Number of steps.
    desc
        What the work is.
    unit
        What a step is.
    """

    # Shared by all pieces of work, so that many short ones in a row are reported, too
    last_line = float("-inf")

    def __init__(self, bar: Any, *, lines: bool, total: float, desc: str, unit: str) -> None:
        self.bar, self.lines, self.total, self.desc, self.unit = bar, lines, total, desc, unit
        self.n: float = 0
        if time.monotonic() - Progress.last_line > 10 * EVERY:
            Progress.last_line = time.monotonic()

    def restart(self, total: float, desc: str) -> None:
        """Start over with another piece of work."""
        self.n, self.total, self.desc = 0, _whole_or_tenths(total), desc
        self.bar.set_description(desc, refresh=False)
        self.bar.reset(self.total)

    def finish(self) -> None:
        """End the work early: the steps done so far are all; a notebook shows an incomplete bar as a failure."""
        self.total = self.bar.total = self.n = self.bar.n = self.n or self.total
        self.bar.refresh()

    def grow(self, steps: float) -> None:
        """Add steps to the total."""
        self.total = _whole_or_tenths(self.total + steps)
        self.bar.total = self.total
        self.bar.refresh()

    def update(self, steps: float = 1, shown: Mapping[str, float] | None = None) -> None:
        """Advance by some steps; ``shown`` are figures to show beside."""
        self.n = _whole_or_tenths(self.n + steps)
        figures = {name: f"{value:.3f}" for name, value in (shown or {}).items()}
        if figures:
            self.bar.set_postfix(figures, refresh=False)
        self.bar.n = self.n
        self.bar.update(0)
        if self.lines and time.monotonic() - Progress.last_line >= EVERY:
            Progress.last_line = time.monotonic()
            beside = "".join(f", {name} {value}" for name, value in figures.items())
            # An area is a quantity, and the others are counts of steps: "epoch 12 of 40"
            done = f"{self.n:g} of {self.total:g}"
            amount = f"{done} mm² of image" if self.unit == "mm²" else f"{self.unit} {done}"
            log.info("%s, %s%s", self.desc, amount, beside)


def _whole_or_tenths(steps: float) -> float:
    """Round a number of steps, of which an area has fractions, for a bar that a reader can read."""
    tenths = round(float(steps), 1)
    return int(tenths) if tenths.is_integer() else tenths


@contextmanager
def progress(total: float, desc: str, unit: str, *, show: bool, leave: bool = True) -> Iterator[Progress]:
    """Show a bar of ``total`` steps, or lines in the log where no bar can be drawn."""
    drawn = show and can_draw()
    total = _whole_or_tenths(total)
    with warnings.catch_warnings():
        # Without ipywidgets a notebook shows a bar of text, which is as good
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    with tqdm(total=total, desc=desc, unit=unit, leave=leave, disable=not drawn) as bar:
        yield Progress(bar, lines=show and not drawn, total=total, desc=desc, unit=unit)


def can_draw() -> bool:
    """Whether stderr redraws a line: a terminal, or a notebook, which does not say that it is one."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
