"""Network inputs of a section: one window, or several with the spots around each."""

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
from sthggep._inputs._neighborhood import find_neighborhoods, pitch_positions, separate_lattices
from sthggep._inputs._split import (
    SpotDependencies,
    Window,
    find_within,
    make_window,
    renumber,
    split_spots,
    whole_window,
)
from sthggep._inputs._stages import array_positions, frozen_stages
from sthggep._slides._patches import Patches
from sthggep.nn import spatial_incidence
from sthggep.nn._hyperconv import propagate
from sthggep.nn._section import FeatureInputs, NetworkInputs, PatchInputs
from sthggep.nn._shortcut import contrast_of
from sthggep.nn._stages import Moments, RunningMoments, SectionStatistics, standardized

if TYPE_CHECKING:
    from torch import nn

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._reference_windows import StageFeatures
    from sthggep._encoders._sweep import FeatureArray
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._inputs._split import Rows
    from sthggep._slides._slide import Slide
    from sthggep.nn._stages import Hop

# A Visium section has 4,992 spots at most: it is one window
WINDOW = 5000
# The halo of networks that attend over all spots: a compromise, since every spot of the section changes the result
PATCH_HALO = 4.0  # pitches


class WindowInputs(NamedTuple):
    """A window of a section and its network inputs."""

    window: Window
    inputs: NetworkInputs
    statistics: tuple[SectionStatistics, ...] = ()
    """Statistics of the whole section on the scale of each trained network; empty if they are in ``inputs``."""

    def of_member(self, number: int) -> NetworkInputs:
        """Return the inputs of one of the trained networks."""
        if not self.statistics or not isinstance(self.inputs, FeatureInputs):
            return self.inputs
        return self.inputs._replace(statistics=self.statistics[number])


def most_spots(inputs: Inputs, window: int | str | None) -> int | None:
    """Return the most spots of a window; ``None`` if a section of any size is one window."""
    if isinstance(window, str):
        # Networks that attend over the whole section give a part of it other predictions
        window = WINDOW if one_of(window, ["auto"], "window") and inputs.kind != "patches" else None
    return None if window is None else int(positive(window, "`window`"))


def window_size(inputs: Inputs, slide: Slide, window: int | str | None) -> int | None:
    """Return the most spots of a window of this section; ``None`` if the section is one window."""
    most = most_spots(inputs, window)
    return None if most is None or slide.n_spots <= most else most


def check_window(inputs: Inputs, slide: Slide, window: int | str | None) -> None:
    """Reject an invalid window; warn if windows change the result."""
    size = window_size(inputs, slide, window)
    if size is not None and inputs.kind == "patches":
        msg = (
            f"Section {slide.name!r} ({slide.n_spots} spots) is split into windows of {size} spots. This network attends "
            "over all spots of a window and scales distances by them, so the result differs from that of the whole "
            "section. Pass `window=None` to predict the section whole, as published."
        )
        warn_user(msg)


