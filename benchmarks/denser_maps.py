"""What a map between the spots recovers: on toy tissue, whose truth is known everywhere, and at spots left out of real tissue.

    python benchmarks/denser_maps.py                                       # toy tissue; no data is needed
    python benchmarks/denser_maps.py --root $STHGGEP_DATA/her2st --real C5 B4 # spots left out of real sections

Prints the numbers of docs/concepts/denser_maps.md. Some minutes on two cores each.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy.interpolate import RBFInterpolator

import sthggep
from sthggep.datasets import _toy_genes, _toy_tissue

SIZE_UM, MPP, N_GENES = 3000.0, 1.0, 24
SIZES_UM = (80, 160, 320, 640)
QUIET = {"show_progress_bar": False}


def draw(seed: int):
    slide = sthggep.datasets.toy(seed=seed, size_um=(SIZE_UM, SIZE_UM), mpp=MPP, n_genes=N_GENES)
    sthggep.pp.features(slide, size_um=SIZES_UM, **QUIET)
    return slide


def truth(seed: int, xy_um: np.ndarray) -> np.ndarray:
    """Expression of a toy section anywhere, on the scale of predictions."""
    tissue = _toy_tissue.grow(np.random.SeedSequence(seed).spawn(4)[0], (SIZE_UM, SIZE_UM))
    seen = _toy_tissue.measure(tissue, xy_um)
    return scale(_toy_genes.expected_counts(_toy_genes.gene_table(N_GENES), seen, 1.0, np.random.default_rng(0)))


def scale(counts: np.ndarray) -> np.ndarray:
    return np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))


def correlations(values: np.ndarray, true: np.ndarray, family: pd.Series) -> pd.Series:
    """Mean over the genes of each family, and over all that follow the tissue."""
    r = pd.Series([np.corrcoef(a, b)[0, 1] for a, b in zip(values.T, true.T, strict=True)], family.to_numpy())
    return pd.concat([r.groupby(level=0, sort=False).mean(), pd.Series({"all but NOISE": r.drop("NOISE").mean()})])


def left_out(names: list[str], root: str | None) -> None:
    """One spot in four is taken as measured; how well are the others' counts met, by the model and by interpolation?"""
    slides = {name: sthggep.datasets.her2st(name, root=root) for name in ("B4", "C2", "C3", "C4", "C5")}
    for slide in slides.values():
        sthggep.pp.features(slide, size_um=SIZES_UM, **QUIET)
    shared = set.intersection(*[set(slide.var_names) for slide in slides.values()])
    for name in names:
        test, train = slides[name], [slide for other, slide in slides.items() if other != name]
        genes = [gene for gene in sthggep.pp.gene_panel(train) if gene in shared]
        sthggep.tl.predict(test, sthggep.tl.fit(train, genes=genes, n_members=1, **QUIET), **QUIET)
        measured = scale(np.maximum(test[:, genes].X.toarray(), 0) + 1e-12)
        known = (test.obs[["array_x", "array_y"]] % 2 == 0).all(axis=1).to_numpy()
        spots, places = test.obsm["spatial"][known], test.obsm["spatial"][~known]
        predicted, counts = test.obsm["hggep"], measured[~known]
        found = {
            "the model": predicted[~known],
            "its prediction, interpolated": RBFInterpolator(spots, predicted[known], neighbors=12, kernel="linear")(
                places
            ),
            "counts, interpolated": RBFInterpolator(spots, measured[known], neighbors=12, kernel="linear")(places),
        }
        varies = (np.ptp(counts, axis=0) > 0) & (np.ptp(measured[known], axis=0) > 0)
        print(f"{name}: {known.sum()} spots known, {len(places)} left out, {varies.sum()} genes")
        for what, values in found.items():
            r = [np.corrcoef(a, b)[0, 1] for a, b in zip(values[:, varies].T, counts[:, varies].T, strict=True)]
            print(f"  {what}: {np.mean(r):.3f}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", help="folder of her2st; else $STHGGEP_DATA/her2st, or the download")
    options.add_argument("--real", nargs="+", metavar="SECTION", help="sections of her2st to leave spots out of")
    options.add_argument("--spacing", type=float, default=200 / 3, help="microns between pseudo-spots")
    options.add_argument("--train", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the training sections")
    options.add_argument("--test", type=int, default=7, help="seed of the held-out section")
    given = options.parse_args()
    if given.real:
        left_out(given.real, given.root)
        return

    train, test = [draw(seed) for seed in given.train], draw(given.test)
    model = sthggep.tl.fit(train, genes=list(test.var_names), n_members=3, **QUIET)
    sthggep.tl.predict(test, model, **QUIET)
    grid = sthggep.pp.tissue_grid(test, spacing_um=given.spacing)
    sthggep.pp.features(grid, size_um=SIZES_UM, **QUIET)
    sthggep.tl.predict(grid, model, **QUIET)
    model.training.pitch_um = []
    sthggep.tl.predict(grid, model, key_added="nearest", **QUIET)

    spots, places = test.obsm["spatial"] * MPP, grid.obsm["spatial"] * MPP
    between = np.linalg.norm(places[:, None] - spots[None], axis=2).min(axis=1) >= 60
    true = truth(given.test, places)[between]

    def interpolated(values: np.ndarray) -> np.ndarray:
        return RBFInterpolator(spots, values, neighbors=12, kernel="linear")(places[between])

    maps = {
        "the model's map": grid.obsm["hggep"][between],
        "the model's map, nearest neighbors": grid.obsm["nearest"][between],
        "the truth at the spots, interpolated": interpolated(truth(given.test, spots)),
        "the prediction at the spots, interpolated": interpolated(test.obsm["hggep"]),
        "the counts at the spots, interpolated": interpolated(scale(test.X.toarray())),
    }
    family = test.var["family"].astype(str)
    table = {name: correlations(values, true, family) for name, values in maps.items()}
    table["(the model at the spots)"] = correlations(test.obsm["hggep"], truth(given.test, spots), family)
    print(
        f"{between.sum()} of {grid.n_obs} places, every {given.spacing:.0f} µm, 60 µm or more from any of {len(spots)} spots"
    )
    print(pd.DataFrame(table).T.round(2).to_string())


if __name__ == "__main__":
    main()
