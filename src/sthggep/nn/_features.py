"""HGGEP's idea on features of a frozen image encoder: the network of the default preset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sthggep.nn._attention import NeighborBlock
from sthggep.nn._fusion import AttentionFusion
from sthggep.nn._heads import CountHead, Heads, Output
from sthggep.nn._hyperconv import HypergraphBlock


class FeatureHGGEPNet(nn.Module):
    """Stages of frozen features, refined over nearby spots, tied by hyperedges and fused.

    Like ``HGGEPNet`` it refines every stage by its own transformer, ties the spots by a hypergraph convolution over
    the stages together, and fuses stages and hypergraph into one vector a spot. Unlike it, attention sees the nearest
    spots only (cost linear in the spots, and a section of any size looks alike), positions enter as distances between
    spots only (shifting, turning or mirroring a section changes nothing), the hyperedges come with the section rather
    than from the features, the stages are averaged rather than summed before them, and the fusion is a weighted
    average.

    Parameters
    ----------
    feature_dims
        Features of each stage; a stage is for instance one field of view.
    n_genes
        Genes of the panel.
    dim
        Features a spot inside the network, a multiple of ``heads``.
    depth
        Attention blocks a stage; 0 looks at no neighbour.
    heads
        Attention heads.
    n_neighbors
        Spots attended to, the spot itself included; read by whoever builds the graph.
    dropout
        Dropout throughout.
    count_head
        Distribution of the raw counts; ``None`` for no such head.
    hypergraph
        Tie the spots by hyperedges.
    """

    def __init__(
        self,
        feature_dims: Sequence[int],
        n_genes: int,
        *,
        dim: int = 256,
        depth: int = 1,
        heads: int = 8,
        n_neighbors: int = 25,
        dropout: float = 0.2,
        count_head: CountHead | None = None,
        hypergraph: bool = True,
    ) -> None:
        super().__init__()
        if not feature_dims or dim % heads:
            msg = (
                "Expected at least one stage of features and dim to be a multiple of heads, "
                f"found feature_dims={list(feature_dims)}, dim={dim}, heads={heads}."
            )
            raise ValueError(msg)
        self.config: dict[str, Any] = {
            "feature_dims": list(feature_dims),
            "n_genes": n_genes,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "n_neighbors": n_neighbors,
            "dropout": dropout,
            "count_head": count_head,
            "hypergraph": hypergraph,
        }
        self.feature_dims = tuple(feature_dims)
        self.n_neighbors = n_neighbors
        self.project = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, dim)) for width in feature_dims
        )
        self.refine = nn.ModuleList(
            nn.ModuleList(NeighborBlock(dim, heads, dim, dropout) for _ in range(depth)) for _ in feature_dims
        )
        self.hypergraph = HypergraphBlock(dim, dim // 2, dropout) if hypergraph else None
        self.fusion = AttentionFusion(dim)
        self.drop = nn.Dropout(dropout)
        self.heads = Heads(dim, n_genes, count_head)

    def forward(
        self,
        features: Sequence[Tensor],
        neighbors: Tensor,
        offsets: Tensor,
        incidence: Tensor | None = None,
        n_hyperedges: int | None = None,
    ) -> Output:
        """Predict one section.

        Parameters
        ----------
        features
            One tensor ``(n, width)`` a stage.
        neighbors
            Rows ``(n, k)`` of the nearest spots, the spot itself included, -1 where there is none
            (``spatial_neighbors``).
        offsets
            ``(n, k, 2)`` positions of the neighbours relative to the spot, in units of the spot pitch.
        incidence
            ``(2, nnz)`` spot and hyperedge (``spatial_incidence``); needed unless ``hypergraph=False``.
        n_hyperedges
            Number of hyperedges; ``None`` means one a spot.

        Returns
        -------
        Expression, latent features and the distribution of the counts.

        Raises
        ------
        ValueError
            If the stages are not those of the network, or the incidence is missing.
        """
        self._check(features, neighbors, incidence)
        views = []
        for stage, project, blocks in zip(features, self.project, self.refine, strict=True):
            x = project(stage)
            for block in _modules(blocks):
                x = block(x, neighbors, offsets)
            views.append(x)
        if self.hypergraph is not None and incidence is not None:
            together = torch.stack([view.float() for view in views]).mean(dim=0)
            views.append(self.hypergraph(together, incidence, n_hyperedges or len(together)))
        out: Output = self.heads(self.drop(self.fusion(views)))
        return out

    def _check(self, features: Sequence[Tensor], neighbors: Tensor, incidence: Tensor | None) -> None:
        found = [tuple(stage.shape) for stage in features]
        expected = [(len(neighbors), width) for width in self.feature_dims]
        if found != expected:
            msg = f"Expected {len(expected)} stages of shapes {expected} (spots, features), found {found}."
            raise ValueError(msg)
        if self.hypergraph is not None and incidence is None:
            msg = (
                "Expected an incidence, found None: pass spatial_incidence(neighbors), or build with hypergraph=False."
            )
            raise ValueError(msg)


def _modules(blocks: nn.Module) -> list[nn.Module]:
    return list(blocks.children())
