"""Checks of slides, genes and options before a training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, listing, one_of, unique, warn_user
from sthggep._disk._run_folder import check_folder
from sthggep._encoders._record import has_uncolored_features
from sthggep._keys import feature_key
from sthggep._log import log
from sthggep._slides._placement import warn_of_misplaced
from sthggep._table._counts import read_panel_counts
from sthggep._table._gene_names import find_gene_columns, find_genes, has_all_genes
from sthggep._table._mixed_panels import UNION, read_held_counts
from sthggep._table._user_features import check_feature_names, read_feature_names, read_user_features

if TYPE_CHECKING:
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep._training._presets import Preset
    from sthggep._training._task import TrainingOptions
    from sthggep.model import HGGEP

SMALL_PANEL = 10  # genes
REFUSE, MASK = ABSENT = ("refuse", "mask")  # what to do with slides that lack genes


def refuse_training_options(options: TrainingOptions) -> None:
    """Refuse options of Lightning's trainer that it does not take, and a checkpoint folder that cannot be written."""
    if options.checkpoint_dir is not None:
        check_folder(Path(options.checkpoint_dir), "checkpoint_dir")
    if options.weights is not None and options.weights != "random" and not Path(options.weights).exists():
        msg = f"`weights`: there is no file or folder {str(options.weights)!r}. Pass a file, a folder that holds it, or 'random'."
        raise FileNotFoundError(msg)
    if options.trainer_kwargs:
        refuse_trainer_options(options.trainer_kwargs, options.compute)


def refuse_trainer_options(options: Mapping[str, object], compute: Compute) -> None:
    """Refuse what Lightning's trainer does not take, or would stumble over when the training begins."""
    import inspect

    import lightning

    from sthggep._training._lightning import make_trainer, silenced_lightning
    from sthggep._training._presets import PRESETS

    names = [name for name in inspect.signature(lightning.Trainer).parameters if name != "self"]
    for name in options:
        one_of(str(name), names, "option in `trainer_kwargs`", where="Lightning's Trainer", limit=60)
    try:
        with silenced_lightning():
            trainer = make_trainer(
                PRESETS["default"].recipe, compute.device, [], dict(options), enable_checkpointing=True
            )
    except Exception as reason:
        msg = f"`trainer_kwargs`: Lightning's Trainer refuses {dict(options)!r} ({type(reason).__name__}: {reason})."
        raise ValueError(msg) from reason
    if strange := [c for c in trainer.callbacks if not isinstance(c, lightning.Callback)]:  # type: ignore[attr-defined]
        msg = f"`trainer_kwargs`: callbacks must be objects of Lightning's Callback, found {listing(strange)}."
        raise TypeError(msg)
    for name in ("max_epochs", "min_epochs", "max_steps", "min_steps"):
        if not isinstance(value := options.get(name), int | None):
            msg = f"`trainer_kwargs`: {name!r} must be a whole number, found {value!r}."
            raise TypeError(msg)


def refuse_gene_options(**options: object) -> None:
    """Refuse options for genes and counts beside `targets`."""
    passed = [f"`{name}`" for name, value in options.items() if value is not None]
    if passed:
        msg = f"`targets` replaces genes and their counts, but you passed {', '.join(passed)}. Leave that out."
        raise ValueError(msg)


def refuse_sets_without_validation(gene_sets: object, validation: object) -> None:
    """Refuse gene sets that no held-out tissue can judge."""
    if gene_sets is not None and validation is None:
        msg = "`gene_sets` are judged by tissue that the training holds out, but `validation=None` holds out none. Leave `validation` out."
        raise ValueError(msg)


def refuse_target_model(parent: HGGEP) -> None:
    """Refuse to fine-tune a model whose targets are not genes."""
    if parent.targets is not None:
        msg = (
            f"`model` predicts {parent.targets.where}, not genes, and cannot be fine-tuned. Train a new model: pass "
            "`targets` without `model`."
        )
        raise ValueError(msg)


def refuse_missing_genes(genes: Sequence[str], slides: Sequence[Slide]) -> None:
    """Refuse slides that lack a gene of the model to fine-tune."""
    for slide in slides:
        find_gene_columns(
            slide.adata.var, genes, f"var_names of section {slide.name!r} (fine-tuning trains on the genes of `model`)"
        )


