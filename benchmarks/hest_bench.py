"""HEST-Bench: how well frozen features of patches predict 50 genes, on folders in its layout.

    python benchmarks/hest_bench.py --root bench_data --tasks IDC PRAD --encoder shufflenet_he --out hest_bench.csv

The layout: a folder a task with ``splits/train_<k>.csv`` and ``splits/test_<k>.csv`` (columns ``sample_id``,
``patches_path``, ``expr_path``, relative to the task), ``patches/<sample>.h5`` (``img``: uint8 patches of 224 px at
.5 µm/px, ``barcode``), ``adata/<sample>.h5ad`` (raw counts) and ``var_50genes.json`` (``genes``).

The protocol, as the code of HEST 1.1 has it: patches are encoded without flips; features are standardized and reduced to 256
principal components of the training spots; ridge without intercept, ``alpha = 100 / (components × genes)``, predicts
``log(1 + counts)`` of the 50 genes, which are not divided by the spot's total. Two scores stand side by side:

- *pooled*, HEST's own: correlation over all test spots of a fold, whatever section they are from; mean over genes, then folds;
- *per section*: correlation within each test section; mean over genes, then over sections of a fold, then folds.

The published tables differ in the reduction: their README has 256 components, Table A13 of the paper none (``--components 0``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from sthggep._device import resolve_device
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._table._matrix import as_dense
from sthggep._table._scores import column_pearson

PATCH_PX, COMPONENTS, GENES = 224, 256, "var_50genes.json"
SPLIT_COLUMNS = ["sample_id", "patches_path", "expr_path"]
Encode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One section: features and log(1 + counts) of the same spots."""

    name: str
    features: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class Probe:
    """The regression on frozen features; ``None`` stands for the rule of HEST."""

    components: int = COMPONENTS
    alpha: float | None = None
    seed: int = 1

    def predict(self, train: Sequence[Sample], test: Sequence[Sample]) -> list[np.ndarray]:
        """Fit on the training sections, predict each test section."""
        x, y = (np.concatenate(parts) for parts in zip(*((s.features, s.expression) for s in train), strict=True))
        scaler = StandardScaler().fit(x)
        reduce = scaler.transform
        if self.components:
            pca = PCA(min(self.components, *x.shape), random_state=self.seed).fit(scaler.transform(x))
            reduce = lambda values: pca.transform(scaler.transform(values))
        x = reduce(x)
        alpha = 100 / (x.shape[1] * y.shape[1]) if self.alpha is None else self.alpha
        ridge = Ridge(alpha, fit_intercept=False, solver="lsqr", max_iter=1000, random_state=self.seed).fit(x, y)
        return [ridge.predict(reduce(sample.features)).reshape(len(sample.features), -1) for sample in test]


def splits(task: Path) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The training and the test sections of each fold."""
    files = sorted((task / "splits").glob("train_*.csv"), key=lambda path: int(path.stem.split("_")[1]))
    if not files:
        msg = f"{task} holds no splits/train_<number>.csv: expected a task in the layout of HEST-Bench."
        raise FileNotFoundError(msg)
    folds = []
    for file in files:
        pair = [pd.read_csv(file.with_name(file.name.replace("train", role, 1))) for role in ("train", "test")]
        for table in pair:
            if absent := [column for column in SPLIT_COLUMNS if column not in table]:
                msg = f"{file.parent}: the columns {absent} are missing in the splits, found {list(table.columns)}."
                raise KeyError(msg)
        if both := set(pair[0]["sample_id"]) & set(pair[1]["sample_id"]):
            msg = f"{file}: sections that are trained on and tested: {sorted(both)}."
            raise ValueError(msg)
        folds.append((pair[0], pair[1]))
    return folds


def read_text(values: np.ndarray) -> list[str]:
    """Names as HDF5 holds them: bytes, in one column."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.asarray(values).ravel()]


def embed(patches: Path, kept: Path | None, encode: Encode, batch: int = 64) -> tuple[np.ndarray, list[str]]:
    """Features and barcodes of a section: those kept in a file as HEST writes it, else encoded and kept there."""
    if kept is not None and kept.exists():
        with h5py.File(kept) as file:
            return file["embeddings"][:], read_text(file["barcodes"][:])
    with h5py.File(patches) as file:
        images, barcodes = file["img"], read_text(file["barcode"][:])
        if images.shape[1:] != (PATCH_PX, PATCH_PX, 3):
            msg = (
                f"{patches}: patches of {PATCH_PX} × {PATCH_PX} pixels in RGB were expected, found {images.shape[1:]}."
            )
            raise ValueError(msg)
        features = np.concatenate([encode(images[i : i + batch]) for i in range(0, len(barcodes), batch)])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(kept, "w") as file:
            file["embeddings"], file["barcodes"] = features, np.array(barcodes, dtype="S")
    return features, barcodes


