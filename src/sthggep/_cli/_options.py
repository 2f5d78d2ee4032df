"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import click

from sthggep._cli._command import RUN, Option
from sthggep._cli._config import read_config
from sthggep._cli._types import FROM_ZERO, POSITIVE, SEED, WHOLE, Window

F = TypeVar("F", bound=Callable[..., object])
FILE = click.Path(path_type=Path)
TRAINING, INPUTS, PLACES = "Training", "Inputs of the model", "Places in the slides"


class Decorator(Protocol):
    """Adds an option to the function of a command."""

    def __call__(self, function: F, /) -> F:
        """Return the function with the option."""


def option(*names: str, heading: str = "Options", **settings: object) -> Decorator:
    """An option under a heading."""
    return click.option(*names, cls=Option, heading=heading, **settings)


def combine(*options: Decorator) -> Decorator:
    """Several options, in this order."""

    def add(function: F) -> F:
        for decorate in reversed(options):
            function = decorate(function)
        return function

    return add


LAYER = "Layer of the raw counts. If not given: the first of X, the layers counts and raw_counts, and raw that holds raw counts."
slides = click.argument("slides", nargs=-1, required=True, type=FILE, metavar="SLIDES...")

layer = option("--layer", heading=PLACES, help=LAYER)
library_key = option("--library-key", heading=PLACES, help="Column of obs that names the section of each spot.")
table_key = option("--table-key", heading=PLACES, default="table", help="Table of a SpatialData.")
shapes_key = option("--shapes-key", heading=PLACES, help="Spots of a SpatialData; needed if it has several kinds.")
spatial_key = option(
    "--spatial-key", heading=PLACES, default="spatial", help="Key in obsm of the (x, y) of the spots, of an AnnData."
)
fullres = option(
    "--fullres-image",
    multiple=True,
    type=FILE,
    heading=PLACES,
    metavar="IMAGE",
    help="Image at full resolution of a folder of Space Ranger among SLIDES, which holds none; repeated for each such folder, "
    "in their order.",
)
images = combine(
    option("--image-key", heading=PLACES, help="Name of the image; needed if there are several."),
    option("--coordinate-system", heading=PLACES, help="Coordinate system of a SpatialData."),
    option(
        "--mpp",
        type=POSITIVE,
        heading=PLACES,
        help="Microns per full-resolution pixel of all slides. If not given: the slide's metadata, else its spot pitch.",
    ),
)
spots = combine(library_key, table_key, shapes_key, spatial_key)

genes = option(
    "--genes",
    multiple=True,
    help="Text file with one gene a line, or names separated by commas. May be repeated.",
)
measured = combine(
    option(
        "--measured",
        metavar="COLUMN",
        help="Column of obs that is true for the spots whose counts may be used, of a partly measured slide.",
    ),
    option("--min-counts", type=WHOLE, default=1, help="Fewest counts of the panel in a measured spot."),
)
panel = combine(
    option(
        "--genes",
        multiple=True,
        help="Text file with one gene a line, or names separated by commas. May be repeated. Or the word union: slides that "
        "lack genes teach those that they hold.",
    ),
    option(
        "--absent",
        type=click.Choice(["refuse", "mask"]),
        default="refuse",
        help="Slides that lack genes of --genes: refuse them, or mask the genes that they lack.",
    ),
)
targets = option(
    "--targets",
    heading=TRAINING,
    metavar="KEY|obs:COLUMN,…",
    help="Targets to predict instead of genes: a key of obsm, or columns of obs (obs:score,purity).",
)
preset = option(
    "--preset",
    type=click.Choice(["default", "paper"]),
    default="default",
    heading=TRAINING,
    help="default: trains on frozen image features, in minutes on a laptop. paper: the published network, trained end to "
    "end; needs a GPU.",
)
training = combine(
    option(
        "--n-members",
        type=FROM_ZERO,
        heading=TRAINING,
        help="Most networks to average; 0 solves the closed form alone. If not given: the preset's.",
    ),
    option("--max-epochs", type=WHOLE, heading=TRAINING, help="Largest number of epochs. If not given: the preset's."),
    option("--learning-rate", type=POSITIVE, heading=TRAINING, help="Learning rate. If not given: the preset's."),
    option(
        "--expression",
        multiple=True,
        type=FILE,
        heading=TRAINING,
        help="Extra slide whose counts alone the training uses, to learn gene programs; it needs no image. May be repeated.",
    ),
    option(
        "--seed",
        type=SEED,
        default=0,
        heading=TRAINING,
        help="Seed of the training; the same seed gives the same model.",
    ),
)
features = combine(
    option("--encoder", heading=INPUTS, help="Image encoder instead of the preset's, such as shufflenet."),
    option(
        "--size-um",
        type=POSITIVE,
        multiple=True,
        heading=INPUTS,
        help="Field of view in µm instead of the preset's. May be repeated.",
    ),
    option(
        "--encoding",
        type=click.Choice(["patches", "tissue"]),
        heading=INPUTS,
        help="How the encoder reads the image: the patch of each spot, or the tissue once, in large tiles. If not given: the preset's.",
    ),
    option(
        "--flips/--no-flips",
        default=None,
        heading=INPUTS,
        help="Average over all turns and flips of the tissue (or over four flips of patches), so that a slide that is turned "
        "gets the same prediction. If not given: the preset's.",
    ),
    option(
        "--stain",
        type=click.Choice(["reinhard", "macenko"]),
        heading=INPUTS,
        help="Method that normalizes the stain of each slide to the mean of the training slides.",
    ),
    option("--weights", heading=INPUTS, help="Weights of the encoder: a file, a folder, or random."),
    option(
        "--obsm", multiple=True, heading=INPUTS, help="Your own features: a key in obsm of each slide. May be repeated."
    ),
)
compute = combine(
    option("--device", heading=RUN, default="auto", help="Device: auto, cpu, gpu, cuda or mps."),
    option("--batch-size", heading=RUN, type=WHOLE, default=64, help="Number of patches to encode at a time."),
)


def check_device(device: str) -> None:
    """Refuse a device that is not there, before slides are read; ``auto`` needs no check, nor the time to load torch."""
    if device not in ("auto", "cpu"):
        from sthggep._device import resolve_device

        resolve_device(device)


window = option(
    "--window",
    heading=RUN,
    type=Window(),
    default="auto",
    metavar="N|auto|none",
    help="Number of spots of a section to process at a time, which bounds memory. none: whole sections.",
)
run = combine(
    option(
        "--config",
        heading=RUN,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        callback=read_config,
        metavar="YAML",
        help="File of options by their long names, and `slides`. Options on the command line override it.",
    ),
    option(
        "--write-config",
        heading=RUN,
        type=FILE,
        metavar="YAML",
        help="Write the options to a file for --config, and run nothing.",
    ),
    option("--quiet", "-q", heading=RUN, is_flag=True, help="Show warnings and errors only."),
    option(
        "--verbose", "-v", heading=RUN, is_flag=True, help="Also show the options and the lines of other libraries."
    ),
    option("--debug", heading=RUN, is_flag=True, help="Show the traceback of an error."),
)
