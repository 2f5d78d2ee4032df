"""A model from a folder that anybody may have written, checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import listing
from sthggep._disk._tensors import explain, refuse_non_finite, refuse_other_shapes
from sthggep.model._calibration import Calibration
from sthggep.model._former import former_id
from sthggep.model._networks import expected_weights
from sthggep.model._record_check import check_record
from sthggep.model._store import AMERICAN_NAMES, FORMAT, WHOLE_ID, read_folder, select_prefix

if TYPE_CHECKING:
    from torch import Tensor

MEMBERS, ENCODER, CALIBRATION = "members.", "encoder.", "calibration."


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the record and the weights of a model.

    Raises
    ------
    FileNotFoundError
        The folder or one of its files is not there.
    ValueError
        A file is broken, was written by a newer version, or does not fit the other.
    """
    config, tensors = read_folder(folder)
    try:
        _check_model(config, tensors)
        if config["format"] >= WHOLE_ID and config["id"] is None:
            msg = "id: a text was expected, found null"
            raise ValueError(msg)
        if AMERICAN_NAMES <= config["format"] < WHOLE_ID:
            members, encoder = select_prefix(MEMBERS, tensors), select_prefix(ENCODER, tensors)
            check_id(config, former_id(config, members, encoder))
    except ValueError as reason:
        raise unfit(folder, reason) from reason
    return config, tensors


def check_before_saving(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to save a model that could not be loaded, such as one whose training diverged."""
    try:
        _check_model({"format": FORMAT, **config}, tensors)
    except ValueError as reason:
        msg = f"This model cannot be saved: {reason}."
        raise ValueError(msg) from reason


def check_id(config: Mapping[str, Any], computed: str) -> None:
    """Refuse a model whose content is not that of its id."""
    if config["id"] not in (None, computed):
        msg = f"the id of this record and these weights is {computed}, the saved id {config['id']}"
        raise ValueError(msg)


def unfit(folder: Path, reason: BaseException) -> ValueError:
    """Make the error for a folder whose record and weights do not fit."""
    msg = (
        f"{str(folder)!r}: the record and the weights do not belong together ({explain(reason)}). Save the model again."
    )
    return ValueError(msg)


def _check_model(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Check the record, and that the tensors are those of its networks, before memory is taken for these."""
    check_record(config)
    members = select_prefix(MEMBERS, tensors)
    try:
        expected = refuse_other_shapes(members, expected_weights(config["networks"]))
    except Exception as reason:  # options that no network takes
        raise ValueError(explain(reason)) from reason
    calibration = select_prefix(CALIBRATION, tensors)
    if calibration:
        first = config["networks"][0]["config"]
        n_programs = min(first.get("rank", 0), len(config["genes"]))
        n_sets = len(config["training"].get("gene_sets", {}))
        expected_parts = Calibration.expected_tensors(calibration, len(config["genes"]), n_sets, n_programs)
        if surplus := set(calibration) - refuse_other_shapes(calibration, expected_parts):
            msg = f"the calibration holds {listing(sorted(surplus), 3)}, which this version does not know"
            raise ValueError(msg)
    known = (ENCODER, CALIBRATION)
    unknown = [name for name in tensors if not name.startswith(known) and name.removeprefix(MEMBERS) not in expected]
    if unknown:
        msg = f"the weights hold {listing(unknown, 3)}, which the record does not know"
        raise ValueError(msg)
    # Where training slides lacked genes, NaN says that no held-out tissue measured a gene
    mixed = bool(config["training"].get("gene_n_sections"))
    refuse_non_finite({name: each for name, each in tensors.items() if not (mixed and name.startswith(CALIBRATION))})
