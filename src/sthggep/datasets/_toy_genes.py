"""The genes of the toy tissue: each follows one visible quantity, the same in every section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

SPECIES = 1729  # the genes hang on this and on their index, never on the seed of a section
DISPERSION = 0.1  # negative binomial: variance = mean + DISPERSION * mean²
LIBRARY_SIGMA = 0.3  # spread of the log library size
USUAL_SLOPE = 0.75  # middle of the range of slopes
NOISE_SIGMA = 0.4  # spread of the log rate of the genes that follow nothing


@dataclass(frozen=True)
class Family:
    """Genes that follow one quantity. ``center`` and ``spread`` are usual values of it, the same for all sections."""

    quantity: str  # a column of the morphology table; "" for none
    center: float = 0.0
    spread: float = 1.0
    abundance: float = 1.0


FAMILIES = {
    "NUCL": Family("nuclear", 0.20, 0.16),
    "PLEO": Family("size", 3.70, 0.38),
    "STRO": Family("fiber", 0.40, 0.40),
    "IMMU": Family("immune", 0.30, 0.33),
    "FAT": Family("fat", 0.08, 0.20),
    "NICH": Family("niche", 0.42, 0.22),
    "NOISE": Family(""),
    "RARE": Family("nuclear", 0.20, 0.16, abundance=0.004),
}


def gene_table(n_genes: int) -> pd.DataFrame:
    """Name, family, quantity, abundance and slope (log rate for one ``spread``) of the first genes of the species."""
    names = list(FAMILIES)
    rows = []
    for index in range(n_genes):
        rng = np.random.default_rng([SPECIES, index])
        family = names[index % len(names)]
        rows.append(
            {
                "name": f"{family}{index // len(names) + 1}",
                "family": family,
                "quantity": FAMILIES[family].quantity or "none",
                "abundance": FAMILIES[family].abundance * float(np.exp(0.6 * rng.standard_normal())),
                "slope": float(rng.uniform(0.5, 1.0)) if FAMILIES[family].quantity else 0.0,
            }
        )
    return pd.DataFrame(rows).set_index("name").rename_axis(None)


def expected_counts(
    genes: pd.DataFrame, morphology: pd.DataFrame, counts_per_spot: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Counts to expect of every gene in every spot, at library size 1.

    A spot has so much RNA to share: what one family gains, the others lose. Genes that follow nothing keep out of it,
    or else their part of the total would follow the tissue after all.
    """
    level = {
        name: np.clip((morphology[family.quantity].to_numpy() - family.center) / family.spread, -2.5, 2.5)
        for name, family in FAMILIES.items()
        if family.quantity
    }
    shared = [np.exp(USUAL_SLOPE * level[name]) for name in level if FAMILIES[name].abundance == 1]
    activity = np.mean(shared, axis=0)
    relative = np.empty((len(morphology), len(genes)))
    for column, (family, slope) in enumerate(zip(genes["family"], genes["slope"], strict=True)):
        # drawn for every gene, so that a gene does not change with how many others there are
        chance = np.exp(NOISE_SIGMA * rng.standard_normal(len(morphology)))
        relative[:, column] = np.exp(slope * level[family]) / activity if family in level else chance
    share = genes["abundance"].to_numpy() / genes["abundance"].sum()
    return np.asarray(counts_per_spot * share * relative, dtype=np.float32)


def draw_counts(
    expected: NDArray[np.float32], library: NDArray[np.float64], rng: np.random.Generator
) -> sparse.csr_matrix:
    """Negative binomial counts around the expected ones times the library size of the spot."""
    wobble = rng.gamma(1 / DISPERSION, DISPERSION, expected.shape)
    return sparse.csr_matrix(rng.poisson(expected * library[:, None] * wobble).astype(np.float32))