@dataclass(frozen=True)
class InputSource:
    """Settings by which a slide becomes network inputs."""

    inputs: Inputs
    encoder: FrozenEncoder | None
    """The frozen encoder; ``None`` if the network reads patches or ``obsm``."""
    net: nn.Module
    """The network, which states the number of neighbors and the steps by which predictions depend on other spots."""
    compute: Compute
    pitch_um: float | None = None
    """Microns between the spots of the training sections; on denser arrays, neighbors are about that far apart."""
    members: Sequence[nn.Module] = ()
    """Trained networks, each with its own scale of the features; empty before training."""
    window: int | str | None = "auto"
    """Most spots that a window predicts; see :func:`most_spots`."""
    halo: int | None = None
    """Steps of the network that a window's halo covers; ``None`` covers all, and windows do not change the result."""
    block_folder: Path | None = None
    """Folder that keeps finished blocks of features; ``None`` keeps none."""

    def windows(self, slide: Slide, folder: Path | None = None) -> Iterator[WindowInputs]:
        """Make the windows of a section, each with the tensors of its spots.

        Parameters
        ----------
        slide
            The section.
        folder
            Folder for the features of a section of several windows; ``None`` reads the section as one window.
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
        attended, hyperedges = find_neighborhoods(slide, self._n_neighbors, self.pitch_um)
        stages = self.stages(slide)
        values = [torch.from_numpy(stage.values[:]) for stage in stages]
        incidence = spatial_incidence(hyperedges.rows)
        statistics = tissue_statistics(stages)
        inputs = FeatureInputs(values, attended.rows, attended.offsets, incidence, slide.n_spots, statistics)
        return WindowInputs(whole_window(slide.n_spots), inputs)

    def _feature_windows(self, slide: Slide, size: int, folder: Path) -> Iterator[WindowInputs]:
        """Windows of a section of frozen features, which are written to ``folder``."""
        xy = pitch_positions(slide)
        # Interleaved lattices share no neighborhood: a window within one of them has a smaller halo
        cores = [part[core] for part in separate_lattices(slide, self.pitch_um) for core in split_spots(xy[part], size)]
        attended, hyperedges = find_neighborhoods(slide, self._n_neighbors, self.pitch_um)
        dependencies = SpotDependencies(attended.rows.numpy(), hyperedges.rows.numpy())
        features = self.stages(slide, folder)
        stages, of_tissue = [stage.values for stage in features], tissue_statistics(features)
        scales: list[nn.ModuleList | None] = [cast("nn.ModuleList", member.scale) for member in self.members] or [None]
        if of_tissue is None:
            statistics = section_statistics(stages, dependencies, cores, scales)
        else:
            statistics = [of_tissue] * len(scales)
        hops = cast("Sequence[Hop]", self.net.hops)[: self.halo]
        for core in cores:
            window = make_window(core, dependencies.expand(core, hops))
            rows = window.rows
            neighbors = torch.from_numpy(renumber(dependencies.neighbors[rows], rows))
            part = [torch.from_numpy(stage[rows]) for stage in stages]
            incidence = _incidence(dependencies, rows)
            inputs = FeatureInputs(part, neighbors, attended.offsets[rows], incidence, len(rows))
            if self.members:
                yield WindowInputs(window, inputs, tuple(statistics))
            else:
                yield WindowInputs(window, inputs._replace(statistics=statistics[0]))

    def _patch_windows(self, slide: Slide, size: int | None) -> Iterator[WindowInputs]:
        """Windows of patches, each with the spots a few pitches around it."""
        patches = Patches(slide, size_um=self.inputs.sizes_um[0], size_px=self.inputs.size_px)
        xy = pitch_positions(slide)
        positions = array_positions(slide) if self.inputs.reference else xy
        windows = [whole_window(slide.n_spots)]
        if size is not None:
            tree = cKDTree(xy)
            windows = [make_window(core, find_within(tree, core, PATCH_HALO)) for core in split_spots(xy, size)]
        for window in windows:
            pixels = torch.from_numpy(patches[window.rows]).permute(0, 3, 1, 2).contiguous()
            yield WindowInputs(window, PatchInputs(pixels, np.ascontiguousarray(positions[window.rows])))

    def stages(self, slide: Slide, folder: Path | None = None) -> list[StageFeatures]:
        """Read the features of a section, one array a stage; computed ones are written to ``folder``, if not ``None``."""
        return frozen_stages(
            slide, self.inputs, self.encoder, self.compute, folder=folder, block_folder=self.block_folder
        )

    @property
    def _n_neighbors(self) -> int:
        return int(cast("int", getattr(self.net, "n_neighbors", 1)))


def store_windows(source: InputSource, slide: Slide, folder: Path | None) -> list[WindowInputs]:
    """Make all windows of a section for many epochs; if there are several, their arrays stay on disk in ``folder``."""
    if folder is None or window_size(source.inputs, slide, source.window) is None:
        return list(source.windows(slide))
    folder.mkdir()
    windows = []
    for number, window in enumerate(source.windows(slide, folder)):
        inputs: NetworkInputs
        if isinstance(window.inputs, FeatureInputs):
            paths = (folder / f"window-{number}-{stage}.npy" for stage in range(len(window.inputs.features)))
            stages = [_move_to_disk(x, path) for x, path in zip(window.inputs.features, paths, strict=True)]
            inputs = window.inputs._replace(features=stages)
        else:
            patches = _move_to_disk(window.inputs.patches, folder / f"window-{number}.npy")
            inputs = window.inputs._replace(patches=patches)
        windows.append(window._replace(inputs=inputs))
    return windows


def _move_to_disk(values: torch.Tensor, path: Path) -> torch.Tensor:
    np.save(path, values.numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def tissue_statistics(stages: Sequence[StageFeatures]) -> SectionStatistics | None:
    """Statistics of the tissue that the encoder read, whichever spots there are; ``None`` for features of spots."""
    moments = [stage.moments for stage in stages if stage.moments is not None]
    if not moments or len(moments) < len(stages):
        return None
    return SectionStatistics(
        tuple(Moments(n, torch.from_numpy(mean), torch.from_numpy(spread)) for n, mean, spread in moments)
    )


def section_statistics(
    stages: Sequence[FeatureArray],
    dependencies: SpotDependencies,
    cores: Sequence[Rows],
    scales: Sequence[nn.ModuleList | None],
) -> list[SectionStatistics]:
    """Compute the statistics of a whole section part by part, one result for each of the scales.

    A trained network's scale includes a prior of its training slides. ``None`` scales by the section alone, which differs
    where features hardly vary.
    """
    running_moments = []
    for stage in stages:
        running = RunningMoments()
        for step in row_steps(stage.shape):
            running.add(torch.from_numpy(stage[step]))
        running_moments.append(running.moments())
    moments = tuple(running_moments)
    scaled, means = ([[RunningMoments() for _ in stages] for _ in scales] for _ in range(2))
    for core in cores:
        rows, positions = make_window(core, dependencies.expand(core, ["hyperedges"]))
        incidence = _incidence(dependencies, rows)
        for i, stage in enumerate(stages):
            part = torch.from_numpy(stage[rows])
            for k, scale in enumerate(scales):
                x = standardized(part, *moments[i][1:]) if scale is None else scale[i](part, moments[i])
                scaled[k][i].add(x[positions])
                means[k][i].add(propagate(x, incidence, len(rows))[positions])
    return [SectionStatistics(moments, _contrast(*pair)) for pair in zip(scaled, means, strict=True)]


def _contrast(features: Sequence[RunningMoments], means: Sequence[RunningMoments]) -> torch.Tensor:
    """Contrast of the features' spread with the spread of their means over the hyperedges, all stages side by side."""
    pairs = [(a.moments().spread, b.moments().spread) for a, b in zip(features, means, strict=True)]
    return torch.cat([contrast_of(*pair) for pair in pairs])


def _incidence(dependencies: SpotDependencies, rows: Rows) -> torch.Tensor:
    """Incidence among these spots, which is complete for spots whose hyperedges lie inside."""
    return spatial_incidence(torch.from_numpy(renumber(dependencies.hyperedges[rows], rows)))
