"""Predict the expression of many slides with several processes or machines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._arguments import checked
from sthggep._checks import counted, listing, positive
from sthggep._device import resolve_device
from sthggep._disk._lock import locked
from sthggep._disk._run_folder import check_folder
from sthggep._disk._whole import clear_folder
from sthggep._docs import document_places
from sthggep._imports import import_whole
from sthggep._log import log, on_interrupt
from sthggep._names import file_name
from sthggep._slides._places import Places
from sthggep.tl._cohort._files import TargetState, image_stamp, read_state, refuse_others, stamp, targets_of
from sthggep.tl._cohort._run import Outcome, connected, run_jobs
from sthggep.tl._cohort._tasks import PredictionRecord, SlideJob
from sthggep.tl._request import PredictionOptions, check_count_head, check_interval, requested_genes

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from sthggep.model import HGGEP

STATE = ".cohort"  # folder in `out` for slides that are not finished
COLUMNS = ("slide", "path", "status", "n_obs", "n_genes", "error")


@checked
@document_places
def predict_cohort(
    slides: Sequence[str | Path],
    model: HGGEP | str | Path | None = None,
    *,
    out: str | Path,
    scheduler: str | Client | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    spacing_um: float | None = None,
    key_added: str = "hggep",
    genes: Sequence[str] | None = None,
    latent: bool = False,
    counts: bool | str = False,
    interval: float | None = None,
    interval_of: str = "measurement",
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    window: int | str | None = "auto",
    batch_size: int = 64,
    device: str = "auto",
    show_progress_bar: bool = True,
) -> pd.DataFrame:
    """Predict the expression of many slides with several processes or, by ``dask.distributed``, several machines.

    Each slide is one task. A slide of more spots than 16 batches (1,024 by default), predicted by a model with a
    frozen encoder, is one task for each block of so many spots, and one task that predicts from the blocks. If a
    worker is lost, another worker repeats its task. A slide that fails does not stop the others. The predictions are
    those of :func:`sthggep.tl.predict`.

    After an interruption the same call resumes: it keeps finished slides, and finished blocks (22 kB a spot) wait in
    ``out`` until their slide is predicted. A second call on the same folder is refused while the first one runs.

    Parameters
    ----------
    slides
        Files: AnnData (``.h5ad``, ``.zarr``), SpatialData (``.zarr``), or images without spots (TIFF, SVS, JPEG, PNG).
    model
        A trained model, the folder of a saved one, or a name. The call copies it to ``out``, from where the workers
        load it. Default: ``"her2st"``, the bundled model.
    out
        Folder for the predictions; the call makes it. Each slide becomes ``<name of the slide>.h5ad``, an AnnData with
        the prediction as ``X``: what :func:`sthggep.tl.predict` writes to its ``out``.
    scheduler
        Address of a dask scheduler, such as ``"tcp://host:8786"``, or a client of one. Slides and ``out`` must be on a
        disk that all workers share, under the same path. The workers need the same version of sthggep and the packages
        of the model's encoder; register your own encoders on the workers, too. Default: processes on this machine.
    workers
        Number of processes on this machine; each has one thread and holds one slide and one model. Default: 1.
    overwrite
        Replace files in ``out`` that hold predictions of another model, with other options, or of an earlier version
        of the slide. A slide is always predicted again if only the image file that it names was changed.
    spacing_um
        Distance in microns of a new grid of spots over the tissue, made as by :func:`sthggep.pp.tissue_grid` and
        predicted instead of the slide's own spots. Default: the slide's spots; 100 for images, which have none.
    key_added, genes, latent, counts, interval, interval_of, window, batch_size
        As for :func:`sthggep.tl.predict`, for all slides.
    {places}
    device
        Device of each worker: ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` … Default: ``"auto"``, a GPU if there is one.
    show_progress_bar
        Show progress.

    Returns
    -------
    A DataFrame with a row for each slide: ``slide`` and ``path`` (the file in ``out``), ``status``
    (``"written"``, ``"kept"`` from an earlier call, or ``"failed"``), ``n_obs``, ``n_genes`` (missing if the slide
    failed) and ``error`` (empty if it did not). The call also logs the errors.

    Raises
    ------
    FileNotFoundError, FileExistsError
        A slide or the model does not exist; a file in ``out`` holds something else, or ``out`` is a file.
    ValueError, KeyError
        Two slides have the same target file, or the model cannot predict what you request.
    ConnectionError
        The scheduler does not answer, or went away.

    See Also
    --------
    sthggep.tl.predict : Predict one slide.
    sthggep.tl.attach : Link a slide to its file of predictions.

    Examples
    --------
    >>> table = sthggep.tl.predict_cohort(["a.h5ad", "b.zarr"], "her2st", out="predicted", workers=2)
    >>> table[table["status"] == "failed"]
    """
    import_whole("torch", "lightning", "torch_geometric")
    from sthggep.model._load import load_model

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    folder = Path(out).expanduser().absolute()
    targets = targets_of(slides, folder)
    check_folder(folder, "out")
    n_workers = _n_workers(scheduler, workers)
    if scheduler is None:  # remote workers may have other devices
        resolve_device(device)
    loaded = load_model(model)
    options = PredictionOptions(key_added, genes, latent, counts, interval, interval_of, window)
    if genes is not None:
        options = replace(options, genes=requested_genes(loaded, genes))
    settings = _Settings(loaded, places, options, batch_size, device, spacing_um)
    settings.check()
    jobs = [settings.job(slide, target) for slide, target in targets.items()]
    if not overwrite:
        refuse_others(jobs, [read_state(job) for job in jobs])
    with _new_or_old(folder), locked(folder, "a cohort"):
        clear_folder(folder)
        states = [read_state(job) for job in jobs]
        outcomes = [Outcome(state.size) for state in states]
        todo = [i for i, state in enumerate(states) if state.size is None]
        if len(todo) < len(jobs):
            log.info("%d of %s are predicted already.", len(jobs) - len(todo), counted(jobs, "slide"))
        if todo:
            finished = _run(loaded, [jobs[i] for i in todo], scheduler, n_workers, show=show_progress_bar)
            for i, outcome in zip(todo, finished, strict=True):
                outcomes[i] = outcome
        if not any(outcome.error for outcome in outcomes):
            shutil.rmtree(folder / STATE, ignore_errors=True)
    return _table(jobs, states, outcomes)


@contextmanager
def _new_or_old(folder: Path) -> Iterator[None]:
    """Make a folder; a new one goes away again if nothing was written to it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            if is_new:
                folder.rmdir()


def _run(
    model: HGGEP, jobs: Sequence[SlideJob], scheduler: str | Client | None, n_workers: int, *, show: bool
) -> list[Outcome]:
    """Predict slides by the workers of a cluster."""
    advice = f"Finished slides and blocks are in {str(jobs[0].target.parent)!r}; the same call resumes there."
    with on_interrupt(lambda: advice), connected(scheduler, n_workers) as client:
        if not jobs[0].model.exists():
            model.save(jobs[0].model)
        return run_jobs(client, jobs, show=show)


def _n_workers(scheduler: str | Client | None, workers: int | None) -> int:
    """Number of processes to start on this machine."""
    if scheduler is not None and workers is not None:
        msg = "`workers` starts processes on this machine, and `scheduler` has workers of its own. Pass one of them."
        raise ValueError(msg)
    return 1 if workers is None else int(positive(workers, "`workers`"))


@dataclass(frozen=True)
class _Settings:
    """What all slides of a cohort have in common."""

    model: HGGEP
    places: Places
    options: PredictionOptions
    batch_size: int
    device: str
    spacing_um: float | None

    def check(self) -> None:
        """Refuse what the model cannot predict of any slide."""
        from sthggep._inputs._windows import most_spots

        if self.options.counts:
            check_count_head(self.model)
        check_interval(self.model, self.options.interval, self.options.interval_of)
        most_spots(self.model.inputs, self.options.window)
        positive(self.batch_size, "`batch_size`")
        if self.spacing_um is not None:
            positive(self.spacing_um, "`spacing_um`")

    def job(self, slide: Path, target: Path) -> SlideJob:
        """The job of one slide. Workers find the model by its id: they may not know its name."""
        options = {**asdict(self.options), **asdict(self.places), "spacing_um": self.spacing_um}
        # In the types of a record that is read back, without numbers of numpy
        options = json.loads(json.dumps(options, default=lambda number: number.item()))
        state = target.parent / STATE
        return SlideJob(
            slide=slide,
            target=target,
            folder=state / "slides" / target.stem,
            model=state / "models" / file_name(self.model.id),
            record=PredictionRecord(stamp(slide), image_stamp(slide), self.model.id, version("sthggep"), options),
            spacing_um=self.spacing_um,
            places=self.places,
            options=self.options,
            batch_size=self.batch_size,
            device=self.device,
            client=os.getpid(),
        )


def _table(jobs: Sequence[SlideJob], states: Sequence[TargetState], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row for each slide. Failures are logged again at the end, where they are easy to find."""
    import pandas as pd

    rows = []
    for job, state, (size, error) in zip(jobs, states, outcomes, strict=True):
        status = "failed" if size is None else "written" if state.size is None else "kept"
        n_obs, n_genes = size or (None, None)
        rows.append((str(job.slide), str(job.target), status, n_obs, n_genes, error))
    if failed := [job.slide.name for job, outcome in zip(jobs, outcomes, strict=True) if outcome.error]:
        log.error(
            "%d of %s failed: %s. The same call tries them again.", len(failed), counted(jobs, "slide"), listing(failed)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_obs": "Int64", "n_genes": "Int64"})
