"""Files of a cohort: one a slide, which says itself what it was made of, and what else is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from sthggep._checks import listing
from sthggep._slides._container_files import kind_of
from sthggep.tl._cohort._tasks import NOTE, Job, Made


class State(NamedTuple):
    """What there is of a slide."""

    made: Made | None = None
    """The finished prediction, the very one that is asked for."""
    differs: str = ""
    """Why the file that is there is another one."""


def targets_of(slides: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """The file in ``out`` for each slide; refuses what is not there, or would be written to one file."""
    if isinstance(slides, str | Path) or not slides:
        msg = f"`slides` must be a list of files, found {slides!r}. Pass `[...]` of one or more."
        raise ValueError(msg)
    if out.suffix in (".h5ad", ".zarr") or out.is_file():
        msg = f"`out` must be a folder for {len(slides)} files, found {str(out)!r}."
        raise FileExistsError(msg) if out.exists() else ValueError(msg)
    paths = [Path(slide).expanduser().absolute() for slide in slides]
    for path in paths:
        kind_of(path)
    targets = {path: out / f"{path.stem}.h5ad" for path in paths}
    taken: dict[Path, list[Path]] = {}
    for path in paths:
        taken.setdefault(targets[path], []).append(path)
    for target, those in taken.items():
        if len(those) > 1:
            msg = f"{listing(those)} would all be written to {target}. Rename them, or call once for each folder."
            raise ValueError(msg)
        if target.resolve() in {path.resolve() for path in paths}:
            msg = f"{target} would be written over a slide that is read. Pass another `out`."
            raise ValueError(msg)
    return targets


def stamp(path: Path) -> str:
    """What changes with a file, or with any file of a folder: sizes and times."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found = [(file.relative_to(path.parent).as_posix(), file.stat()) for file in files]
    return sha256(repr([(name, s.st_size, s.st_mtime_ns) for name, s in found]).encode()).hexdigest()[:16]


def state_of(job: Job) -> State:
    """Whether the file of a slide is there, and is what is asked for."""
    import h5py

    if not job.target.exists():
        return State()
    try:
        with h5py.File(job.target, "r") as file:
            there, made = json.loads(file.attrs[NOTE]), Made(*map(int, file["X"].shape))
    except (OSError, KeyError, ValueError, TypeError):
        return State(differs="was not written by `predict_cohort`")
    wanted, options = job.record, there.get("options", {})
    names = [name for name in wanted if name != "options" and there.get(name) != wanted[name]]
    names += [name for name, value in wanted["options"].items() if options.get(name) != value]
    if names == ["slide"]:
        return State(differs="was made before its slide was changed (size or time of the file)")
    return State(differs=f"is of another {', '.join(names)}") if names else State(made)


def refuse_others(jobs: Sequence[Job], states: Sequence[State]) -> None:
    """Refuse files that are there and are not what is asked for."""
    others = [f"{job.target} {state.differs}" for job, state in zip(jobs, states, strict=True) if state.differs]
    if others:
        more = f" (and {len(others) - 1} more such files)" if len(others) > 1 else ""
        msg = f"{others[0]}{more}; it is left alone. Pass another `out`, or `overwrite=True` to predict it again."
        raise FileExistsError(msg)
