"""Measures for speed do not change results: chunks, folded normalization, versions in one pass, bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sthggep import nn
from sthggep.nn import _attention, _fusion, _hggep, _precision
from sthggep.nn._backbone import interleave
from sthggep.nn._convolution import ConvSequence
from sthggep.nn._fusion import SequenceFusion
from sthggep.nn._gradient import GradientEnhancement
from sthggep.nn._precision import centered_product, faster_in_bf16, is_lowered, lowered, product_seconds

CPU = torch.device("cpu")
DEEP = {"dim": 128, "depth": 1, "heads": 2, "hypergraph_dim": 32, "fusion_layers": 6}

# A bfloat16 has 8 significant bits: rounding changes a value by at most this share of it
UNIT_ROUNDOFF = 2.0**-8
# The deep network has 21 products one behind the other: 6 in the transformer block, 2 in the hypergraph block, 2 in each
# layer of the LSTM, 1 in the head. Each rounds its two factors and its result, and independent errors add in squares.
# On AVX2, AVX-512 and AMX, six draws of weights and patches err by 4.1 roundoffs at most. With plain products in the
# LSTM the same networks err by 17.6 at least.
MAX_ERROR = (3 * 21) ** 0.5 * UNIT_ROUNDOFF


@pytest.fixture(autouse=True)
def _measured_anew():
    faster_in_bf16.cache_clear()
    yield
    faster_in_bf16.cache_clear()


def relative_error(rough: torch.Tensor, exact: torch.Tensor) -> float:
    """Error of a column as a share of its spread over the spots: root mean square over columns."""
    difference, spread = rough - exact, exact - exact.mean(dim=0)
    difference = difference - difference.mean(dim=0)
    return float((difference.norm(dim=0) / spread.norm(dim=0)).square().mean().sqrt())


def plain_product(x: torch.Tensor, weight: torch.Tensor, low: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A bfloat16 product of uncentered values, which ``centered_product`` must improve on."""
    return x.to(low.dtype) @ low.mT, x.new_zeros(*x.shape[:-2], 1, len(weight))


def unsettle(module: torch.nn.Module) -> None:
    """Change the statistics and weights of normalization from their initial values."""
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))


# ---------------------------------------------------------------- convolutions


