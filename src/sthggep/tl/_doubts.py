"""What is wrong though nothing fails: tissue that the model has learnt from, tissue it knows nothing of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sthggep._checks import listing
from sthggep._gene_names import shares_genes
from sthggep._placement import warn_of_misplaced
from sthggep.tl._signature import Marks, marks

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._slide import Slide
    from sthggep.model import HGGEP


def warn_of_doubts(model: HGGEP, slides: Sequence[Slide], table: AnnData) -> list[str]:
    """Warn of what a user would want to know before trusting the prediction; returns the sections learnt from."""
    if model.inputs.needs_image:
        for slide in slides:
            warn_of_misplaced(slide)
    if model.targets is None and table.n_vars and not shares_genes(table.var, model.genes):
        msg = (
            f"None of the model's {len(model.genes)} genes (such as {listing(model.genes, 3)}) is among the {table.n_vars} of "
            f"this table ({listing(table.var_names, 3)}): other tissue or species, or other names for the genes?"
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
    seen = learnt_from(model, slides)
    if seen:
        warnings.warn(_seen(seen, "Predicted is"), UserWarning, stacklevel=3)
    return seen


def learnt_from(model: HGGEP, slides: Sequence[Slide]) -> list[str]:
    """Names of the sections that the model was trained on, whatever they are called here."""
    known = [Marks(**entry) for entry in model.training.get("marks", [])]
    if not known:
        return []
    return [slide.name for slide in slides if any(marks(slide).same_tissue(each) for each in known)]


def warn_of_seen(names: Sequence[str]) -> None:
    """Warn that scores of these sections say nothing about new tissue."""
    if names:
        warnings.warn(_seen(names, "Scored is"), UserWarning, stacklevel=3)


def _seen(names: Sequence[str], what: str) -> str:
    return (
        f"{what} tissue that the model has learnt from ({listing(names)}): its score says nothing about new tissue. "
        "Held-out scores: `sthggep.tl.cross_validate`."
    )