def read_genes(genes: str | Sequence[str] | None, absent: str) -> tuple[Sequence[str] | None, bool]:
    """Read the panel of a call: a list, or nothing where it is to be chosen; and whether slides may lack genes of it."""
    one_of(absent, ABSENT, "`absent`")
    if isinstance(genes, str) and genes != UNION:
        msg = f"`genes` must be a list of genes or {UNION!r}, found {genes!r}. Pass `genes=[{genes!r}]`."
        raise TypeError(msg)
    if genes is None and absent == MASK:
        msg = f"`absent={MASK!r}` is for a list of genes. To choose the panel from all genes of the slides, pass `genes={UNION!r}`."
        raise ValueError(msg)
    return (None, True) if isinstance(genes, str) else (genes, absent == MASK)


def refuse_mixed_tuning(*, mixed: bool) -> None:
    """Refuse to fine-tune on slides that lack genes."""
    if mixed:
        msg = (
            f"Fine-tuning needs slides that hold all genes: `genes={UNION!r}` and `absent={MASK!r}` are for new models. Pass `genes=` that "
            "all slides hold."
        )
        raise ValueError(msg)


def refuse_incomplete(genes: Sequence[str], slides: Sequence[Slide]) -> None:
    """Refuse slides that lack genes of the panel, and say how to train on what they hold."""
    lacking = [slide.name for slide in slides if not has_all_genes(slide.adata.var, genes)]
    if lacking and {gene for slide in slides for gene in find_genes(slide.adata.var, genes)}.issuperset(genes):
        first = next(slide for slide in slides if slide.name == lacking[0])
        try:
            find_gene_columns(first.adata.var, genes, f"var_names of section {first.name!r}")
        except KeyError as reason:
            msg = (
                f"{reason.args[0]} {counted(lacking, 'section')} of {len(slides)} lack genes. To train on the genes that each section "
                "holds, pass `genes='union'`, or this list with `absent='mask'`."
            )
            raise KeyError(msg) from reason


def refuse_extra_counts(preset: Preset, *, new: bool = True) -> None:
    """Refuse `expression` unless a new model fits gene programs to it."""
    if not new or preset.network != "FeatureHGGEPNet":
        msg = "`expression` is for gene programs, which only a new model of `preset='default'` fits. Leave it out."
        raise ValueError(msg)


def check_slides(
    slides: Sequence[Slide], genes: Sequence[str], layer: str | None, inputs: Inputs, *, mixed: bool = False
) -> None:
    """Check counts and inputs of the slides, which may lack genes if panels are ``mixed``."""
    check_counts(slides, genes, layer, mixed=mixed)
    check_inputs(slides, inputs)


def warn_of_small_panel(genes: Sequence[str], slides: Sequence[Slide]) -> None:
    """Warn of a panel so small that its genes' shares follow from each other, although the slides have more genes."""
    if 1 < len(genes) < SMALL_PANEL and all(slide.adata.n_vars >= 2 * len(genes) for slide in slides):
        warn_user(
            f"A panel of {len(genes)} genes: expression is a gene's share of the panel's counts, so with few genes the share of one "
            "follows from the others, and a gene that nothing predicts can score as high as they do. Train on many genes, these among "
            f"them: `genes=sthggep.pp.gene_panel(slides, include={list(map(str, genes[:3]))})`, and pass `genes=` to `sthggep.tl.predict`."
        )


def check_counts(
    slides: Sequence[Slide],
    genes: Sequence[str],
    layer: str | None,
    *,
    min_counts: int = 1,
    mixed: bool = False,
    extra: Sequence[tuple[Slide, NDArray[np.bool_]]] = (),
) -> None:
    """Refuse a panel of one gene, a repeated gene, and slides with fewer than two spots with counts.

    If panels are ``mixed``, slides may lack genes, but not all slides the same one, unless a section
    among ``extra``, each with the genes that it holds, has counts of it.
    """
    unique(genes, "The genes of the panel", "List each once.")
    if len(genes) == 1:
        gene = str(genes[0])
        msg = (
            f"Expected a panel of two genes or more, found one gene, {gene!r}. Expression is a gene's fraction of the "
            "panel's counts, which is always 1 for a single gene. Train on a larger panel, and name the gene when you "
            f"predict: `sthggep.tl.predict(data, model, genes=[{gene!r}])`."
        )
        raise ValueError(msg)
    if mixed:
        held = [read_held_counts(s.adata, genes, layer=layer, rows=s.rows) for s in slides]
        further, columns = [slide for slide, _ in extra], [known for _, known in extra]
        refuse_unheld(genes, [*(section.held for section in held), *columns], [*slides, *further])
        log_unmeasured(genes, [section.held for section in held])
        totals = [section.counts.sum(axis=1) for section in held]
    else:
        totals = [read_panel_counts(s.adata, genes, layer=layer, rows=s.rows).sum(axis=1) for s in slides]
    n_spots = sum(int((total >= max(min_counts, 1)).sum()) for total in totals)
    if n_spots < 2:
        least = f"{min_counts} counts or more" if min_counts > 1 else "counts"
        msg = f"Training needs at least two spots with {least} in the panel, found {n_spots} in {counted(slides, 'section')}."
        raise ValueError(msg)


