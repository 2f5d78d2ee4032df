"""The two networks as a whole: invariances, dependencies, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sthggep import nn
from sthggep.nn._dropout import FastDropout
from sthggep.nn._features import _projected

ZINB = ("expression", "latent", "mean", "dispersion", "dropout")
# biases whose effect batch normalization, or the softmax over copies, removes
CANCELLED = ("gradient.plain.0.bias", "gradient.merge.0.bias", "distillation.2.bias")


@pytest.fixture
def features(grid):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(len(grid), width, generator=generator) for width in (12, 7)]


def _feature_net(**options):
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 4, "depth": 2, "count_head": "zinb"}
    return nn.FeatureHGGEPNet([12, 7], 5, **(sizes | options)).eval()


def _run(net, features, xy, k=6):
    rows, offsets = nn.spatial_neighbors(xy, k)
    return net(features, rows, offsets, nn.spatial_incidence(rows))


@torch.no_grad()
def test_order_of_the_spots_does_not_matter(small, patches, grid):
    net, order = small(), torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    expected, of_shuffled = net(patches, grid), net(patches[order], grid[order])
    for name in ZINB:
        torch.testing.assert_close(getattr(of_shuffled, name), getattr(expected, name)[order], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_shift_of_the_section_does_not_matter(small, patches, grid):
    net = small()
    plain, shifted = net(patches, grid), net(patches, grid + np.array([500.25, -20]))
    torch.testing.assert_close(shifted.expression, plain.expression, rtol=1e-3, atol=1e-5)
    stretched = net(patches, grid * 3)
    assert not torch.allclose(stretched.expression, plain.expression, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_array_of_any_size_has_positions(small, patches, grid):
    assert torch.isfinite(small()(patches, grid * 40).expression).all()


@pytest.mark.parametrize("reference", [False, True])
@torch.no_grad()
def test_chunks_neighbors_and_bytes_do_not_matter(small, patches, grid, reference):
    net = small(reference=reference)
    whole = patches.round().to(torch.uint8)
    expected = net(whole.float(), grid).expression
    net.chunk_size = 3
    actual = net(whole, torch.from_numpy(grid), net.neighbors(grid)).expression
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_single_and_isolated_spots(small, patches, grid, reference, training):
    net = small(reference=reference).train(training)
    assert torch.isfinite(net(patches[:1], grid[:1]).expression).all()
    positions = np.concatenate([grid[:6], [[30, 30], [60, 3]]])
    out = net(patches[:8], positions)
    assert all(torch.isfinite(getattr(out, name)).all() for name in ZINB)
    out.expression.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("reference", [False, True])
def test_isolated_spot_keeps_its_own_features(small, grid, reference):
    net = small(reference=reference)
    positions = np.concatenate([grid, [[50, 50]]])
    features = torch.randn(len(positions), 32, generator=torch.Generator().manual_seed(0))
    neighbors = net.neighbors(positions)
    with torch.no_grad():
        output = net.tie(features, neighbors)
        output_of_changed = net.tie(torch.cat([features[:-1] * 2 + 1, features[-1:]]), neighbors)
    assert torch.equal(output[-1], output_of_changed[-1])
    if reference:
        assert torch.equal(output[-1], features[-1])


def test_dropout_acts_while_training_only(small, patches, grid):
    for net in (small(), small(reference=True)):
        with torch.no_grad():
            assert torch.equal(net(patches, grid).expression, net(patches, grid).expression)
            net.train()
            assert not torch.equal(net(patches, grid).expression, net(patches, grid).expression)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("count_head", ["zinb", "nb"])
def test_every_parameter_has_a_gradient(small, patches, grid, reference, count_head):
    net = small(reference=reference, count_head=count_head, n_neighbors=4, n_selected=2).train()
    out = net(patches, grid)
    counts = torch.ones_like(out.expression)
    likelihood = (
        nn.zinb_nll(counts, out.mean, out.dispersion, out.dropout)
        if count_head == "zinb"
        else nn.nb_nll(counts, out.r, out.p)
    )
    copy = net(nn.augment_section(patches, generator=torch.Generator().manual_seed(0)), grid)
    pair = [out, copy]
    distillation = nn.self_distillation(
        out.expression, [output.expression for output in pair], [net.coefficient(output.latent) for output in pair]
    )
    (out.expression.square().mean() + likelihood + distillation).backward()
    without_gradient = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert set(without_gradient) <= set(CANCELLED)


def test_bfloat16_is_close_to_float32(small, patches, grid, features):
    with torch.no_grad():
        for net, run in (
            (small(), lambda net: net(patches, grid)),
            (_feature_net(), lambda net: _run(net, features, grid)),
        ):
            exact = run(net)
            with torch.autocast("cpu", torch.bfloat16):
                rough = run(net)
                loss = nn.zinb_nll(torch.ones(20, 5), rough.mean, rough.dispersion, rough.dropout)
            assert loss.dtype == rough.expression.dtype == torch.float32
            error = (rough.expression - exact.expression).abs().max() / exact.expression.abs().max()
            assert 0 < error < 0.05


def test_bfloat16_trains(small, patches, grid, features):
    for net, run in ((small(), lambda net: net(patches, grid)), (_feature_net(), lambda n: _run(n, features, grid))):
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(net.train()).expression.square().mean()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_wrong_inputs_are_explained(small, patches, grid):
    with pytest.raises(ValueError, match=r"found \(20, 3, 64, 64\)"):
        small()(patches[..., :64, :64], grid)
    with pytest.raises(ValueError, match="20 patches and 19 positions"):
        small()(patches, grid[:19])
    with pytest.raises(ValueError, match="multiple of 16"):
        nn.HGGEPNet(5, dim=40)
    with pytest.raises(ValueError, match="count_head"):
        nn.HGGEPNet(5, count_head="poisson")


def test_config_rebuilds_a_network(small, patches, grid):
    for net in (small(reference=True, count_head="nb"), _feature_net(hypergraph=False)):
        copy = type(net)(**net.config)
        copy.load_state_dict(net.state_dict())
        assert copy.config == net.config


@torch.no_grad()
def test_feature_net_ignores_order_shift_and_rotation(grid, features):
    net = _feature_net()
    plain = _run(net, features, grid)
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    of_shuffled = _run(net, [stage[order] for stage in features], grid[order])
    torch.testing.assert_close(of_shuffled.expression, plain.expression[order], rtol=1e-3, atol=1e-5)
    shifted = _run(net, features, grid + np.array([300.5, 17]))
    torch.testing.assert_close(shifted.expression, plain.expression, rtol=1e-3, atol=1e-5)
    rows, offsets = nn.spatial_neighbors(grid, 6)
    rotated = net(features, rows, offsets.flip(-1) * torch.tensor([-1.0, 1.0]), nn.spatial_incidence(rows))
    torch.testing.assert_close(rotated.expression, plain.expression, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_receptive_field_of_the_feature_net(features):
    """On a line, two blocks over three neighbors and no hyperedges reach two spots away."""
    net, line = _feature_net(hypergraph=False), np.stack([np.arange(20), np.zeros(20)], axis=1)
    swapped_features = [stage.clone() for stage in features]
    # Two spots swap features: the mean and spread of the section, which scale all spots, stay the same
    swapped_features[0][[10, 11]] = swapped_features[0][[11, 10]]
    differences = (
        (_run(net, features, line, 3).expression - _run(net, swapped_features, line, 3).expression).abs().amax(dim=1)
    )
    assert torch.nonzero(differences > 1e-6).flatten().tolist() == [8, 9, 10, 11, 12, 13]


@torch.no_grad()
def test_switches_of_the_feature_net(grid, features):
    without_context = _feature_net(depth=0, hypergraph=False)
    rows, offsets = nn.spatial_neighbors(grid, 6)
    no_neighbors = nn.spatial_neighbors(grid, 1)
    torch.testing.assert_close(
        without_context(features, *no_neighbors).expression, without_context(features, rows, offsets).expression
    )
    incidence = nn.stack_incidences(
        nn.spatial_incidence(rows), nn.similar_incidence(features[0], rows), n_hyperedges=20
    )
    with_hypergraph = _feature_net(count_head="nb")
    out = with_hypergraph(features, rows, offsets, incidence, n_hyperedges=40)
    assert out.mean is None
    assert out.r.shape == (20, 5)
    assert not torch.allclose(
        out.expression, with_hypergraph(features, rows, offsets, incidence[:, :120], 20).expression, atol=1e-4
    )
    assert _feature_net(count_head=None)(features, rows, offsets, incidence, 40).r is None


@pytest.mark.parametrize("count_head", [None, "zinb", "nb"])
def test_every_parameter_of_the_feature_net_has_a_gradient(grid, features, count_head):
    net = _feature_net(count_head=count_head).train()
    out = _run(net, features, grid)
    parts = (out.expression, out.mean, out.dispersion, out.dropout, out.r, out.p)
    sum(part.square().mean() for part in parts if part is not None).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_feature_net_on_one_spot_and_on_wrong_inputs(grid, features):
    net = _feature_net().train()
    assert torch.isfinite(_run(net, [stage[:1] for stage in features], grid[:1]).expression).all()
    rows, offsets = nn.spatial_neighbors(grid, 6)
    with pytest.raises(ValueError, match=r"Expected 2 stages of shapes \[\(20, 12\), \(20, 7\)\].*found"):
        net(features[:1], rows, offsets, nn.spatial_incidence(rows))
    with pytest.raises(ValueError, match="pass spatial_incidence"):
        net(features, rows, offsets)
    with pytest.raises(ValueError, match="multiple of heads"):
        nn.FeatureHGGEPNet([3], 5, dim=10, heads=4)


def test_start_of_the_expression_head(small, patches, grid):
    net = small()
    n_genes = net.config["n_genes"]
    net.heads.start_at(torch.arange(float(n_genes)))
    with torch.no_grad():
        net.heads.expression[1].weight.zero_()
        assert net(patches, grid).expression[3].tolist() == list(range(n_genes))


def _tissue_net(**options):
    """A network that reads the first of two windows a stage, with the scale of a section of 30 spots."""
    net = nn.FeatureHGGEPNet([12, 8], 5, dim=8, depth=0, heads=2, rank=2, linear=True, n_windows=2, **options)
    generator = torch.Generator().manual_seed(3)
    stages = [50 + 3 * torch.randn(30, width, generator=generator) for width in (12, 8)]
    return net, stages


@pytest.mark.parametrize("training", [False, True])
def test_scale_is_folded_into_the_first_layer_of_a_tissue_net(training):
    net, stages = _tissue_net(input_dropout=0.0, dropout=0.0)
    net.train(training)
    for stage, scale, project in zip(stages, net.scale, net.project, strict=True):
        n = stage.shape[1] // 2
        expected = project(scale(stage)[:, :n] * stage.shape[1] ** 0.5)
        found = _projected(stage, None, scale, project, n)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.std(dim=0).max() > 0.1


def test_features_are_dropped_while_training_only():
    net, (stage, _) = _tissue_net(input_dropout=0.5, dropout=0.0)
    scale, project = net.scale[0], net.project[0].train()
    with torch.no_grad():
        project[1].weight.copy_(torch.eye(8, 6))
        project[1].bias.fill_(10.0)  # far from where GELU bends
    torch.manual_seed(0)
    found = _projected(stage, None, scale, project, 6)[:, :6] - 10
    whole = scale(stage)[:, :6] * 12**0.5
    kept = found.abs() > 1e-3
    assert 0.3 < kept.float().mean() < 0.7
    assert len(kept.unique(dim=0)) > 10  # each spot drops features of its own
    torch.testing.assert_close(found[kept], 2 * whole[kept], rtol=1e-3, atol=1e-3)
    project.eval()
    torch.testing.assert_close(_projected(stage, None, scale, project, 6)[:, :6] - 10, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("rate", "dropped"), [(0.1, 26 / 256), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_fast_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dropped):
    layer, ones = FastDropout(rate), torch.ones(999, 101)
    torch.manual_seed(1)
    found = layer(ones)
    assert float((found == 0).float().mean()) == pytest.approx(dropped, abs=0.005)
    if dropped < 1:
        assert found.max() == pytest.approx(1 / (1 - dropped))
        assert float(found.mean()) == pytest.approx(1, abs=0.01)
    # All eight bytes of a random number are used alike
    by_place = (found.flatten()[: 8 * 12612] == 0).float().reshape(-1, 8).mean(dim=0)
    torch.testing.assert_close(by_place, torch.full((8,), dropped), rtol=0, atol=0.015)
    torch.manual_seed(1)
    assert torch.equal(found, layer(ones))
    assert layer.eval()(ones) is ones
