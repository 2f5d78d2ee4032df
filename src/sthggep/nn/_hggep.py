"""HGGEP end to end: patches of a section in, expression of its spots out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sthggep.nn._attention import TransformerBlock
from sthggep.nn._fusion import SequenceFusion
from sthggep.nn._heads import CountHead, DistillationHead, Heads, Output
from sthggep.nn._hyperconv import HypergraphBlock
from sthggep.nn._hypergraph import similar_incidence, spatial_neighbors
from sthggep.nn._levels import LatentLevels
from sthggep.nn._position import RelativePosition
from sthggep.nn._precision import Precision, check_precision, lowered
from sthggep.nn._published import TablePosition, published_hypergraph, published_neighbors


class HGGEPNet(LatentLevels):
    """The network of Li et al. 2024 (doi:10.1093/bib/bbae500). One section is one batch.

    A new network (``reference=False``) keeps the architecture and differs from the released code where that
    departs from the paper's intent:

    - patches are used as they come, rows first (released: transposed);
    - hyperedge e holds spot e and the ``n_selected`` most *similar* of its ``n_neighbors`` nearest spots within two
      pitches (released: the most dissimilar; hyperedge e holds the spots that chose e, and never e itself);
    - every hyperedge weighs one (released: each carries the score of an unrelated pair, in the degrees only);
    - positions are relative to the section's center, in units of the spot pitch, as projected sines and cosines
      (released: tables of 64 rows looked up by absolute array position);
    - ties between neighbors are settled by geometry, so the order of the spots does not matter;
    - the LSTM starts with open gates (released: torch's start, at which the differences between spots all but vanish).

    In both, dropout acts while training only, and a spot without neighbors keeps its own features.

    Parameters
    ----------
    n_genes
        Genes of the panel.
    reference
        Behave as the released code, for the authors' checkpoints.
    count_head
        Distribution of the raw counts; ``None`` for no such head.
    dim
        Features a spot, a multiple of 16.
    depth
        Transformer blocks a level.
    heads
        Attention heads of 64 features each.
    hypergraph_dim
        Features between the two hypergraph convolutions.
    fusion_layers
        Layers of the LSTM.
    dropout
        Dropout of the transformers.
    hypergraph_dropout
        Dropout of the hypergraph block.
    n_neighbors
        Spatial neighbors, the spot itself not counted.
    n_selected
        Neighbors selected into a hyperedge.
    chunk_size
        Patches passed through the convolutions at once outside training; the result does not depend on it.
    precision
        Of matrix products outside training: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which takes bfloat16 where it
        is measured to be clearly faster, and float32 for a reference network. Convolutions are float32 always: they wait
        for memory rather than compute, and bfloat16 would cost them the third digit of the predictions. While training
        the autocast around the network decides.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        reference: bool = False,
        count_head: CountHead | None = "zinb",
        dim: int = 1024,
        depth: int = 4,
        heads: int = 16,
        hypergraph_dim: int = 512,
        fusion_layers: int = 4,
        dropout: float = 0.2,
        hypergraph_dropout: float = 0.5,
        n_neighbors: int = 8,
        n_selected: int = 4,
        chunk_size: int = 256,
        precision: Precision = "auto",
    ) -> None:
        check_precision(precision)
        super().__init__(dim, transposed=reference)
        self.config: dict[str, Any] = {
            "n_genes": n_genes,
            "reference": reference,
            "count_head": count_head,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "hypergraph_dim": hypergraph_dim,
            "fusion_layers": fusion_layers,
            "dropout": dropout,
            "hypergraph_dropout": hypergraph_dropout,
            "n_neighbors": n_neighbors,
            "n_selected": n_selected,
            "chunk_size": chunk_size,
            "precision": precision,
        }
        self.reference = reference
        self.n_neighbors = n_neighbors
        self.n_selected = n_selected
        self.chunk_size = chunk_size
        self.precision: Precision = "float32" if reference and precision == "auto" else precision
        self.position: nn.Module = TablePosition(dim) if reference else RelativePosition(dim)
        self.transformers = nn.ModuleList(
            nn.Sequential(*(TransformerBlock(dim, heads, 64, dim, dropout) for _ in range(depth))) for _ in range(3)
        )
        self.hypergraph = HypergraphBlock(dim, hypergraph_dim, hypergraph_dropout, weights_in_degree_only=reference)
        self.fusion = SequenceFusion(dim, fusion_layers, open_gates=not reference)
        self.heads = Heads(dim, n_genes, count_head)
        self.distillation = DistillationHead(dim)

    def neighbors(self, positions: ArrayLike | Tensor) -> Tensor:
        """Find the spatial neighbors of every spot, to compute once and pass to each ``forward``.

        Parameters
        ----------
        positions
            As for ``forward``.

        Returns
        -------
        Rows padded with -1.
        """
        if self.reference:
            return published_neighbors(positions, k=self.n_neighbors)
        return spatial_neighbors(positions, self.n_neighbors + 1, max_distance=2.0).rows

    def tie(self, features: Tensor, neighbors: Tensor) -> Tensor:
        """Convolve features over the hyperedges that these features form.

        Parameters
        ----------
        features
            ``(n, dim)``, or several versions of a section, ``(versions, n, dim)``, each with hyperedges of its own.
        neighbors
            Rows as ``neighbors`` gives them.

        Returns
        -------
        Features of the same shape.
        """
        neighbors = neighbors.to(features.device)
        parts, weights = [], []
        for version, one in enumerate(features.reshape(-1, *features.shape[-2:])):
            incidence, weight = self._hyperedges(one, neighbors)
            parts.append(incidence + version * len(neighbors))
            weights.append(weight)
        spots = features.flatten(0, -2)
        out: Tensor = self.hypergraph(
            spots, torch.cat(parts, dim=1), len(spots), torch.cat(weights) if self.reference else None
        )
        return out.reshape(features.shape)

    def _hyperedges(self, features: Tensor, neighbors: Tensor) -> tuple[Tensor, Tensor]:
        if self.reference:
            published = published_hypergraph(features, neighbors, n_selected=self.n_selected)
            return published.incidence, published.hyperedge_weight
        return similar_incidence(features, neighbors, n_selected=self.n_selected), features.new_ones(len(features))

    def relate(
        self, levels: tuple[Tensor, Tensor, Tensor], positions: ArrayLike | Tensor, neighbors: Tensor | None = None
    ) -> Output:
        """Predict the section from the levels of its single spots.

        Parameters
        ----------
        levels
            As ``encode`` gives them, or those of several versions of the section, each ``(versions, n, dim)``.
        positions
            As for ``forward``.
        neighbors
            As ``neighbors`` gives them; ``None`` computes them.

        Returns
        -------
        The prediction, a version a row where there are versions.
        """
        where = self.position(positions)
        n = levels[0].shape[-2]
        if len(where) != n:
            msg = f"Expected one position a patch, found {n} patches and {len(where)} positions."
            raise ValueError(msg)
        with nullcontext() if self.training else lowered(where.device, self.precision):
            refined = [blocks(level + where) for blocks, level in zip(self.transformers, levels, strict=True)]
            features = torch.stack([one.float() for one in refined]).sum(dim=0)
            tied = self.tie(features, self.neighbors(positions) if neighbors is None else neighbors)
            out: Output = self.heads(self.fusion([*refined, tied]))
        return out

    def forward(self, patches: Tensor, positions: ArrayLike | Tensor, neighbors: Tensor | None = None) -> Output:
        """Predict one section.

        Parameters
        ----------
        patches
            ``(n, 3, 112, 112)`` pixel values 0-255, rows first, float or uint8.
        positions
            ``(n, 2)`` (x, y): in units of the spot pitch, integer or not, for a new network; integer array positions
            from 0 to 63 for a reference network.
        neighbors
            As ``neighbors`` gives them; ``None`` computes them.

        Returns
        -------
        Expression, latent features and the distribution of the counts.

        Raises
        ------
        ValueError
            If the patches or positions are not of that kind.
        """
        if self.training:
            return self.relate(self.encode(patches), positions, neighbors)
        parts = [self.encode(part) for part in torch.split(patches, self.chunk_size)]
        level4, level5, level6 = (torch.cat(level) for level in zip(*parts, strict=True))
        return self.relate((level4, level5, level6), positions, neighbors)

    def versions(
        self, patches: Iterable[Tensor], positions: ArrayLike | Tensor, neighbors: Tensor | None = None
    ) -> Output:
        """Predict several versions of one section (itself and augmented copies) in one pass.

        As ``forward`` of one after the other: batch normalization, attention and hyperedges see one version at a time. But
        the large products run over all of them together, and while training the maps of each version are computed once
        more on the way back rather than kept, which would take gigabytes.

        Parameters
        ----------
        patches
            Patches of each version, each as for ``forward``.
        positions, neighbors
            As for ``forward``, the same for all.

        Returns
        -------
        The prediction, a version a row: ``expression`` is ``(versions, n, genes)``.
        """
        encode = self.encode_anew if torch.is_grad_enabled() else self.encode
        level4, level5, level6 = zip(*(encode(one) for one in patches), strict=True)
        return self.relate((torch.stack(level4), torch.stack(level5), torch.stack(level6)), positions, neighbors)

    def coefficient(self, latent: Tensor) -> Tensor:
        """Weight of each spot of an augmented copy in self-distillation, before the softmax over copies.

        Parameters
        ----------
        latent
            ``Output.latent`` of the copy, or of several.

        Returns
        -------
        ``(..., n, 1)``.
        """
        out: Tensor = self.distillation(latent)
        return out
