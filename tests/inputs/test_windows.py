"""Sections in windows: predictions, predictions in a file, training."""

from __future__ import annotations

import inspect
from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch

from sthggep import HGGEP, datasets, pl, tl
from sthggep._inputs import _windows as _windowed
from sthggep._inputs._compute import Compute
from sthggep._inputs._inputs import Inputs
from sthggep._slides._resolve import resolve_one
from sthggep._training._presets import PRESETS
from sthggep.model._forward import Quantities, predict_windows
from sthggep.nn import FeatureHGGEPNet, HGGEPNet

QUIET = {"show_progress_bar": False, "device": "cpu"}
FIT = {"obsm": "X_mine", "n_members": 2, "max_epochs": 4, **QUIET}


def toy(seed: int):
    slide = datasets.toy(seed=seed, size_um=(3000.0, 3000.0), mpp=8.0, pitch_um=150.0, n_genes=8)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


@pytest.fixture(scope="module")
def sections() -> list[anndata.AnnData]:
    return [toy(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def quick(sections) -> HGGEP:
    """Networks that read neighbors and hyperedges; they and the shortcut both contribute."""
    default = PRESETS["default"]
    recipe = replace(default.recipe, shares=(0.25,))
    attentive = replace(default, recipe=recipe, net={**default.net, "depth": 1})
    model = tl.fit(sections[:2], genes=list(sections[0].var_names), preset=attentive, **FIT)
    assert model.members[0].hops == ("hyperedges", "hyperedges", "neighbors")
    for member in model.members:
        member.blend.fill_(0.5)
    return model


@pytest.fixture
def slide(sections) -> anndata.AnnData:
    return sections[2].copy()


def predict_in_windows(model, slide, **options):
    """Join the predictions of all windows; also return the spots of each window."""
    parts = predict_windows(
        model.ensemble,
        resolve_one(slide),
        quantities=Quantities(latent=True),
        encoder=None,
        compute=Compute(torch.device("cpu"), 8),
        **options,
    )
    rows, predictions = zip(*parts, strict=True)
    back = np.argsort(np.concatenate(rows))
    assert np.concatenate(rows)[back].tolist() == list(range(slide.n_obs))
    return [
        np.concatenate(kind)[back] for kind in ([p.expression for p in predictions], [p.latent for p in predictions])
    ], rows


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize("window", [60, 150])
def test_windows_do_not_change_predictions(quick, slide, window):
    (whole, latent), _ = predict_in_windows(quick, slide, window=None)
    (prediction, embedding), rows = predict_in_windows(quick, slide, window=window)
    assert len(rows) == -(-slide.n_obs // window)
    assert max(map(len, rows)) <= window
    np.testing.assert_allclose(embedding, latent, atol=2e-5)
    np.testing.assert_allclose(prediction, whole, atol=2e-5)


def test_windows_do_not_change_predictions_on_a_denser_array(quick, slide, monkeypatch):
    """Spots denser than those of the training are split into several coarser arrays that are not connected."""
    monkeypatch.setattr(quick, "training", replace(quick.training, pitch_um=[300.0]))
    (whole, latent), _ = predict_in_windows(quick, slide, window=None)
    (prediction, embedding), rows = predict_in_windows(quick, slide, window=40)
    assert len(rows) == 8
    np.testing.assert_allclose(embedding, latent, atol=2e-5)
    np.testing.assert_allclose(prediction, whole, atol=2e-5)
    array = slide.obs[["array_x", "array_y"]].to_numpy()
    assert all(len(np.unique(array[part] % 2, axis=0)) == 1 for part in rows)


def test_difference_falls_with_the_halo(quick, slide):
    (_, latent), _ = predict_in_windows(quick, slide, window=None)
    off = []
    for halo in range(len(quick.members[0].hops) + 1):
        (_, embedding), _ = predict_in_windows(quick, slide, window=60, halo=halo)
        off.append(np.abs(embedding - latent).max())
    assert off[0] > off[1] > off[2] > 100 * off[3]


def test_statistics_are_those_of_the_whole_section(quick, slide):
    """A window on its own has other statistics, and other predictions."""
    (whole, _), _ = predict_in_windows(quick, slide, window=None)
    _, rows = predict_in_windows(quick, slide, window=60)
    window = slide[rows[0]].copy()
    (by_itself, _), _ = predict_in_windows(quick, window, window=None)
    assert np.abs(by_itself - whole[rows[0]]).max() > 0.1 * whole.std(axis=0).max()


@pytest.fixture
def passes(monkeypatch):
    """For each forward pass: the number of spots, and whether it is a window (the statistics of its section come with it)."""
    records, forward = [], FeatureHGGEPNet.forward
    signature = inspect.signature(forward)

    def spy(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs).arguments
        records.append((len(arguments["neighbors"]), arguments.get("statistics") is not None))
        return forward(*args, **kwargs)

    monkeypatch.setattr(FeatureHGGEPNet, "forward", spy)
    return records


def test_a_section_that_fits_into_a_window_is_read_whole(quick, slide, passes):
    whole, at_limit, automatic, below_limit = (slide.copy() for _ in range(4))
    tl.predict(whole, quick, window=None, **QUIET)
    tl.predict(at_limit, quick, window=slide.n_obs, **QUIET)
    tl.predict(automatic, quick, **QUIET)
    assert passes == [(slide.n_obs, False)] * 3 * len(quick.members)
    np.testing.assert_array_equal(at_limit.obsm["hggep"], whole.obsm["hggep"])
    np.testing.assert_array_equal(automatic.obsm["hggep"], whole.obsm["hggep"])
    # A window with room for one spot less does not hold the section
    passes.clear()
    tl.predict(below_limit, quick, window=slide.n_obs - 1, **QUIET)
    assert [is_window for _, is_window in passes] == [True, True] * len(quick.members)
    assert max(n for n, _ in passes) < slide.n_obs


def test_describe_slide_joins_the_windows(quick, slide):
    section = resolve_one(slide)
    whole = quick.describe_slide(section, latent=True, window=None, device="cpu")
    prediction = quick.describe_slide(section, latent=True, window=70, device="cpu")
    np.testing.assert_allclose(prediction.latent, whole.latent, atol=2e-5)
    assert prediction.counts is None
    np.testing.assert_array_equal(quick.predict_slide(section, window=70, device="cpu"), prediction.expression)


@pytest.mark.parametrize(
    ("window", "fault"), [(0, "positive whole number"), ("all", "Unknown window 'all'"), (-3, "positive")]
)
def test_invalid_windows_are_refused(quick, slide, window, fault):
    with pytest.raises(ValueError, match=fault):
        tl.predict(slide, quick, window=window, **QUIET)
    assert "hggep" not in slide.obsm


def test_networks_on_patches_use_windows_only_on_request(slide, monkeypatch):
    monkeypatch.setattr(_windowed, "WINDOW", 15)
    torch.manual_seed(0)
    net = HGGEPNet(3, dim=32, depth=1, heads=2, hypergraph_dim=16, fusion_layers=1)
    model = HGGEP([net], ["A", "B", "C"], Inputs("patches"))
    few = slide[:40].copy()
    whole, automatic = few.copy(), few.copy()
    tl.predict(whole, model, window=None, **QUIET)
    tl.predict(automatic, model, **QUIET)
    np.testing.assert_array_equal(automatic.obsm["hggep"], whole.obsm["hggep"])
    with pytest.warns(UserWarning, match="attends over.*the result differs"):
        tl.predict(few, model, window=15, **QUIET)
    assert np.isfinite(few.obsm["hggep"]).all()
    assert np.abs(few.obsm["hggep"] - whole.obsm["hggep"]).max() > 0


# ---------------------------------------------------------------- to a file


@pytest.mark.parametrize("ending", ["zarr", "h5ad"])
def test_out_holds_the_same_as_obsm(quick, slide, tmp_path, ending):
    in_memory = slide.copy()
    tl.predict(in_memory, quick, latent=True, window=100, **QUIET)
    path = tmp_path / f"predicted.{ending}"
    images = slide.uns["spatial"]["toy3"]["images"]["hires"].copy()
    tl.predict(slide, quick, latent=True, window=100, out=path, **QUIET)
    assert "hggep" not in slide.obsm
    assert slide.uns["hggep"]["path"] == str(path)
    np.testing.assert_array_equal(slide.uns["spatial"]["toy3"]["images"]["hires"], images)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    stored = anndata.read_zarr(path) if ending == "zarr" else anndata.read_h5ad(path)
    np.testing.assert_array_equal(stored.X, in_memory.obsm["hggep"])
    np.testing.assert_array_equal(stored.obsm["X_hggep"], in_memory.obsm["X_hggep"])
    np.testing.assert_array_equal(stored.obsm["spatial"], in_memory.obsm["spatial"])
    assert stored.var_names.tolist() == quick.genes
    assert stored.obs_names.equals(in_memory.obs_names)
    assert stored.uns["hggep"]["model"] == quick.id
    assert "images" not in stored.uns["spatial"]["toy3"]
    # Scores, tables and figures read the prediction from the file
    np.testing.assert_allclose(tl.evaluate(slide)["pearson"], tl.evaluate(in_memory)["pearson"], rtol=1e-9)
    out = tl.to_adata(slide)
    assert hasattr(out.X, "dask")
    np.testing.assert_array_equal(out.to_memory().X, in_memory.obsm["hggep"])
    np.testing.assert_array_equal(np.asarray(out.obsm["X_hggep"]), in_memory.obsm["X_hggep"])
    figure = pl.gene_map(slide, quick.genes[0])
    np.testing.assert_array_equal(figure.axes[2].collections[0].get_array(), in_memory.obsm["hggep"][:, 0])


def test_out_replaces_an_earlier_prediction_and_is_replaced(quick, slide, tmp_path):
    tl.predict(slide, quick, latent=True, **QUIET)
    before = slide.obsm["hggep"].copy()
    tl.predict(slide, quick, out=tmp_path / "a.zarr", **QUIET)
    assert "hggep" not in slide.obsm
    assert "X_hggep" not in slide.obsm
    tl.predict(slide, quick, **QUIET)
    np.testing.assert_array_equal(slide.obsm["hggep"], before)
    assert "path" not in slide.uns["hggep"]


def test_out_is_refused_before_work_starts(quick, slide, tmp_path, monkeypatch):
    monkeypatch.setattr("sthggep.model._forward.predict_windows", lambda *a, **k: pytest.fail("work has started"))
    (tmp_path / "there.zarr").mkdir()
    for name, error, fault in (
        ("there.zarr", FileExistsError, "exists already"),
        ("x.csv", ValueError, r"must end in \.zarr or \.h5ad"),
        ("no/x.zarr", FileNotFoundError, "there is no folder"),
    ):
        with pytest.raises(error, match=fault):
            tl.predict(slide, quick, out=tmp_path / name, **QUIET)
    assert "hggep" not in slide.uns


def test_a_fault_leaves_no_file(quick, slide, tmp_path, monkeypatch):
    def broken(model, slide, **options):
        parts = predict_windows(model, slide, **options)
        yield next(parts)
        raise RuntimeError

    monkeypatch.setattr("sthggep.model._forward.predict_windows", broken)
    with pytest.raises(RuntimeError):
        tl.predict(slide, quick, out=tmp_path / "a.zarr", window=50, **QUIET)
    assert list(tmp_path.iterdir()) == []
    assert "hggep" not in slide.uns


def test_a_file_is_read_by_spot_name_and_a_missing_one_is_refused(quick, slide, tmp_path):
    path = tmp_path / "a.zarr"
    tl.predict(slide, quick, out=path, **QUIET)
    np.testing.assert_array_equal(tl.to_adata(slide[10:40]).X, tl.to_adata(slide).X[10:40])
    path.rename(tmp_path / "b.zarr")
    with pytest.raises(FileNotFoundError, match=r"a\.zarr, which does not exist"):
        tl.evaluate(slide)


# ---------------------------------------------------------------- training


def to_genes(net) -> torch.Tensor:
    """Weights of the shortcut for each gene, since programs may change their sign."""
    return (net.shortcut.weight * net.programs.damp) @ net.programs.loadings


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def largest_pass(passes) -> tuple[int, set[bool]]:
    """The most spots of a forward pass since the last call, and whether the passes are windows."""
    result = max(n for n, _ in passes), {is_window for _, is_window in passes}
    passes.clear()
    return result


def test_training_in_windows(sections, quick, passes, networks):
    genes, n_obs = quick.genes, [slide.n_obs for slide in sections[:2]]
    windowed = tl.fit(sections[:2], genes=genes, window=150, **FIT)
    most, is_window = largest_pass(passes)
    assert most < min(n_obs)
    assert is_window == {True}
    whole = tl.fit(sections[:2], genes=genes, window=None, **FIT)
    assert largest_pass(passes) == (max(n_obs), {False})
    a, b = (tl.predict(sections[2], model, copy=True, **QUIET).obsm["hggep"] for model in (windowed, whole))
    r = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]
    assert np.median(r) > 0.95
    # The closed form uses the same spots: windows change it only through the share of the outliers
    first, second = windowed.members[0], whole.members[0]
    np.testing.assert_allclose(first.programs.mean, second.programs.mean, rtol=1e-5)
    np.testing.assert_allclose(first.scale[0].spread, second.scale[0].spread, rtol=1e-4)
    assert relative(to_genes(first), to_genes(second)) < 0.02


def test_fine_tuning_in_windows(sections, quick, passes):
    options = {name: value for name, value in FIT.items() if name not in ("obsm", "n_members")}
    child = tl.fit(sections[2], model=quick, window=150, validation=None, **options)
    most, is_window = largest_pass(passes)
    assert most < sections[2].n_obs
    assert is_window == {True}
    whole = tl.fit(sections[2], model=quick, window=None, validation=None, **options)
    assert largest_pass(passes) == (sections[2].n_obs, {False})
    first, second, before = (to_genes(model.members[0]) for model in (child, whole, quick))
    assert relative(first, second) < 0.02 < relative(first, before)
