"""Types of options: numbers, whose errors say what was expected, and windows."""

from __future__ import annotations

from typing import Any

import click

from sthggep._arguments import LARGEST_SEED, as_decimal


class Number(click.FloatRange):
    """A positive number."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail on other text."""
        try:
            float(str(value))
        except ValueError:
            decimal = as_decimal(str(value))
            advice = "" if decimal is None else f" Write a point for the comma: {decimal:g}."
            self.fail(f"A positive number was expected, found {str(value)!r}.{advice}", param, ctx)
        return float(super().convert(value, param, ctx))


class WholeNumber(click.IntRange):
    """A whole number of ``least`` or more."""

    def __init__(self, least: int, most: int | None = None) -> None:
        super().__init__(min=least, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fail on other text."""
        try:
            int(str(value))
        except ValueError:
            self.fail(f"A whole number of {self.min:g} or more was expected, found {str(value)!r}.", param, ctx)
        return int(super().convert(value, param, ctx))


class Window(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of spots, auto or none, as text."""

    name = "window"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fail on any other."""
        if not (value.isdigit() and int(value) > 0) and value not in ("auto", "none"):
            self.fail(f"A number of spots, auto or none was expected, found {value!r}.", param, ctx)
        return value


POSITIVE = Number()
WHOLE = WholeNumber(1)
FROM_ZERO = WholeNumber(0)
SEED = WholeNumber(0, LARGEST_SEED)
