"""Files of a cohort: one a slide, with a record of what its prediction depends on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sthggep._log import log
from sthggep._slides._container_files import file_names, kind_of
from sthggep._table._prediction import open_group
from sthggep.tl._cohort._tasks import NOTE, PredictionSize, SlideJob

# A stamp covers so many parts of a file, besides its size and time
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


class TargetState(NamedTuple):
    """State of a slide's target file before the cohort runs."""

    size: PredictionSize | None = None
    """Size of the requested prediction, if the file holds it."""
    difference: str = ""
    """Why the file is another one, in words."""


def targets_of(slides: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """The target file of each slide; refuses slides that do not exist, and two slides with one target."""
    if isinstance(slides, str | Path) or not slides:
        msg = f"`slides` must be a list of files, found {slides!r}. Pass `[...]` of one or more."
        raise ValueError(msg)
    if out.suffix in (".h5ad", ".zarr") or out.is_file():
        msg = f"`out` must be a folder for {len(slides)} files, found {str(out)!r}."
        raise FileExistsError(msg) if out.exists() else ValueError(msg)
    paths = [Path(slide).expanduser().absolute() for slide in slides]
    for path in paths:
        kind_of(path)
    targets = file_names(paths, out, [".h5ad"] * len(paths))
    for target in targets.values():
        if target.resolve() in {path.resolve() for path in paths}:
            msg = f"{target} would be written over a slide that is read. Pass another `out`."
            raise ValueError(msg)
    return targets


def stamp(path: Path) -> str:
    """Digest of names, sizes and modification times of a file or of all files of a folder, and of samples of a file."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return _digest(files, path.parent, sampled=not path.is_dir())


def image_stamp(path: Path) -> str:
    """Digest of the image files that an AnnData names."""
    return _digest(_image_files(path), None, sampled=True)


def _digest(files: Sequence[Path], base: Path | None, *, sampled: bool) -> str:
    digest = sha256()
    for file in files:
        status, name = file.stat(), str(file) if base is None else file.relative_to(base).as_posix()
        digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
        if sampled:
            digest.update(_sample(file))
    return digest.hexdigest()[:16]


def _sample(file: Path) -> bytes:
    """Digest of parts spread over a file: all of a small one."""
    size, digest = file.stat().st_size, sha256()
    with file.open("rb") as opened:
        for part in range(SAMPLES):
            opened.seek(part * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
            digest.update(opened.read(SAMPLE_BYTES))
            if size <= SAMPLE_BYTES:
                break
    return digest.digest()


def _image_files(path: Path) -> list[Path]:
    """Image files that an AnnData names in ``uns["spatial"][...]["metadata"]["source_image_path"]``."""
    from anndata.io import read_elem

    if path.suffix not in (".h5ad", ".zarr"):
        return []
    try:
        libraries: Any = open_group(str(path))["uns/spatial"]
        names = [f"{library}/metadata/source_image_path" for library in libraries]
        images = [Path(str(read_elem(libraries[name]))) for name in names if name in libraries]
    except (KeyError, OSError, ValueError):
        # A SpatialData, an AnnData without images, or a file that the job will refuse
        return []
    return sorted({image for image in images if image.is_file()})


def read_state(job: SlideJob) -> TargetState:
    """Whether the target file of a slide exists and holds the requested prediction."""
    import h5py

    if not job.target.exists():
        return TargetState()
    try:
        with h5py.File(job.target, "r") as file:
            record, size = dict(json.loads(file.attrs[NOTE])), PredictionSize(*map(int, file["X"].shape))
    except (OSError, KeyError, ValueError, TypeError, RecursionError):
        return TargetState(difference="was not written by `predict_cohort`")
    requested, options = asdict(job.record), record.get("options", {})
    requested_options = requested.pop("options")
    names = [name for name, value in requested.items() if record.get(name) != value]
    names += [name for name, value in requested_options.items() if options.get(name) != value]
    if names == ["images"]:
        log.warning("%s is predicted again: its image file was changed since.", job.slide)
        return TargetState()
    if set(names) in ({"slide"}, {"slide", "images"}):
        return TargetState(difference="was made before its slide was changed (size, time or content of the file)")
    return TargetState(difference=f"is of another {', '.join(names)}") if names else TargetState(size)


def refuse_others(jobs: Sequence[SlideJob], states: Sequence[TargetState]) -> None:
    """Refuse target files that exist and hold something else."""
    lines = [f"{job.target} {state.difference}" for job, state in zip(jobs, states, strict=True) if state.difference]
    if lines:
        more = f" (and {len(lines) - 1} more such files)" if len(lines) > 1 else ""
        msg = f"{lines[0]}{more}; it is left alone. Pass another `out`, or `overwrite=True` to predict it again."
        raise FileExistsError(msg)
