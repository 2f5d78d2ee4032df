"""Our reference network against the authors' outputs, stage by stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sthggep import nn
from sthggep.nn._reference import reference_name

STAGES = ["gem", "stage3", "stage4", "conv5", "down4", "down5", "down6", "ViT1", "ViT2", "ViT3", "hgnn"]
HEADS = ["latent", "pred", "zinb_mean", "zinb_dispersion", "zinb_dropout"]


def _error(output: torch.Tensor, reference: np.ndarray) -> float:
    values = output.detach().numpy()
    if values.ndim == 4:
        values = values.mean(axis=(2, 3), dtype=np.float64)  # numpy adds channels-last maps up one by one
    return float(np.abs(values[..., : reference.shape[-1]] - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize("name", [f"stage_{stage}" for stage in STAGES] + HEADS)
def test_stage_equals_the_authors(name, reference_run, golden):
    assert _error(reference_run[name], golden[name]) < 1e-5


def test_neighbors_and_hyperedges_equal_the_authors(reference_run, golden):
    neighbors = nn.published_neighbors(golden["array_xy"])
    adjacency = np.zeros_like(golden["adjacency"])
    spots, _ = np.nonzero(neighbors.numpy() >= 0)
    adjacency[spots, neighbors[neighbors >= 0].numpy()] = 1
    np.testing.assert_array_equal(adjacency, golden["adjacency"])
    features = sum(reference_run[f"stage_ViT{i}"] for i in (1, 2, 3))
    graph = nn.published_hypergraph(features, neighbors)
    np.testing.assert_array_equal(graph.incidence.numpy(), golden["hyperedge_index"])
    assert _error(graph.pair_weight, golden["incidence_weight"]) < 1e-5
    torch.testing.assert_close(graph.hyperedge_weight, graph.pair_weight[: len(features)])


def test_losses_equal_the_authors(golden):
    array = {name: torch.from_numpy(value) for name, value in golden.items()}
    zinb = nn.zinb_nll(
        array["counts"], array["zinb_mean"], array["zinb_dispersion"], array["zinb_dropout"], array["size_factors"]
    )
    nb = nn.nb_nll(array["counts"], array["zinb_mean"].log(), array["zinb_dropout"])
    assert zinb.item() == pytest.approx(golden["zinb_loss"].item(), rel=1e-5)
    assert nb.item() == pytest.approx(golden["nb_loss"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ("x_embed.weight", "position.x.weight"),
        ("conv0.branch2.0.conv.weight", "gradient.cross.0.weight"),
        ("conv0.branch2.1.running_var", "gradient.cross.1.running_var"),
        ("layer1.0.weight", "backbone.conv1.0.weight"),
        ("layer3.7.branch2.6.bias", "backbone.stage3.7.branch2.6.bias"),
        ("down6.0.channel_attention.shared_MLP.2.weight", "level6.attention.channel.shared.2.weight"),
        ("ViT3.2.attn.fn.to_qkv.weight", "transformers.2.2.attention.qkv.weight"),
        ("ViT1.0.ff.fn.net.3.bias", "transformers.0.0.feed.down.bias"),
        ("jknet.0.weight_hh_l3", "fusion.lstm.weight_hh_l3"),
        ("hgnn.conv2.lin.weight", "hypergraph.conv2.weight"),
        ("hr.weight", "heads.counts.r.weight"),
        ("hp.0.bias", "heads.counts.p.bias"),
        ("coef.2.weight", "distillation.2.weight"),
        ("ViT1.0.attn.fn.to_k.weight", None),
        ("elsewhere.weight", None),
    ],
)
def test_names_are_translated(published, expected):
    assert reference_name(published) == expected


@pytest.fixture
def pair(spec, small):
    """A small reference network and its state under the authors' names."""
    net = small(reference=True, depth=4, fusion_layers=4)
    own = net.state_dict()
    return net, {name: own[reference_name(name)].clone() for name in spec}


def test_every_entry_has_its_place(pair):
    net, state = pair
    assert len(state) == len(net.state_dict())


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_lightning_checkpoint_is_unpacked(pair, small, prefix, patches, grid):
    net, state = pair
    checkpoint = {"epoch": 3, "state_dict": {prefix + name: value for name, value in state.items()}}
    assert nn.reference_sizes(checkpoint) == (5, "zinb")
    torch.manual_seed(99)
    other = nn.HGGEPNet(**(net.config)).eval()
    assert nn.load_reference_state_dict(other, checkpoint) == []
    with torch.no_grad():
        torch.testing.assert_close(other(patches, grid).expression, net(patches, grid).expression)


@pytest.mark.parametrize("names", [("hr.", "hp."), ("hr.0.", "hp.0.")])
def test_nb_checkpoint_is_recognized(pair, names):
    net, state = pair
    state = {name: value for name, value in state.items() if not name.startswith(("mean.", "disp.", "pi."))}
    for part in names:
        state |= {f"{part}weight": torch.randn(5, 32), f"{part}bias": torch.randn(5)}
    assert nn.reference_sizes(state) == (5, "nb")
    other = nn.HGGEPNet(**(net.config | {"count_head": "nb"}))
    nn.load_reference_state_dict(other, state)
    torch.testing.assert_close(other.heads.counts.r.weight.data, state[f"{names[0]}weight"])
    with pytest.raises(ValueError, match="not known"):
        nn.load_reference_state_dict(net, state)


def test_checkpoint_without_distillation_loads_and_names_the_missing_entries(pair):
    net, state = pair
    missing = nn.load_reference_state_dict(net, {k: v for k, v in state.items() if not k.startswith("coef.")})
    assert missing == [f"distillation.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]


def test_wrong_checkpoints_are_explained(pair, small):
    net, state = pair
    with pytest.raises(ValueError, match=r"missing.*position\.x\.weight"):
        nn.load_reference_state_dict(net, {k: v for k, v in state.items() if k != "x_embed.weight"})
    with pytest.raises(ValueError, match=r"expected \(5, 32\), found \(7, 32\)"):
        nn.load_reference_state_dict(net, state | {"gene_head.1.weight": torch.zeros(7, 32)})
    with pytest.raises(ValueError, match=r"not known \['extra\.weight'\]"):
        nn.load_reference_state_dict(net, state | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing.*distillation\.0\.weight"):
        nn.load_reference_state_dict(net, {k: v for k, v in state.items() if k != "coef.0.weight"})
    with pytest.raises(ValueError, match="gene_head"):
        nn.reference_sizes({"fc.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="reference=True"):
        nn.load_reference_state_dict(small(), state)


@pytest.mark.parametrize(
    ("shift", "message"), [((60.0, 0.0), "0 to 64"), ((0.0, -1.0), "-1 to 4"), ((0.5, 0.0), "fractions")]
)
def test_positions_a_table_cannot_hold_are_refused(small, patches, grid, shift, message):
    with pytest.raises(ValueError, match=message):
        small(reference=True)(patches, grid + np.asarray(shift))


def test_only_the_reference_network_transposes(small, patches):
    """Both networks have the same convolutions; the reference network transposes the patch."""
    plain, reference = small(), small(reference=True)
    for part in ("gradient", "backbone", "level4", "level5", "level6"):
        reference.get_submodule(part).load_state_dict(plain.get_submodule(part).state_dict())
    with torch.no_grad():
        as_is, transposed, published = plain.encode(patches), plain.encode(patches.mT), reference.encode(patches)
    torch.testing.assert_close(published, transposed)
    assert not torch.allclose(published[0], as_is[0], atol=1e-3)
