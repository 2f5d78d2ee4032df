"""Load a model by its folder or its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import FEW_SHARED, listing, other_species
from sthggep._table._gene_names import find_genes
from sthggep.model._folders import BUNDLED_MODELS
from sthggep.model._hggep import HGGEP

if TYPE_CHECKING:
    from anndata import AnnData


def load_model(model: object) -> HGGEP:
    """Return a model, or load it by its name or folder; ``None`` is the bundled model."""
    if isinstance(model, HGGEP):
        return model
    if model is None:
        return HGGEP.from_pretrained(BUNDLED_MODELS[0])
    if isinstance(model, Path):
        return HGGEP.load(model)
    if isinstance(model, str):
        return HGGEP.from_pretrained(model)
    msg = f"`model` must be an HGGEP, a name or the folder of a saved model, found {type(model).__name__}."
    raise TypeError(msg)


def refuse_foreign_genes(model: HGGEP, table: AnnData, *, measured: bool = False) -> None:
    """Refuse to predict a table with none of the model's genes by a model that nobody has chosen.

    ``measured``: some spots of the table are measured, so a model can be trained on these.
    """
    call = "sthggep.tl.fit(slide, measured=...)" if measured else "sthggep.tl.fit(slides)"
    if model.targets is not None or not table.n_vars:
        return
    found = len(find_genes(table.var, model.genes))
    species = other_species(model.genes, table.var_names) if found < FEW_SHARED * len(model.genes) else ""
    if species or not found:
        species = f"{species} " if species else ""
        msg = (
            f"You passed no model. The bundled model, of breast tumors, predicts {len(model.genes)} genes (such as "
            f"{listing(model.genes, 3)}), and this table holds {found or 'none'} of them ({listing(table.var_names, 3)}). {species}Train a model: "
            f"`{call}`, and pass it as `model=`. To use the bundled model all the same, pass `model='her2st'`."
        )
        raise ValueError(msg)
