"""Does a predicted map show the tissue's structure? Clusters against labels, and smoothness, of held-out sections.

    python benchmarks/structure.py --root $STHGGEP_DATA --panel panel_her2.txt --write   # some minutes on two cores

Each section is predicted by a model of the other four, as in the first table of docs/benchmarks.md. `tl.agreement` clusters what was predicted,
what was measured, and the bare coordinates (k-means, the number of clusters by the silhouette, labels not looked at), and compares each
with the data set's own labels, which were made from the counts. Moran's I by `tl.evaluate(moran=True)`, median over genes.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pandas as pd
from accuracy import DOCS, HER2ST, into_page, markdown, sections

import sthggep

LABELS = "cluster"
SHOWN = "C2"  # the first of those with sections of their own patient in training


def held_out(slides: list, panel: list[str] | None) -> None:
    """Predict each section by a model of the others."""
    for slide in slides:
        others = [other for other in slides if other is not slide]
        model = sthggep.tl.fit(others, genes=panel, show_progress_bar=False)
        sthggep.tl.predict(slide, model, show_progress_bar=False)


def row(slide: object) -> dict[str, float]:
    """Agreement and smoothness of one section."""
    found = sthggep.tl.agreement(slide, labels_key=LABELS)
    genes = sthggep.tl.evaluate(slide, moran=True)
    agreement = {f"{score.upper()} {of}": found.loc[of, score] for score in ("ari", "nmi") for of in found.index}
    smooth = {f"Moran's I {of}": genes[f"moran_{of}"].median() for of in ("predicted", "expected", "observed")}
    return agreement | smooth


def main() -> None:
    """Make the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with her2st/")
    parser.add_argument("--panel", type=Path, default=None, help="gene list; else a panel is chosen by each model")
    parser.add_argument("--out", type=Path, default=Path("structure-output"), help="folder for table and figure")
    parser.add_argument("--write", action="store_true", help="put both into the docs instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    panel = options.panel.read_text().split() if options.panel else None
    slides = sections("her2st", HER2ST, options.root, ("shufflenet_he",))
    held_out(slides, panel)
    table = pd.DataFrame({name: row(slide) for name, slide in zip(HER2ST, slides, strict=True)})
    table["mean"] = table.mean(axis=1)
    print(markdown(table, "sections held out"))
    folder = DOCS / "_static" if options.write else options.out
    folder.mkdir(parents=True, exist_ok=True)
    sthggep.pl.agreement(slides[HER2ST.index(SHOWN)], save=folder / "structure.png")
    table.to_csv((DOCS / "_tables" if options.write else folder) / "structure.csv", float_format="%.4f")
    if options.write:
        into_page("structure", markdown(table, "sections held out"))


if __name__ == "__main__":
    main()
