"""The baseline of the benchmarks gives the same numbers as the package; and the arithmetic of the benchmarks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sthggep.nn import HGGEPNet

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {"dim": 64, "depth": 2, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 2, "precision": "float32"}
STILL = {"dropout": 0.0, "hypergraph_dropout": 0.0}


def load(name: str, monkeypatch) -> ModuleType:
    """Import a file of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def baseline(monkeypatch):
    return load("baseline", monkeypatch)


@pytest.fixture
def section():
    """Patches, positions with a spot on its own, expression, counts."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.divmod(np.arange(30), 6), axis=1).astype(float)
    xy[-1] = 40.0
    shade = np.linspace(50, 256, 30)[:, None, None, None]
    patches = torch.from_numpy((rng.random((30, 3, 112, 112)) * rng.random((30, 3, 1, 1)) * shade).astype(np.uint8))
    counts = torch.from_numpy(rng.poisson(2, (30, 7)).astype(np.float32))
    return patches, xy, torch.log1p(counts), counts


def network(**options) -> HGGEPNet:
    torch.manual_seed(0)
    net = HGGEPNet(7, **(SMALL | options))
    generator = torch.Generator().manual_seed(1)
    for name, value in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return net


@torch.no_grad()
def test_plain_network_predicts_the_same(baseline, section):
    net, (patches, xy, *_) = network().eval(), section
    output, plain = net(patches, xy), baseline.forward(net, patches, xy)
    for name in ("expression", "latent", "mean", "dispersion", "dropout"):
        torch.testing.assert_close(getattr(plain, name), getattr(output, name), rtol=1e-4, atol=1e-5)


def test_plain_neighbors_and_hyperedges_are_the_same(baseline, section):
    net, xy = network(), section[1]
    near, rows = baseline.neighbors(xy, 8), net.neighbors(xy).tolist()
    assert near == [[j for j in row if j >= 0] for row in rows]
    features = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    hyperedges = baseline.hyperedges(features, near, 4)
    assert torch.equal(hyperedges, net._hyperedges(features, net.neighbors(xy))[0])


def test_plain_training_step_has_the_same_loss_and_gradients(baseline, section):
    from sthggep._inputs._section import SectionWindow
    from sthggep._training._lightning import Training
    from sthggep._training._presets import PRESETS
    from sthggep.nn._section import PatchInputs

    patches, xy, target, counts = section
    nets = [network(**STILL).train() for _ in range(2)]
    mask = torch.ones(30, dtype=torch.bool)
    module = Training(nets[0], PRESETS["paper"].recipe, seed=3)
    module.log = module.log_dict = lambda *_, **__: None
    inputs = PatchInputs(patches, xy)
    window = SectionWindow.of_whole("A", inputs, target, counts, torch.ones(30), mask, ~mask)
    loss = module.training_step(window, 0)
    generator = torch.Generator().manual_seed(3)
    plain = baseline.training_loss(nets[1], patches, xy, target, counts, generator=generator)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    loss.backward()
    plain.backward()
    expected = dict(nets[1].named_parameters())
    for name, parameter in nets[0].named_parameters():
        if name.startswith(("heads", "fusion", "transformers.2")):
            error = (parameter.grad - expected[name].grad).norm() / expected[name].grad.norm()
            assert error < 1e-3, name


def test_ways_to_take_the_mean_of_hyperedges_give_the_same_numbers(monkeypatch):
    hyperconv = load("hyperconv", monkeypatch)
    sizes = {"n": 30, "stages": [6, 4], "genes": 3}
    for call in (hyperconv.convolution(30), hyperconv.prediction(**sizes), hyperconv.training_step(**sizes)):
        results = {}
        for name, way in hyperconv.WAYS.items():
            with hyperconv.mean_by(way):
                results[name] = call()
        expected = results.pop("sthggep")
        assert expected.abs().sum() > 0
        for name, other in results.items():
            torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-6, msg=name)


# ---------------------------------------------------------------- the report

RESULTS = {
    "machine": {"cpu": "Test", "cores": 2, "threads": 2, "torch": "2", "load": 0.0},
    "rates": {"float32": 100.0, "bfloat16": 250.0, "decode": 500.0},
    "precision": "bfloat16",
    "correlation": 0.99991,
    "import": {"anndata": 1.0, "sthggep": 1.25},
    "cases": {
        "forward": {
            "title": "Prediction",
            "rows": [
                {"n": 200, "sthggep": 0.5, "plain": 2.0, "floor": 0.25},
                {"n": 4000, "sthggep": 5.0, "plain": 50.0, "floor": 1.0},
            ],
            "memory": [{"n": 4000, "call": "sthggep", "peak": 1.5, "above": 0.7}],
        }
    },
}


@pytest.fixture
def report(monkeypatch):
    return load("report", monkeypatch)


def test_tables_compare_with_the_baseline_and_the_floor(report):
    tables = report.tables(RESULTS)
    assert "| Prediction | 200 | **500 ms** | 2 s | 4.0 × | 250 ms | 2.0 × |" in tables["times"]
    assert "0.70 GB | 1.50 GB" in tables["memory"]
    assert "2.5 ×); bfloat16 was taken" in tables["machine"]
    assert "0.25 s on top" in tables["machine"]
    assert [line.split("|")[-3:-1] for line in tables["aims"].splitlines()[2:]] == [
        [" 10 (the floor itself: 50.0) ", " yes "],
        [" 5 ", " no "],
        [" 0.7 ", " yes "],
        [" 0.25 ", " yes "],
    ]


def test_the_report_changes_only_its_own_places_in_the_page(report, tmp_path):
    page = Path(__file__).resolve().parents[1] / "docs" / "performance_speed.md"
    (tmp_path / "drawings").symlink_to(page.parent / "drawings")
    (tmp_path / "performance_speed.md").write_text(page.read_text() + "\n## Scale\n\nOther people's.\n")
    for _ in range(2):
        report.write(RESULTS, tmp_path)
        text = (tmp_path / "performance_speed.md").read_text()
        assert text.count("**500 ms**") == 1
        assert text.endswith("\n## Scale\n\nOther people's.\n")
    assert (tmp_path / "_static/performance/speed.svg").stat().st_size > 1000
    (tmp_path / "performance_speed.md").write_text("<!-- machine -->")
    with pytest.raises(ValueError, match="one place '<!-- machine -->'"):
        report.write(RESULTS, tmp_path)


@pytest.mark.parametrize("name", ["sections", "patients", "mob", "ablations", "stain", "encoding", "structure"])
def test_a_table_goes_into_the_page_that_has_it(name: str, tmp_path, monkeypatch):
    accuracy = load("accuracy", monkeypatch)
    pages = {page.name: page.read_text() for page in accuracy.DOCS.glob("benchmarks*.md")}
    for page, text in pages.items():
        (tmp_path / page).write_text(text)
    monkeypatch.setattr(accuracy, "DOCS", tmp_path)
    accuracy.into_page(name, "| new |")
    (changed,) = (page for page, text in pages.items() if (tmp_path / page).read_text() != text)
    assert f"<!-- table: {name} -->\n| new |\n<!-- end -->" in (tmp_path / changed).read_text()


def test_calls_are_timed_in_turn_and_the_shortest_time_counts(monkeypatch):
    measure = load("measure", monkeypatch)
    calls = []
    times = measure.shortest({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert set(times) == {"a", "b"}
    assert all(0 <= seconds < 1 for seconds in times.values())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Peak memory is read from Linux's /proc.")
def test_peak_memory_of_a_call():
    # A process of its own: in this one, memory that earlier tests used may go back to the system meanwhile.
    code = "import measure, numpy as np; found = measure.peak(lambda: np.ones(30_000_000)); print(*found.values())"
    run = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)
    peak, above = map(float, run.stdout.split())
    assert 0.2 < above < 0.4
    assert above < peak


def test_operations_are_those_that_torch_counts(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    baseline = load("baseline", monkeypatch)
    cases = load("cases", monkeypatch)
    net, n = cases.network("float32"), 6
    levels = tuple(torch.randn(3, n, 1024).unbind(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.encode(cases.patches(1))
    assert counter.get_total_flops() == pytest.approx(cases.PATCH_FLOPS, rel=0.001)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for blocks, level in zip(net.transformers, levels, strict=True):
            baseline.transform(blocks, level)
    lstm = 4 * 7 * 8 * 1024**2 * n
    assert counter.get_total_flops() == pytest.approx(cases.product_gflop(n) * 1e9 - lstm, rel=0.001)


def test_cells_lie_at_their_depth(monkeypatch):
    token_context = load("token_context", monkeypatch)
    for depth in range(6):
        cells = token_context.at_depth(depth, np.random.default_rng(0))
        assert (np.minimum(cells, token_context.SIDE - 1 - cells).min(axis=1) == depth).all()
        assert len(np.unique(cells, axis=0)) == (token_context.SIDE - 2 * depth - 1) * 4
