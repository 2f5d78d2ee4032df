"""The runner of HEST-Bench on tiny folders in its layout: what is read, the probe, both scores."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import pearsonr

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "hest_bench.py"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="The benchmarks are not in this copy.")
GENES = ["G1", "G2", "G3"]
SECTIONS = {"S1": 12, "S2": 14, "S3": 16}


@pytest.fixture
def hest(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hest_bench", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hest_bench", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two tasks: patches whose gray level and red-green difference decide G1 and G2; G3 is noise."""
    for number, name in enumerate(("IDC", "PRAD")):
        make_task(tmp_path / name, np.random.default_rng(number))
    return tmp_path


def make_task(task: Path, rng: np.random.Generator) -> None:
    for folder in ("splits", "patches", "adata"):
        (task / folder).mkdir(parents=True)
    (task / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
    for name, n in SECTIONS.items():
        barcodes = np.array([f"{name}-{i}" for i in range(n)])
        gray, color = rng.integers(60, 200, n), rng.integers(-40, 40, n)
        images = np.repeat(gray[:, None, None, None], 224, axis=1).repeat(224, axis=2).repeat(3, axis=3)
        images[..., 0] += color[:, None, None]
        with h5py.File(task / "patches" / f"{name}.h5", "w") as file:
            file["img"] = images.astype(np.uint8)
            file["barcode"] = barcodes[:, None].astype("S")
            file["coords"] = np.zeros((n, 2), dtype=int)
        rate = np.column_stack([gray, 3 * color + 130, np.full(n, 40), np.full(n, 9)])
        adata = ad.AnnData(
            sparse.csr_matrix(rng.poisson(rate).astype(np.float32)),
            obs=pd.DataFrame(index=barcodes),
            var=pd.DataFrame(index=["G1", "G2", "G3", "OTHER"]),
        )
        # other order and more spots than there are patches
        more = ad.concat([adata[rng.permutation(n)], ad.AnnData(np.ones((1, 4), np.float32), var=adata.var)])
        more.obs_names = [*more.obs_names[:-1], "no patch"]
        more.write_h5ad(task / "adata" / f"{name}.h5ad")
    for fold, tests in enumerate((["S1"], ["S2", "S3"])):
        for role, names in {"train": [s for s in SECTIONS if s not in tests], "test": tests}.items():
            table = pd.DataFrame({"sample_id": names})
            table["patches_path"] = [f"patches/{name}.h5" for name in names]
            table["expr_path"] = [f"adata/{name}.h5ad" for name in names]
            table.to_csv(task / "splits" / f"{role}_{fold}.csv")


def channels(patches: np.ndarray) -> np.ndarray:
    """Mean of each channel, and a constant: three features that matter, and one that does not."""
    means = patches.mean(axis=(1, 2))
    return np.column_stack([means, np.ones(len(means))])


def test_a_task_by_hand(hest, root):
    task = root / "IDC"
    scores = hest.run_task(task, hest.Probe(), channels, None)
    assert scores["score"].value_counts().to_dict() == {"pooled": 2 * 3, "per section": 3 * 3}
    by_hand = {}
    for name in SECTIONS:
        with h5py.File(task / "patches" / f"{name}.h5") as file:
            barcodes = [code.decode() for code in file["barcode"][:, 0]]
            features = channels(file["img"][:])
        counts = ad.read_h5ad(task / "adata" / f"{name}.h5ad")[barcodes, GENES].X
        by_hand[name] = features, np.log1p(counts.toarray() if sparse.issparse(counts) else counts)
    x, y = (np.concatenate([by_hand["S2"][i], by_hand["S3"][i]]) for i in (0, 1))
    x_test, y_test = by_hand["S1"]
    mean, spread = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    z, z_test = (x - mean) / spread, (x_test - mean) / spread
    # all four components are kept: a rotation, which ridge does not see; y is not centered
    weights = np.linalg.solve(z.T @ z + 100 / (4 * 3) * np.eye(4), z.T @ y)
    expected = [pearsonr(a, b).statistic for a, b in zip((z_test @ weights).T, y_test.T, strict=True)]
    pooled = scores.query("fold == 0 and score == 'pooled'")["pearson"]
    np.testing.assert_allclose(pooled, expected, atol=1e-3)
    one = scores.query("fold == 0 and section == 'S1'")["pearson"]
    np.testing.assert_allclose(one, pooled, err_msg="with one test section both are the same")
    assert pooled.iloc[0] > 0.9


def test_pooled_scores_reward_sections_that_differ(hest):
    """A feature that tells sections apart, and nothing within them."""
    rng = np.random.default_rng(0)

    def section(name: str, level: float) -> object:
        return hest.Sample(name, level + rng.normal(0, 0.1, (50, 2)), level + rng.normal(0, 0.1, (50, 1)))

    train = [section("a", 0.0), section("b", 4.0)]
    test = [section("c", 0.0), section("d", 4.0)]
    predicted = hest.Probe().predict(train, test)
    measured = [sample.expression for sample in test]
    assert hest.correlations(np.concatenate(predicted), np.concatenate(measured)) > 0.95
    own = np.concatenate(hest.Probe().predict(train, train))
    assert abs(own.mean()) < 0.01, "there is no intercept, and features are centered"
    assert max(abs(hest.correlations(p, m)[0]) for p, m in zip(predicted, measured, strict=True)) < 0.4


def test_the_probe_takes_an_alpha_and_no_reduction(hest, root):
    plain = hest.run_task(root / "IDC", hest.Probe(), channels, None)["pearson"]
    whole = hest.run_task(root / "IDC", hest.Probe(components=0), channels, None)["pearson"]
    np.testing.assert_allclose(plain, whole, atol=1e-3)
    one = hest.run_task(root / "IDC", hest.Probe(components=1), channels, None)["pearson"]
    strong = hest.run_task(root / "IDC", hest.Probe(alpha=1e4), channels, None)["pearson"]
    assert np.abs(one - plain).max() > 0.01
    assert np.abs(strong - plain).max() > 0.001


def test_the_command_prints_a_row_a_task_and_keeps_features(hest, root, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(hest, "make_encoder", lambda *args: made.append(args) or channels)
    options = ["--root", str(root), "--embeddings", str(tmp_path / "kept"), "--encoder", "mine"]
    table = hest.main([*options, "--out", str(tmp_path / "scores.csv")])
    assert list(table.index) == ["IDC", "PRAD", "mean"]
    assert table["folds"].tolist()[:2] == [2, 2]
    np.testing.assert_allclose(table.loc["mean", "pooled"], table["pooled"].iloc[:2].mean())
    scores = pd.read_csv(tmp_path / "scores.csv", keep_default_na=False)
    of_fold = scores.query("task == 'IDC' and score == 'per section'").groupby(["fold", "section"])["pearson"].mean()
    expected = of_fold.groupby("fold").mean().mean()
    assert table.loc["IDC", "per section"] == pytest.approx(expected)
    assert "mean Pearson correlation" in capsys.readouterr().out
    assert (tmp_path / "kept" / "IDC" / "mine" / "S1.h5").exists()
    assert len(made) == 1
    again = hest.main([*options, "--tasks", "PRAD"])
    assert len(made) == 1, "kept features need no encoder"
    np.testing.assert_allclose(again.loc["PRAD", "pooled"], table.loc["PRAD", "pooled"])


def test_an_encoder_of_the_package(hest, root):
    encode = hest.make_encoder("shufflenet_he", None, "cpu")
    with h5py.File(root / "IDC" / "patches" / "S1.h5") as file:
        features = encode(file["img"][:2])
    assert features.shape == (2, 1360)
    assert np.abs(features[0] - features[1]).max() > 0


def test_errors(hest, root):
    task = root / "IDC"
    with pytest.raises(FileNotFoundError, match="layout of HEST-Bench"):
        hest.splits(task / "patches")
    with pytest.raises(KeyError, match="lacks 1 of the patches' barcodes and 1 of the genes"):
        hest.read_expression(task / "adata" / "S1.h5ad", ["S1-0", "no"], ["G1", "no"])
    with h5py.File(task / "patches" / "small.h5", "w") as file:
        file["img"], file["barcode"] = np.zeros((2, 112, 112, 3), np.uint8), np.array(["a", "b"], dtype="S")
    with pytest.raises(ValueError, match="patches of 224"):
        hest.embed(task / "patches" / "small.h5", None, channels)
    table = pd.read_csv(task / "splits" / "train_0.csv")
    table.to_csv(task / "splits" / "test_0.csv")
    with pytest.raises(ValueError, match=r"trained on and tested: \['S2', 'S3'\]"):
        hest.splits(task)
    table.drop(columns="expr_path").to_csv(task / "splits" / "train_0.csv")
    with pytest.raises(KeyError, match="'expr_path'"):
        hest.splits(task)
