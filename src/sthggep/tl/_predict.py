"""`tl.predict`: predicts the expression of a slide's spots and writes it to ``obsm``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._arguments import checked
from sthggep._device import resolve_device
from sthggep._disk._run_folder import check_folder
from sthggep._docs import document_places
from sthggep._encoders._cache import temporary_cache
from sthggep._imports import import_whole
from sthggep._slides._anndata import copy_data, table_of
from sthggep._slides._places import Places
from sthggep.tl._adapt import MeasuredSpots, adapt_model
from sthggep.tl._outputs import check_out
from sthggep.tl._predict_table import PredictionFiles, predict_table
from sthggep.tl._request import PredictionOptions, check_request

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep.model import HGGEP


@checked
@document_places
def predict(
    data: AnnData | SpatialData,
    model: HGGEP | str | Path | None = None,
    *,
    key_added: str = "hggep",
    genes: Sequence[str] | None = None,
    measured: str | bool | Sequence[bool] | pd.Series | AnnData | SpatialData | None = None,
    min_counts: int = 1,
    layer: str | None = None,
    latent: bool = False,
    counts: bool | str = False,
    interval: float | None = None,
    interval_of: str = "measurement",
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    window: int | str | None = "auto",
    out: str | Path | None = None,
    checkpoint_dir: str | Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
    show_progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Predict the expression of every spot from the H&E image around it, and write it to ``obsm``.

    Counts are not read unless you pass ``measured``. The closed form of the model predicts every spot, or the mean of its networks does.

    Parameters
    ----------
    data
        Slide with spots and an H&E image, of one or several sections.
    model
        A trained model, the folder of a saved one, or a name (see :meth:`sthggep.HGGEP.from_pretrained`).
        Default: ``"her2st"``, the bundled model, which was trained on breast tumors only (see its model card).
    key_added
        Name of the prediction.
    genes
        Some of the model's genes, in the order of the columns to write. Default: all genes of the model.
    measured
        Spots whose counts may be used to adapt the model to this slide before it predicts: a column of ``obs`` that is true
        for them, a mask (n_obs,), ``True`` for all spots with counts, the name of a table of the same SpatialData, or
        another slide with counts of the same tissue, such as the capture area beside a grid of spots; the keys of this call
        hold for it, too. The call equals
        :func:`sthggep.tl.fit` with ``model`` and ``measured``, followed by the prediction. Default: counts are not read.
    min_counts
        Fewest counts of the panel in a spot of ``measured``; failed spots have fewer.
    layer
        Layer of the raw counts of ``measured``. Default: the first that holds counts.
    latent
        Write the latent embedding of each spot, for neighbor graphs, clusters and UMAPs: the fused features of all
        networks of the model, side by side. Their axes differ between networks, so the function does not average them.
        Of a model without networks, the scores of its gene programs.
    counts
        Write expected counts. The model needs a head for counts (``preset="paper"``): the count of each gene is the
        mean of the distribution that the head predicts, for a spot of the median library size of the training
        sections. The name of a column of ``obs`` multiplies the counts by the size factors in that column (library
        size of the spot over the median library size).
    interval
        Write the ends of an interval around each prediction, in which this share of a gene's spots lies, from 0.5 to 0.99,
        for instance 0.9. ``tl.fit`` measured, gene by gene, how far measurements lie from predictions of tissue held out
        of the training. The share holds in the mean over sections that resemble the training sections; on a new patient
        it can be lower (see :doc:`/concepts/uncertain_maps`). If the training had several patients, spots unlike its tissue
        (novelty above 0.95) have the errors on patients that were held out. Ends are not below 0 for genes, so a prediction below 0 lies
        outside. Default: no interval.
    interval_of
        ``"measurement"``: of the measurement of a spot, counting noise included. ``"expression"``: of the mean over
        repeated measurements of the same spot, on the scale of the prediction; measurements lie in it less often.
    {places}
    window
        Most spots that are predicted at a time; a larger section is split into windows. Windows bound the memory, and
        time grows linearly with the number of spots. Default: ``"auto"``, windows of 5,000 spots, so that a Visium
        section is one window. ``None`` predicts every section as a whole. Windows do not change the predictions of the
        default preset: each window includes all surrounding spots that reach its spots through the network, and the
        statistics are those of the whole section. Features wait in a temporary folder (22 kB a spot). Models that
        attend over the whole section (``preset="paper"``, the authors' weights) are split only if you pass a number;
        their predictions then change, and the function warns.
    out
        File for predictions that do not fit into memory, ``.zarr`` or ``.h5ad``, written block by block. It holds an
        AnnData with the prediction as ``X``, as :func:`sthggep.tl.to_adata` makes it, without images. Open it by
        ``anndata.read_h5ad(out, backed="r")`` or ``anndata.experimental.read_lazy(out)``; of the latter, pass
        ``.to_memory()`` to functions of sthggep. Default: the arrays are written to ``obsm``.
    checkpoint_dir
        Folder for finished blocks of features (16 batches of spots each, 22 kB a spot), from which the same call
        resumes after an interruption. A block is identified by image, encoder, spots and resolution. You may delete
        the folder at any time. Models that read patches or ``obsm`` have no such blocks. Default: blocks are not
        stored.
    batch_size
        Patches encoded at a time.
    device
        ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` … Default: ``"auto"``, a GPU if there is one.
    show_progress_bar
        Show progress.
    copy
        Return a copy with the prediction, and leave ``data`` unchanged.

    Returns
    -------
    ``None``, or with ``copy=True`` the copy. Writes these fields to the table, or with ``out`` the
    arrays to that file:

    ``obsm[key_added]`` : float32 (n_obs, n_genes)
        The prediction, on the scale ``uns[key_added]["units"]``. Spots of regions that were not selected keep what the same
        model predicted before under this name, or are NaN.
    ``obsm["X_<key_added>"]`` : float32 (n_obs, n_networks × dim or n_programs)
        With ``latent``: the embedding.
    ``obsm["<key_added>_counts"]`` : float32 (n_obs, n_genes)
        With ``counts``: expected counts.
    ``obsm["<key_added>_lower"]``, ``obsm["<key_added>_upper"]`` : float32 (n_obs, n_genes)
        With ``interval``: ends of the interval, on the scale of the prediction. In the file of ``out`` they are
        ``layers["lower"]`` and ``layers["upper"]``.
    ``uns[key_added]`` : dict
        ``genes`` (names of the columns), ``panel`` (all genes of the model, whose counts define the scale), ``units``,
        ``obsm`` (keys of the further arrays), ``model`` (its id), ``versions`` and ``params``. If the model records
        them: ``held_out_pearson``, the correlation of each gene on the tissue held out during training;
        ``training_ceiling``, the noise ceiling of each gene on the training slides; ``targets``, where the targets of
        a model of targets stand in a table (``genes`` then holds their names). With ``out``: ``path``, the file from
        which :func:`sthggep.tl.evaluate` and the figures read. With ``interval``: ``interval``, its ``level`` and what it is
        an interval ``of``. If the model held tissue out: ``evidence``, by which :func:`sthggep.tl.trust` and
        :func:`sthggep.tl.regions` judge.

    ``obs["<key_added>_source"]`` : category
        A short hash of model and genes, which marks the rows that belong to this prediction, followed by
        ``"(trained on)"`` where the model was trained on the tissue, and by ``"(measured)"`` where it was trained on some
        spots of the section and this is one of them. It stays with its row when rows are subset, renamed or
        concatenated.

    ``obs["<key_added>_novelty"]`` : float32
        How unlike the training tissue the image around each spot is: the share of held-out training tissue that is less
        unusual, from 0 to 1. NaN where it is not known, as for networks that read patches. Of more than 5,000 spots at
        once, that of the nearest reference window of the tissue.

    The call removes embedding, counts and intervals of an earlier prediction of the same name.

    Warns
    -----
    UserWarning
        A section's image is unlike the training tissue (mean novelty above 0.8), or shows pen, glass, folds or blur at spots
        that are (:func:`sthggep.pp.image_faults` marks these). Few spots lie on tissue, or more would
        with x and y swapped. The model was trained on this tissue, judged by the image or by the array positions of the spots. Colors of the tissue or microns per pixel of the image lie
        outside the range of the training sections (:func:`sthggep.pl.colors` draws the colors). The table has none of
        the model's genes.

    Raises
    ------
    FileNotFoundError, FileExistsError
        The model or the folder of ``out`` does not exist, or ``out`` exists.
    KeyError, ValueError
        The slide has no image, spots lie outside it, the model does not predict a gene or has no head for counts,
        no model is passed and the table holds none of the bundled model's genes,
        ``interval`` is no share or the model held out no tissue, ``key_added`` names a key that sthggep did not write, or holds a prediction of other sections by another model,
        or ``obsm`` holds features of positions or images that have changed since.

    See Also
    --------
    sthggep.tl.predict_cohort : Predict many slides with several processes or machines.
    sthggep.tl.to_adata : Predictions as ``X``.

    Notes
    -----
    If spots are denser than those of the training sections (a :func:`sthggep.pp.tissue_grid`, bins of
    Visium HD), the function splits the array into several interleaved coarser ones, so that neighbors are about as far
    apart as in training.

    Examples
    --------
    >>> slide = sthggep.datasets.toy()
    >>> model = sthggep.tl.fit(slide)
    >>> sthggep.tl.predict(slide, model)
    >>> slide.obsm["hggep"].shape
    >>> # Some spots are measured: the model learns from them first
    >>> sthggep.tl.predict(slide, model, measured="in_capture_area")
    """
    import_whole("torch", "lightning", "torch_geometric")
    from sthggep._inputs._compute import Compute
    from sthggep.model._load import load_model, refuse_foreign_genes

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    options = PredictionOptions(
        key_added, genes, latent, counts, interval=interval, interval_of=interval_of, window=window
    )
    path = None if out is None else check_out(out)
    if checkpoint_dir is not None:
        check_folder(Path(checkpoint_dir), "checkpoint_dir")
    compute = Compute(resolve_device(device), batch_size, show_progress_bar)
    loaded = load_model(model)
    if model is None:
        refuse_foreign_genes(loaded, table_of(data, table_key), measured=measured is not None and measured is not False)
    if copy:
        data = copy_data(data)
    spots = None if measured is None or measured is False else MeasuredSpots(measured, min_counts, layer)
    with nullcontext() if spots is None else temporary_cache():
        if spots is not None:
            check_request(loaded, data, places, options)
            loaded = adapt_model(loaded, data, spots, places, compute, window)
        files = PredictionFiles(path, None if checkpoint_dir is None else Path(checkpoint_dir))
        predict_table(loaded, check_request(loaded, data, places, options), compute, files, options, spatial_key)
    return data if copy else None
