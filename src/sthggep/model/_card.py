"""A model in a few words: the table that a notebook shows, and the model card that goes to the hub."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted, listing

if TYPE_CHECKING:
    from sthggep.model._predictor import Predictor

SHOWN = 6  # sections and genes that are named


def facts(model: Predictor) -> dict[str, str]:
    """What a model predicts, from what, and how well it did while training; what is not known is left out."""
    training, noun = model.training, _noun(model)
    weights = sum(one.numel() for one in model.members.parameters())
    found = {
        "predicts": f"{counted(model.genes, noun)}, {model.units}",
        "looks at": str(model.inputs),
        "is": f"{counted(len(model.members), 'network')}, preset {model.preset}, {weights / 1e6:.1f} M weights",
        "trained on": f"{counted(training.sections, 'section')}{_spots(training.n_spots)}",
    }
    if model.pitch_um:
        found["spot pitch"] = f"{model.pitch_um:g} µm"
    if training.model:
        found["fine-tuned from"] = training.model
    for name, values in (("held-out Pearson", training.held_out_pearson), ("noise ceiling", training.ceiling)):
        if (mean := _mean(values)) is not None:
            found[name] = f"{mean:.3f}, the mean over {noun}s"
    return found


def html(model: Predictor) -> str:
    """The facts as a table, and the names of sections and genes."""
    sections = listing(model.training.sections, SHOWN)
    names = {"sections": sections, f"{_noun(model)}s": listing(model.genes, SHOWN)}
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in {**facts(model), **names}.items()
    )
    return f"<table><caption>HGGEP <code>{escape(model.id)}</code></caption>{rows}</table>"


def card(model: Predictor, repo_id: str) -> str:
    """A model card in Markdown, with the metadata that the hub reads. Names of sections are not in it."""
    from sthggep._version import __version__

    known, noun = facts(model), _noun(model)
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in known.items())
    return CARD.format(
        repo_id=repo_id,
        id=model.id,
        version=__version__,
        table=table,
        predicts=known["predicts"],
        noun=noun,
        best=_best(model.genes, noun, model.training.held_out_pearson),
        genes=", ".join(model.genes),
        n_genes=len(model.genes),
    )


def _best(genes: Sequence[str], noun: str, pearson: Sequence[float | None] | None) -> str:
    """The genes that were predicted best on what was held out, as a sentence."""
    if pearson is None:
        return "Nothing was held out while training: how good it is on other tissue is not known."
    scores = np.nan_to_num(np.asarray(pearson, dtype=np.float64), nan=-1.0)
    order = np.argsort(-scores, kind="stable")[:SHOWN]
    named = ", ".join(f"{genes[i]} ({scores[i]:.2f})" for i in order)
    return f"The {noun}s that it predicted best on tissue held out while training, which stopped the training: {named}."


def _noun(model: Predictor) -> str:
    """What one output of the model is."""
    return "gene" if model.targets is None else "target"


def _mean(values: Sequence[float | None] | None) -> float | None:
    """Mean of the numbers among them; ``None`` where there are none."""
    numbers = np.asarray([] if values is None else values, dtype=np.float64)
    return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else None


def _spots(n_spots: Sequence[int]) -> str:
    return f", {counted(sum(n_spots), 'spot')}" if n_spots else ""


def _cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


CARD = """---
library_name: sthggep
tags:
- spatial-transcriptomics
- histology
- gene-expression
- hypergraph
---

# {repo_id}

An HGGEP trained by sthggep {version}: {predicts}, from H&E, spot by spot.

| | |
|---|---|
| id | `{id}` |
{table}

{best}

## Use

```python
import sthggep

model = sthggep.HGGEP.from_pretrained("{repo_id}")
sthggep.tl.predict(slide, model)  # slide.obsm["hggep"]
scores = sthggep.tl.evaluate(slide)  # where they were measured, too
```

## Limits

Tissue, stains and patients that it was not trained on differ: expect less there than the numbers above, and check where counts exist.
Predictions are for research; they are no substitute for a measurement, and not for diagnosis.

<details><summary>The {noun}s ({n_genes})</summary>

{genes}

</details>
"""
