"""Cutaneous squamous cell carcinoma, legacy Spatial Transcriptomics (Ji et al. 2020, GEO GSE144240)."""

from __future__ import annotations

import re
from pathlib import Path

from anndata import AnnData

from sthggep._arguments import checked
from sthggep._checks import warn_user
from sthggep._slides._lattice import is_interleaved
from sthggep.datasets._download import Folder, Source, locate
from sthggep.datasets._mob import PITCH_UM as PITCH_2K_UM
from sthggep.io import read_st
from sthggep.io._st_tables import read_spots

PITCH_1K_UM = 200.0
_FIRST_GSM = 4284316
_PUBLISHED = [f"{patient}_ST_rep{replicate}" for patient in ("P2", "P5", "P9", "P10") for replicate in (1, 2, 3)]
# GEO numbers the samples in this order.
_GSM = {sample: f"GSM{_FIRST_GSM + number}" for number, sample in enumerate(_PUBLISHED)}

SOURCE = Source(
    name="cscc",
    url=lambda name: f"https://ftp.ncbi.nlm.nih.gov/geo/samples/GSM4284nnn/{name.split('_')[0]}/suppl/{name}",
    by_hand="the unpacked GSE144240_RAW.tar of GEO series GSE144240",
)


@checked
def cscc(
    sample: str,
    *,
    root: str | Path | None = None,
    image: bool = True,
    fullres: bool = True,
    pitch_um: float | None = None,
) -> AnnData:
    """Read one sample of cutaneous squamous cell carcinoma of Ji et al. (Cell 182, 497, 2020).

    The function reads from `root`, else from `$STHGGEP_DATA/cscc`, else from the download cache, which it fills as needed.

    Parameters
    ----------
    sample
        `P2`, `P5`, `P9` or `P10`, then `_ST_rep1` to `_ST_rep3`, such as `"P2_ST_rep1"`; the first part is the patient.
    root
        Folder with the files of GEO series GSE144240, gzipped as they come or unpacked.
    image
        Whether to read the H&E.
    fullres
        Whether to hold the image at full resolution; see :func:`sthggep.io.read_st`.
    pitch_um
        Microns between nearest spots; by default 200, or 141 where every other place of the array has a spot.

    Returns
    -------
    AnnData as :func:`sthggep.io.read_st` makes it.

    Raises
    ------
    ValueError
        If there is no such sample, or a file is damaged.
    FileNotFoundError
        If a file is not in the folder.
    ConnectionError
        If a file cannot be downloaded.

    Examples
    --------
    >>> adata = sthggep.datasets.cscc("P2_ST_rep1")
    """
    folder = locate(SOURCE, root)
    folder.choose(sample, list_sections(folder), "sample")
    spots = read_spots(_file(folder, sample, "spots"))
    if pitch_um is None:
        places = spots.loc[spots["selected"] != 0, ["array_x", "array_y"]]
        pitch_um = PITCH_2K_UM if is_interleaved(places.to_numpy()) else PITCH_1K_UM
    # The samples are published with an image each: only a folder can lack one.
    has_image = folder.remote or folder.find("", _pattern(sample, "image")) is not None
    if image and not has_image:
        msg = f"{sample} has no image in {folder.path}: read without. Pass `image=False` to say so."
        warn_user(msg)
    return read_st(
        _file(folder, sample, "counts"),
        _file(folder, sample, "image") if image and has_image else None,
        _file(folder, sample, "spots"),
        patient=sample.split("_")[0],
        section=sample,
        pitch_um=pitch_um,
        fullres=fullres,
    )


def list_sections(folder: Folder, *, with_image: bool = False) -> list[str]:
    """List the samples in the folder; for the download cache, those that are published."""
    if folder.remote:
        return list(_PUBLISHED)
    names = folder.names("", r"(?:.*_)?P\d+_ST_rep\d+_stdata\.tsv(?:\.gz)?")
    available = [match.group() for name in names if (match := re.search(r"P\d+_ST_rep\d+", name))]
    samples = [sample for sample in available if folder.find("", _pattern(sample, "spots"))]
    return [sample for sample in samples if not with_image or folder.find("", _pattern(sample, "image"))]


def _pattern(sample: str, kind: str) -> str:
    return {
        "counts": rf"(?:.*_)?{sample}_stdata\.tsv(?:\.gz)?",
        "spots": rf"(?:.*_)?spot_data-selection-{sample}\.tsv(?:\.gz)?",
        "image": rf"(?:.*_)?{sample}\.jpe?g(?:\.gz)?",
    }[kind]


def _file(folder: Folder, sample: str, kind: str) -> Path:
    published = {
        "counts": f"{_GSM.get(sample)}_{sample}_stdata.tsv.gz",
        "spots": f"{_GSM.get(sample)}_spot_data-selection-{sample}.tsv.gz",
        "image": f"{_GSM.get(sample)}_{sample}.jpg.gz",
    }[kind]
    local = None if folder.remote else folder.find("", _pattern(sample, kind))
    return local or folder.get(published)
