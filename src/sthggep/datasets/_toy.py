"""A toy section: rendered H&E whose gene expression is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sthggep._slides._lattice import lay_out
from sthggep.datasets import _toy_genes, _toy_tissue
from sthggep.datasets._toy_render import render

if TYPE_CHECKING:
    from spatialdata import SpatialData

Layout = Literal["square", "hex"]
HIRES_PX = 2000


@overload
def toy(
    *,
    seed: int = ...,
    section: str | None = ...,
    patient: str | None = ...,
    size_um: tuple[float, float] = ...,
    mpp: float = ...,
    pitch_um: float = ...,
    layout: Layout = ...,
    n_genes: int = ...,
    counts_per_spot: float = ...,
    as_spatialdata: Literal[False] = ...,
) -> ad.AnnData: ...
@overload
def toy(
    *,
    seed: int = ...,
    section: str | None = ...,
    patient: str | None = ...,
    size_um: tuple[float, float] = ...,
    mpp: float = ...,
    pitch_um: float = ...,
    layout: Layout = ...,
    n_genes: int = ...,
    counts_per_spot: float = ...,
    as_spatialdata: Literal[True],
) -> SpatialData: ...
def toy(
    *,
    seed: int = 0,
    section: str | None = None,
    patient: str | None = None,
    size_um: tuple[float, float] = (3000.0, 3000.0),
    mpp: float = 1.0,
    pitch_um: float = 200.0,
    layout: Layout = "square",
    n_genes: int = 50,
    counts_per_spot: float = 2000.0,
    as_spatialdata: bool = False,
) -> ad.AnnData | SpatialData:
    """Render a piece of H&E-like tissue and draw the expression of its spots from known rates.

    The function lays out tumor nests, collagen, immune aggregates and fat in microns, draws them with the two stains of a
    laboratory of its own, and measures them around each spot. Each gene follows one of these measurements, in the same way
    in every section, so that a model trained on some seeds can be evaluated on another.

    ========  ==================================================================
    Genes     The expected count rises with
    ========  ==================================================================
    NUCL      share of the patch that lies under nuclei
    PLEO      mean size of its nuclei
    STRO      share of the patch that is collagen
    IMMU      share of its nuclei that are immune (small, round and dark)
    FAT       share of the patch that is empty fat
    NICH      immune share of the nuclei in a neighborhood wider than the patch
    NOISE     nothing: random for every spot
    RARE      as NUCL, but some two hundred times less abundant
    ========  ==================================================================

    A patch is a square of 110 µm around the spot; the neighborhood is a Gaussian of 200 µm.

    Parameters
    ----------
    seed
        Seed of the tissue. The same seed gives the same tissue at any ``mpp``, ``layout`` and number of genes.
    section
        Name of the section. Default: numbered from the seed, ``"toy1"`` for seed 0, ``"toy2"`` for seed 1.
    patient
        Name of the patient. Default: the name of the section, so that every seed is a patient of its own.
    size_um
        Width and height of the slide in microns.
    mpp
        Microns per pixel of the image.
    pitch_um
        Distance between neighboring spots in microns. A spot is half as wide.
    layout
        ``"square"`` as on legacy ST arrays, ``"hex"`` as on Visium (array columns then count by twos).
    n_genes
        Number of genes. The families take turns, so a smaller number gives the first genes of a larger one.
    counts_per_spot
        Expected total count of a spot of average morphology.
    as_spatialdata
        Return a SpatialData, laid out as :func:`spatialdata_io.visium` lays out a section.

    Returns
    -------
    One section, with spots under tissue only. AnnData:

    - ``X``: counts (sparse, whole numbers), negative binomial around ``true_rate * library_size``.
    - ``layers["true_rate"]``: the counts to expect at library size 1. What one family gains in a spot, the others lose.
    - ``obs``: ``patient``, ``section``, ``array_x``, ``array_y``, ``domain`` (the largest in the patch) and
      ``library_size``.
    - ``var``: ``family``, ``quantity`` (the column of ``obsm["morphology"]`` that the gene follows) and ``slope``.
    - ``obsm["spatial"]``: centers (x, y) in pixels of the full-resolution image.
    - ``obsm["morphology"]``: what was measured around every spot.
    - ``uns["spatial"][section]``: images ``hires`` and, if larger, ``fullres``; scale factors; ``pitch_um``, ``mpp``.
    - ``uns["toy"]``: the parameters.

    SpatialData: image ``"{section}_full_image"`` (a pyramid), circles ``section`` and ``"table"``, in the coordinate
    system ``section``; the table holds the same values, and no image.

    Raises
    ------
    ValueError
        A parameter out of range, or no spot under tissue.

    Examples
    --------
    >>> train = [sthggep.datasets.toy(seed=seed) for seed in (0, 1)]
    >>> model = sthggep.tl.fit(train)
    """
    _check(seed, size_um, mpp, pitch_um, layout, n_genes, counts_per_spot)
    section = f"toy{seed + 1}" if section is None else section
    patient = section if patient is None else patient
    # separate streams: the tissue depends neither on the pixels nor on the genes
    for_tissue, for_image, *for_counts = np.random.SeedSequence(int(seed)).spawn(4)
    tissue = _toy_tissue.grow(for_tissue, (float(size_um[0]), float(size_um[1])))
    array, xy_um = _spots(tissue, pitch_um, layout)
    obs = pd.DataFrame(index=[f"{x}x{y}" for x, y in array])
    obs["patient"] = pd.Categorical([patient] * len(obs))
    obs["section"] = pd.Categorical([section] * len(obs))
    obs["array_x"], obs["array_y"] = array.T
    obs["domain"] = _toy_tissue.main_domain(tissue, xy_um)
    adata = _expression(obs, _toy_tissue.measure(tissue, xy_um), int(n_genes), counts_per_spot, for_counts)
    adata.obsm["spatial"] = xy_um / mpp
    adata.uns["toy"] = {
        "seed": int(seed),
        "size_um": np.asarray(size_um, dtype=float),
        "mpp": float(mpp),
        "pitch_um": float(pitch_um),
        "layout": layout,
        "n_genes": int(n_genes),
        "counts_per_spot": float(counts_per_spot),
    }
    image = render(tissue, mpp, for_image)
    if as_spatialdata:
        return _as_spatialdata(adata, image, section)
    adata.uns["spatial"] = {section: _spatial_record(image, adata.uns["toy"])}
    return adata


def _check(
    seed: int,
    size_um: tuple[float, float],
    mpp: float,
    pitch_um: float,
    layout: str,
    n_genes: int,
    counts_per_spot: float,
) -> None:
    """Raise where a parameter is out of range."""
    if np.shape(size_um) != (2,):
        msg = f"`size_um` is the width and the height in microns, for example (3000, 3000); found {size_um!r}."
        raise ValueError(msg)
    lengths = {"size_um": min(size_um), "mpp": mpp, "pitch_um": pitch_um, "counts_per_spot": counts_per_spot}
    for name, value in lengths.items():
        if not (np.isfinite(value) and value > 0):
            msg = f"`{name}` must be a positive number; found {value!r}."
            raise ValueError(msg)
    if layout not in ("square", "hex"):
        msg = f'`layout` is "square" (legacy ST) or "hex" (Visium); found {layout!r}.'
        raise ValueError(msg)
    for name, number, least in (("seed", seed, 0), ("n_genes", n_genes, 1)):
        if int(number) != number or number < least:
            msg = f"`{name}` must be a whole number, {least} or more; found {number!r}."
            raise ValueError(msg)


def _spots(tissue: _toy_tissue.Tissue, pitch: float, layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Array positions (x, y) and centers in microns of the spots of a centered lattice that lie under tissue."""
    size = tissue.size_um
    array, xy_um = lay_out(size, pitch, layout)
    under = _toy_tissue.tissue_share(tissue, xy_um) > 0.6
    if not under.any():
        msg = (
            f"No spot lies under tissue: a slide of {size[0]:g} x {size[1]:g} µm is too small "
            f"for spots {pitch:g} µm apart. Pass a larger `size_um` or a smaller `pitch_um`."
        )
        raise ValueError(msg)
    return array[under], xy_um[under]