def make_encoder(name: str, weights: str | None, device: str) -> Encode:
    """A function that encodes patches without flips, resized where the encoder reads another size."""
    frozen = FrozenEncoder(name, weights, resolve_device(device))
    side = frozen.entry.size_px

    def encode(patches: np.ndarray) -> np.ndarray:
        if side != PATCH_PX:
            size = (side, side)
            resized = [Image.fromarray(patch).resize(size, Image.Resampling.BICUBIC) for patch in patches]
            patches = np.stack([np.asarray(patch) for patch in resized])
        return frozen(patches, flips=False)

    return encode


def lazily(make: Callable[[], Encode]) -> Encode:
    """An encoder that is made when it is first called: kept features need none."""
    made = cache(make)
    return lambda patches: made()(patches)


def read_expression(path: Path, barcodes: Sequence[str], genes: Sequence[str]) -> np.ndarray:
    """log(1 + counts) of some spots and genes."""
    adata = anndata.read_h5ad(path)
    rows, columns = adata.obs_names.get_indexer(barcodes), adata.var_names.get_indexer(genes)
    if (rows < 0).any() or (columns < 0).any():
        msg = f"{path} lacks {(rows < 0).sum()} of the patches' barcodes and {(columns < 0).sum()} of the genes."
        raise KeyError(msg)
    return np.log1p(as_dense(adata.X[rows][:, columns]).astype(np.float64))


def correlations(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Correlation of each gene; where one of both is constant it counts as 0."""
    return np.nan_to_num(column_pearson(predicted, measured))


def run_task(task: Path, probe: Probe, encode: Encode, kept: Path | None, genes_file: str = GENES) -> pd.DataFrame:
    """Score all folds of a task: a row a fold and gene with the pooled score, and a row a test section and gene."""
    genes = json.loads((task / genes_file).read_text())["genes"]
    folds, samples = splits(task), {}
    for row in pd.concat([table for pair in folds for table in pair]).drop_duplicates("sample_id").itertuples():
        name = str(row.sample_id)
        features, barcodes = embed(task / str(row.patches_path), None if kept is None else kept / f"{name}.h5", encode)
        samples[name] = Sample(name, features, read_expression(task / str(row.expr_path), barcodes, genes))
    rows = []
    for number, (train_table, test_table) in enumerate(folds):
        train, test = ([samples[str(name)] for name in table["sample_id"]] for table in (train_table, test_table))
        predicted = probe.predict(train, test)
        pooled = correlations(np.concatenate(predicted), np.concatenate([sample.expression for sample in test]))
        scored = {"": pooled} | {
            sample.name: correlations(values, sample.expression) for sample, values in zip(test, predicted, strict=True)
        }
        for section, values in scored.items():
            how = "per section" if section else "pooled"
            columns = {"task": task.name, "fold": number, "score": how, "section": section, "gene": genes}
            rows.append(pd.DataFrame({**columns, "pearson": values}))
    return pd.concat(rows, ignore_index=True)


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over genes, then sections, then folds of each task; the last row is the mean over tasks."""
    by_section = scores.groupby(["task", "score", "fold", "section"], sort=False)["pearson"].mean()
    by_fold = by_section.groupby(["task", "score", "fold"], sort=False).mean()
    table = by_fold.groupby(["task", "score"], sort=False).mean().unstack("score")[["pooled", "per section"]]
    table["folds"] = by_fold.groupby(["task", "score"], sort=False).size().unstack("score")["pooled"]
    mean = table[["pooled", "per section"]].mean().rename("mean").to_frame().T
    return pd.concat([table, mean]).rename_axis("task") if len(table) > 1 else table


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--tasks", nargs="+", help="default: all folders with splits")
    parser.add_argument("--encoder", default="shufflenet_he", help="name in sthggep.pp.encoders()")
    parser.add_argument("--weights", help="weights of the encoder")
    parser.add_argument(
        "--embeddings", type=Path, help="folder <task>/<encoder>/<sample>.h5 to keep features in, as HEST's"
    )
    parser.add_argument("--components", type=int, default=COMPONENTS, help="0: no reduction")
    parser.add_argument("--alpha", type=float, help="default: 100 / (components × genes)")
    parser.add_argument("--genes", default=GENES, help="file of the genes in each task")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV of all scores, a row a fold (or section) and gene")
    options = parser.parse_args(arguments)
    names = options.tasks or sorted(path.parent.name for path in options.root.glob("*/splits"))
    encode = lazily(lambda: make_encoder(options.encoder, options.weights, options.device))
    probe = Probe(options.components, options.alpha, options.seed)
    parts = []
    for name in names:
        kept = None if options.embeddings is None else options.embeddings / name / options.encoder
        parts.append(run_task(options.root / name, probe, encode, kept, options.genes))
        print(summarize(parts[-1]).round(4).to_string(header=len(parts) == 1), flush=True)
    scores = pd.concat(parts, ignore_index=True)
    if options.out is not None:
        scores.to_csv(options.out, index=False)
    table = summarize(scores)
    print(f"\n{options.encoder}, mean Pearson correlation\n{table.round(4).to_string()}")
    return table


if __name__ == "__main__":
    main()
