"""Data of the report page about the model: its record, its training curves, its scores on held-out tissue."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from sthggep.model import HGGEP


class ModelData(TypedDict):
    """The model's record, its training curves, and the held-out correlation and noise ceiling of each gene."""

    rows: list[tuple[str, str]]
    curves: str | None
    architecture: str
    genes: list[str]
    heldOut: Sequence[float | None]
    ceiling: Sequence[float | None]


def describe_model(model: HGGEP) -> ModelData:
    """The model's record, its training curves as an image, and each gene's held-out correlation and noise ceiling."""
    training = model.training
    rows = [
        ("name", model.id),
        ("preset", model.preset),
        ("genes", f"{len(model.genes)}, {model.units}"),
        ("inputs", str(model.inputs)),
        ("predicts by", model.architecture),
        ("trained on", ", ".join(training.sections) or "not recorded"),
        ("spots", str(sum(training.n_spots)) if training.n_spots else "not recorded"),
        ("held out for choices", _held_out(training.validation, training.sections)),
        ("seed", "not recorded" if training.seed is None else str(training.seed)),
    ]
    missing: list[float | None] = [None] * len(model.genes)
    return {
        "rows": rows,
        "curves": _curves(model),
        "architecture": model.architecture,
        "genes": model.genes,
        "heldOut": training.held_out_pearson or missing,
        "ceiling": training.ceiling or missing,
    }


def _held_out(validation: Sequence[str], sections: Sequence[str]) -> str:
    """Held-out tissue in words; a number stands for one part of the blocks of tissue."""
    if validation and all(each.isdecimal() and each not in sections for each in validation):
        return f"blocks of tissue, in {len(set(validation))} parts by turns"
    return "; ".join(dict.fromkeys(validation)) or "nothing"


def _curves(model: HGGEP) -> str | None:
    # The curves of a network that earned no share would pass for those of the model
    if model.history.empty or model.is_closed_form:
        return None
    import matplotlib.pyplot as plt

    from sthggep.pl._history import history

    figure = history(model)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
