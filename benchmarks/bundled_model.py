"""Train the model that comes with the package, on all her2st sections with H&E.

python benchmarks/bundled_model.py --root $STHGGEP_DATA/her2st --panel panel_her2.txt --out src/sthggep/_bundled/her2st
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import sthggep

SECTIONS = ("B4", "C2", "C3", "C4", "C5")


def main() -> None:
    """Train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None)
    parser.add_argument("--sections", nargs="+", default=SECTIONS)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--members", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # spots that stand in one table only
    slides = [sthggep.datasets.her2st(section, root=options.root) for section in options.sections]
    panel = options.panel.read_text().split()
    model = sthggep.tl.fit(slides, genes=panel, n_members=options.members, show_progress_bar=False)
    print(model)
    print("share of the networks:", [float(member.blend) for member in model.members])
    model.save(options.out, overwrite=True)
    for file in sorted(options.out.iterdir()):
        print(file, f"{file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