@torch.no_grad()
def test_folded_normalization_is_the_same():
    layers = [torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.nn.BatchNorm2d(6), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(6, 5, 1, bias=False), torch.nn.BatchNorm2d(5)]
    fast, x = ConvSequence(*layers).eval(), torch.randn(3, 4, 9, 9)
    unsettle(fast)
    torch.testing.assert_close(fast(x), torch.nn.Sequential(*layers)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_gradient_enhancement_is_two_branches_and_a_merge(training):
    module, x = GradientEnhancement().train(training), torch.rand(4, 3, 12, 12) * 255
    unsettle(module)
    branches = [torch.nn.Sequential(*getattr(module, name))(x) for name in ("plain", "cross")]
    expected = torch.nn.Sequential(*module.merge)(torch.cat(branches, dim=1))
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_interleaved_channels_are_the_shuffled_ones():
    a, b = torch.arange(6.0).reshape(1, 3, 1, 2), 10 + torch.arange(6.0).reshape(1, 3, 1, 2)
    assert interleave(a, b)[0, :, 0, 0].tolist() == [0, 10, 2, 12, 4, 14]
    assert interleave(a, b).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_layout_of_the_patches_does_not_matter(small, patches):
    net = small()
    channels_last = patches.contiguous(memory_format=torch.channels_last)
    for level, expected in zip(net.encode(channels_last), net.encode(patches), strict=True):
        torch.testing.assert_close(level, expected)


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("rows", [1, 16, 25, 60, 100])
@torch.no_grad()
def test_attention_in_chunks(rows):
    q, k, v = torch.randn(3, 4, 60, 8, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
    torch.testing.assert_close(_attention._attend_in_chunks(q, k + 3, v, rows), expected)


@pytest.mark.parametrize("tiles", [False, True])
@torch.no_grad()
def test_attention_of_each_section_by_itself(monkeypatch, tiles):
    monkeypatch.setattr(_attention, "_has_tiles", lambda: tiles)
    monkeypatch.setattr(_attention, "CHUNK_WEIGHTS", 4 * 60 * 16)
    q, k, v = torch.randn(3, 2, 4, 60, 8).bfloat16()
    result = _attention.attend(q, k, v)
    for i in range(2):
        exact = F.scaled_dot_product_attention(*(tensor[i : i + 1].float() for tensor in (q, k, v)))
        torch.testing.assert_close(result[i : i + 1].float(), exact, rtol=0.05, atol=0.02)


def test_attention_in_training_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(_attention, "_has_tiles", lambda: False)
    q = torch.randn(1, 2, 9, 4).bfloat16().requires_grad_()
    _attention.attend(q, q, q).float().sum().backward()
    assert q.grad is not None


# ---------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("options", [{}, DEEP])
@torch.no_grad()
def test_bfloat16_predicts_what_float32_does(small, patches, grid, options):
    net = small(**options)
    exact, net.precision = net(patches, grid), "bfloat16"
    rough = net(patches, grid)
    assert 0 < relative_error(rough.expression, exact.expression) < MAX_ERROR
    assert 0 < relative_error(rough.latent, exact.latent) < MAX_ERROR


@torch.no_grad()
def test_plain_products_lose_small_differences(small, patches, grid, monkeypatch):
    """The error that the test above must detect: after six layers, spots differ by a hundredth of their mean."""
    net = small(**DEEP)
    exact, net.precision = net(patches, grid), "bfloat16"
    monkeypatch.setattr(_fusion, "centered_product", plain_product)
    rough = net(patches, grid)
    assert relative_error(rough.expression, exact.expression) > 1.5 * MAX_ERROR
    assert relative_error(rough.latent, exact.latent) > 1.5 * MAX_ERROR


@torch.no_grad()
def test_fusion_keeps_small_differences(monkeypatch):
    torch.manual_seed(0)
    fusion = SequenceFusion(64, 4, open_gates=True)
    views = [0.5 + 0.005 * torch.randn(40, 64) for _ in range(4)]
    exact = fusion(views)
    with lowered(CPU, "bfloat16"):
        assert 0 < relative_error(fusion(views), exact) < MAX_ERROR
        monkeypatch.setattr(_fusion, "centered_product", plain_product)
        assert relative_error(fusion(views), exact) > 5 * MAX_ERROR


@pytest.mark.parametrize("training", [False, True])
def test_lstm_of_torch_never_runs_in_bfloat16(monkeypatch, training):
    """Processors without AVX-512 have no such LSTM in torch: it raises an error there."""
    fusion, views = SequenceFusion(8, 2), [torch.randn(5, 8) for _ in range(3)]
    monkeypatch.setattr(fusion.lstm, "forward", lambda *_: pytest.fail("torch's LSTM was called"))
    with lowered(CPU, "bfloat16"), torch.set_grad_enabled(training):
        assert fusion(views).dtype == torch.float32


def test_fusion_learns_the_same_in_bfloat16():
    torch.manual_seed(0)
    fusion = SequenceFusion(32, 2)
    views = [torch.randn(20, 32) for _ in range(4)]
    gradients = []
    for precision in ("float32", "bfloat16"):
        fusion.zero_grad()
        with lowered(CPU, precision):
            out = fusion(views)
        out.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in fusion.named_parameters()})
    for name, exact in gradients[0].items():
        assert (gradients[1][name] - exact).norm() < 0.02 * exact.norm(), name


@torch.no_grad()
def test_fusion_in_chunks(monkeypatch):
    fusion, views = SequenceFusion(16, 2), [torch.randn(2, 15, 16) for _ in range(3)]
    with lowered(CPU, "bfloat16"):
        whole = fusion(views)
        monkeypatch.setattr(_fusion, "CHUNK", 7)
        torch.testing.assert_close(fusion(views), whole, rtol=1e-2, atol=1e-3)
    assert whole.shape == (2, 15, 16)


def test_centered_product_adds_up():
    x, weight = 100 + torch.randn(2, 9, 5), torch.randn(4, 5)
    difference, mean = centered_product(x, weight, weight)
    assert mean.shape == (2, 1, 4)
    torch.testing.assert_close(difference + mean, x @ weight.T, rtol=1e-5, atol=1e-4)


# ---------------------------------------------------------------- which precision


@torch.no_grad()
def test_auto_is_bfloat16_where_faster_and_never_for_a_reference(small, patches, grid, monkeypatch):
    lowered_calls = []
    monkeypatch.setattr(
        _hggep.HGGEPNet, "tie", lambda _, features, __: lowered_calls.append(is_lowered(CPU)) or features
    )
    for faster in (True, False):
        monkeypatch.setattr(_precision, "faster_in_bf16", lambda _, faster=faster: faster)
        for reference in (False, True):
            small(reference=reference, precision="auto")(patches, grid)
    assert lowered_calls == [True, False, False, False]
    small(reference=True, precision="bfloat16")(patches, grid)
    small(precision="float32")(patches, grid)
    small(precision="bfloat16").train()(patches, grid)  # Lightning's autocast decides
    with torch.autocast("cpu", torch.bfloat16):  # so does an outer autocast
        small(precision="float32")(patches, grid)
    assert lowered_calls[4:] == [True, False, False, True]


