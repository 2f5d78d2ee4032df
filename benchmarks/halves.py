"""Halves of a Visium section: train on one, predict the other.

    python benchmarks/halves.py --root $STHGGEP_DATA/visium --write    # three sections, into docs/benchmarks_visium.md
    python benchmarks/halves.py --slide whole_100_genes.h5ad
    python benchmarks/halves.py --slide mouse_embryo --image mouse_embryo/fullres_3000px.jpg    # a folder of Space Ranger
    python benchmarks/halves.py --slide scores.h5ad --targets all

Training spots have x below the median, tested are the others; then the other way round; then y. The closed form alone
(`n_members=0`), and with `--networks` the default preset from left to right. The panel is that of the training half. The
tissue is encoded once, unless `--cached` without the cache of features. `--sizes` asks for other fields of view. With `--root` each section
has a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from accuracy import into_page
from measure import memory

import sthggep

PAGE = "benchmarks_visium.md"
SECTIONS = {
    "mouse brain": ["--slide", "mouse_brain/whole_100_genes.h5ad"],
    "mouse embryo": ["--slide", "mouse_embryo", "--image", "mouse_embryo/fullres_3000px.jpg"],
    "glioblastoma": ["--slide", "glioblastoma/scores.h5ad", "--targets", "all"],
}
DIRECTIONS = {"left → right": (0, 1), "right → left": (0, -1), "top → bottom": (1, 1), "bottom → top": (1, -1)}
INTERVAL = 0.9


def main() -> None:
    """Run one section, or all three and make the tables."""
    options = _options()
    warnings.simplefilter("ignore")
    if not options.cached:
        os.environ.pop("STHGGEP_FEATURE_CACHE", None)  # times are those of the encoding
    if options.root is None:
        result = _run(options)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result))
        print(_accuracy({str(options.slide): result}), _cost({str(options.slide): result}), sep="\n\n")
        return
    folder = options.out or Path("halves-output")
    results = {name: _apart(options, name, folder / f"{name}.json") for name in SECTIONS}
    for name, text in {"halves": _accuracy(results), "cost": _cost(results)}.items():
        print(text, flush=True)
        if options.write:
            into_page(name, text, PAGE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    slide = parser.add_mutually_exclusive_group(required=True)
    slide.add_argument("--slide", type=Path, help="an AnnData file, or a folder of Space Ranger (squidpy)")
    slide.add_argument("--root", type=Path, help="folder of the three sections")
    parser.add_argument("--image", type=Path, default=None, help="full-resolution image of a folder")
    parser.add_argument(
        "--targets", default=None, help="a key of obsm, or 'all': the columns of obs that hold fractions"
    )
    parser.add_argument("--sizes", type=float, nargs="+", default=[80.0, 160.0, 320.0, 640.0])
    parser.add_argument("--mpp", type=float, default=None, help="microns per full-resolution pixel; else by the array")
    parser.add_argument(
        "--cached", action="store_true", help="features from $STHGGEP_FEATURE_CACHE, without their times"
    )
    parser.add_argument("--networks", action="store_true", help="the default preset, too, from left to right")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="JSON file for the figures of one section; with --root, a folder that keeps those of finished sections",
    )
    parser.add_argument("--write", action="store_true", help="put the tables of --root into the docs")
    return parser.parse_args()


def _apart(options: argparse.Namespace, name: str, out: Path) -> dict[str, Any]:
    """Run one of the sections in a process of its own."""
    words = [str(options.root / word) if "/" in word or word == "mouse_embryo" else word for word in SECTIONS[name]]
    words += (
        ["--networks"] * options.networks
        + ["--cached"] * options.cached
        + ["--sizes", *map(str, options.sizes), "--out", str(out)]
    )
    if not out.is_file():
        print(f"{name} …", flush=True)
        subprocess.run([sys.executable, __file__, *words], check=True)
    return dict(json.loads(out.read_text()))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Encode the section, and learn each half."""
    whole, targets = _read(options.slide, options.image), None
    if options.targets is not None:
        targets = [name for name in whole.obs if whole.obs[name].dtype.kind == "f"]
        targets = targets if options.targets == "all" else options.targets
    places = {"mpp": options.mpp, "show_progress_bar": False}
    fit = {"size_um": tuple(options.sizes), "targets": targets, **places}
    encoding: dict[str, float] = {}
    with _timed(encoding, "encode"):
        sthggep.pp.features(whole, size_um=fit["size_um"], encoding="tissue", flips=False, **places)
    rows = [_half(whole, name, fit, places, 0) for name in DIRECTIONS]
    if options.networks:
        rows.append(_half(whole, next(iter(DIRECTIONS)), fit, places, None))
    cost = {} if options.cached else encoding
    return {"rows": rows, "spots": whole.n_obs, **cost, "peak": memory("VmHWM")}


