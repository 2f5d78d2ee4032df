"""Names of the sections of the public data sets."""

from __future__ import annotations

from pathlib import Path

from sthggep._arguments import checked
from sthggep._checks import one_of
from sthggep.datasets import _cscc, _her2st, _mob
from sthggep.datasets._download import locate

_DATASETS = {
    "her2st": (_her2st.SOURCE, _her2st.list_sections),
    "cscc": (_cscc.SOURCE, _cscc.list_sections),
    "mob": (_mob.SOURCE, _mob.list_sections),
}


@checked
def sections(dataset: str, *, root: str | Path | None = None, with_image: bool = False) -> list[str]:
    """List the names of the sections of a public data set.

    Parameters
    ----------
    dataset
        `"her2st"`, `"cscc"` or `"mob"`.
    root
        Folder of the data set. Default: `$STHGGEP_DATA/<dataset>`.
    with_image
        Whether to leave out sections without an image.

    Returns
    -------
    The sections whose counts and spots are in the folder; without a folder, all that can be downloaded.

    Raises
    ------
    ValueError
        If there is no such data set.
    FileNotFoundError
        If there is no such folder.
    """
    source, list_sections = _DATASETS[one_of(dataset, _DATASETS, "data set")]
    return list_sections(locate(source, root), with_image=with_image)
