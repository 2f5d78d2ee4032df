"""The check of a model's record, ``config.json``, before anything is built from it."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, TypeVar

from pydantic import ValidationError

from sthggep._checks import counted, listing
from sthggep._encoders._entry import ENCODINGS
from sthggep._slides._array_places import MOST_PLACES
from sthggep._slides._fingerprint import ModelFingerprint
from sthggep._slides._stain import METHODS
from sthggep.model._schema import (
    KINDS,
    MOST_PX,
    MOST_UM,
    FingerprintRecord,
    ModelRecord,
    Part,
    PatchNetwork,
    PlacesRecord,
    TrainingDetails,
)

P = TypeVar("P", bound=Part)


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
    for name in ("gene_n_sections", "gene_n_spots"):
        numbers = getattr(record.training, name)
        if numbers and len(numbers) != len(genes):
            yield f"training.{name} must have one number for each of {counted(genes, 'gene')}, found {len(numbers)}"

    held = set(genes)
    for name, members in record.training.gene_sets.items():
        if not members or not held.issuperset(members):
            yield f"training.gene_sets: the set {reprlib.repr(name)} must hold genes of the model"


def _input_faults(record: ModelRecord) -> Iterator[str]:
    inputs = record.inputs
    sizes = inputs.fields_of_view
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
    if not all(isinstance(epoch, int | float) for epoch in record.history.get("epoch", [])):
        yield "history.epoch must hold numbers"
    lengths = {len(column) for column in record.history.values()}
    if len(lengths) > 1:
        yield f"history must have columns of one length, found {listing(sorted(lengths), 3)}"