def _half(
    whole: anndata.AnnData, name: str, fit: dict[str, Any], places: dict[str, Any], n_members: int | None
) -> dict[str, Any]:
    """Train on a half and score the other."""
    axis, sign = DIRECTIONS[name]
    x = whole.obsm["spatial"][:, axis]
    train = (x < np.median(x)) == (sign > 0)
    row: dict[str, Any] = {"name": name}
    with _timed(row, "fit"):
        model = sthggep.tl.fit(whole[train].copy(), n_members=n_members, **fit)
    test = whole[~train].copy()
    with _timed(row, "predict"):
        sthggep.tl.predict(test, model, interval=INTERVAL, **places)
    scores = sthggep.tl.evaluate(test)
    row |= {"by": "closed form" if model.is_closed_form else "with networks", "preset": n_members is None}
    ceiling = float(scores["ceiling"].mean()) if "ceiling" in scores else float("nan")
    row |= {"spots": int(train.sum()), "genes": len(scores), "ceiling": ceiling}
    row["pearson"] = float(scores["pearson"].fillna(0).mean())
    row["coverage"] = float(scores["coverage"].median())
    print(row, flush=True)
    return row


@contextmanager
def _timed(row: dict[str, Any], name: str) -> Iterator[None]:
    """Note time and processor time of a block, in seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    yield
    row[name], row[f"{name} cpu"] = time.perf_counter() - start, time.process_time() - cpu


def _read(path: Path, image: Path | None) -> anndata.AnnData:
    """Read an AnnData file or a folder of Space Ranger."""
    if path.is_file():
        return anndata.read_h5ad(path)
    import squidpy

    whole = squidpy.read.visium(path, library_id=path.name, source_image_path=image)
    whole.var_names_make_unique()
    return whole


def _accuracy(results: dict[str, dict[str, Any]]) -> str:
    """The table of scores: a row a half."""
    lines = [
        "| section | trained on → predicted | predicts by | genes | Pearson | ceiling | of the ceiling | coverage of 90 % intervals |",
        "|" + "---|" * 8,
    ]
    for name, result in results.items():
        for row in result["rows"]:
            by = f"default preset: {row['by']}" if row["preset"] else row["by"]
            numbers = [row["pearson"], row["ceiling"], row["pearson"] / row["ceiling"], row["coverage"]]
            cells = [name, row["name"], by, str(row["genes"]), *map(_number, numbers, (3, 3, 2, 2))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cost(results: dict[str, dict[str, Any]]) -> str:
    """The table of processor times and memory: a row a section."""
    steps = ["encode", "fit", "predict"]
    head = "| section | spots | encode the tissue | fit on a half | predict the other half, with intervals | networks | peak memory |"
    lines = [head, "|" + "---|" * 7]
    for name, result in results.items():
        rows = [row for row in result["rows"] if not row["preset"]]
        times = [
            result.get("encode cpu", np.nan),
            *(np.mean([row[f"{step} cpu"] for row in rows]) for step in steps[1:]),
        ]
        preset = [row["fit cpu"] for row in result["rows"] if row["preset"]]
        cells = [name, f"{result['spots']:,}", *("–" if np.isnan(each) else f"{each:.0f} s" for each in times)]
        cells += [f"{preset[0]:.0f} s" if preset else "–", f"{result['peak']:.1f} GB"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float, digits: int) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}".lstrip("0")


if __name__ == "__main__":
    main()
