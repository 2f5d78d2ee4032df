"""Summaries of a model: the table in a notebook, and the model card on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted, listing

if TYPE_CHECKING:
    from sthggep.model._predictor import Predictor

MARKDOWN = str.maketrans({sign: "\\" + sign for sign in r"\`*_[]|"})
SHOWN = 6  # number of sections and genes that are listed


def summarize(model: Predictor) -> dict[str, str]:
    """Summarize outputs, inputs, networks, training sections and held-out results; unknown entries are left out."""
    training, noun = model.training, _noun(model)
    entries = {
        "predicts": f"{counted(model.genes, noun)}, {model.units}",
        "reads": str(model.inputs),
        "predicts by": f"{model.architecture}, preset {model.preset}",
        "trained on": f"{counted(training.sections, 'section')}{_spots(training.n_spots)}",
    }
    if numbers := training.gene_n_sections:
        n_all = sum(number == len(training.sections) for number in numbers)
        entries["measured"] = (
            f"{n_all} of {counted(numbers, 'gene')} on all sections, the others on {min(numbers)} or more"
        )
    if model.pitch_um:
        entries["spot pitch"] = f"{model.pitch_um:g} µm"
    if training.model:
        entries["fine-tuned from"] = training.model
    for name, values in (("held-out Pearson", training.held_out_pearson), ("noise ceiling", training.ceiling)):
        if (mean := _mean(values)) is not None:
            entries[name] = f"{mean:.3f}, the mean over {noun}s"
    return entries


def render_html(model: Predictor) -> str:
    """Render the summary and the names of sections and genes as an HTML table."""
    sections = listing(model.training.sections, SHOWN)
    names = {"sections": sections, f"{_noun(model)}s": listing(model.genes, SHOWN)}
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in {**summarize(model), **names}.items()
    )
    return f"<table><caption>HGGEP <code>{escape(model.id)}</code></caption>{rows}</table>"


def render_card(model: Predictor, repo_id: str) -> str:
    """Render a model card in Markdown with the metadata that the hub reads, without the names of the sections."""
    from sthggep._version import __version__

    summary, noun = summarize(model), _noun(model)
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in summary.items())
    return CARD.format(
        repo_id=repo_id,
        id=model.id,
        version=__version__,
        table=table,
        predicts=_cell(summary["predicts"]),
        noun=noun,
        best=_best(model.genes, noun, model.training.held_out_pearson),
        genes=", ".join(map(_cell, model.genes)),
        n_genes=len(model.genes),
    )


def _best(genes: Sequence[str], noun: str, pearson: Sequence[float | None] | None) -> str:
    """Name the genes with the highest held-out correlation in a sentence."""
    if pearson is None:
        return "Training held out no tissue: the accuracy on other tissue is unknown."
    scores = np.nan_to_num(np.asarray(pearson, dtype=np.float64), nan=-1.0)
    order = np.argsort(-scores, kind="stable")[:SHOWN]
    named = ", ".join(f"{_cell(genes[i])} ({scores[i]:.2f})" for i in order)
    return f"The {noun}s with the highest correlation on held-out tissue, which early stopping used, too: {named}."


def _noun(model: Predictor) -> str:
    """Return the word for one output of the model."""
    return "gene" if model.targets is None else "target"


def _mean(values: Sequence[float | None] | None) -> float | None:
    """Return the mean of the finite numbers; ``None`` if there are none."""
    numbers = np.asarray([] if values is None else values, dtype=np.float64)
    return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else None


def _spots(n_spots: Sequence[int]) -> str:
    return f", {counted(sum(n_spots), 'spot')}" if n_spots else ""


def _cell(text: str) -> str:
    """Escape text for Markdown, where HTML is markup, too; also for a cell of a table."""
    return " ".join(escape(text, quote=False).translate(MARKDOWN).split())


CARD = """---
library_name: sthggep
tags:
- spatial-transcriptomics
- histology
- gene-expression
- hypergraph
---

# {repo_id}

This HGGEP model, trained with sthggep {version}, predicts {predicts}, for each spot of an H&E image.

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
scores = sthggep.tl.evaluate(slide)  # if the slide has counts
```

## Limits

The accuracy is lower on other tissue, stains and patients. Check it on slides with counts.
Predictions are for research. They do not replace measurements and must not be used for diagnosis.

<details><summary>The {noun}s ({n_genes})</summary>

{genes}

</details>
"""
