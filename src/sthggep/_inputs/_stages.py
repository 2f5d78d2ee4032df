"""Sections as tensors: what a network is fed and what it should say. Split by section or spatial block, never by spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from sthggep._checks import listing
from sthggep._encoders._encode import Encoding, Rows, encode
from sthggep._encoders._kept_blocks import KeptBlocks
from sthggep._inputs._neighborhood import neighborhoods, positions
from sthggep._keys import feature_key
from sthggep._table._counts import counts, log10_cp10k, size_factors
from sthggep._table._user_features import given_features
from sthggep.nn import spatial_incidence
from sthggep.nn._programs import Measured
from sthggep.nn._published import TABLE_ROWS
from sthggep.pp._features import feature_record, is_done
from sthggep.pp._patches import Patches

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._slide import Slide

BLOCKS_ACROSS = 4
MANY_COUNTS = 1e6


@dataclass(frozen=True)
class Inputs:
    """What a model looks at: patches end to end, features of a frozen encoder, or arrays that are in ``obsm``.

    ``sizes_um`` holds one field of view a stage; patches take the first, and ``None`` there means pixels as published.
    ``stain`` names a normalization; what it was fitted to is in the record of the training.
    """

    kind: str
    sizes_um: tuple[float | None, ...] = (None,)
    size_px: int = 112
    encoder: str = "shufflenet"
    flips: bool = True
    obsm: tuple[str, ...] = ()
    reference: bool = False
    stain: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Inputs:
        """Back from JSON."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:g} µm" if size else f"{self.size_px} px" for size in self.sizes_um)
        looks = {"patches": f"patches of {sizes}", "features": f"{self.encoder} features of {sizes}"}
        found = looks.get(self.kind, f"obsm {listing(self.obsm)}")
        return found if self.stain is None else f"{found}, stain normalized ({self.stain})"

    @property
    def needs_image(self) -> bool:
        """Whether the slide's image is looked at."""
        return self.kind != "obsm"


class Section(NamedTuple):
    """One section, ready for the network: ``net(*inputs)``; ``inputs`` is a list where it is looked at in windows."""

    name: str
    inputs: Any
    target: Tensor
    counts: Tensor
    size_factors: Tensor
    train: Tensor
    validate: Tensor

    @property
    def library_sizes(self) -> Tensor:
        """Counts of each spot; where no counts are learned, so many that every spot is worth the same."""
        if self.counts.shape[1]:
            return self.counts.sum(dim=1)
        return torch.full((len(self.target),), MANY_COUNTS)


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


def array_positions(slide: Slide) -> NDArray[np.int64]:
    """Array positions, as the published network looks them up, or an error that says what is expected."""
    array_xy = slide.array_xy()
    if array_xy is None:
        msg = (
            f"Section {slide.name!r} has no array positions, which the published network needs: obs columns 'array_x' and "
            "'array_y' (Visium: 'array_col' and 'array_row') were expected."
        )
        raise KeyError(msg)
    if array_xy.min() < 0 or array_xy.max() >= TABLE_ROWS:
        msg = (
            f"Section {slide.name!r} has array positions from {array_xy.min()} to {array_xy.max()}, but the published "
            f"network knows 0 to {TABLE_ROWS - 1} only. Fit a new model: its positions are relative to the section."
        )
        raise ValueError(msg)
    return array_xy


def frozen_stages(
    slide: Slide,
    inputs: Inputs,
    encoder: FrozenEncoder | None,
    batch_size: int,
    show: bool,
    *,
    folder: Path | None = None,
    blocks: Path | None = None,
) -> list[Rows]:
    """One feature array a stage: those that are in ``obsm`` already, else computed; kept in ``folder``, if one is given.

    ``blocks`` is a folder of finished blocks, which stay there.
    """
    if encoder is None:
        return [given_features(slide, key) for key in inputs.obsm]
    found = _described(slide, inputs, encoder)
    if new := [size for size, values in found.items() if values is None]:
        done = encode(
            slide, encoder, new, flips=inputs.flips, batch_size=batch_size, show=show, folder=folder, blocks=blocks
        )
        found |= dict(zip(new, done, strict=True))
    stages = [found[size] for size in inputs.sizes_um if size is not None]
    return [values for values in stages if values is not None]


def kept_blocks(
    slide: Slide, inputs: Inputs, encoder: FrozenEncoder | None, batch_size: int, folder: Path
) -> KeptBlocks | None:
    """Blocks in which :func:`frozen_stages` computes features; ``None`` where it has none to compute, or keeps none."""
    if encoder is None:
        return None
    new = [size for size, values in _described(slide, inputs, encoder).items() if values is None]
    if not new:
        return None
    return KeptBlocks.of(folder, Encoding(slide, encoder, new, flips=inputs.flips, batch_size=batch_size))


