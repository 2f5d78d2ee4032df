"""What a network is fed of a section that is looked at in windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from sthggep._checks import one_of, positive, warn_user
from sthggep._disk._rows import row_steps
from sthggep._inputs._neighborhood import neighborhoods, positions, separate
from sthggep._inputs._split import Ties, Window, renumbered, split_spots, window_of, within
from sthggep._inputs._stages import array_positions, frozen_stages
from sthggep._slides._patches import Patches
from sthggep.nn import spatial_incidence
from sthggep.nn._hyperconv import propagate
from sthggep.nn._shortcut import contrast_of
from sthggep.nn._stages import RunningMoments, SectionStatistics, standardized

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._sweep import FeatureArray
    from sthggep._inputs._inputs import Inputs
    from sthggep._inputs._split import Rows
    from sthggep._slides._slide import Slide

# A Visium section has 4,992 spots at most: it is one window
WINDOW = 5000
# Of networks that attend over all they see; there is no distance beyond which nothing would change
PATCH_HALO = 4.0  # pitches
STATISTICS = 5  # their place among what a network is fed of a window

Fed = tuple[Window, tuple[Any, ...]]


def most_spots(inputs: Inputs, window: int | str | None) -> int | None:
    """Spots of a window at most; ``None`` where sections are looked at whole, whatever their size."""
    if isinstance(window, str):
        # Networks that attend over the whole section say something else of a part of it
        window = WINDOW if one_of(window, ["auto"], "window") and inputs.kind != "patches" else None
    return None if window is None else int(positive(window, "`window`"))


def window_size(inputs: Inputs, slide: Slide, window: int | str | None) -> int | None:
    """Spots a window of a section; ``None`` where it is looked at whole."""
    most = most_spots(inputs, window)
    return None if most is None or slide.n_spots <= most else most


def check_window(inputs: Inputs, slide: Slide, window: int | str | None) -> None:
    """Refuse a window that is none; say where windows change the result."""
    size = window_size(inputs, slide, window)
    if size is not None and inputs.kind == "patches":
        msg = (
            f"Section {slide.name!r} ({slide.n_spots} spots) is looked at in windows of {size} spots, but this network "
            "attends over, and measures distances by, all spots that it is shown: the result differs from that of the "
            "whole section. Pass `window=None` for the published result."
        )
        warn_user(msg)


def windowed_inputs(
    slide: Slide,
    inputs: Inputs,
    encoder: FrozenEncoder | None,
    net: Any,
    window: int,
    *,
    batch_size: int,
    folder: Path,
    show: bool = False,
    halo: int | None = None,
    pitch_um: float | None = None,
    members: Sequence[Any] = (),
    blocks: Path | None = None,
) -> Iterator[Fed]:
    """Windows of a section, each with the tensors of its spots in the order in which the network takes them.

    Parameters
    ----------
    slide
        The section.
    inputs
        What the network looks at.
    encoder
        The frozen encoder, where there is one.
    net
        The network, which says how far its predictions reach.
    window
        Spots that a window predicts, at most.
    batch_size
        Patches encoded at a time.
    folder
        Where features are written that memory need not hold.
    show
        Show progress.
    halo
        Steps of the network that the halo covers; ``None`` covers all, and the windows do not show.
    pitch_um
        Distance of spots at which the network learned; see ``neighborhoods``.
    members
        Trained networks, each of which scales features its own way: statistics are a list, one for each of them. Without
        any they are those of networks that are still to be trained.
    blocks
        Folder of finished blocks of features, which stay there; ``None`` keeps none.
    """
    xy = positions(slide)
    if inputs.kind == "patches":
        yield from _patch_windows(slide, inputs, xy, split_spots(xy, window))
        return
    # Coarser arrays that are interleaved are not tied to each other: a window of one of them has the smaller halo
    cores = [part[core] for part in separate(slide, pitch_um) for core in split_spots(xy[part], window)]
    near, held = neighborhoods(slide, net.n_neighbors, pitch_um)
    ties = Ties(near.rows.numpy(), held.rows.numpy())
    stages = frozen_stages(slide, inputs, encoder, batch_size, show, folder=folder, blocks=blocks)
    known = section_statistics(stages, ties, cores, [member.scale for member in members] or [None])
    statistics = known if members else known[0]
    for core in cores:
        found = window_of(core, ties.around(core, net.hops[:halo]))
        rows = found.rows
        neighbors = torch.from_numpy(renumbered(ties.neighbors[rows], rows))
        part = [torch.from_numpy(stage[rows]) for stage in stages]
        yield found, (part, neighbors, near.offsets[rows], _incidence(ties, rows), len(rows), statistics)


def section_statistics(
    stages: Sequence[FeatureArray], ties: Ties, cores: Sequence[Rows], scales: Sequence[Any]
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


def _patch_windows(slide: Slide, inputs: Inputs, xy: Any, cores: Sequence[Rows]) -> Iterator[Fed]:
    """Patches of each window, and of the spots a few pitches around it."""
    cut = Patches(slide, size_um=inputs.sizes_um[0], size_px=inputs.size_px)
    tree = cKDTree(xy)
    given = array_positions(slide) if inputs.reference else xy
    for core in cores:
        found = window_of(core, within(tree, core, PATCH_HALO))
        patches = torch.from_numpy(cut[found.rows]).permute(0, 3, 1, 2).contiguous()
        yield found, (patches, np.ascontiguousarray(given[found.rows]))


def kept_windows(
    folder: Path, slide: Slide, inputs: Inputs, encoder: FrozenEncoder | None, net: Any, window: int, **options: Any
) -> list[Fed]:
    """All windows of a section, to be gone through many times: their features or patches stay on disk."""
    folder.mkdir()
    out = []
    for number, (found, given) in enumerate(
        windowed_inputs(slide, inputs, encoder, net, window, folder=folder, **options)
    ):
        first = given[0]
        if isinstance(first, list):
            first = [_on_disk(stage, folder / f"window-{number}-{i}.npy") for i, stage in enumerate(first)]
        else:
            first = _on_disk(first, folder / f"window-{number}.npy")
        out.append((found, (first, *given[1:])))
    return out


def _on_disk(values: torch.Tensor, path: Path) -> torch.Tensor:
    np.save(path, values.numpy())
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def network_inputs(
    slide: Slide,
    inputs: Inputs,
    encoder: FrozenEncoder | None,
    *,
    n_neighbors: int,
    batch_size: int,
    show: bool = False,
    pitch_um: float | None = None,
    blocks: Path | None = None,
) -> tuple[Any, ...]:
    """Tensors of one section, in the order in which its network takes them.

    Spots that are denser than ``pitch_um``, at which the network learned, are tied to others at about that distance.
    """
    if inputs.kind == "patches":
        cut = Patches(slide, size_um=inputs.sizes_um[0], size_px=inputs.size_px)
        patches = torch.from_numpy(cut[:]).permute(0, 3, 1, 2).contiguous()
        # Positions stay in numpy, on the CPU: the network wants float64, which some accelerators do not have
        return patches, array_positions(slide) if inputs.reference else positions(slide)
    near, held = neighborhoods(slide, n_neighbors, pitch_um)
    features = frozen_stages(slide, inputs, encoder, batch_size, show, blocks=blocks)
    stages = [torch.from_numpy(stage[:]) for stage in features]
    return stages, near.rows, near.offsets, spatial_incidence(held.rows), slide.n_spots
