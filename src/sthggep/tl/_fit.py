"""`tl.fit`: reads and checks the slides, and trains a model on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._imports import import_whole
from sthggep._log import on_interrupt
from sthggep._slides._places import Places
from sthggep._training._choices import Choices
from sthggep._training._refusals import refuse_training_options
from sthggep.tl._fit_task import TrainingData, check_task, make_task

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


@checked
@document_places
def fit(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    genes: str | Sequence[str] | None = None,
    absent: str = "refuse",
    preset: str | Preset = "default",
    model: HGGEP | str | Path | None = None,
    measured: str | Sequence[bool] | Sequence[Sequence[bool]] | pd.Series | None = None,
    min_counts: int = 1,
    validation: str | Sequence[str] | None = "auto",
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    targets: str | Sequence[str] | None = None,
    gene_sets: Mapping[str, Sequence[str]] | str | Path | None = None,
    obsm: str | Sequence[str] | None = None,
    encoder: str | None = None,
    size_um: float | Sequence[float] | None = None,
    encoding: str | None = None,
    flips: bool | None = None,
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
    """Train a model that predicts gene expression from H&E images, or fine-tune an existing one.

    ``fit(slides)`` is enough. The other arguments say

    - what to learn: ``genes``, ``absent``, ``targets``, ``gene_sets``, ``expression``,
    - from which spots: ``measured``, ``min_counts``, ``validation``,
    - which model: ``preset``, ``model``, ``n_members``, ``max_epochs``, ``learning_rate``,
    - what the model reads: ``obsm``, ``encoder``, ``weights``, ``size_um``, ``encoding``, ``flips``, ``stain``,
    - where counts and images are: ``layer``, and those from ``image_key`` to ``mpp``,
    - how to compute: those from ``window`` on.

    Parameters
    ----------
    slides
        One slide or many, AnnData and SpatialData mixed, with H&E images and raw counts. The function does not change
        them.
    genes
        The panel: a list of two genes or more, or ``"union"``. Train on many genes, since genes that vary together help each
        other; to predict a few of them, name these in :func:`sthggep.tl.predict`. Expression is a gene's share of the
        panel's counts. In a list of fewer than 100 genes with less than half of the slides' counts it is a gene's share of
        all counts of the spot (``model.units``, ``model.training.scaled_by``), in scores and updates, too: few genes'
        shares of their own counts follow from each other. ``"union"`` chooses from the genes of any slide, each judged by the
        slides that hold it; see the notes. With ``model`` you may pass some of its genes, such as those that the new slides
        have. Default: the panel that :func:`sthggep.pp.gene_panel` chooses from these slides, or all genes of ``model``.
    absent
        What to do with slides that lack genes of a list in ``genes``: ``"refuse"`` them, or ``"mask"`` the genes that they lack,
        as with ``"union"``. Genes that no slide holds must be in a section of ``expression``.
    preset
        ``"default"``: HGGEP's stages and hypergraph on frozen image features of several fields of view; trains within
        minutes on a laptop. ``"paper"``: the published network, sizes and losses, trained end to end; needs a GPU.
    model
        A model to update by these slides, or the folder of a saved one. A few measured spots are enough (``measured``). The
        updated model predicts what ``model`` predicts, times a factor, plus a change that is linear in the features. Factor
        and change are averaged by their marginal likelihood, so the model changes only as far as the spots call for it.
        Inputs, and networks of the default preset, stay as they are; those of ``"paper"`` are trained further. The function
        does not change ``model`` itself. Default: train a new model.
    measured
        Spots whose counts may be used: a column of ``obs`` that is true for them, a mask (n_obs,), or a list with a mask for
        each slide. Counts of other spots are not read, and :func:`sthggep.tl.evaluate` scores those. Default: all spots.
    min_counts
        Fewest counts of the panel in a spot to learn from. Failed spots have few. Default: spots without counts are left out.
    validation
        What to hold out for early stopping, and in the default preset for choosing the ridge penalty, the number of
        gene programs and the weight of the networks in the prediction: ``"sections"`` (whole sections),
        ``"patients"`` (all sections of a patient, ``obs["patient"]``), ``"blocks"`` (blocks of tissue within each section), a list of section names, or ``None`` (nothing: training runs all
        epochs). Default: ``"auto"``, sections if there are several, else blocks. Each network of an ensemble holds out
        another part, and the closed form is finally refitted on all tissue. Single spots are never held out, since
        their neighbors resemble them.
    expression
        Further sections with raw counts of the same genes (of some of them, where slides may lack genes), no image needed.
        The default preset learns gene programs (which genes vary together) from them, which helps most if the training
        slides come from few patients. Never pass a section that you will predict, nor one of its patient if you hold out
        patients. Default: gene programs come from the training slides alone.
    targets
        What to learn instead of genes: a key of ``obsm`` (an array or a DataFrame whose columns are the targets, such
        as cell-type fractions), or a list of columns of ``obs`` (such as signature scores). Every spot needs finite
        numbers. The function does not read counts. It standardizes the targets for training; predictions are on the
        original scale. Nothing bounds them: fractions may be slightly below 0, and need not add up to 1. Default: genes.
    gene_sets
        Gene sets that :func:`sthggep.tl.trust` is to judge: a dict of names and lists of genes, or the path of a GMT file.
        The score of a set is the mean expression of its genes among the panel, two or more. The training does not use the sets.
        It compares their predicted and measured scores on the tissue that it holds out, and the model keeps the comparison.
        Default: none; with ``model`` those of that model.
    obsm
        Key or keys in ``obsm`` of features to read instead of the image (UNI, CONCH, cell counts, of any origin); each
        key is a latent stage. Each holds an array, a sparse matrix or a DataFrame with a row of finite numbers for
        each spot, and the same columns in every slide. Default: the features of the preset.
    encoder
        Name of an image encoder, see :func:`sthggep.pp.encoders`. Features that :func:`sthggep.pp.features` wrote with
        this encoder are reused. Default: the preset's encoder.
    size_um
        Field of view in microns, or several, each a latent stage. Default: the fields of view of the encoder, or of
        the preset.
    encoding
        ``"tissue"``: the encoder reads the tissue once, in large tiles, so that the time depends on the area of the
        tissue and not on the number of spots; see :func:`sthggep.pp.features`. ``"patches"``: the encoder reads the
        patch of each spot by itself, four times (flips). The model predicts as it was trained. Default: ``"tissue"``
        for the encoders of the package and for registered ones with feature maps, else ``"patches"``.
    flips
        Average features over several views: the four flips of each patch, or all eight turns and flips of the tissue. With
        the latter a slide that is turned or flipped gets the same prediction, and encoding takes eight times as long.
        Default: one view of the tissue, four flips of patches.
    stain
        Stain normalization: ``"reinhard"`` (mean and spread of the tissue's colors in CIELAB) or ``"macenko"``
        (separates hematoxylin and eosin in optical density, as ``squidpy.experimental.im`` estimates them, and matches
        hue and strength of each). Patches of each slide are normalized to the mean stain of the training slides;
        :func:`sthggep.tl.predict` normalizes new slides likewise. Stain is estimated on the coarsest resolution of
        each slide. A slide with too little tissue keeps its colors, and the function warns. Features that
        :func:`sthggep.pp.features` wrote without normalization are refused. Default: the preset's choice, which is no
        normalization: features are centered within each slide, and on our benchmarks normalization did not help.
    max_epochs
        Most epochs. Default: 40 for ``"default"``, 350 for ``"paper"``.
    learning_rate
        Step size. Default: 1e-3 for ``"default"``, 1e-5 for ``"paper"``, a tenth of these for fine-tuning.
    n_members
        Most networks whose predictions are averaged; 0 solves the closed form alone. Default: 5 for ``"default"``, of which
        the second to fifth are trained only if the first earns a share on held-out tissue; 1 for ``"paper"``.
    weights
        Weights of the image encoder: a file, a folder, or ``"random"``; see :func:`sthggep.pp.features`. Default: the
        published weights of the encoder. The model stores the weights of ``"shufflenet"`` and those that you pass
        here; other encoders are loaded by their name for prediction.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    window
        Most spots of a training sample; a larger section is split into windows. Each window is a training sample that
        includes the spots around it and uses the statistics of the whole section; features wait in a temporary folder.
        Default: ``"auto"``, 5,000 spots for the default preset and whole sections for ``"paper"``. ``None`` trains on
        whole sections.
    batch_size
        Patches encoded at a time.
    trainer_kwargs
        Options for Lightning's ``Trainer``. Default: none. To train with several processes, each with sections of its own, pass
        ``{"devices": 2, "strategy": "ddp"}`` in a script; a step then averages over as many sections.
    checkpoint_dir
        Folder for checkpoints, from which the same call resumes after an interruption, at the last complete epoch of
        the network in training. Model and curves equal those of an uninterrupted training (with one process). A folder
        of other data or options is refused; device, precision and number of processes may differ. Default: no
        checkpoints.
    device
        ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` … Default: ``"auto"``, a GPU if there is one.
    seed
        The same seed gives the same model.
    show_progress_bar
        Show progress.

    Returns
    -------
    The trained model; ``model.history`` holds the curves. After fine-tuning, ``model.training.model`` is the id of the
    earlier model, and ``model.training.model_sections`` are its training sections.

    Raises
    ------
    KeyError, ValueError
        Invalid input, refused before training: no image, spots outside the image, counts that are not raw, an
        absent gene, an unknown preset, two copies of one section where tissue is held out, gene sets without genes of the
        panel or with ``validation=None``.
    FileNotFoundError
        The weights do not exist or cannot be downloaded; there is no such GMT file.
    ImportError
        The package of the encoder is not installed.

    Notes
    -----
    Slides that lack genes: a slide's counts are divided by their total over the panel genes that it holds, and multiplied by the
    part that these genes have of the whole panel's counts. The parts are those of a model in which each slide has a depth and
    each gene an abundance, fitted to all slides, so that slides are comparable by the genes that they share. Mean and spread of
    a gene are those of the slides that hold it. Gene programs are a low-rank fit to the entries that there are, and a slide's
    scores of the programs follow from the genes that it holds, by least squares. Losses, held-out correlations, intervals and
    verdicts of a gene are over the slides that hold it. A gene of one slide has no held-out evidence where whole sections are
    held out; its verdict is *cannot be judged*, and its intervals are NaN. A gene that no slide holds, but a section of
    ``expression``, is predicted by the gene programs alone; its mean, its spread and its part of the counts are those of these
    sections, and nothing judges it: *not measured with images*. ``model.training.gene_n_sections`` and
    ``gene_n_spots`` say on how many slides and spots each gene was measured.

    Examples
    --------
    >>> slides = [sthggep.datasets.toy(seed=seed) for seed in range(2)]
    >>> model = sthggep.tl.fit(slides)
    >>> model.save("my-model")

    Choose the genes, with your markers among them:

    >>> genes = sthggep.pp.gene_panel(slides, include=["FAT1"])
    >>> model = sthggep.tl.fit(slides, genes=genes)

    Update the model by another slide:

    >>> tuned = sthggep.tl.fit(sthggep.datasets.toy(seed=2), model=model)

    Learn from slides of two panels:

    >>> model = sthggep.tl.fit([slides[0][:, :30], slides[1][:, 10:]], genes="union")
    """
    import_whole("torch", "lightning", "torch_geometric")
    from sthggep._device import resolve_device
    from sthggep._inputs._compute import Compute
    from sthggep._training._interrupt import describe_stored
    from sthggep._training._task import TrainingOptions
    from sthggep._training._train import train

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    data = TrainingData(slides, genes, targets, expression, gene_sets, measured, min_counts, absent)
    choices = Choices(obsm, encoder, size_um, encoding, flips, stain, max_epochs, learning_rate, n_members)
    compute = Compute(resolve_device(device), batch_size, show_progress_bar, seed)
    options = TrainingOptions(compute, validation, weights, layer, window, trainer_kwargs, checkpoint_dir)
    refuse_training_options(options)
    task = make_task(data, preset, model, choices, options, places)
    check_task(task)
    with on_interrupt(lambda: describe_stored(checkpoint_dir, task.most_networks)):
        return train(task)
