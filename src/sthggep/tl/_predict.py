"""Expression of a slide's spots, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._checks import genes_present, written_beside
from sthggep._device import resolve_device
from sthggep._docs import document_places
from sthggep._keys import TOOL
from sthggep._slides._anndata import copy_data
from sthggep._slides._places import Places
from sthggep.tl._answers import look
from sthggep.tl._outputs import Outputs, check_out, partial, write_store

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._keys import PredictionKeys
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP


@document_places
def predict(
    data: AnnData | SpatialData,
    model: HGGEP | str | Path | None = None,
    *,
    key_added: str = "hggep",
    genes: Sequence[str] | None = None,
    latent: bool = False,
    counts: bool | str = False,
    uncertainty: bool = False,
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
    """Predict the expression of every spot from the H&E around it.

    Parameters
    ----------
    data
        Slide with spots and an image; one or several sections. Counts are not needed and not looked at.
    model
        A trained model, the folder it was saved to, or a name (see :meth:`sthggep.HGGEP.from_pretrained`); ``None`` takes ``"her2st"``, which comes with the package
        and knows breast tumors only (see its model card).
    key_added
        Name of the prediction.
    genes
        Some of the model's genes, in the order in which they are to be written: less memory. ``None`` predicts all.
    latent
        Write the networks' latent embedding of each spot, for neighbors, clusters and UMAPs: the fused features of
        all networks of the model side by side (their axes differ, so they are not averaged).
    counts
        Write expected counts, by models that have a head for counts (``preset="paper"``): the mean of the distribution
        that they give each gene, for a spot of median depth in the training sections. The name of a column of ``obs``
        multiplies them by the size factors that stand there (counts of the spot over those of the median spot).
    uncertainty
        Write how far the networks of the model differ at each spot and gene. It is no error bar: noise of counting and what
        all networks get wrong alike are not in it, and on held-out toy tissue it hardly told where the error is large.
    {places}
    window
        Spots predicted at a time, of a section that has more: memory is bounded, time grows with the number of spots.
        ``"auto"`` takes 5,000, so that a Visium section is looked at whole; ``None`` looks at every section whole. The
        default preset's predictions do not depend on it: each window is seen with all spots around it that count, and
        judged against the whole section; features wait in a temporary folder (22 kB a spot). Models that attend over the
        whole section (``preset="paper"``, the authors' weights) are windowed only where a number is passed; the result
        then differs, and a warning says so.
    out
        A file to be written block by block, for predictions that memory should not hold: ``"….zarr"`` or ``"….h5ad"``. It
        is an AnnData with the prediction as ``X``, as :func:`sthggep.tl.to_adata` makes it, without pictures: open it by
        ``anndata.read_h5ad(out, backed="r")`` or ``anndata.experimental.read_lazy(out)``. ``None`` writes to ``obsm``.
    checkpoint_dir
        A folder where finished blocks of features are kept (16 batches of spots each, 22 kB a spot): the same call goes on
        where a killed one was. Blocks are known by image, encoder, spots and resolution; delete the folder when you like.
        ``None`` keeps none. Models that look at patches or at ``obsm`` have no such blocks.
    batch_size
        Patches encoded at a time.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    show_progress_bar
        Show progress.
    copy
        Return a changed copy, and leave ``data`` alone.

    Returns
    -------
    ``None``, or the copy. Writes to the table, or (the arrays) to ``out``:

    ``obsm[key_added]`` : float32 (n_obs, n_genes)
        The prediction, NaN for spots of regions that were not asked for.
    ``obsm["X_<key_added>"]`` : float32 (n_obs, networks × dim)
        With ``latent=True``: the embedding.
    ``obsm["<key_added>_counts"]`` : float32 (n_obs, n_genes)
        With ``counts``: expected counts, columns as in the prediction.
    ``obsm["<key_added>_std"]`` : float32 (n_obs, n_genes)
        With ``uncertainty``: standard deviation over the networks, on the scale of the prediction.
    ``uns[key_added]`` : dict
        ``genes`` (of the columns), ``panel`` (the genes of the model, which the scale refers to), ``units``, ``obsm``
        (further arrays that were written), ``model``, ``versions``, ``params`` and, where the model knows them,
        ``held_out_pearson``: how well each gene was predicted on the tissue that was held out while training, which says
        how far to trust its map here; and ``training_ceiling``: its noise ceiling on the training slides;
        ``targets``: where targets that are no genes stand in a table, ``from`` and ``key`` (``genes`` holds their names); with ``out``,
        ``path``: the file, which :func:`sthggep.tl.evaluate` and the figures read as far as they need it.

    Embedding, counts and spread of an earlier prediction of that name go away with it, if they are not asked for again.

    A warning says where the spots hardly lie on tissue, or would do so better with x and y swapped; where a section is
    one that the model has learned from, by its image or its spots' places in the array; where its tissue has colors, or its
    image microns per pixel, that lie outside those of the training (:func:`sthggep.pl.colors` draws the colors); and
    where the table has none of the model's genes.

    Spots that stand denser than those of the training sections (a :func:`sthggep.pp.tissue_grid`, bins of Visium HD) are
    tied to neighbors at about the distance that the networks have learned: the array is taken as several coarser ones,
    interleaved.

    Raises
    ------
    FileNotFoundError, FileExistsError
        There is no such model; there is no folder for ``out``, or ``out`` is there.
    KeyError, ValueError
        No image, spots outside it, a gene that the model does not predict, counts of a model without a head for them, or
        a key that sthggep did not write.

    See Also
    --------
    sthggep.tl.predict_cohort : many slides, by several processes or machines.
    sthggep.tl.to_adata : predictions as ``X``.
    """
    from sthggep._inputs._compute import Compute
    from sthggep.model._forward import Quantities, predict_windows
    from sthggep.model._load import load_model
    from sthggep.tl._doubts import warn_of_doubts

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    found = load_model(model)
    path = None if out is None else check_out(out)
    if copy:
        data = copy_data(data)
    table, key, beside, chosen, depth, slides = look(
        found,
        data,
        places,
        key_added=key_added,
        genes=genes,
        latent=latent,
        counts=counts,
        uncertainty=uncertainty,
        window=window,
    )
    seen = warn_of_doubts(found, slides, table)
    record = _record(found, slides, chosen, counts, seen) | {"obsm": np.array(beside, dtype=object)}
    with nullcontext() if path is None else partial(path) as folder:
        outputs = Outputs(table.n_obs, depth, folder)
        compute = Compute(resolve_device(device), batch_size, show_progress_bar)
        columns = None if genes is None else genes_present(chosen, found.genes, "the model")
        quantities = Quantities(columns, latent, bool(counts), uncertainty)
        encoder = found.encoder(device=str(compute.device))
        for slide in slides:
            parts = predict_windows(
                found.ensemble,
                slide,
                encoder=encoder,
                compute=compute,
                quantities=quantities,
                window=window,
                blocks=None if checkpoint_dir is None else Path(checkpoint_dir),
            )
            for rows, part in parts:
                outputs.add(slide.rows[rows], part)
        if path is not None:
            write_store(path, outputs, table, key, chosen, record)
            outputs.arrays.clear()
            record |= {"path": str(path), "obsm": np.array([], dtype=object)}
    _write(table, key, outputs, record)
    return data if copy else None


def _write(table: AnnData, key: PredictionKeys, outputs: Outputs, record: dict[str, Any]) -> None:
    """Put arrays and record into the table, in place of those of an earlier prediction."""
    for name in [*written_beside(table.uns.get(key.uns)), key.obsm]:
        if name in table.obsm:
            del table.obsm[name]
    names = {"expression": key.obsm, "latent": key.latent, "counts": key.counts, "spread": key.std}
    for kind, values in outputs.arrays.items():
        table.obsm[names[kind]] = values
    table.uns[key.uns] = record


def _record(
    model: HGGEP, slides: Sequence[Slide], genes: Sequence[str], counts: bool | str, seen: Sequence[str]
) -> dict[str, Any]:
    """What a prediction is of, and by what."""
    record: dict[str, Any] = {
        "tool": TOOL,
        "genes": np.array(genes, dtype=object),
        "panel": np.array(model.genes, dtype=object),
        "units": model.units,
        "model": model.id,
        "versions": versions(),
        "params": {
            "preset": model.preset,
            "stain": model.inputs.stain or "none",
            "counts": counts if isinstance(counts, str) else bool(counts),
            "sections": np.array([slide.name for slide in slides], dtype=object),
            "learned_from": np.array(seen, dtype=object),
            "mpp": np.array([slide.mpp or np.nan for slide in slides]),
            "mpp_source": np.array([slide.mpp_source for slide in slides], dtype=object),
        },
    }
    if model.targets is not None:
        record["targets"] = model.targets.to_dict()
    training = model.training
    for name, values in (("training_ceiling", training.ceiling), ("held_out_pearson", training.held_out_pearson)):
        if values is not None:
            known = dict(zip(model.genes, values, strict=True))
            record[name] = np.array([known[gene] for gene in genes], dtype=np.float64)
    return record


def versions() -> dict[str, str]:
    """Versions that a prediction depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("sthggep", "torch", "anndata")}
