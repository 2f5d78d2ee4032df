"""Weights of the authors' code: their parameter names translated to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sthggep.nn._hggep import HGGEPNet

if TYPE_CHECKING:
    from sthggep.nn._heads import CountHead

RENAMES = (
    (r"x_embed\.", r"position.x."),
    (r"y_embed\.", r"position.y."),
    (r"conv0\.branch1\.", r"gradient.plain."),
    (r"conv0\.branch2\.0\.conv\.", r"gradient.cross.0."),
    (r"conv0\.branch2\.", r"gradient.cross."),
    (r"conv0\.branch_last\.", r"gradient.merge."),
    (r"layer([15])\.", r"backbone.conv\1."),
    (r"layer([234])\.", r"backbone.stage\1."),
    (r"down([456])\.0\.channel_attention\.shared_MLP\.", r"level\1.attention.channel.shared."),
    (r"down([456])\.0\.spatial_attention\.conv2d\.", r"level\1.attention.spatial.conv."),
    (r"down([456])\.1\.", r"level\1.norm."),
    (r"down([456])\.2\.", r"level\1.reduce."),
    (r"jknet\.0\.", r"fusion.lstm."),
    (r"hgnn\.conv([12])\.lin\.", r"hypergraph.conv\1."),
    (r"hgnn\.", r"hypergraph."),
    (r"gene_head\.", r"heads.expression."),
    (r"mean\.0\.", r"heads.counts.mean."),
    (r"disp\.0\.", r"heads.counts.dispersion."),
    (r"pi\.0\.", r"heads.counts.dropout."),
    (r"h([rp])\.(?:0\.)?", r"heads.counts.\1."),
    (r"coef\.", r"distillation."),
)
TRANSFORMER_PARTS = {
    "attn.norm": "attention_norm",
    "attn.fn.to_qkv": "attention.qkv",
    "attn.fn.to_out.0": "attention.out",
    "ff.norm": "feed_norm",
    "ff.fn.net.0": "feed.up",
    "ff.fn.net.3": "feed.down",
}
TRANSFORMER = re.compile(r"ViT([123])\.(\d+)\.(.+)\.(weight|bias)")


def reference_name(name: str) -> str | None:
    """Our name of one of the authors' parameters.

    Parameters
    ----------
    name
        The authors' name, without a prefix.

    Returns
    -------
    Our name, ``None`` if theirs is not known.
    """
    block = TRANSFORMER.fullmatch(name)
    if block:
        level, index, part, kind = block.groups()
        translated = TRANSFORMER_PARTS.get(part)
        return None if translated is None else f"transformers.{int(level) - 1}.{index}.{translated}.{kind}"
    for pattern, replacement in RENAMES:
        renamed, hits = re.subn(f"^{pattern}", replacement, name)
        if hits:
            return renamed
    return None


def reference_entries(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, under the authors' bare names.

    Parameters
    ----------
    state
        A state dict, or a Lightning checkpoint that holds one under ``"state_dict"``; names may start with
        ``"model."`` or ``"module."``.

    Returns
    -------
    Names and tensors.

    Raises
    ------
    ValueError
        If there is no such state dict in it.
    """
    inner = state.get("state_dict", state)
    tensors = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)} if isinstance(inner, Mapping) else {}
    bare = {re.sub(r"^(?:(?:model|module)\.)+", "", name): value for name, value in tensors.items()}
    if "gene_head.1.weight" not in bare:
        msg = (
            "Expected the state dict of the authors' HGGEP (with 'gene_head.1.weight'), "
            f"found {len(bare)} tensors named {sorted(bare)[:5]}. Pass torch.load(path, weights_only=True)."
        )
        raise ValueError(msg)
    unusable = [name for name, value in bare.items() if not _is_plain(value)]
    if unusable or bare["gene_head.1.weight"].ndim != 2:
        msg = (
            "Expected dense tensors of real numbers, and a matrix 'gene_head.1.weight'; found others: "
            f"{sorted(unusable)[:5] or tuple(bare['gene_head.1.weight'].shape)}."
        )
        raise ValueError(msg)
    return bare


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor holds values that can be copied into a network."""
    dense = value.layout == torch.strided and not value.is_quantized and value.device.type != "meta"
    return dense and not value.is_complex()


def reference_sizes(state: Mapping[str, object]) -> tuple[int, CountHead | None]:
    """Number of genes and head of the counts of the authors' checkpoint.

    Parameters
    ----------
    state
        As for ``reference_entries``.

    Returns
    -------
    Genes, and ``"zinb"``, ``"nb"`` or ``None``.
    """
    entries = reference_entries(state)
    head: CountHead | None = None
    if any(name.startswith("mean.") for name in entries):
        head = "zinb"
    elif any(name.startswith("hr.") for name in entries):
        head = "nb"
    return len(entries["gene_head.1.weight"]), head


def _shape_errors(entries: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Entries of another shape, under the network's names."""
    return [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(value.shape)}"
        for name, value in entries.items()
        if name in expected and expected[name].shape != value.shape
    ]


def load_reference_state_dict(net: HGGEPNet, state: Mapping[str, object]) -> list[str]:
    """Fill a reference network with weights trained by the authors' code.

    Parameters
    ----------
    net
        ``HGGEPNet(n_genes, reference=True, count_head=...)``, filled in place; ``reference_sizes`` returns both.
    state
        As for ``reference_entries``.

    Returns
    -------
    Names left as they were: the distillation head, when the checkpoint was trained without.

    Raises
    ------
    ValueError
        If the network is not a reference one, or an entry is missing, unknown or of another shape.
    """
    if not net.reference:
        msg = "Expected a network built with reference=True, found reference=False: its positions are others."
        raise ValueError(msg)
    entries = reference_entries(state)
    named = {name: reference_name(name) for name in entries}
    renamed = {name: entries[theirs] for theirs, name in named.items() if name is not None}
    state = net.state_dict()
    wrong = _shape_errors(renamed, state)
    if wrong:
        msg = f"{len(wrong)} entries are of another shape than this network ({'; '.join(wrong[:3])})."
        raise ValueError(msg)
    unknown = [theirs for theirs, name in named.items() if name not in state]
    missing = [name for name in state if name not in renamed and not name.endswith("num_batches_tracked")]
    left = [name for name in missing if name.startswith("distillation.")]
    absent = [name for name in missing if name not in left]
    if unknown or absent or (left and any(name.startswith("coef.") for name in entries)):
        msg = (
            f"Expected the {len(state)} entries of HGGEP with count_head={net.config['count_head']!r}, "
            f"found {len(entries)}: missing (our names) {(absent or left)[:5]}, not known {unknown[:5]}. "
            "Build the network with the genes and the head that reference_sizes(state) returns."
        )
        raise ValueError(msg)
    net.load_state_dict({**state, **renamed})
    return left


def from_reference_state_dict(state: Mapping[str, object]) -> HGGEPNet:
    """A reference network in evaluation mode, with weights trained by the authors' code.

    Parameters
    ----------
    state
        As for ``reference_entries``; genes and head are read off it.

    Returns
    -------
    The network.
    """
    n_genes, count_head = reference_sizes(state)
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: leave the user's seed alone
        net = HGGEPNet(n_genes, reference=True, count_head=count_head)
    load_reference_state_dict(net, state)
    return net.eval()