def log_unmeasured(genes: Sequence[str], held: Sequence[NDArray[np.bool_]]) -> None:
    """Name the genes that no slide holds, which the programs of sections without images alone predict."""
    absent = [str(gene) for gene, known in zip(genes, np.logical_or.reduce(list(held)), strict=True) if not known]
    if absent:
        log.info(
            "Not measured with images: %s (%s). The model predicts them by the gene programs of `expression` alone, and nothing "
            "judges them.",
            counted(absent, "gene"),
            listing(absent, 5),
        )


def refuse_unheld(genes: Sequence[str], held: Sequence[NDArray[np.bool_]], slides: Sequence[Slide]) -> None:
    """Refuse genes that nothing measured, and slides that share no gene with the others."""
    columns = np.stack(held)
    if not columns.any(axis=0).all():
        absent = np.array(list(map(str, genes)))[~columns.any(axis=0)]
        msg = f"{counted(absent, 'gene')} of the panel of {len(genes)} are in no slide: {listing(absent, 5)}. Leave them out."
        raise KeyError(msg)
    reached = columns[0]
    while (joined := columns[(columns & reached).any(axis=1)].any(axis=0)).sum() > reached.sum():
        reached = joined
    apart = [slide.name for slide, each in zip(slides, columns, strict=True) if not (each & reached).any()]
    if apart:
        msg = (
            f"Sections {listing(apart)} share no gene of the panel with {slides[0].name!r}, directly or by other sections, so that "
            "their expression is on no common scale. Add genes or a slide that join them, or train on each by itself."
        )
        raise ValueError(msg)


def check_inputs(slides: Sequence[Slide], inputs: Inputs) -> None:
    """Refuse slides whose image or features the model cannot read; warn of spots outside the tissue."""
    for slide in slides if inputs.needs_image else ():
        if any(size is not None for size in inputs.sizes_um):
            slide.require_mpp()
        warn_of_misplaced(slide)
        refuse_unnormalized_features(slide, inputs)
    check_features(slides, inputs.obsm)


def refuse_unnormalized_features(slide: Slide, inputs: Inputs) -> None:
    """Refuse encoder features of the slide's own colors if the training normalizes stain.

    Replacing them without a request could take hours, or the image may be gone.
    """
    if inputs.stain is None or inputs.kind != "features":
        return
    keys = [feature_key(inputs.encoder, size) for size in inputs.fields_of_view]
    plain = [key for key in keys if has_uncolored_features(slide.adata, key, inputs.encoder, slide.name)]
    if plain:
        msg = (
            f"Section {slide.name!r}: obsm holds {listing(plain)}, computed on its own colors, but `stain={inputs.stain!r}` "
            f"trains on normalized ones. Delete them (`del slide.obsm[{plain[0]!r}]`) and repeat the call, which computes "
            "them from the image, or leave `stain` out."
        )
        raise ValueError(msg)


def check_features(slides: Sequence[Slide], obsm: Sequence[str]) -> None:
    """Refuse the user's features if they differ between sections in width or in column names."""
    for key in obsm:
        widths = {slide.name: read_user_features(slide, key).shape[1] for slide in slides}
        if len(set(widths.values())) > 1:
            msg = f"obsm[{key!r}] must hold the same features in every section, found widths {widths}."
            raise ValueError(msg)
        for slide in slides[1:]:
            check_feature_names(slide, key, read_feature_names(slides[0], key), f"section {slides[0].name!r}")
