"""A small picture of each notebook for the front page, from the outputs that the notebook holds."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

FOLDER = "_thumbnails"
WIDTH, HEIGHT, MARGIN = 720, 360, 8
USUAL = "pl.gene_map("
# The call whose figure stands for a notebook, where it is not the first map of a gene
CALLS = {
    "downstream_analysis": "sc.pl.umap(",
    "spatialdata_visium": "pl.patches(",
    "train_and_cross_validate": "pl.cross_validation(",
}


def figures(notebook: Path) -> list[tuple[str, Image.Image]]:
    """Return the figures of a notebook, each with the source of its cell."""
    return [
        ("".join(cell["source"]), Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))))
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def thumbnail(notebook: Path) -> Image.Image:
    """Return the figure that stands for a notebook, without its margins, on white of the shape of a card."""
    pictures = figures(notebook)
    if not pictures:
        msg = f"Expected a figure among the outputs of {notebook.name}, found none: run `make notebooks`."
        raise ValueError(msg)
    call = CALLS.get(notebook.stem, USUAL)
    picture = next((picture for source, picture in pictures if call in source), pictures[-1][1])
    opaque = Image.new("RGB", picture.size, "white")
    opaque.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    inked = opaque.crop(ImageChops.difference(opaque, Image.new("RGB", opaque.size, "white")).getbbox())
    scale = min((WIDTH - 2 * MARGIN) / inked.width, (HEIGHT - 2 * MARGIN) / inked.height)
    small = inked.resize((round(inked.width * scale), round(inked.height * scale)), Image.Resampling.LANCZOS)
    card = Image.new("RGB", (WIDTH, HEIGHT), "white")
    card.paste(small, ((WIDTH - small.width) // 2, (HEIGHT - small.height) // 2))
    return card


def write(docs: Path) -> list[Path]:
    """Write the thumbnails of all notebooks into a folder of the documentation, and return their paths."""
    folder = docs / FOLDER
    folder.mkdir(exist_ok=True)
    paths = []
    for notebook in sorted((docs / "notebooks").glob("*.ipynb")):
        paths.append(folder / f"{notebook.stem}.png")
        thumbnail(notebook).save(paths[-1], optimize=True)
    return paths


def setup(app: Any) -> dict[str, bool]:
    """Make the thumbnails before pages are read."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    return {"parallel_read_safe": True}
