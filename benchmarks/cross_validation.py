"""Hold out patients or sections by `tl.cross_validate`, and print the mean Pearson correlation of each method and section.

python benchmarks/cross_validation.py --root $STHGGEP_DATA/her2st --panel panel_her2.txt --group patient
python benchmarks/cross_validation.py --dataset mob --root $STHGGEP_DATA/mob --sections MOB1 MOB3 --group section
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import sthggep


def main() -> None:
    """Run all folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="her2st")
    parser.add_argument("--sections", nargs="+", default=["B4", "C2", "C3", "C4", "C5"])
    parser.add_argument("--root", default=None)
    parser.add_argument("--panel", type=Path, default=None, help="gene list; else a panel is chosen in each fold")
    parser.add_argument("--group", default="patient")
    parser.add_argument("--out", type=Path, default=None, help="folder that finished folds are kept in")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    slides = [getattr(sthggep.datasets, options.dataset)(name, root=options.root) for name in options.sections]
    results = sthggep.tl.cross_validate(
        slides,
        genes=options.panel.read_text().split() if options.panel else None,
        group_key=options.group,
        out=options.out,
        show_progress_bar=False,
    )
    shown = results[results["metric"].isin(["pearson", "ceiling"])]
    table = shown.pivot_table(index="method", columns="section", values="value")
    table["mean"] = table.mean(axis=1)
    print(table.to_string(float_format="%.3f"))
    print(results.attrs["folds"])


if __name__ == "__main__":
    main()
