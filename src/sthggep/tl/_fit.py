"""Train HGGEP on one or many slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import gene_list
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._slides._resolve import distinct_names, extra_sections_of, resolve
from sthggep._table._counts import read_panel_counts
from sthggep._table._targets import find_targets
from sthggep._training._choices import Choices, find_preset, with_choices, without_counts
from sthggep._training._refusals import (
    check_counts,
    check_inputs,
    refuse_extra_counts,
    refuse_gene_options,
    refuse_missing_genes,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


@document_places
def fit(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    genes: Sequence[str] | None = None,
    preset: str | Preset = "default",
    model: HGGEP | str | Path | None = None,
    validation: str | Sequence[str] | None = "auto",
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    targets: str | Sequence[str] | None = None,
    obsm: str | Sequence[str] | None = None,
    encoder: str | None = None,
    size_um: float | Sequence[float] | None = None,
    stain: str | None = None,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    n_members: int | None = None,
    weights: str | Path | None = None,
    layer: str | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    window: int | str | None = "auto",
    batch_size: int = 64,
    trainer_kwargs: dict[str, Any] | None = None,
    checkpoint_dir: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    show_progress_bar: bool = True,
) -> HGGEP:
    """Train HGGEP.

    Parameters
    ----------
    slides
        One slide or many, AnnData and SpatialData mixed, with H&E and raw counts. They are not changed.
    genes
        The panel, two genes or more; ``None`` takes :func:`sthggep.pp.gene_panel` of these slides, or with ``model`` its
        genes. With ``model`` it may be some of its genes: those that the new slides have. Expression is a gene's share
        of the panel's counts, so that a panel of few genes says how these share their counts: for a few genes of
        interest, train on many and name the few in :func:`sthggep.tl.predict`.
    preset
        ``"default"``: HGGEP's stages and hypergraph on frozen image features of several fields of view; minutes on a laptop. ``"paper"``: the published network, sizes and losses, end to end; made for a GPU.
    model
        A model to go on from, or the folder it was saved to: fine-tuning. What it looks at, its networks, their number and
        its gene programs stay (as many as genes at most). Its networks are trained on at a tenth of the preset's learning rate; the linear shortcut
        of the default preset is solved as a ridge towards its old weights, so that few spots change it little and many a
        lot; means and spreads of the genes move likewise. The model itself is not changed.
    validation
        What is held out to stop early, and to choose ridge penalty, number of gene programs and share of the networks of the
        default preset: ``"sections"`` (whole sections), ``"blocks"`` (blocks of tissue of each section),
        names of sections, or ``None`` (nothing: all epochs are run). ``"auto"`` holds out sections where there are several,
        else blocks. Each network of an ensemble holds out another part, so that all tissue is learned from; the default
        preset's linear shortcut learns from all of it in the end. Spots are never
        held out one by one: their neighbors would tell.
    expression
        Further sections with raw counts of the same genes, no image needed: they say which genes rise and fall together
        (the default preset's gene programs), which helps most where the training slides come from few patients. Never pass
        a section that will be predicted, nor one of its patient where patients are held apart.
    targets
        What is learned instead of genes: a key of ``obsm`` (an array or a DataFrame, whose columns are the targets: cell-type
        fractions), or a list of columns of ``obs`` (signature scores). Finite numbers for each spot of every slide; counts
        are not needed and not looked at. They are learned standardized and predicted on their own scale, which is not kept
        to any bounds: fractions may come out slightly below 0, and need not add up to 1.
    obsm
        Keys of features that are in ``obsm`` of every slide (UNI, CONCH, cell counts, of any origin), used instead of the
        preset's own; no image is looked at. Each key is an array, a sparse matrix or a DataFrame with a row of finite
        numbers for each spot, with the same columns in every slide. Several keys are several latent stages.
    encoder
        Image encoder instead of the preset's, by its name: see :func:`sthggep.pp.encoders`. Features that
        :func:`sthggep.pp.features` wrote with it are used again.
    size_um
        Field of view in microns, or several, each a latent stage: instead of the preset's, or of those that the encoder
        is meant for.
    stain
        Stain normalization: ``"reinhard"`` (mean and spread of the tissue's colors, in CIELAB) or ``"macenko"``
        (hematoxylin and eosin taken apart in optical density, as ``squidpy.experimental.im`` estimates them, each with its own
        hue and strength). Patches of each slide are brought to the mean stain of the training slides before they are looked
        at; :func:`sthggep.tl.predict` does so with new slides. Stain is estimated on the tissue of each slide's coarsest
        resolution; a slide that shows too little of it keeps its colors, with a warning. Features that
        :func:`sthggep.pp.features` wrote of a slide's own colors are refused. ``None`` leaves colors as they are; features
        are centered within each slide all the same, and on our benchmarks normalization did not help.
    max_epochs, learning_rate, n_members
        Instead of the preset's: epochs at most, step size, networks that are averaged.
    weights
        Weights of the image encoder: a file, a folder, ``"random"``, or ``None``; see :func:`sthggep.pp.features`. The
        model holds the weights of ``"shufflenet"`` and those that were given here; other encoders are found again by
        their name when it predicts.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    window
        Spots trained on at a time, of a section that has more: each window is a training sample of its own, shown with the
        spots around it and judged against the whole section; features wait in a temporary folder. ``"auto"`` takes 5,000 for
        the default preset and whole sections for ``"paper"``, ``None`` whole sections for all.
    batch_size
        Patches encoded at a time.
    trainer_kwargs
        Options for Lightning's ``Trainer``. Several processes, each with sections of its own, in a script:
        ``{"devices": 2, "strategy": "ddp"}``; a step is then over as many sections.
    checkpoint_dir
        Folder of this training, for one that may be killed: the same call goes on after the last whole epoch of the network
        that was at work, with the weights, curves and result of a training that was never stopped (with one process). A
        folder of another training, other data or options is refused; device, precision and processes may differ.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    seed
        The same seed gives the same model.
    show_progress_bar
        Show progress.

    Returns
    -------
    The trained model; ``model.history`` holds the curves. After fine-tuning, ``model.training.model`` is the id of the
    model that was fine-tuned, and ``model.training.model_sections`` are its training sections.

    Raises
    ------
    KeyError, ValueError
        Bad input, refused before anything is computed: no image, spots outside it, counts that are not raw, a gene that
        is absent, an unknown preset.
    FileNotFoundError
        Weights that cannot be found or downloaded.
    ImportError
        The encoder is of a package that is not installed.
    """
    from sthggep._device import resolve_device
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._windows import check_window
    from sthggep._training._task import TrainingOptions, TrainingTask
    from sthggep._training._train import train
    from sthggep.tl._answers import check_fit

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    name, chosen = find_preset(preset)
    if targets is not None:
        refuse_gene_options(genes=genes, model=model, expression=expression, layer=layer)
        chosen = without_counts(chosen)
    if expression is not None:
        refuse_extra_counts(chosen, new=model is None)
    parent = None
    if model is not None:
        from sthggep._training._fine_tuning import open_parent

        own = {"obsm": obsm, "encoder": encoder, "size_um": size_um, "stain": stain, "weights": weights}
        parent, chosen, genes = open_parent(model, name, genes, own)
        name = parent.preset
    choices = Choices(obsm, encoder, size_um, stain, max_epochs, learning_rate, n_members)
    chosen = with_choices(chosen, choices)
    objects = list(slides) if isinstance(slides, Sequence) else [slides]
    need_image = chosen.inputs.needs_image
    sections = [s for data in objects for s in resolve(data, places, need_image=need_image)]
    sections = distinct_names(sections)
    extra = extra_sections_of(expression, places)
    outputs = None if targets is None else find_targets(targets, sections)
    if outputs is not None:
        genes = outputs.names
    if genes is None:
        from sthggep.pp import gene_panel

        genes = gene_panel(
            objects,
            layer=layer,
            library_key=library_key,
            table_key=table_key,
            shapes_key=shapes_key,
            spatial_key=spatial_key,
        )
    panel = gene_list(genes)
    if outputs is None:
        if parent is not None:
            refuse_missing_genes(panel, sections)
        check_counts(sections, panel, layer)
    check_inputs(sections, chosen.inputs)
    for slide in extra:
        read_panel_counts(slide.adata, panel, layer=layer, rows=slide.rows)
    for slide in sections:
        check_window(chosen.inputs, slide, window)
        if parent is not None:
            check_fit(parent, slide)
    compute = Compute(resolve_device(device), batch_size, show_progress_bar, seed)
    options = TrainingOptions(compute, validation, weights, layer, window, trainer_kwargs, checkpoint_dir)
    return train(TrainingTask(sections, panel, name, chosen, options, parent, extra, outputs))
