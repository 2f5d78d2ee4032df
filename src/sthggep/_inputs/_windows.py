"""What a network is fed of a section: one window, or several with the spots around each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from scipy.spatial import cKDTree

from sthggep._checks import one_of, positive, warn_user
from sthggep._disk._rows import row_steps
from sthggep._inputs._neighborhood import neighborhoods, positions, separate
from sthggep._inputs._split import Ties, Window, renumbered, split_spots, whole_window, window_of, within
from sthggep._inputs._stages import array_positions, frozen_stages
from sthggep._slides._patches import Patches
from sthggep.nn import spatial_incidence
from sthggep.nn._hyperconv import propagate
from sthggep.nn._section import FeatureInputs, NetworkInputs, PatchInputs
from sthggep.nn._shortcut import contrast_of
from sthggep.nn._stages import RunningMoments, SectionStatistics, standardized

if TYPE_CHECKING:
    from torch import nn

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._sweep import FeatureArray
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._inputs._split import Rows
    from sthggep._slides._slide import Slide
    from sthggep.nn._stages import Hop

# A Visium section has 4,992 spots at most: it is one window
WINDOW = 5000
# Of networks that attend over all spots; there is no distance beyond which nothing would change
PATCH_HALO = 4.0  # pitches


class WindowInputs(NamedTuple):
    """A window of a section and what the network is fed of it."""

    window: Window
    inputs: NetworkInputs
    statistics: tuple[SectionStatistics, ...] = ()
    """Statistics of the whole section on the scale of each trained network; empty where they are in ``inputs``."""

    def of_member(self, number: int) -> NetworkInputs:
        """Inputs of one of the trained networks."""
        if not self.statistics or not isinstance(self.inputs, FeatureInputs):
            return self.inputs
        return self.inputs._replace(statistics=self.statistics[number])


def most_spots(inputs: Inputs, window: int | str | None) -> int | None:
    """Most spots of a window; ``None`` where sections of any size are one window."""
    if isinstance(window, str):
        # Networks that attend over the whole section predict something else for a part of it
        window = WINDOW if one_of(window, ["auto"], "window") and inputs.kind != "patches" else None
    return None if window is None else int(positive(window, "`window`"))


def window_size(inputs: Inputs, slide: Slide, window: int | str | None) -> int | None:
    """Spots of a window of this section; ``None`` where the section is one window."""
    most = most_spots(inputs, window)
    return None if most is None or slide.n_spots <= most else most


def check_window(inputs: Inputs, slide: Slide, window: int | str | None) -> None:
    """Reject an invalid window; warn where windows change the result."""
    size = window_size(inputs, slide, window)
    if size is not None and inputs.kind == "patches":
        msg = (
            f"Section {slide.name!r} ({slide.n_spots} spots) is split into windows of {size} spots, but this network "
            "attends over, and measures distances by, all spots that it is shown: the result differs from that of the "
            "whole section. Pass `window=None` for the published result."
        )
        warn_user(msg)


@dataclass(frozen=True)
class InputSource:
    """How a slide becomes inputs of a network."""

    inputs: Inputs
    encoder: FrozenEncoder | None
    """The frozen encoder, where there is one."""
    net: nn.Module
    """The network, which knows how many neighbors it needs and how far its predictions reach."""
    compute: Compute
    pitch_um: float | None = None
    """Distance between spots at which the network was trained; denser spots are tied at about that distance."""
    members: Sequence[nn.Module] = ()
    """Trained networks, each of which scales features in its own way; empty for networks that are still to be trained."""
    window: int | str | None = "auto"
    """Most spots that a window predicts."""
    halo: int | None = None
    """Steps of the network that the halo of a window covers; ``None`` covers all, and windows do not change the result."""
    blocks: Path | None = None
    """Folder of finished blocks of features, which stay there; ``None`` keeps none."""

    def windows(self, slide: Slide, folder: Path | None = None) -> Iterator[WindowInputs]:
        """Windows of a section, each with the tensors of its spots.

        Parameters
        ----------
        slide
            The section.
        folder
            Where features of a section of several windows are written; ``None`` reads the section as one window.
        """
        size = None if folder is None else window_size(self.inputs, slide, self.window)
        if self.inputs.kind == "patches":
            yield from self._patch_windows(slide, size)
        elif size is None or folder is None:
            yield self._whole(slide)
        else:
            yield from self._feature_windows(slide, size, folder)

    def _whole(self, slide: Slide) -> WindowInputs:
        """A section of frozen features as one window."""
        near, held = neighborhoods(slide, self._n_neighbors, self.pitch_um)
        stages = [torch.from_numpy(stage[:]) for stage in self.stages(slide)]
        incidence = spatial_incidence(held.rows)
        inputs = FeatureInputs(stages, near.rows, near.offsets, incidence, slide.n_spots)
        return WindowInputs(whole_window(slide.n_spots), inputs)

    def _feature_windows(self, slide: Slide, size: int, folder: Path) -> Iterator[WindowInputs]:
        """Windows of a section of frozen features, which are written to ``folder``."""
        xy = positions(slide)
        # Coarser arrays that are interleaved are not tied to each other: a window of one of them has the smaller halo
        cores = [part[core] for part in separate(slide, self.pitch_um) for core in split_spots(xy[part], size)]
        near, held = neighborhoods(slide, self._n_neighbors, self.pitch_um)
        ties = Ties(near.rows.numpy(), held.rows.numpy())
        stages = self.stages(slide, folder)
        scales: list[nn.ModuleList | None] = [cast("nn.ModuleList", member.scale) for member in self.members] or [None]
        statistics = section_statistics(stages, ties, cores, scales)
        hops = cast("Sequence[Hop]", self.net.hops)[: self.halo]
        for core in cores:
            window = window_of(core, ties.around(core, hops))
            rows = window.rows
            neighbors = torch.from_numpy(renumbered(ties.neighbors[rows], rows))
            part = [torch.from_numpy(stage[rows]) for stage in stages]
            inputs = FeatureInputs(part, neighbors, near.offsets[rows], _incidence(ties, rows), len(rows))
            if self.members:
                yield WindowInputs(window, inputs, tuple(statistics))
            else:
                yield WindowInputs(window, inputs._replace(statistics=statistics[0]))

    def _patch_windows(self, slide: Slide, size: int | None) -> Iterator[WindowInputs]:
        """Patches of each window, and of the spots a few pitches around it."""
        patches = Patches(slide, size_um=self.inputs.sizes_um[0], size_px=self.inputs.size_px)
        xy = positions(slide)
        known = array_positions(slide) if self.inputs.reference else xy
        windows = [whole_window(slide.n_spots)]
        if size is not None:
            tree = cKDTree(xy)
            windows = [window_of(core, within(tree, core, PATCH_HALO)) for core in split_spots(xy, size)]
        for window in windows:
            pixels = torch.from_numpy(patches[window.rows]).permute(0, 3, 1, 2).contiguous()
            yield WindowInputs(window, PatchInputs(pixels, np.ascontiguousarray(known[window.rows])))

    def stages(self, slide: Slide, folder: Path | None = None) -> list[FeatureArray]:
        """Frozen features of a section, an array a stage; written to ``folder``, if one is given."""
        return frozen_stages(slide, self.inputs, self.encoder, self.compute, folder=folder, blocks=self.blocks)

    @property
    def _n_neighbors(self) -> int:
        return int(cast("int", getattr(self.net, "n_neighbors", 1)))


def stored_windows(source: InputSource, slide: Slide, folder: Path | None) -> list[WindowInputs]:
    """All windows of a section, for many epochs: of several windows, features or patches stay in ``folder``."""
    if folder is None or window_size(source.inputs, slide, source.window) is None:
        return list(source.windows(slide))
    folder.mkdir()
    out = []
    for number, one in enumerate(source.windows(slide, folder)):
        if isinstance(one.inputs, FeatureInputs):
            stages = [_on_disk(x, folder / f"window-{number}-{i}.npy") for i, x in enumerate(one.inputs.features)]
            out.append(one._replace(inputs=one.inputs._replace(features=stages)))
        else:
            patches = _on_disk(one.inputs.patches, folder / f"window-{number}.npy")
            out.append(one._replace(inputs=one.inputs._replace(patches=patches)))
    return out


def _on_disk(values: torch.Tensor, path: Path) -> torch.Tensor:
    np.save(path, values.numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def section_statistics(
    stages: Sequence[FeatureArray], ties: Ties, cores: Sequence[Rows], scales: Sequence[nn.ModuleList | None]
) -> list[SectionStatistics]:
    """What all spots of a section are judged against, found part by part, for each way of scaling.

    A trained network leans on its training slides a little; ``None`` scales by the section alone, which differs where
    features hardly vary.
    """
    moments = []
    for stage in stages:
        running = RunningMoments()
        for step in row_steps(stage.shape):
            running.add(torch.from_numpy(stage[step]))
        moments.append(running.moments())
    known = tuple(moments)
    own, means = ([[RunningMoments() for _ in stages] for _ in scales] for _ in range(2))
    for core in cores:
        rows, at = window_of(core, ties.around(core, ["hyperedges"]))
        incidence = _incidence(ties, rows)
        for i, stage in enumerate(stages):
            part = torch.from_numpy(stage[rows])
            for k, scale in enumerate(scales):
                x = standardized(part, *known[i][1:]) if scale is None else scale[i](part, known[i])
                own[k][i].add(x[at])
                means[k][i].add(propagate(x, incidence, len(rows))[at])
    return [SectionStatistics(known, _contrast(*pair)) for pair in zip(own, means, strict=True)]


def _contrast(own: Sequence[RunningMoments], means: Sequence[RunningMoments]) -> torch.Tensor:
    """How much more the features vary than their means over the hyperedges, all stages side by side."""
    pairs = [(a.moments().spread, b.moments().spread) for a, b in zip(own, means, strict=True)]
    return torch.cat([contrast_of(*pair) for pair in pairs])


def _incidence(ties: Ties, rows: Rows) -> torch.Tensor:
    """Hyperedges of these spots, as far as they are among them: complete for those a hop inside."""
    return spatial_incidence(torch.from_numpy(renumbered(ties.hyperedges[rows], rows)))
