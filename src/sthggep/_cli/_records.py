"""Options of the commands as click passes them, and their conversion to keywords of the library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._places import Places


class SpotOptions(TypedDict):
    """Where a slide keeps its table and spots."""

    library_key: str | None
    table_key: str
    shapes_key: str | None
    spatial_key: str


class PlaceOptions(SpotOptions):
    """Where a slide keeps its table, spots, image and scale."""

    image_key: str | None
    coordinate_system: str | None
    mpp: float | None


class ScoreOptions(SpotOptions):
    """Options that `evaluate` passes on."""

    layer: str | None
    seed: int


class ReportOptions(SpotOptions):
    """Options that `report` passes on."""

    layer: str | None
    key: str
    title: str | None
    tiles: str
    overwrite: bool


class SharedTraining(PlaceOptions):
    """Options that `fit` and `cross-validate` pass on."""

    preset: str
    encoder: str | None
    encoding: str | None
    stain: str | None
    weights: str | None
    n_members: int | None
    max_epochs: int | None
    learning_rate: float | None
    layer: str | None
    absent: str
    batch_size: int
    device: str
    seed: int


class TrainingOptions(SharedTraining):
    """Options of `fit` and `cross-validate`, those included that the shell writes in another form."""

    genes: tuple[str, ...]
    targets: str | None
    expression: tuple[Path, ...]
    size_um: tuple[float, ...]
    obsm: tuple[str, ...]
    window: str


class TrainingKeywords(SharedTraining):
    """Keywords that `tl.fit` and `tl.cross_validate` share."""

    genes: str | list[str] | None
    targets: str | list[str] | None
    expression: list[AnnData | SpatialData] | None
    size_um: list[float] | None
    obsm: list[str] | None
    window: int | str | None


class SharedPrediction(PlaceOptions):
    """Options that `predict` passes on."""

    key_added: str
    latent: bool
    interval: float | None
    interval_of: str
    batch_size: int
    device: str


class PredictionOptions(SharedPrediction):
    """Options of `predict`, those included that the shell writes in another form."""

    overwrite: bool
    skip_existing: bool
    fullres_image: tuple[Path, ...]
    genes: tuple[str, ...]
    counts: bool
    size_factors: str | None
    spacing_um: float | None
    predictions_only: bool
    measured: str | None
    min_counts: int
    layer: str | None
    window: str
    workers: int | None
    scheduler: str | None


class PredictionKeywords(SharedPrediction):
    """Keywords that `tl.predict` and `tl.predict_cohort` share."""

    genes: list[str] | None
    counts: bool | str
    window: int | str | None


def training_keywords(
    options: TrainingOptions, genes: str | list[str] | None, expression: list[AnnData | SpatialData]
) -> TrainingKeywords:
    """The library's keywords for the options of a training; files are read already."""
    from sthggep._cli._files import targets_of

    return {
        **options,
        "genes": genes,
        "targets": targets_of(options["targets"]),
        "expression": expression or None,
        "size_um": list(options["size_um"]) or None,
        "obsm": list(options["obsm"]) or None,
        "window": window_of(options["window"]),
    }


def prediction_keywords(options: PredictionOptions, genes: list[str] | None, places: Places) -> PredictionKeywords:
    """The library's keywords for the options of a prediction of a slide with these places."""
    return {
        "image_key": places.image_key,
        "table_key": places.table_key,
        "shapes_key": places.shapes_key,
        "spatial_key": places.spatial_key,
        "coordinate_system": places.coordinate_system,
        "library_key": places.library_key,
        "mpp": places.mpp,
        "key_added": options["key_added"],
        "latent": options["latent"],
        "interval": options["interval"],
        "interval_of": options["interval_of"],
        "batch_size": options["batch_size"],
        "device": options["device"],
        "genes": genes,
        "counts": options["size_factors"] or options["counts"],
        "window": window_of(options["window"]),
    }


def window_of(text: str) -> int | str | None:
    """A number of spots, ``"auto"``, or ``None`` for whole sections."""
    return int(text) if text.isdigit() else None if text == "none" else text
