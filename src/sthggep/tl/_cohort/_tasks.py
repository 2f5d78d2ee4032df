"""Tasks of a cohort, as a worker runs them: predict a slide, or encode a block of a large one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sthggep._disk._whole import whole_file
from sthggep._log import log
from sthggep.tl._slide_files import open_with_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._encoders._block_store import BlockStore
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._places import Places
    from sthggep.model import HGGEP
    from sthggep.tl._request import PredictionOptions, Request

NOTE = "sthggep_cohort"  # attribute of a finished file; other software that rewrites the file drops it


@dataclass(frozen=True)
class PredictionRecord:
    """What a prediction depends on, in plain types; stored in its file."""

    slide: str
    """Stamp of the slide's file."""
    images: str
    """Stamp of the image files that the slide names."""
    model: str
    version: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class SlideJob:
    """One slide to predict, with all that a worker needs; the worker may run on another machine with the same disk."""

    slide: Path
    target: Path
    folder: Path
    """Folder for finished blocks and for the file that is being written."""
    model: Path
    record: PredictionRecord
    spacing_um: float | None
    places: Places
    options: PredictionOptions
    batch_size: int
    device: str
    client: int
    """Id of the process that called `predict_cohort`."""


class Block(NamedTuple):
    """A block of one of the slide's sections."""

    section: int
    store: int
    """Number of the section's store of blocks: tissue encoded once has one for each field of view."""
    number: int


class PredictionSize(NamedTuple):
    """Shape of a finished prediction."""

    n_obs: int
    n_genes: int


Value = PredictionSize | list[Block] | None


class TaskResult(NamedTuple):
    """Result of a task. Errors are text, since some exceptions cannot be pickled."""

    value: Value = None
    error: str = ""
    warnings: tuple[str, ...] = ()


def run_task(step: str, job: SlideJob, *blocks: Block) -> TaskResult:
    """Run a step of a job, and turn an error into a result."""
    value, error = None, ""
    with _recorded_warnings(job) as records:
        try:
            value = STEPS[step](job, *blocks)
        except Exception as reason:  # noqa: BLE001
            error = _as_line(reason)
    messages = dict.fromkeys(str(record.message) for record in records if record.category is UserWarning)
    return TaskResult(value, error, tuple(messages))


def begin(job: SlideJob) -> PredictionSize | list[Block]:
    """Predict a slide that is no larger than a block; of a larger one, list the blocks to encode first."""
    _check_worker(job)
    slide = OpenSlide.open(job)
    sections = [slide.blocks(section) for section in range(len(slide.request.slides))]
    if sum(len(store.rows) for stores in sections for store in stores) > 1:
        missing = [
            Block(section, i, number)
            for section, stores in enumerate(sections)
            for i, store in enumerate(stores)
            for number in store.missing()
        ]
        if missing:
            return missing
    return slide.predict()


def encode(job: SlideJob, block: Block) -> None:
    """Encode a block and write its features to the block's file."""
    stores = OpenSlide.open(job).blocks(block.section)
    if block.store < len(stores) and block.number in stores[block.store].missing():
        stores[block.store].make(block.number)


def finish(job: SlideJob) -> PredictionSize:
    """Predict a slide from its finished blocks; a block that is missing is encoded again."""
    return OpenSlide.open(job).predict()


STEPS: dict[str, Callable[..., Value]] = {"begin": begin, "encode": encode, "finish": finish}


@dataclass(frozen=True)
class OpenSlide:
    """A slide in memory, with a model for this task alone: threads must not share a model."""

    job: SlideJob
    model: HGGEP
    data: AnnData | SpatialData
    request: Request
    places: Places

    @classmethod
    def open(cls, job: SlideJob) -> OpenSlide:
        """Read slide and model, and refuse what the model cannot predict."""
        from sthggep.model import HGGEP
        from sthggep.tl._request import check_request

        model = HGGEP.load(job.model)
        data, places = open_with_spots(job.slide, job.places, job.spacing_um)
        return cls(job, model, data, check_request(model, data, places, job.options), places)

    @cached_property
    def encoder(self) -> FrozenEncoder | None:
        """The frozen encoder of the model."""
        return self.model.encoder(device=self.job.device)

    def blocks(self, section: int) -> list[BlockStore]:
        """Blocks of features of a section; none if the model reads no such features."""
        from sthggep._inputs._stages import open_blocks

        slide, inputs = self.request.slides[section], self.model.inputs
        return open_blocks(slide, inputs, self.encoder, self.job.batch_size, self.job.folder)

    def predict(self) -> PredictionSize:
        """Predict the slide, store the record in the file, and move the file to its target."""
        import h5py

        from sthggep.tl._predict import predict

        job = self.job
        with whole_file(job.target, within=job.folder) as path:
            predict(
                self.data,
                self.model,
                **asdict(job.options),
                **asdict(self.places),
                batch_size=job.batch_size,
                device=job.device,
                out=path,
                checkpoint_dir=job.folder,
                show_progress_bar=False,
            )
            with h5py.File(path, "a") as file:
                file.attrs[NOTE] = json.dumps(asdict(job.record))
                size = PredictionSize(*map(int, file["X"].shape))
        shutil.rmtree(job.folder, ignore_errors=True)
        return size


def _check_worker(job: SlideJob) -> None:
    """Check that the worker sees the client's files and runs the same version."""
    from sthggep._version import __version__

    absent = [str(path) for path in (job.slide, job.model) if not path.exists()]
    if absent:
        msg = (
            f"{absent[0]} does not exist on the worker's machine ({socket.gethostname()}). Put slides and the folder `out` on "
            "a disk that all workers share, under the same path."
        )
        raise FileNotFoundError(msg)
    if job.record.version != __version__:
        msg = f"The worker has sthggep {__version__}, you have {job.record.version}. Install the same version on both."
        raise RuntimeError(msg)


@contextmanager
def _recorded_warnings(job: SlideJob) -> Iterator[list[warnings.WarningMessage]]:
    """Record warnings in a worker process, for the client to show; in the client's own process, show them as usual."""
    import dask

    # Inside a task, dask would send each block of an image through the cluster
    with dask.config.set(scheduler="synchronous"):
        if os.getpid() == job.client:
            yield []
            return
        # Log lines on reading one slide would mix with those of the others
        log.setLevel(logging.WARNING)
        with warnings.catch_warnings(record=True) as records:
            yield records


def _as_line(error: Exception) -> str:
    """An error as one line, without the quotes that a KeyError puts around its message."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
