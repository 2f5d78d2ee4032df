"""What a worker does of a cohort: a slide at once, or a block of its features, or a slide whose blocks are there."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sthggep._log import log
from sthggep.tl._slide_files import open_with_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._kept_blocks import BlockStore
    from sthggep._slides._places import Places
    from sthggep.model import HGGEP
    from sthggep.tl._answers import Asked

ASKED = ("key_added", "genes", "latent", "counts", "uncertainty", "window")
NOTE = "sthggep_cohort"  # attribute of a finished file: it goes away where somebody else writes the file anew


@dataclass(frozen=True)
class Job:
    """One slide, and all that a worker needs to know: it may be on another machine, with the same disk."""

    slide: Path
    target: Path
    folder: Path
    """Finished blocks, and what is half-written."""
    model: Path
    record: Mapping[str, Any]
    """What the prediction depends on."""
    spacing_um: float | None
    places: Places
    options: Mapping[str, Any]
    """Of ``tl.predict``, but for the places."""
    client: int
    """Process that the cohort was asked for in."""


class Block(NamedTuple):
    """A block of one of the slide's sections."""

    section: int
    number: int


class Made(NamedTuple):
    """What was written."""

    n_obs: int
    n_genes: int


class Answer(NamedTuple):
    """What came of a step: errors travel as text, since not every exception survives the way."""

    value: Any = None
    error: str = ""
    warnings: tuple[str, ...] = ()


def attempt(step: str, job: Job, *which: Any) -> Answer:
    """Do a step of a job; an error is one of its slide, and an answer like others."""
    with _recorded(job) as seen:
        try:
            value, error = STEPS[step](job, *which), ""
        except Exception as reason:  # noqa: BLE001
            value, error = None, _told(reason)
    return Answer(value, error, tuple(dict.fromkeys(str(w.message) for w in seen if w.category is UserWarning)))


def begin(job: Job) -> Made | list[Block]:
    """Predict a slide at once if it is no larger than a block; else say which of its blocks are to be done first."""
    _check_worker(job)
    work = Work.open(job)
    kept = [work.blocks(section) for section in range(len(work.asked.slides))]
    if sum(len(blocks.rows) for blocks in kept if blocks) > 1:
        missing = [Block(i, number) for i, blocks in enumerate(kept) if blocks for number in blocks.missing()]
        if missing:
            return missing
    return work.finish()


def encode(job: Job, block: Block) -> None:
    """Features of a block, to its file."""
    kept = Work.open(job).blocks(block.section)
    if kept is not None and block.number in kept.missing():
        kept.make(block.number)


def finish(job: Job) -> Made:
    """Predict a slide from its finished blocks (one that is gone is made again)."""
    return Work.open(job).finish()


STEPS: dict[str, Callable[..., Any]] = {"begin": begin, "encode": encode, "finish": finish}


@dataclass(frozen=True)
class Work:
    """An open slide, and the model: of this task alone, since threads must not share a model."""

    job: Job
    model: HGGEP
    data: AnnData | SpatialData
    asked: Asked
    places: Places

    @classmethod
    def open(cls, job: Job) -> Work:
        """Read slide and model, and refuse what cannot be predicted."""
        from sthggep.model import HGGEP
        from sthggep.tl._answers import look

        model = HGGEP.load(job.model)
        data, places = open_with_spots(job.slide, job.places, job.spacing_um)
        asked = look(model, data, places, **{name: job.options[name] for name in ASKED})
        return cls(job, model, data, asked, places)

    @cached_property
    def encoder(self) -> FrozenEncoder | None:
        """The encoder that the model looks through."""
        return self.model.encoder(device=self.job.options["device"])

    def blocks(self, section: int) -> BlockStore | None:
        """Blocks of features of a section; ``None`` where it has none."""
        from sthggep._inputs._stages import kept_blocks

        slide, inputs = self.asked.slides[section], self.model.inputs
        return kept_blocks(slide, inputs, self.encoder, self.job.options["batch_size"], self.job.folder)

    def finish(self) -> Made:
        """Predict, note in the file what it depends on, and move it to its place."""
        import h5py

        from sthggep.tl._predict import predict

        job = self.job
        job.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=job.folder, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch) / job.target.name
            options = {
                **job.options,
                **asdict(self.places),
                "out": made,
                "checkpoint_dir": job.folder,
                "show_progress_bar": False,
            }
            predict(self.data, self.model, **options)
            with h5py.File(made, "a") as file:
                file.attrs[NOTE] = json.dumps(job.record)
                found = Made(*map(int, file["X"].shape))
            os.replace(made, job.target)
        shutil.rmtree(job.folder, ignore_errors=True)
        return found


def _check_worker(job: Job) -> None:
    """Slides and blocks are on a disk that client and workers share, and they run the same version."""
    from sthggep._version import __version__

    absent = [str(path) for path in (job.slide, job.model) if not path.exists()]
    if absent:
        msg = (
            f"{absent[0]} is not to be seen on the machine of the worker ({socket.gethostname()}): slides and the folder "
            "`out` must be on a disk that all workers share, under the same path."
        )
        raise FileNotFoundError(msg)
    if job.record["version"] != __version__:
        msg = (
            f"The worker has sthggep {__version__}, you have {job.record['version']}. Install the same version on both."
        )
        raise RuntimeError(msg)


@contextmanager
def _recorded(job: Job) -> Iterator[list[warnings.WarningMessage]]:
    """Warnings of a worker process, for the one who asked; in the client's own process they are shown as always."""
    import dask

    # Inside a task, dask would send each block of an image through the cluster
    with dask.config.set(scheduler="synchronous"):
        if os.getpid() == job.client:
            yield []
            return
        # What is said of each slide while it is read would be lost among the lines of others
        log.setLevel(logging.WARNING)
        with warnings.catch_warnings(record=True) as seen:
            yield seen


def _told(error: Exception) -> str:
    """An error as one line; a KeyError shows its message in quotes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
