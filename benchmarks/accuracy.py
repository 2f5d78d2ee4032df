"""The tables of docs/benchmarks.md and its further pages, made again from real sections.

    python benchmarks/accuracy.py --root $STHGGEP_DATA --panel panel_her2.txt            # under an hour on two cores
    python benchmarks/accuracy.py --root $STHGGEP_DATA --panel panel_her2.txt --ablations # parts of the closed form
    python benchmarks/accuracy.py --root $STHGGEP_DATA --panel panel_her2.txt --stain     # the table of stain normalization
    python benchmarks/accuracy.py --root $STHGGEP_DATA --panel panel_her2.txt --encoding  # patches beside tissue encoded once
    python benchmarks/accuracy.py ... --write                                             # and put them into their page

Everything is held out by `sthggep.tl.cross_validate`: per-gene Pearson correlation within the held-out section, mean over genes, on
log10(1 + counts per 10,000 of the panel). Nothing sees the counts of the held-out section, the panel file of her2st excepted
(published; it was chosen on all sections). Finished folds are kept in --out, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import sthggep
from sthggep._encoders._cache import VARIABLE
from sthggep._training._presets import PRESETS, Preset

HER2ST = ("B4", "C2", "C3", "C4", "C5")
MOB = ("MOB1", "MOB3")
STAINS = (None, "reinhard", "macenko")
ENCODINGS: dict[str, dict[str, Any]] = {
    "patches, one network": {"encoding": "patches", "n_members": 1},
    "tissue, closed form alone": {"encoding": "tissue", "n_members": 0},
    "tissue, networks that earn a share": {"encoding": "tissue"},
}
DOCS = Path(__file__).parent.parent / "docs"
SHOWN = {
    "nearest_patch": "nearest patch",
    "ridge": "ridge, same features",
    "hggep": "**default preset**",
    "ceiling": "noise ceiling",
}


DEFAULT = PRESETS["default"]


def with_net(**changes: Any) -> Preset:
    """The default preset with another network."""
    return replace(DEFAULT, net={**DEFAULT.net, **changes})


def with_recipe(**changes: Any) -> Preset:
    """The default preset with another choice on held-out tissue."""
    return replace(DEFAULT, recipe=replace(DEFAULT.recipe, **changes))


# What is left out or changed of the closed form: the preset, and options of `cross_validate`
ABLATIONS: dict[str, tuple[Preset, dict[str, Any]]] = {
    "as it is": (DEFAULT, {}),
    "ImageNet weights instead of the adapted encoder": (DEFAULT, {"encoder": "shufflenet"}),
    "one field of view, 160 µm": (DEFAULT, {"size_um": 160.0}),
    "three fields of view, 160, 320 and 640 µm": (DEFAULT, {"size_um": (160.0, 320.0, 640.0)}),
    "no damping of the programs": (with_net(damping=0.0), {}),
    "penalty 1 everywhere, programs chosen": (with_recipe(penalties=(1.0,)), {}),
    "at most 4 programs instead of 12": (with_net(rank=4), {}),
}


def sections(dataset: str, names: tuple[str, ...], root: Path, encoders: tuple[str, ...]) -> list:
    """Sections with their image features, the full image let go."""
    found = []
    for name in names:
        slide = getattr(sthggep.datasets, dataset)(name, root=root / dataset)
        for encoder in encoders:
            inputs = PRESETS["default"].inputs
            options = {"flips": inputs.flips, "encoding": inputs.encoding}
            sthggep.pp.features(slide, encoder, size_um=inputs.sizes_um, show_progress_bar=False, **options)
        found.append(slide)
    return found


def counted(root: Path) -> list:
    """Counts of the her2st sections that are not looked at."""
    found = []
    for path in sorted((root / "her2st" / "data" / "ST-cnts").glob("*.tsv.gz")):
        name = path.name[:2]
        spots = root / "her2st" / "data" / "ST-spotfiles" / f"{name}_selection.tsv"
        if name not in HER2ST and spots.exists():
            found.append(sthggep.io.read_st(path, None, spots, patient=name[0], section=name))
    return found


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over genes, a row a method and a column a section."""
    shown = results[results["metric"].isin(["pearson", "ceiling"])]
    table = shown.pivot_table(index="method", columns="section", values="value")
    table["mean"] = table.mean(axis=1)
    return table


