"""The network of the default preset: HGGEP's stages and hypergraph on features of a frozen image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sthggep.nn._attention import NeighborBlock
from sthggep.nn._closed_form import ClosedFormNet
from sthggep.nn._dropout import FastDropout
from sthggep.nn._fusion import AttentionFusion
from sthggep.nn._heads import CountHead, Output, count_head_for
from sthggep.nn._hyperconv import HypergraphBlock
from sthggep.nn._stages import Hop, Moments, SectionScale, SectionStatistics, check_stages


class FeatureHGGEPNet(ClosedFormNet):
    """Stages of frozen features, refined over nearby spots, tied by hyperedges and fused.

    Like ``HGGEPNet`` it ties the spots by a hypergraph convolution over the stages together, and fuses stages and hypergraph
    into one vector a spot. Unlike it:

    - attention, if any, is over the nearest spots only, so that cost is linear in the spots;
    - only relative positions matter, so that shifting a section changes nothing;
    - the hyperedges come with the section (each spot with those around it) rather than from the features;
    - features are centered and scaled within their section, so that stain and scanner drop out;
    - the network predicts scores of a few gene programs, which are decoded into genes (see ``GenePrograms``);
    - a linear shortcut, solved in closed form over the same stages and hyperedges, is blended with the network; the share
      of each is chosen on held-out tissue.

    Parameters
    ----------
    feature_dims
        Features of each stage; a stage is for instance one field of view.
    n_genes
        Genes of the panel.
    blocks
        Widths of the latent stages inside each of them; ``None`` takes each as one block.
    rank
        Gene programs.
    dim
        Features a spot inside the network, a multiple of ``heads``.
    depth
        Attention blocks a stage; 0 for no attention.
    heads
        Attention heads.
    n_neighbors
        Spots attended to, the spot itself included; read by whoever builds the graph.
    dropout, input_dropout
        Dropout inside; of the features.
    penalty, damping
        Of the shortcut's ridge; of the gene programs.
    count_head
        Distribution of the raw counts; ``None`` for no such head.
    hypergraph
        Tie the spots by hyperedges.
    linear, n_windows, prior_rank
        As for ``ClosedFormNet``.
    """

    blend: Tensor

    def __init__(
        self,
        feature_dims: Sequence[int],
        n_genes: int,
        *,
        blocks: Sequence[int] | None = None,
        rank: int = 8,
        dim: int = 128,
        depth: int = 1,
        heads: int = 4,
        n_neighbors: int = 9,
        dropout: float = 0.2,
        input_dropout: float = 0.1,
        penalty: float = 0.5,
        damping: float = 0.5,
        count_head: CountHead | None = None,
        hypergraph: bool = True,
        linear: bool = False,
        n_windows: int = 1,
        prior_rank: int = 0,
    ) -> None:
        super().__init__(
            feature_dims,
            n_genes,
            blocks=blocks,
            rank=rank,
            penalty=penalty,
            damping=damping,
            hypergraph=hypergraph,
            linear=linear,
            n_windows=n_windows,
            prior_rank=prior_rank,
        )
        if dim % heads:
            msg = f"Expected dim to be a multiple of heads, found dim={dim}, heads={heads}."
            raise ValueError(msg)
        self.config |= {
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "n_neighbors": n_neighbors,
            "dropout": dropout,
            "input_dropout": input_dropout,
            "count_head": count_head,
        }
        self.n_neighbors = n_neighbors
        self.project = nn.ModuleList(
            nn.Sequential(
                FastDropout(input_dropout), nn.Linear(width // n_windows, dim), nn.GELU(), nn.Dropout(dropout)
            )
            for width in feature_dims
        )
        self.refine = nn.ModuleList(
            nn.ModuleList(NeighborBlock(dim, heads, dim, dropout) for _ in range(depth)) for _ in feature_dims
        )
        self.hypergraph = HypergraphBlock(dim, dim // 2, dropout) if hypergraph else None
        self.fusion = AttentionFusion(dim)
        self.drop = nn.Dropout(dropout)
        self.scores = nn.Linear(dim, min(rank, n_genes))
        self.counts = count_head_for(count_head, dim, n_genes)
        # Share of the network in the prediction, the shortcut has the rest: settled after training
        self.register_buffer("blend", torch.tensor(1.0))

    @property
    def hops(self) -> tuple[Hop, ...]:
        """List the steps through which a prediction depends on other spots, last first. They define the halo of a window."""
        near: list[Hop] = ["neighbors"] * int(self.config["depth"])
        tied: list[Hop] = ["hyperedges", "hyperedges"] if self.hypergraph is not None else []
        return (*tied, *near)

    def forward(
        self,
        features: Sequence[Tensor],
        neighbors: Tensor,
        offsets: Tensor,
        incidence: Tensor | None = None,
        n_hyperedges: int | None = None,
        statistics: SectionStatistics | None = None,
    ) -> Output:
        """Predict one section, or a window of one.

        Parameters
        ----------
        features
            One tensor ``(n, width)`` a stage.
        neighbors
            Rows ``(n, k)`` of the nearest spots, the spot itself included, -1 where there is none
            (``spatial_neighbors``).
        offsets
            ``(n, k, 2)`` positions of the neighbors relative to the spot, in units of the spot pitch.
        incidence
            ``(2, nnz)`` spot and hyperedge (``spatial_incidence``); needed unless ``hypergraph=False``.
        n_hyperedges
            Number of hyperedges; ``None`` means one a spot.
        statistics
            Of the whole section, where these spots are a window of it; ``None`` takes those of these spots.

        Returns
        -------
        Expression, latent features and the distribution of the counts.

        Raises
        ------
        ValueError
            If the stages are not those of the network, or the incidence is missing.
        """
        check_stages(features, neighbors, self.feature_dims, incidence, needs_incidence=self.hypergraph is not None)
        # Until the blend is settled the network learns by itself; the shortcut is solved already
        with_linear = not self.training and bool(self.blend < 1)
        latent = self.fusion(self._views(features, neighbors, offsets, incidence, n_hyperedges, statistics))
        scores = self.scores(self.drop(latent))
        if with_linear:
            linear = self._linear_scores(self.scaled(features, statistics), incidence, n_hyperedges, statistics)
            scores = self.blend * scores + (1 - self.blend) * linear
        counts = {} if self.counts is None else self.counts(self.drop(latent))
        return Output(self.programs(scores), latent, **counts)

    def _views(
        self,
        features: Sequence[Tensor],
        neighbors: Tensor,
        offsets: Tensor,
        incidence: Tensor | None,
        n_hyperedges: int | None,
        statistics: SectionStatistics | None,
    ) -> list[Tensor]:
        """One vector a spot from each stage, and one from the hypergraph over all of them."""
        views = []
        moments = [None] * len(features) if statistics is None else statistics.stages
        for stage, section, scale, project, blocks in zip(
            features, moments, self.scale, self.project, self.refine, strict=True
        ):
            # Of several windows the network reads the first: hyperedges bring what is around
            x = _projected(stage, section, scale, project, stage.shape[1] // self.n_windows)  # type: ignore[arg-type]
            for block in blocks.children():
                x = block(x, neighbors, offsets)
            views.append(x)
        if self.hypergraph is not None and incidence is not None:
            together = torch.stack([view.float() for view in views]).mean(dim=0)
            views.append(self.hypergraph(together, incidence, n_hyperedges or len(together)))
        return views


def _projected(stage: Tensor, section: Moments | None, scale: SectionScale, project: nn.Sequential, n: int) -> Tensor:
    """Scale the first ``n`` features of a stage within the section, and project them."""
    dropout, linear, *rest = project.children()
    # The shares make the squares of a spot add up to one; layers start best from values near one
    factor = stage.shape[1] ** 0.5
    x: Tensor
    if scale.clip:
        x = linear(dropout(scale(stage, section) * factor))
    else:
        x = scale.linear(stage[:, :n], section, linear, dropout, factor)  # type: ignore[arg-type]
    for layer in rest:
        x = layer(x)
    return x
