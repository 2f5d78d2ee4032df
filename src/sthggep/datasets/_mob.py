"""Mouse olfactory bulb, legacy Spatial Transcriptomics on the 2K array (from the STUtility package)."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from sthggep._arguments import checked
from sthggep.datasets._download import Folder, Source, locate
from sthggep.io import read_st

# Two lattices of 200 um, one in the gaps of the other: nearest spots are 200 / sqrt(2) um apart.
PITCH_UM = 141.42
# The commits of STUtility that hold the files as they are known here.
_COMMITS = {
    "MOB1.tsv": "63061c829763ed01bccf49c72429f7aa34215330",
    "MOB3.tsv": "c0faea5ec19765474d3188307c4fb83084965063",
    "MOB1.jpg": "513d4f0cf7852a6ff0d142e5e6e08b53493326db",
    "MOB3.jpg": "42dce473c17e3aa057c6f801355278df7228c038",
    "alignment_table_MOB1.tsv": "3a593c2fc2bd151dc6f55e2d9195eaa92ab904b3",
    "alignment_table_MOB3.tsv": "42dce473c17e3aa057c6f801355278df7228c038",
}
# Of the four published sections, those known to come from different animals.
_PUBLISHED = ("MOB1", "MOB3")

SOURCE = Source(
    name="mob",
    url=lambda path: (
        f"https://raw.githubusercontent.com/jbergenstrahle/STUtility/{_COMMITS[path]}/inst/extdata/counts/{path}"
    ),
    by_hand="inst/extdata/counts of https://github.com/jbergenstrahle/STUtility",
)


@checked
def mob(section: str, *, root: str | Path | None = None, image: bool = True, fullres: bool = True) -> AnnData:
    """Read one section of mouse olfactory bulb with its 1,000 most expressed genes, small and low in resolution.

    The function reads from `root`, else from `$STHGGEP_DATA/mob`, else from the download cache, which it fills as needed. From the
    STUtility package (MIT), after Stahl et al. (Science 353, 78, 2016).

    Parameters
    ----------
    section
        `"MOB1"` or `"MOB3"`: two animals.
    root
        Folder with `MOB1.tsv.gz` (or `.tsv`), `MOB1.jpg`, `alignment_table_MOB1.tsv` and so on.
    image
        Whether to read the H&E (1,905 px a side, about 4.4 microns per pixel).
    fullres
        Whether to hold the image at full resolution; see :func:`sthggep.io.read_st`.

    Returns
    -------
    AnnData as :func:`sthggep.io.read_st` makes it; `obs["patient"]` is the animal.

    Raises
    ------
    ValueError
        If there is no such section, or a file is damaged.
    FileNotFoundError
        If a file is not in the folder.
    ConnectionError
        If a file cannot be downloaded.

    Examples
    --------
    >>> adata = sthggep.datasets.mob("MOB1")
    """
    folder = locate(SOURCE, root)
    folder.choose(section, list_sections(folder), "section")
    counts = None if folder.remote else folder.find("", rf"{section}\.tsv(?:\.gz)?")
    return read_st(
        counts or folder.get(f"{section}.tsv"),
        folder.get(f"{section}.jpg") if image else None,
        folder.get(f"alignment_table_{section}.tsv"),
        patient=section,
        section=section,
        pitch_um=PITCH_UM,
        fullres=fullres,
    )


def list_sections(folder: Folder, *, with_image: bool = False) -> list[str]:
    """List the sections in the folder; for the download cache, those that are published."""
    if folder.remote:
        return list(_PUBLISHED)
    names = folder.names("", r"alignment_table_.+\.tsv")
    available = [name.removeprefix("alignment_table_").removesuffix(".tsv") for name in names]
    available = [section for section in available if folder.find("", rf"{section}\.tsv(?:\.gz)?")]
    return [section for section in available if not with_image or folder.find("", rf"{section}\.jpg")]