def markdown(table: pd.DataFrame, first: str) -> str:
    """A table of the page."""
    rows = [
        [name, *("–" if value != value else f"{value:.3f}".lstrip("0") for value in row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    lines = [[first, *map(str, table.columns)], ["---"] * (len(table.columns) + 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def into_page(name: str, text: str) -> None:
    """Replace a table of the documentation, between its marks, on the page that has it."""
    mark = f"<!-- table: {name} -->\n"
    (page,) = (page for page in DOCS.glob("benchmarks*.md") if mark in page.read_text())
    before, rest = page.read_text().split(mark, 1)
    _, after = rest.split("<!-- end -->", 1)
    page.write_text(f"{before}{mark}{text}\n<!-- end -->{after}")


class Run:
    """Runs of `cross_validate`, finished folds kept, tables printed and written."""

    def __init__(self, out: Path, write: bool, rows_wanted: Sequence[str] = tuple(ABLATIONS)) -> None:
        self.out, self.write, self.rows_wanted, self.rows = out, write, rows_wanted, []

    def table(self, name: str, slides: list, **options: Any) -> pd.DataFrame:
        """Mean Pearson correlation of each method and section."""
        start = time.perf_counter()
        results = sthggep.tl.cross_validate(slides, out=self.out / name, show_progress_bar=False, **options)
        table = summary(results)
        self.rows.append(table.rename_axis(columns="section").stack().rename("pearson").reset_index().assign(run=name))
        seconds = sum(fold["seconds"] for fold in results.attrs["folds"])
        print(
            f"\n{name}: {seconds:.0f} s in folds, {time.perf_counter() - start:.0f} s now\n{table.to_string(float_format='%.3f')}",
            flush=True,
        )
        return table

    def page(self, name: str, text: str) -> None:
        """Print a table, and put it into the page where asked."""
        print(text, flush=True)
        if self.write:
            into_page(name, text)


def main_tables(run: Run, root: Path, panel: list[str] | None) -> None:
    """Sections, patients and another organ held out."""
    slides, further = sections("her2st", HER2ST, root, ("shufflenet_he",)), counted(root)
    ours = {slide.obs["patient"].iloc[0] for slide in slides}
    elsewhere = [slide for slide in further if slide.obs["patient"].iloc[0] not in ours]
    for name, group, others in (("sections", "section", elsewhere), ("patients", "patient", further)):
        own = run.table(name, slides, group_key=group, genes=panel)
        with_counts = run.table(
            f"{name}-expression", slides, group_key=group, genes=panel, expression=others, baselines=()
        )
        table = own.loc[list(SHOWN)].rename(SHOWN)
        table.loc["**… and `expression=`**"] = with_counts.loc["hggep"]
        run.page(name, markdown(table, f"{group}s held out"))
    del slides, further
    table = run.table("mob", sections("mob", MOB, root, ("shufflenet_he",)), group_key="section")
    run.page("mob", markdown(table.loc[list(SHOWN)].rename(SHOWN), "animals held out"))


def ablation_table(run: Run, root: Path, panel: list[str] | None) -> None:
    """One part of the closed form changed at a time: sections, patients and animals held out."""
    encoders = dict.fromkeys(ABLATIONS[name][1].get("encoder", "shufflenet_he") for name in run.rows_wanted)
    breast, bulbs = (
        sections(dataset, names, root, tuple(encoders)) for dataset, names in (("her2st", HER2ST), ("mob", MOB))
    )
    of_c = [section for section in HER2ST if section != "B4"]
    rows = {}
    for at, (name, (preset, changes)) in enumerate(ABLATIONS.items()):
        if name not in run.rows_wanted:
            continue
        options: dict[str, Any] = {"baselines": (), "preset": preset, "n_members": 0, **changes}
        left, apart = (
            run.table(f"ablation-{at}-{group}", breast, group_key=group, genes=panel, **options)
            for group in ("section", "patient")
        )
        animals = run.table(f"ablation-{at}-mob", bulbs, group_key="section", **options)
        left, apart, animals = (table.loc["hggep"] for table in (left, apart, animals))
        rows[name] = [left["mean"], apart["B4"], apart[of_c].mean(), *animals[list(MOB)]]
    columns = ["sections held out, mean", "patients held out: B4", "C2–C5", "animals held out: MOB1", "MOB3"]
    run.page("ablations", markdown(pd.DataFrame(rows, index=columns).T, "closed form of the default preset"))


def stain_table(run: Run, root: Path, panel: list[str] | None) -> None:
    """Stain normalized or not; features are made anew in each fold."""
    inputs_table(run, root, panel, "stain", {str(stain): {"stain": stain, "n_members": 1} for stain in STAINS})


def encoding_table(run: Run, root: Path, panel: list[str] | None) -> None:
    """Patches in four flips beside tissue that is encoded once, in one view."""
    inputs_table(run, root, panel, "encoding", ENCODINGS)


def inputs_table(run: Run, root: Path, panel: list[str] | None, name: str, variants: dict[str, dict[str, Any]]) -> None:
    """Variants of the inputs: patients, animals and sections held out."""
    # The fold of B4 is the same whether sections or patients are held out
    os.environ.setdefault(VARIABLE, str(run.out / "features"))
    breast = [sthggep.datasets.her2st(name, root=root / "her2st") for name in HER2ST]
    bulbs = [sthggep.datasets.mob(name, root=root / "mob") for name in MOB]
    of_c = [section for section in HER2ST if section != "B4"]
    rows: dict[str, list[float]] = {}
    for number, (variant, changes) in enumerate(variants.items()):
        options: dict[str, Any] = {"baselines": (), **changes}
        apart, left = (
            run.table(f"{name}-{number}-{group}", breast, group_key=group, genes=panel, **options).loc["hggep"]
            for group in ("patient", "section")
        )
        rows[variant] = [apart["B4"], apart[of_c].mean(), left["mean"], *[float("nan")] * len(MOB)]
        if variant != "macenko":  # refused: what it takes for eosin in MOB3 is none
            animals = run.table(f"{name}-{number}-mob", bulbs, group_key="section", **options).loc["hggep"]
            rows[variant][-len(MOB) :] = animals[list(MOB)]
    columns = ["patients held out: B4", "C2–C5", "sections held out, mean", "animals held out: MOB1", "MOB3"]
    run.page(name, markdown(pd.DataFrame(rows, index=columns).T, name))


def main() -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with her2st/ and mob/")
    parser.add_argument(
        "--panel", type=Path, default=None, help="gene list for her2st; else a panel is chosen in each fold"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("accuracy-output"), help="folder for finished folds and the CSV"
    )
    parser.add_argument("--ablations", action="store_true", help="the ablation table instead of the main ones")
    parser.add_argument("--rows", nargs="+", choices=[*ABLATIONS], default=[*ABLATIONS], help="of the ablation table")
    parser.add_argument("--stain", action="store_true", help="the table of stain normalization alone")
    parser.add_argument("--encoding", action="store_true", help="the table of patches and tissue encoded once alone")
    parser.add_argument("--write", action="store_true", help="put the tables into their pages of docs and docs/_tables")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    panel = options.panel.read_text().split() if options.panel else None
    run, start = Run(options.out, options.write, options.rows), time.perf_counter()
    name, make = "accuracy", main_tables
    for other, table in (("stain", stain_table), ("encoding", encoding_table), ("ablations", ablation_table)):
        if getattr(options, other):
            name, make = other, table
    make(run, options.root, panel)
    folder = DOCS / "_tables" if options.write else options.out
    pd.concat(run.rows).to_csv(folder / f"{name}.csv", index=False, float_format="%.4f")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\n{time.perf_counter() - start:.0f} s in all, {time.process_time():.0f} s of processor time, peak memory {peak:.1f} GB; {folder / name}.csv"
    )


if __name__ == "__main__":
    main()
