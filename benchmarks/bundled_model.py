"""Train the model that comes with the package, on all her2st sections with H&E.

python benchmarks/bundled_model.py --root $STHGGEP_DATA/her2st --panel panel_her2.txt --out src/sthggep/_bundled/her2st
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from anndata import AnnData

import sthggep
from sthggep._table._counts import read_panel_counts

SECTIONS = ("B4", "C2", "C3", "C4", "C5")
# Asked for by name in breast cancer, whether the panel file has them or not
MARKERS = {
    "PAM50 (Parker et al. 2009)": "ACTR3B ANLN BAG1 BCL2 BIRC5 BLVRA CCNB1 CCNE1 CDC20 CDC6 CDH3 CENPF CEP55 CXXC5 EGFR ERBB2 ESR1 EXO1 FGFR4 FOXA1 "
    "FOXC1 GPR160 GRB7 KIF2C KRT14 KRT17 KRT5 MAPT MDM2 MELK MIA MKI67 MLPH MMP11 MYBL2 MYC NAT1 NDC80 NUF2 ORC6 PGR PHGDH "
    "PTTG1 RRM2 SFRP1 SLC39A6 TMEM45B TYMS UBE2C UBE2T",
    "the HER2 amplicon": "STARD3 PGAP3 MIEN1",
    "epithelium": "EPCAM KRT7 KRT8 KRT18 KRT19 CDH1 MUC1 GATA3 AR CD24 SCGB2A2 AGR2 TFF1 TFF3 XBP1",
    "stroma and vessels": "COL1A1 COL1A2 COL3A1 DCN LUM POSTN FN1 SPARC VIM ACTA2 FAP PDGFRB PECAM1 VWF VEGFA",
    "fat": "ADIPOQ PLIN1 FABP4",
    "immune cells": "PTPRC CD3D CD3E CD4 CD8A MS4A1 CD79A JCHAIN IGKC IGHG1 CD68 CD163 NKG7 GZMB FOXP3 CXCL9 CXCL10 CXCL13 HLA-A HLA-B HLA-DRA B2M",
    "division": "TOP2A PCNA STMN1",
}
LEAST_DETECTED = 0.1  # share of the spots: of rarer genes there is next to nothing to learn


def markers(slides: Sequence[AnnData]) -> list[str]:
    """Markers that every section lists and enough spots show."""
    named = sorted({gene for genes in MARKERS.values() for gene in genes.split()})
    listed = [gene for gene in named if all(gene in slide.var_names for slide in slides)]
    shown = sum((read_panel_counts(slide, listed) > 0).sum(axis=0) for slide in slides) / sum(
        slide.n_obs for slide in slides
    )
    return [gene for gene, share in zip(listed, shown, strict=True) if share >= LEAST_DETECTED]


def main() -> None:
    """Train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None)
    parser.add_argument("--sections", nargs="+", default=SECTIONS)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--members", type=int, default=0, help="networks beside the closed form")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # spots that stand in one table only
    slides = [sthggep.datasets.her2st(section, root=options.root) for section in options.sections]
    published = options.panel.read_text().split()
    panel = list(dict.fromkeys([*published, *markers(slides)]))
    print(
        f"{len(published)} genes of the panel file, {len(panel) - len(published)} markers more: {panel[len(published) :]}"
    )
    start = time.perf_counter()
    model = sthggep.tl.fit(slides, genes=panel, n_members=options.members, show_progress_bar=False)
    print(f"tl.fit: {time.perf_counter() - start:.0f} s")
    print(model)
    model.save(options.out, overwrite=True)
    for file in sorted(options.out.iterdir()):
        print(file, f"{file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
