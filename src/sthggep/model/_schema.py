"""The schema of a model's record, by which ``config.json`` is checked before anything is built from it."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sthggep._checks import counted, listing
from sthggep._encoders._entry import ENCODINGS
from sthggep._inputs._inputs import Inputs
from sthggep._slides._array_places import MOST_PLACES
from sthggep._slides._colors import Colors
from sthggep._slides._fingerprint import ModelFingerprint
from sthggep._slides._picture import MOST_PX as PICTURE_PX
from sthggep._slides._stain import METHODS
from sthggep.model._record import TrainingRecord

Number = Annotated[int, Field(ge=1, le=1_000_000)]
Few = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Lab = Annotated[list[float], Field(min_length=3, max_length=3)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
PRESET = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"  # a part of the id, which names folders
KINDS = ("patches", "features", "obsm")
MOST_PX, MOST_UM = 4096, 1e5


class Part(BaseModel):
    """A part of the record: no type is converted, and no entry is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


P = TypeVar("P", bound=Part)


class ClosedFormOptions(Part):
    """Options of a closed form on features."""

    feature_dims: Annotated[list[Number], Field(min_length=1, max_length=32)]
    n_genes: Number
    blocks: Annotated[list[Number], Field(min_length=1, max_length=64)] | None = None
    rank: Number = 8
    penalty: Annotated[float, Field(ge=0)] = 0.5
    damping: Annotated[float, Field(ge=0)] = 0.5
    hypergraph: bool = True
    linear: bool = False
    n_windows: Annotated[int, Field(ge=1, le=16)] = 1


class FeatureOptions(ClosedFormOptions):
    """Options of a network on features."""

    dim: Few = 128
    depth: Annotated[int, Field(ge=0, le=32)] = 1
    heads: Few = 4
    n_neighbors: Few = 9
    dropout: Share = 0.2
    input_dropout: Share = 0.1
    count_head: Literal["zinb", "nb"] | None = None


class PatchOptions(Part):
    """Options of a network on patches."""

    n_genes: Number
    reference: bool = False
    count_head: Literal["zinb", "nb"] | None = "zinb"
    dim: Annotated[int, Field(ge=16, le=16384)] = 1024
    depth: Annotated[int, Field(ge=0, le=32)] = 4
    heads: Few = 16
    hypergraph_dim: Annotated[int, Field(ge=1, le=16384)] = 512
    fusion_layers: Annotated[int, Field(ge=1, le=32)] = 4
    dropout: Share = 0.2
    hypergraph_dropout: Share = 0.5
    n_neighbors: Few = 8
    n_selected: Few = 4
    chunk_size: Number = 256
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class FeatureNetwork(Part):
    """A network on features."""

    name: Literal["FeatureHGGEPNet"] = Field(alias="class")
    config: FeatureOptions


class ClosedForm(Part):
    """A closed form on features."""

    name: Literal["ClosedFormNet"] = Field(alias="class")
    config: ClosedFormOptions


class PatchNetwork(Part):
    """A network on patches."""

    name: Literal["HGGEPNet"] = Field(alias="class")
    config: PatchOptions


class ReinhardRecord(Part):
    """A stain as means and spreads of L*, a* and b*."""

    method: Literal["reinhard"]
    mean: Lab
    spread: Lab


class MacenkoRecord(Part):
    """A stain as two directions of optical density and their strengths."""

    method: Literal["macenko"]
    stains: Annotated[list[Lab], Field(min_length=2, max_length=2)]
    strength: Pair


class TargetsRecord(Part):
    """Location and scale of targets that are not genes."""

    source: Literal["obs", "obsm"] = Field(alias="from")
    key: str | None = None
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class PictureRecord(Part):
    """A small gray picture of a section."""

    unit: Annotated[float, Field(ge=-1e6, le=1e6)]
    width: Annotated[int, Field(ge=1, le=PICTURE_PX)]
    pixels: Annotated[str, Field(max_length=2 * PICTURE_PX**2)]


class PlacesRecord(Part):
    """Occupied places of an array of spots."""

    width: Annotated[int, Field(ge=1, le=MOST_PLACES)]
    height: Annotated[int, Field(ge=1, le=MOST_PLACES)]
    places: Annotated[str, Field(max_length=MOST_PLACES)]


class FingerprintRecord(Part):
    """Fingerprint of a section that the model was trained on."""

    name: str
    image: str | None = None
    layout: str | None = None
    picture: PictureRecord | None = None
    places: PlacesRecord | None = None


class TrainingDetails(Part):
    """Entries of the record of the training whose types its class leaves open."""

    fingerprints: list[FingerprintRecord] = []
    colors: list[Colors] = []
    targets: TargetsRecord | None = None
    stain: Annotated[ReinhardRecord | MacenkoRecord, Field(discriminator="method")] | None = None
    n_spots: list[Annotated[int, Field(ge=0)]] = []
    mpp: list[Positive | None] = []
    pitch_um: list[Positive | None] = []
    image_mpp: list[Positive | None] = []


class ModelRecord(Part):
    """The whole of ``config.json``."""

    format: int
    version: str | None = None
    name: Literal["HGGEP"] = Field(default="HGGEP", alias="class")
    id: str | None
    preset: Annotated[str, Field(pattern=PRESET)]
    genes: Annotated[list[str], Field(min_length=1)]
    units: str
    inputs: Inputs
    networks: Annotated[
        list[Annotated[FeatureNetwork | ClosedForm | PatchNetwork, Field(discriminator="name")]],
        Field(min_length=1, max_length=1000),
    ]
    training: TrainingRecord
    history: dict[str, list[int | float | str | None]]


