"""HER2-positive breast tumors, legacy Spatial Transcriptomics (Andersson et al. 2021)."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from sthggep._arguments import checked
from sthggep._checks import warn_user
from sthggep.datasets._download import Folder, Source, checksums, locate, numbered
from sthggep.io import read_st
from sthggep.io._st_tables import read_labels

# The commits that hold these folders as they were published; the default branch may change.
_COMMITS = {
    "data/ST-cnts": "e75e5c53a994726a8ad251aaf653a02d7932eb6a",
    "data/ST-imgs": "9f2260c6aa8347996955d53f0a5f06ac14c93470",
    "data/ST-pat": "9f2260c6aa8347996955d53f0a5f06ac14c93470",
    "data/ST-spotfiles": "9f2260c6aa8347996955d53f0a5f06ac14c93470",
    "res/ST-cluster": "5ef75b9530d59eff0965ad104672e75a7f0e2023",
}
_PUBLISHED = numbered([("A", 6), ("B", 6), ("C", 6), ("D", 6), ("E", 3), ("F", 3), ("G", 3), ("H", 3)])
_LABELED = ("A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1")
_IMAGE = r".+\.(?:jpe?g|tiff?|png)"


def _commit(relative: str) -> str:
    return _COMMITS["/".join(relative.split("/")[:2])]


SOURCE = Source(
    name="her2st",
    url=lambda path: f"https://raw.githubusercontent.com/almaan/her2st/{_commit(path)}/{path}",
    by_hand="git clone https://github.com/almaan/her2st",
    listing=lambda path: f"https://api.github.com/repos/almaan/her2st/contents/{path}?ref={_commit(path)}",
)


@checked
def her2st(
    section: str, *, root: str | Path | None = None, labels: bool = True, image: bool = True, fullres: bool = True
) -> AnnData:
    """Read one section of the HER2-positive breast tumors of Andersson et al. (Nature Communications 12, 6012, 2021).

    The function reads from `root`, else from `$STHGGEP_DATA/her2st`, else from the download cache, which it fills as needed.

    Parameters
    ----------
    section
        Its name, `A1` to `H3`; the letter is the patient (see :func:`sections`).
    root
        Folder of the data set, laid out as a clone of github.com/almaan/her2st.
    labels
        Whether to add the tissue labels, if the section has any.
    image
        Whether to read the H&E; a section without one is read without, with a warning.
    fullres
        Whether to hold the image at full resolution in memory (280 MB, as much in an h5ad file); see
        :func:`sthggep.io.read_st`.

    Returns
    -------
    AnnData as :func:`sthggep.io.read_st` makes it. With `labels`, `obs["label"]` is the pathologist's annotation (one
    section a patient has one) and `obs["cluster"]` the published cluster of the section's expression (derived from the
    counts: no independent truth).

    Raises
    ------
    ValueError
        If there is no such section, or a file is damaged.
    FileNotFoundError
        If a table is not in the folder.
    ConnectionError
        If a file cannot be downloaded.

    Examples
    --------
    >>> adata = sthggep.datasets.her2st("C2")
    """
    folder = locate(SOURCE, root)
    folder.choose(section, list_sections(folder), "section")
    picture = _image(folder, section) if image else None
    if image and picture is None:
        msg = f"{section} has no image in {folder.path / _image_folder(section)}: read without. Pass `image=False` to say so."
        warn_user(msg)
    annotated = _optional(folder, f"data/ST-pat/lbl/{section}_labeled_coordinates.tsv", section in _LABELED)
    clusters = _optional(folder, f"res/ST-cluster/lbl/{section}-cluster-annotation.tsv.gz", True)
    adata = read_st(
        folder.get(f"data/ST-cnts/{section}.tsv.gz"),
        picture,
        folder.get(f"data/ST-spotfiles/{section}_selection.tsv"),
        patient=section[0],
        section=section,
        labels=annotated if labels else None,
        fullres=fullres,
    )
    if labels and clusters is not None:
        adata.obs["cluster"] = read_labels(clusters, adata.obs, section)
    return adata


def list_sections(folder: Folder, *, with_image: bool = False) -> list[str]:
    """List the sections in the folder; for the download cache, those that are published."""
    if folder.remote:
        return list(_PUBLISHED)
    counts = {name.removesuffix(".tsv.gz") for name in folder.names("data/ST-cnts", r".+\.tsv\.gz")}
    spots = {name.removesuffix("_selection.tsv") for name in folder.names("data/ST-spotfiles", r".+_selection\.tsv")}
    available = sorted(counts & spots)
    return [section for section in available if not with_image or folder.find(_image_folder(section), _IMAGE)]


def _image_folder(section: str) -> str:
    return f"data/ST-imgs/{section[0]}/{section}"


def _image(folder: Folder, section: str) -> Path | None:
    below = _image_folder(section)
    if not folder.remote:
        return folder.find(below, _IMAGE)
    # The name of an image says nothing of its section; those without a checksum are looked up.
    registered = [path for path in checksums()["her2st"] if path.startswith(f"{below}/")]
    relative = registered or [f"{below}/{name}" for name in folder.remote_names(below, _IMAGE)]
    return folder.get(relative[0]) if relative else None


def _optional(folder: Folder, relative: str, published: bool) -> Path | None:
    """A file that not every section has."""
    if folder.remote:
        return folder.get(relative) if published else None
    path = folder.path / relative
    return path if path.is_file() else None