def _described(slide: Slide, inputs: Inputs, encoder: FrozenEncoder) -> dict[float, Rows | None]:
    """Features that are in ``obsm`` already, for each field of view; ``None`` where they are still to be computed."""
    table = slide.adata
    sizes = [size for size in inputs.sizes_um if size is not None]
    if len(sizes) < len(inputs.sizes_um):
        msg = "Features of a frozen encoder need a field of view in microns."
        raise ValueError(msg)
    keys = {size: feature_key(inputs.encoder, size) for size in sizes}
    return {
        size: np.asarray(table.obsm[key][slide.rows], dtype=np.float32)
        if is_done(table, key, feature_record(encoder, size, inputs.flips, slide.stain), slide)
        else None
        for size, key in keys.items()
    }


def labeled(slide: Slide, genes: Sequence[str], layer: str | None, inputs: Any) -> Section:
    """A section with its measured expression, all spots for training."""
    raw = counts(slide.adata, genes, layer=layer, rows=slide.rows)
    # A spot without counts has no expression to learn from
    filled = torch.from_numpy(raw.sum(axis=1) > 0)
    return Section(
        slide.name,
        inputs,
        torch.from_numpy(log10_cp10k(raw)),
        torch.from_numpy(raw),
        torch.from_numpy(size_factors(raw)),
        filled,
        torch.zeros_like(filled),
    )


def taught(slide: Slide, values: NDArray[np.float32], inputs: Any) -> Section:
    """A section with targets that are no counts, standardized, all spots for training."""
    every = torch.ones(slide.n_spots, dtype=torch.bool)
    none, ones = torch.empty((slide.n_spots, 0)), torch.ones(slide.n_spots)
    return Section(slide.name, inputs, torch.from_numpy(values), none, ones, every, ~every)


def measured(slide: Slide, genes: Sequence[str], layer: str | None) -> Measured:
    """Expression alone, of a section whose image is not looked at."""
    raw = counts(slide.adata, genes, layer=layer, rows=slide.rows)
    return Measured(torch.from_numpy(log10_cp10k(raw)), torch.from_numpy(raw.sum(axis=1)))


def spatial_blocks(xy: NDArray[np.float64], fold: int, n_folds: int) -> NDArray[np.bool_]:
    """Spots of whole blocks of tissue, about one in ``n_folds``; folds do not overlap and cover all spots."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    cell = np.minimum((xy - low) / np.maximum(high - low, 1e-9) * BLOCKS_ACROSS, BLOCKS_ACROSS - 1).astype(int)
    # Neighboring blocks fall into different folds, so that a fold is spread over the section
    return np.asarray((cell[:, 0] + 2 * cell[:, 1]) % n_folds == fold % n_folds)


def hold_out(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Sections named are validated on, the others trained on."""
    none = [torch.zeros_like(section.train) for section in sections]
    return [
        section._replace(train=empty, validate=section.train) if section.name in names else section
        for section, empty in zip(sections, none, strict=True)
    ]


def hold_out_blocks(
    sections: Sequence[Section], xy: Sequence[NDArray[np.float64]], fold: int, n_folds: int
) -> list[Section]:
    """Blocks of each section are validated on, the rest trained on."""
    out = []
    for section, where in zip(sections, xy, strict=True):
        block = torch.from_numpy(spatial_blocks(where, fold, n_folds))
        out.append(section._replace(train=section.train & ~block, validate=section.train & block))
    return out


class Sections(lightning.LightningDataModule):
    """Feeds whole sections, one a step.

    Parameters
    ----------
    sections
        Each says by its masks which of its spots are trained and validated on.
    seed
        Order of the training sections.
    min_steps
        Steps an epoch at least: few sections are gone through several times.
    """

    def __init__(self, sections: Sequence[Section], seed: int = 0, min_steps: int = 1) -> None:
        super().__init__()
        training = [section for section in sections if section.train.any()]
        self.training = training * -(-min_steps // max(1, len(training)))
        self.validation = [section for section in sections if section.validate.any()]
        self.generator = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[Section]:
        """Training sections, in a new order each epoch."""
        return DataLoader(
            self.training,  # type: ignore[arg-type]
            batch_size=None,
            shuffle=True,
            generator=self.generator,
            collate_fn=_as_it_is,
        )

    def val_dataloader(self) -> list[Any] | DataLoader[Section]:
        """Validation sections; none where nothing is held out."""
        if not self.validation:
            return []
        return DataLoader(self.validation, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]


def _as_it_is(section: Any) -> Any:
    """Positions stay numpy arrays: the default would make tensors of them."""
    return section
