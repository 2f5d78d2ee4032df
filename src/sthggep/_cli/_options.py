"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sthggep._cli._command import RUN, Option
from sthggep._cli._config import read_config

Decorator = Callable[[Any], Any]
FILE = click.Path(path_type=Path)
TRAINING, LOOK, WHERE = "Training", "What is looked at", "Where things are in the slides"


def option(*names: str, heading: str = "Options", **rest: Any) -> Decorator:
    """An option under a heading."""
    return click.option(*names, cls=Option, heading=heading, **rest)


def together(*options: Decorator) -> Decorator:
    """Several options, in this order."""

    def add(function: Any) -> Any:
        for one in reversed(options):
            function = one(function)
        return function

    return add


class WindowType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A number of spots, auto or none; kept as it is written."""

    name = "window"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse all else."""
        if not (value.isdigit() and int(value) > 0) and value not in ("auto", "none"):
            self.fail(f"{value!r} is not a number of spots, auto or none.", param, ctx)
        return value


slides = click.argument("slides", nargs=-1, required=True, type=FILE, metavar="SLIDES...")

layer = option("--layer", heading=WHERE, help="Layer of the raw counts; X if not given.")
library_key = option("--library-key", heading=WHERE, help="Column of obs that tells the sections of a slide apart.")
table_key = option("--table-key", heading=WHERE, default="table", help="Table of a SpatialData.")
shapes_key = option("--shapes-key", heading=WHERE, help="Spots of a SpatialData, where there are several kinds.")
spatial_key = option("--spatial-key", heading=WHERE, default="spatial", help="Key in obsm of the (x, y) of the spots.")
images = together(
    option("--image-key", heading=WHERE, help="Image, where there are several."),
    option("--coordinate-system", heading=WHERE, help="Coordinate system of a SpatialData."),
    option(
        "--mpp",
        type=float,
        heading=WHERE,
        help="Microns per full-resolution pixel, of all slides. If not given: the slide's metadata, else its spot pitch.",
    ),
)
spots = together(library_key, table_key, shapes_key, spatial_key)

genes = option(
    "--genes",
    multiple=True,
    help="Text file with a gene a line, or names with commas between them. May be repeated.",
)
targets = option(
    "--targets",
    heading=TRAINING,
    metavar="KEY|obs:COLUMN,…",
    help="Learn these instead of genes: a key of obsm, or columns of obs (obs:score,purity).",
)
preset = option(
    "--preset",
    type=click.Choice(["default", "paper"]),
    default="default",
    heading=TRAINING,
    help="default: on frozen image features, minutes on a laptop. paper: as published, end to end, for a GPU.",
)
training = together(
    option("--n-members", type=int, heading=TRAINING, help="Networks that are averaged; else as the preset says."),
    option("--max-epochs", type=int, heading=TRAINING, help="Epochs at most; else as the preset says."),
    option("--learning-rate", type=float, heading=TRAINING, help="Step size; else as the preset says."),
    option(
        "--expression",
        multiple=True,
        type=FILE,
        heading=TRAINING,
        help="Further slide whose counts alone are learned from: which genes rise and fall together. May be repeated.",
    ),
    option("--seed", type=int, default=0, heading=TRAINING, help="The same seed gives the same model."),
)
look = together(
    option("--encoder", heading=LOOK, help="Image encoder instead of the preset's, such as shufflenet."),
    option(
        "--size-um",
        type=float,
        multiple=True,
        heading=LOOK,
        help="Field of view in µm instead of the preset's. May be repeated.",
    ),
    option(
        "--stain",
        type=click.Choice(["reinhard", "macenko"]),
        heading=LOOK,
        help="Bring each slide's stain to the mean of the training slides'.",
    ),
    option("--weights", heading=LOOK, help="Weights of the encoder: a file, a folder, or random."),
    option(
        "--obsm", multiple=True, heading=LOOK, help="Features of your own: key in obsm of each slide. May be repeated."
    ),
)
compute = together(
    option("--device", heading=RUN, default="auto", help="auto, cpu, cuda, mps."),
    option("--batch-size", heading=RUN, type=int, default=64, help="Patches encoded at a time."),
)
window = option(
    "--window",
    heading=RUN,
    type=WindowType(),
    default="auto",
    metavar="N|auto|none",
    help="Spots of a section at a time, which bounds memory. none: whole sections.",
)
run = together(
    option(
        "--config",
        heading=RUN,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        callback=read_config,
        metavar="YAML",
        help="File of options by their long names, and `slides`. What is typed here wins over it.",
    ),
    option(
        "--write-config",
        heading=RUN,
        type=FILE,
        metavar="YAML",
        help="Write the options to a file for --config, and stop.",
    ),
    option("--quiet", "-q", heading=RUN, is_flag=True, help="Warnings and errors only."),
    option("--verbose", "-v", heading=RUN, is_flag=True, help="What other libraries say, too."),
    option("--debug", heading=RUN, is_flag=True, help="Show where an error comes from (a traceback)."),
)


def several(values: Sequence[Any]) -> list[Any] | None:
    """A repeated option as the functions take it: ``None`` where it was not given."""
    return list(values) or None


def window_of(text: str) -> int | str | None:
    """A number of spots, ``"auto"``, or ``None`` for whole sections."""
    return int(text) if text.isdigit() else None if text == "none" else text