def test_precision_is_kept_and_checked(small):
    net = small(reference=True, precision="auto")
    assert (net.config["precision"], net.precision) == ("auto", "float32")
    with pytest.raises(ValueError, match="'auto', 'float32' or 'bfloat16', found 'half'"):
        small(precision="half")


@pytest.mark.parametrize(("bf16", "float32", "expected"), [(1.0, 3.0, True), (1.0, 1.4, False), (3.0, 1.0, False)])
def test_bf16_must_be_clearly_faster(monkeypatch, bf16, float32, expected):
    monkeypatch.setattr(_precision, "product_seconds", lambda *_: [bf16, float32])
    assert faster_in_bf16(CPU) is expected


def test_speed_is_measured_once(monkeypatch):
    """A busy processor later on must not change the precision, and with it the prediction."""
    monkeypatch.setattr(_precision, "product_seconds", lambda *_: [1.0, 3.0])
    assert faster_in_bf16(CPU)
    monkeypatch.setattr(_precision, "product_seconds", lambda *_: [3.0, 1.0])
    assert faster_in_bf16(CPU)


def test_bf16_on_other_devices(monkeypatch):
    assert not faster_in_bf16(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert faster_in_bf16(torch.device("cuda"))


def test_shortest_time_of_each_type_without_the_warm_up(monkeypatch):
    readings = iter([0.0, 0.0, 10.0, 15.0, 20.0, 23.0, 30.0, 34.0, 40.0, 47.0])
    monkeypatch.setattr(_precision, "perf_counter", lambda: next(readings))
    assert product_seconds(torch.float32, torch.bfloat16, size=4, times=2) == [4.0, 3.0]


# ---------------------------------------------------------------- versions of a section in one pass


@pytest.mark.parametrize("reference", [False, True])
def test_versions_in_one_pass_equal_separate_passes(small, patches, grid, reference):
    """Predictions, gradients and running statistics."""
    nets = [small(reference=reference, dropout=0.0, hypergraph_dropout=0.0).train() for _ in range(2)]
    versions = [patches, patches.flip(-1), patches * 0.5]
    out = nets[0].versions(iter(versions), grid)
    single_passes = [nets[1](version, grid) for version in versions]
    for name in ("expression", "latent", "mean", "dispersion", "dropout"):
        expected = torch.stack([getattr(single, name) for single in single_passes])
        torch.testing.assert_close(getattr(out, name), expected, rtol=1e-4, atol=1e-5)
    weights = torch.tensor([1.0, 2.0, -1.0])
    (weights[:, None, None] * out.expression).square().sum().backward()
    sum(
        (weight * single.expression).square().sum() for weight, single in zip(weights, single_passes, strict=True)
    ).backward()
    # a smaller gradient is only rounding: batch normalization removes the effect of such a parameter
    at_least = 1e-4 * max(float(p.grad.abs().max()) for p in nets[1].parameters() if p.grad is not None)
    for (name, actual), expected in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        if expected.grad is None:
            assert actual.grad is None, name
        else:
            torch.testing.assert_close(actual.grad, expected.grad, rtol=2e-3, atol=at_least, msg=name)
    for (name, actual), expected in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)
    assert all(m.track_running_stats for m in nets[0].modules() if isinstance(m, torch.nn.BatchNorm2d))


@torch.no_grad()
def test_versions_outside_training(small, patches, grid):
    net = small()
    out = net.versions([patches, patches.flip(-1)], grid, net.neighbors(grid))
    torch.testing.assert_close(out.expression[1], net(patches.flip(-1), grid).expression, rtol=1e-4, atol=1e-5)
    coefficients = net.coefficient(out.latent)
    assert coefficients.shape == (2, 20, 1)
    joint = nn.self_distillation(out.expression[0], out.expression[1:], coefficients[1:])
    single = nn.self_distillation(out.expression[0], [out.expression[1]], [coefficients[1]])
    assert float(joint) == pytest.approx(float(single))


def test_one_augmentation_applies_to_all_patches():
    patches = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    augmented = nn.augment_section(patches, generator=torch.Generator().manual_seed(7))
    for i in range(5):
        single = nn.augment_section(patches[i : i + 1], generator=torch.Generator().manual_seed(7))
        assert torch.equal(augmented[i], single[0])
    assert not np.array_equal(augmented, patches)


@torch.no_grad()
def test_stem_of_a_few_images_at_a_time(monkeypatch):
    from sthggep.nn import _backbone

    net = nn.ShuffleNetV2().eval()
    unsettle(net)
    images = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = net(images)
    monkeypatch.setattr(_backbone, "STEM_VALUES", 24 * 32 * 32 * 3)
    sizes = []
    net.conv1.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    torch.testing.assert_close(net(images), whole)
    with torch.enable_grad():
        torch.testing.assert_close(net(images), whole)
    assert sizes == [3, 3, 1, 7]