def check_record(config: Mapping[str, Any]) -> None:
    """Check the record of a model: its types, its sizes, and whether its parts belong together.

    Raises
    ------
    ValueError
        An entry is missing, unknown, of another type or size, or does not fit another one.
    """
    record = _validate(ModelRecord, config, "")
    training = {name: config["training"][name] for name in TrainingDetails.model_fields if name in config["training"]}
    details = _validate(TrainingDetails, training, "training.")
    for faults in (
        _gene_faults(record),
        _input_faults(record),
        _network_faults(record),
        _training_faults(record, details),
    ):
        for fault in faults:
            raise ValueError(fault)


def _validate(schema: type[P], values: Mapping[str, Any], place: str) -> P:
    try:
        return schema.model_validate_json(json.dumps(values))
    except ValidationError as reason:
        faults = reason.errors(include_url=False)
        first = faults[0]
        where = place + ".".join(map(str, first["loc"])) or "the record"
        value = "" if first["type"] in ("missing", "json_invalid") else f", found {reprlib.repr(first['input'])}"
        more = f"; {len(faults)} faults in all" if len(faults) > 1 else ""
        msg = f"{where}: {first['msg']}{value}{more}"
        raise ValueError(msg) from reason


def _gene_faults(record: ModelRecord) -> Iterator[str]:
    genes = record.genes
    twice = [gene for gene, times in Counter(genes).items() if times > 1 or not gene]
    if twice:
        yield f"genes must be unique names, found more than once, or empty: {listing(twice, 3)}"
    for network in record.networks:
        if network.config.n_genes != len(genes):
            yield f"a network predicts {counted(network.config.n_genes, 'gene')}, but there are {counted(genes, 'name')}"
    for name in ("held_out_pearson", "ceiling"):
        values = getattr(record.training, name)
        if values is not None and len(values) != len(genes):
            yield f"training.{name} must have one value for each of {counted(genes, 'gene')}, found {len(values)}"


def _input_faults(record: ModelRecord) -> Iterator[str]:
    inputs = record.inputs
    sizes = [size for size in inputs.sizes_um if size is not None]
    if inputs.kind not in KINDS:
        yield f"inputs.kind must be one of {listing(KINDS)}, found {reprlib.repr(inputs.kind)}"
    if not 8 <= inputs.size_px <= MOST_PX:
        yield f"inputs.size_px must be from 8 to {MOST_PX}, found {inputs.size_px}"
    if not all(0 < size <= MOST_UM for size in sizes):
        yield f"inputs.sizes_um must be from 0 to {MOST_UM:g}, found {reprlib.repr(sizes)}"
    if inputs.kind == "features" and len(sizes) < len(inputs.sizes_um):
        yield "inputs.sizes_um must hold a field of view for each stage"
    if inputs.encoding not in ENCODINGS:
        yield f"inputs.encoding must be one of {listing(ENCODINGS)}, found {reprlib.repr(inputs.encoding)}"
    if inputs.stain not in (None, *METHODS):
        yield f"inputs.stain must be one of {listing(METHODS)}, or null, found {reprlib.repr(inputs.stain)}"


def _network_faults(record: ModelRecord) -> Iterator[str]:
    inputs, first = record.inputs, record.networks[0]
    if any(network.name != first.name for network in record.networks):
        yield "the networks are of different classes"
    elif isinstance(first, PatchNetwork):
        if inputs.kind != "patches" or len(inputs.sizes_um) != 1 or inputs.reference != first.config.reference:
            yield f"inputs ({inputs.kind}) are not those of a network on patches"
    else:
        widths = {
            tuple(network.config.feature_dims) for network in record.networks if not isinstance(network, PatchNetwork)
        }
        stages = inputs.obsm if inputs.kind == "obsm" else inputs.sizes_um
        if inputs.kind == "patches" or {len(each) for each in widths} != {len(stages)}:
            yield f"inputs ({inputs.kind}) hold {counted(stages, 'stage')}, the networks read {listing(widths, 3)}"


def _fits(places: PlacesRecord) -> bool:
    """Whether the text holds a bit for each place of an array that is not too large."""
    n_places = places.width * places.height
    return n_places <= MOST_PLACES and len(places.places) == 4 * ceil(ceil(n_places / 8) / 3)


def _is_readable(fingerprint: FingerprintRecord) -> bool:
    """Whether picture and places of a fingerprint hold as many values as they state."""
    places = fingerprint.places
    if places is not None and not _fits(places):
        return False
    try:
        ModelFingerprint.from_dict(fingerprint.model_dump())
    except ValueError:
        return False
    return True


def _training_faults(record: ModelRecord, details: TrainingDetails) -> Iterator[str]:
    stain, targets, n_genes = details.stain, details.targets, len(record.genes)
    for fingerprint in details.fingerprints:
        if not _is_readable(fingerprint):
            yield f"training.fingerprints: the fingerprint of {reprlib.repr(fingerprint.name)} cannot be read"
    if record.inputs.stain != (None if stain is None else stain.method):
        yield "inputs.stain and training.stain are not of one method"
    if targets is not None and targets.source == "obsm" and targets.key is None:
        yield "training.targets.key is missing"
    if targets is not None and not len(targets.mean) == len(targets.std) == n_genes:
        yield f"training.targets must have a mean and a std for each of {counted(n_genes, 'target')}"
    lengths = {len(column) for column in record.history.values()}
    if len(lengths) > 1:
        yield f"history must have columns of one length, found {listing(sorted(lengths), 3)}"
