"""The closed form: gene programs predicted by a ridge regression on features of a frozen image encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sthggep.nn._heads import Output
from sthggep.nn._programs import GenePrograms, spot_weights
from sthggep.nn._section import CountsOnly, FeatureInputs, TrainingSample, join_windows, stage_of_samples
from sthggep.nn._shortcut import LinearShortcut
from sthggep.nn._stages import Hop, SectionScale, SectionStatistics, check_stages
from sthggep.nn._update import WeightPrior, measure_prior

MOST_PRIOR_SPOTS = 3000


class ClosedFormNet(nn.Module):
    """Ridge regression from a spot's features, and those of its hyperedges, to scores of gene programs.

    Nothing is trained by gradients: ``start`` solves feature scales, gene programs and ridge from training spots.

    Parameters
    ----------
    feature_dims
        Features of each stage; a stage is for instance one field of view.
    n_genes
        Genes of the panel.
    blocks
        Widths of the latent stages inside each window of a stage; ``None`` takes each window as one block.
    rank
        Gene programs.
    penalty, damping
        Of the ridge; of the gene programs.
    hypergraph
        Tie the spots by hyperedges.
    linear
        The prediction is linear in a spot's own features, which then hold the tissue around it, too: nothing is clipped,
        and hyperedges tie networks only. So the weights can be applied to feature maps before these are pooled.
    n_windows
        Windows of the tissue whose features stand side by side in each stage: a spot's field of view, then those around.
    prior_rank
        Directions of the training features that are kept for an update; see ``keep_prior``.
    """

    prior_vectors: Tensor
    prior_values: Tensor
    prior_strengths: Tensor
    config: dict[str, Any]

    def __init__(
        self,
        feature_dims: Sequence[int],
        n_genes: int,
        *,
        blocks: Sequence[int] | None = None,
        rank: int = 8,
        penalty: float = 0.5,
        damping: float = 0.5,
        hypergraph: bool = True,
        linear: bool = False,
        n_windows: int = 1,
        prior_rank: int = 0,
    ) -> None:
        super().__init__()
        if not feature_dims:
            msg = "Expected at least one stage of features, found feature_dims=[]."
            raise ValueError(msg)
        self.config = {
            "feature_dims": list(feature_dims),
            "n_genes": n_genes,
            "blocks": None if blocks is None else list(blocks),
            "rank": rank,
            "penalty": penalty,
            "damping": damping,
            "hypergraph": hypergraph,
        }
        if linear:  # other networks keep the record, and so the id, that they had before there was a choice
            self.config |= {"linear": True, "n_windows": n_windows}
        if prior_rank:
            self.config["prior_rank"] = prior_rank
        self.feature_dims = tuple(feature_dims)
        self.n_neighbors, self.n_windows, self.tied = 1, n_windows, hypergraph and not linear
        rank = min(rank, n_genes)
        self.scale = nn.ModuleList(
            SectionScale(_blocks_of(width, blocks, n_windows), clip=not linear) for width in feature_dims
        )
        self.programs = GenePrograms(n_genes, rank, damping)
        self.shortcut = LinearShortcut(sum(feature_dims), rank, penalty, own_only=linear)
        width = len(self.shortcut.weight)
        self.register_buffer(
            "prior_vectors", torch.zeros(prior_rank, width, dtype=torch.half), persistent=prior_rank > 0
        )
        self.register_buffer("prior_values", torch.zeros(prior_rank), persistent=prior_rank > 0)
        self.register_buffer("prior_strengths", torch.zeros(rank), persistent=prior_rank > 0)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """List the steps through which a prediction depends on other spots, last first. They define the halo of a window."""
        return ("hyperedges", "hyperedges") if self.tied else ()

    def scaled(self, features: Sequence[Tensor], statistics: SectionStatistics | None = None) -> list[Tensor]:
        """Each stage centered and scaled within the section."""
        moments = [None] * len(features) if statistics is None else statistics.stages
        return [
            scale(stage, section_moments)
            for scale, stage, section_moments in zip(self.scale, features, moments, strict=True)
        ]

    @torch.no_grad()
    def shortcut_features(self, samples: Sequence[TrainingSample]) -> Iterator[Tensor]:
        """Features of the masked spots of each sample, on which the shortcut is solved."""
        for inputs, _, _, mask in samples:
            tied = self._tied(inputs.incidence)
            contrast = None if inputs.statistics is None else inputs.statistics.contrast
            joined = self._joined(self.scaled(inputs.features, inputs.statistics))
            yield self.shortcut.spread(joined, tied, contrast=contrast)[mask]

    @torch.no_grad()
    def start(self, samples: Sequence[TrainingSample], extra_sections: Sequence[CountsOnly] = ()) -> None:
        """Solve feature scales, gene programs and the shortcut from training samples.

        Parameters
        ----------
        samples
            Training sections, or windows of them; windows of a section follow each other and share its statistics.
        extra_sections
            Sections of which only the counts are known: for the gene programs.
        """
        scores = self.start_programs(samples, extra_sections)
        weights = [spot_weights(sample.library_sizes[sample.mask]) for sample in samples]
        self.shortcut.start(self.shortcut_features(samples), scores, weights)

    @torch.no_grad()
    def start_programs(
        self, samples: Sequence[TrainingSample], extra_sections: Sequence[CountsOnly] = ()
    ) -> list[Tensor]:
        """Solve all but the shortcut; return the program scores of each section, which the shortcut is to predict."""
        for i, scale in enumerate(self.scale):
            scale.start(stage_of_samples(samples, i))  # type: ignore[operator]
        weights = [spot_weights(sample.library_sizes[sample.mask]) for sample in samples]
        targets = join_windows([sample.target[sample.mask] for sample in samples], samples)
        return self.programs.start(targets, join_windows(weights, samples), extra_sections)

    @torch.no_grad()
    def keep_prior(self, samples: Sequence[TrainingSample]) -> None:
        """Keep what an update by further spots needs to know of the training spots: a few directions of their features."""
        weights = [spot_weights(sample.library_sizes[sample.mask]) for sample in samples]
        step = -(-sum(map(len, weights)) // MOST_PRIOR_SPOTS)
        rows = [
            x[::step] * w[::step, None].sqrt() for x, w in zip(self.shortcut_features(samples), weights, strict=True)
        ]
        targets = join_windows([sample.target[sample.mask] for sample in samples], samples)
        joined = join_windows(weights, samples)
        scores = self.programs.adapt(targets, joined, 0.0)
        squares = sum((w.unsqueeze(1) * each.square()).sum(dim=0) for w, each in zip(joined, scores, strict=True))
        prior = measure_prior(torch.cat(rows) * step**0.5, self.shortcut.penalty)
        self.set_prior(prior, squares / torch.cat(joined).sum())

    def set_prior(self, prior: WeightPrior, strengths: Tensor) -> None:
        """Set the prior of an update: that of the weights, and the mean square of the score of each program."""
        self.config["prior_rank"] = len(prior.values)
        self.register_buffer("prior_vectors", prior.vectors.half())
        self.register_buffer("prior_values", prior.values.float())
        self.register_buffer("prior_strengths", strengths.float())

    @property
    def prior(self) -> WeightPrior | None:
        """The prior of the weights in an update; ``None`` if it was not kept."""
        if not self.config.get("prior_rank"):
            return None
        return WeightPrior(self.prior_vectors.float(), self.prior_values, self.shortcut.penalty)

    def parts(self, inputs: FeatureInputs, direction: Tensor) -> Tensor:
        """Split a combination of the linear program scores by where in the features it comes from.

        Parameters
        ----------
        inputs
            A section, or a window of one.
        direction
            ``(rank,)``: weight of each program.

        Returns
        -------
        ``(n, stages, 2)``: of the spot's own field of view, and of the tissue or the hyperedges around it. The sum over
        stages and both is ``scores @ direction``.
        """
        x = self._joined(self.scaled(inputs.features, inputs.statistics))
        contrast = None if inputs.statistics is None else inputs.statistics.contrast
        spread = self.shortcut.spread(x, self._tied(inputs.incidence), inputs.n_hyperedges, contrast)
        share = spread * (self.shortcut.weight @ direction)
        n_stages = len(self.feature_dims)
        if not self.shortcut.own_only:
            halves = [torch.split(half, list(self.feature_dims), dim=1) for half in share.chunk(2, dim=1)]
            return torch.stack([torch.stack([part.sum(dim=1) for part in half], dim=1) for half in halves], dim=2)
        out = share.new_empty(len(share), n_stages, 2)
        for i, stage in enumerate(torch.split(share, list(self.feature_dims), dim=1)):
            own = stage.shape[1] // self.n_windows
            out[:, i, 0], out[:, i, 1] = stage[:, :own].sum(dim=1), stage[:, own:].sum(dim=1)
        return out

    def _tied(self, incidence: Tensor | None) -> Tensor | None:
        """Return the hyperedges where the network has any."""
        return incidence if self.tied else None

    def _joined(self, scaled: Sequence[Tensor]) -> Tensor:
        """All stages side by side, each with the same share."""
        share: float = len(scaled) ** -0.5
        return torch.cat(list(scaled), dim=1) * share

    def forward(
        self,
        features: Sequence[Tensor],
        neighbors: Tensor,
        offsets: Tensor,
        incidence: Tensor | None = None,
        n_hyperedges: int | None = None,
        statistics: SectionStatistics | None = None,
    ) -> Output:
        """Predict one section, or a window of one; the arguments are those of ``FeatureHGGEPNet``.

        Returns
        -------
        Expression, and the program scores as latent features.
        """
        check_stages(features, neighbors, self.feature_dims, incidence, needs_incidence=self.tied)
        scores = self._linear_scores(self.scaled(features, statistics), incidence, n_hyperedges, statistics)
        return Output(self.programs(scores), scores)

    def _linear_scores(
        self,
        scaled: Sequence[Tensor],
        incidence: Tensor | None,
        n_hyperedges: int | None,
        statistics: SectionStatistics | None,
    ) -> Tensor:
        """Predict program scores from scaled features by the ridge."""
        contrast = None if statistics is None else statistics.contrast
        scores: Tensor = self.shortcut(self._joined(scaled), self._tied(incidence), n_hyperedges, contrast)
        return scores


def _blocks_of(width: int, blocks: Sequence[int] | None, n_windows: int) -> list[int]:
    """Blocks of all windows of a stage; each window as one block if it does not consist of these."""
    window = width // n_windows
    return list(blocks if blocks is not None and sum(blocks) == window else [window]) * n_windows
