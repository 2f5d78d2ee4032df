"""Colors, fonts and the output folder that all drawings share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch
from PIL import Image

FOLDER = Path(__file__).parents[1] / "_static" / "drawings"
INK, GRAY, PALE = "#22313f", "#7b8794", "#eef1f4"
BLUE, ORANGE, GREEN, PURPLE = "#2a6fb0", "#d9772b", "#3d8f5f", "#7d5ba6"

mpl.use("agg")
mpl.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.edgecolor": GRAY,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "svg.hashsalt": "sthggep",  # the same drawing always makes the same file
        "savefig.facecolor": "white",
    }
)


def save(fig: Any, script: str, kind: str = "png", *, colors: int | None = None, **options: Any) -> None:
    """Write the drawing under the name of its script; a PNG with `colors` colors is a quarter as large."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    path = FOLDER / f"{Path(script).stem}.{kind}"
    fig.savefig(path, bbox_inches="tight", pad_inches=0.08, metadata=metadata, **{"dpi": 130, **options})
    plt.close(fig)
    if colors is not None:
        with Image.open(path) as picture:
            few = picture.convert("RGBA").quantize(colors, method=Image.Quantize.FASTOCTREE)
        few.save(path, optimize=True)


def image_of(adata: Any) -> np.ndarray:
    """Return the image of a section at its highest resolution."""
    images = next(iter(adata.uns["spatial"].values()))["images"]
    return np.asarray(images.get("fullres", images["hires"]))


def bare(ax: Any) -> Any:
    """Remove ticks and frame from the axes, and return it."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def box(ax: Any, xy: tuple[float, float], size: tuple[float, float], text: str, **options: Any) -> None:
    """Draw a rounded box with text, by its center and its size."""
    color, fill, fontsize = options.get("color", INK), options.get("fill", PALE), options.get("fontsize", 8.5)
    x, y = xy[0] - size[0] / 2, xy[1] - size[1] / 2
    ax.add_patch(
        FancyBboxPatch((x, y), *size, boxstyle="round,pad=0,rounding_size=0.08", fc=fill, ec=color, lw=1.2, zorder=2)
    )
    ax.text(*xy, text, ha="center", va="center", fontsize=fontsize, zorder=3, linespacing=1.25)


def arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], color: str = GRAY, **options: Any) -> None:
    """Draw an arrow from one place to another."""
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, **options}
    ax.annotate("", end, start, arrowprops=style, zorder=1)