def _expression(
    obs: pd.DataFrame,
    morphology: pd.DataFrame,
    n_genes: int,
    counts_per_spot: float,
    seeds: list[np.random.SeedSequence],
) -> ad.AnnData:
    """Draw counts of the first genes of the species for spots of the given morphology."""
    genes = _toy_genes.gene_table(n_genes)
    for_rates, for_counts = (np.random.default_rng(seed) for seed in seeds)
    expected = _toy_genes.expected_counts(genes, morphology, counts_per_spot, for_rates)
    library = np.exp(_toy_genes.LIBRARY_SIGMA * for_counts.standard_normal(len(obs)))
    var = genes[["family", "quantity", "slope"]].astype({"family": "category", "quantity": "category"})
    counts = _toy_genes.draw_counts(expected, library, for_counts)
    adata = ad.AnnData(counts, obs=obs.assign(library_size=library), var=var, layers={"true_rate": expected})
    adata.obsm["morphology"] = morphology.set_index(adata.obs_names)
    return adata


def _spatial_record(image: NDArray[np.uint8], toy: dict[str, Any]) -> dict[str, Any]:
    """What ``uns["spatial"][section]`` holds."""
    height, width = image.shape[:2]
    scale = min(1.0, HIRES_PX / max(height, width))
    images = {"hires": image}
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        images = {"hires": np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX)), "fullres": image}
    return {
        "images": images,
        "scalefactors": {
            "tissue_hires_scalef": scale,
            "tissue_fullres_scalef": 1.0,
            "spot_diameter_fullres": toy["pitch_um"] / 2 / toy["mpp"],
        },
        "metadata": {"source_image_path": "", "pitch_um": toy["pitch_um"], "mpp": toy["mpp"]},
    }


def _as_spatialdata(adata: ad.AnnData, image: NDArray[np.uint8], section: str) -> SpatialData:
    """The section as the Visium reader lays one out: no "global" coordinate system, no image in the table."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity

    record = _spatial_record(image, adata.uns["toy"])
    adata.uns["spatial"] = {section: {"metadata": record["metadata"]}}
    adata.obs["spot_id"] = np.arange(adata.n_obs)
    adata.obs["region"] = pd.Categorical([section] * adata.n_obs)
    circles = ShapesModel.parse(
        adata.obsm["spatial"],
        geometry=0,
        radius=record["scalefactors"]["spot_diameter_fullres"] / 2,
        index=adata.obs["spot_id"].copy(),
        transformations={section: Identity()},
    )
    full_image = Image2DModel.parse(
        image.transpose(2, 0, 1),
        dims=("c", "y", "x"),
        c_coords=("r", "g", "b"),
        scale_factors=[2, 2],
        transformations={section: Identity()},
    )
    table = TableModel.parse(adata, region=section, region_key="region", instance_key="spot_id")
    return SpatialData(images={f"{section}_full_image": full_image}, shapes={section: circles}, tables={"table": table})
