"""Expression of many slides, by several processes or machines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import counted, listing, positive
from sthggep._docs import document_places
from sthggep._log import log
from sthggep._slides._places import Places
from sthggep.tl._answers import check_counts, check_several, chosen_genes
from sthggep.tl._cohort._files import State, refuse_others, stamp, state_of, targets_of
from sthggep.tl._cohort._run import Outcome, connected, run_jobs
from sthggep.tl._cohort._tasks import Job

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from sthggep.model import HGGEP

STATE = ".cohort"  # of what is not finished, inside `out`
COLUMNS = ("slide", "path", "status", "n_obs", "n_genes", "error")


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
    uncertainty: bool = False,
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
    """Predict the expression of many slides, by several processes or, with ``dask.distributed``, several machines.

    A slide is one task; one that has more spots than 16 batches (1,024) and is looked at through a frozen encoder is one
    task a block of so many spots, and one that puts them together. A worker that is lost costs its task, which another
    worker does again; a slide that fails does not stop the others. The result is that of :func:`sthggep.tl.predict`.

    Killed at any moment, the same call goes on: finished slides are left as they are, finished blocks (22 kB a spot) wait
    in ``out`` until their slide is done. One call at a time for one folder.

    Parameters
    ----------
    slides
        Files: AnnData (``.h5ad``, ``.zarr``), SpatialData (``.zarr``), or images without spots (TIFF, SVS, JPEG, PNG).
    model
        As for :func:`sthggep.tl.predict`. Workers read it from ``out``.
    out
        Folder for the predictions; it is made. Each slide becomes an AnnData with the prediction as ``X``, under its own
        name: what :func:`sthggep.tl.predict` writes to its ``out``.
    scheduler
        Address of a dask scheduler, such as ``"tcp://host:8786"``, or a client of one. Slides and ``out`` must lie on a disk that all
        workers share, under the same path, and the same version of sthggep must be installed there, with what the model needs:
        encoders of your own are registered on the workers, too. ``None`` starts processes on this machine.
    workers
        Processes on this machine, with a thread, a slide and a model each; ``None`` starts one.
    overwrite
        Replace files in ``out`` that are predictions of another model, of other options, or of a slide that was another then.
    spacing_um
        Lay new spots this far apart over the tissue, as :func:`sthggep.pp.tissue_grid` does, instead of the slides' own. Images
        have none: ``None`` takes 100 for them.
    key_added, genes, latent, counts, uncertainty, window, batch_size
        As for :func:`sthggep.tl.predict`, for all slides.
    {places}
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` … of each worker.
    show_progress_bar
        Show progress.

    Returns
    -------
    A row a slide: ``slide`` and ``path`` (the file in ``out``), ``status`` (``"written"``, ``"kept"`` from an earlier call,
    ``"failed"``), ``n_obs``, ``n_genes`` (missing where it failed) and ``error`` (empty where there was none). Errors are logged, too.

    Raises
    ------
    FileNotFoundError, FileExistsError
        A slide or the model is not there; a file in ``out`` is no such prediction, or ``out`` is a file.
    ValueError, KeyError
        Two slides would be written to one file; the model cannot say what is asked for.
    ConnectionError
        The scheduler does not answer, or went away.

    See Also
    --------
    sthggep.tl.predict : one slide.

    Examples
    --------
    >>> table = sthggep.tl.predict_cohort(["a.h5ad", "b.zarr"], "her2st", out="predicted", workers=2)
    >>> table[table["status"] == "failed"]
    """
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
    n_workers = _n_workers(scheduler, workers)
    found = load_model(model)
    options = {
        "key_added": key_added,
        "genes": None if genes is None else chosen_genes(found, genes),
        "latent": latent,
        "counts": counts,
        "uncertainty": uncertainty,
        "window": window,
    }
    _check_options(found, options, batch_size, spacing_um)
    computed = {"batch_size": batch_size, "device": device}
    jobs = [_job(slide, target, found, places, options, computed, spacing_um) for slide, target in targets.items()]
    states = [state_of(job) for job in jobs]
    if not overwrite:
        refuse_others(jobs, states)
    outcomes = [Outcome(state.made) for state in states]
    todo = [at for at, state in enumerate(states) if state.made is None]
    if len(todo) < len(jobs):
        log.info("%d of %s are predicted already.", len(jobs) - len(todo), counted(jobs, "slide"))
    if todo:
        with connected(scheduler, n_workers) as client:
            if not jobs[0].model.exists():
                found.save(jobs[0].model)
            done = run_jobs(client, [jobs[at] for at in todo], show=show_progress_bar)
        for at, outcome in zip(todo, done, strict=True):
            outcomes[at] = outcome
    if not any(outcome.error for outcome in outcomes):
        shutil.rmtree(folder / STATE, ignore_errors=True)
    return _table(jobs, states, outcomes)


def _n_workers(scheduler: str | Client | None, workers: int | None) -> int:
    """Processes on this machine."""
    if scheduler is not None and workers is not None:
        msg = "`workers` starts processes on this machine, and `scheduler` has workers of its own. Pass one of them."
        raise ValueError(msg)
    return 1 if workers is None else int(positive(workers, "`workers`"))


def _check_options(model: HGGEP, options: Mapping[str, Any], batch_size: int, spacing_um: float | None) -> None:
    """Refuse what the model cannot say of any slide."""
    from sthggep._inputs._windows import most_spots

    if options["counts"]:
        check_counts(model)
    if options["uncertainty"]:
        check_several(model)
    most_spots(model.inputs, options["window"])
    positive(batch_size, "`batch_size`")
    if spacing_um is not None:
        positive(spacing_um, "`spacing_um`")


def _job(
    slide: Path,
    target: Path,
    model: HGGEP,
    places: Places,
    options: Mapping[str, Any],
    computed: Mapping[str, Any],
    spacing_um: float | None,
) -> Job:
    """All that workers need to know of a slide; the model's own name may mean nothing on their machines."""
    # As it is read back: plain types, numbers of numpy too
    asked = {**options, **asdict(places), "spacing_um": spacing_um}
    asked = json.loads(json.dumps(asked, default=lambda number: number.item()))
    state = target.parent / STATE
    return Job(
        slide=slide,
        target=target,
        folder=state / slide.stem,
        model=state / model.id,
        record={"slide": stamp(slide), "model": model.id, "version": version("sthggep"), "options": asked},
        spacing_um=spacing_um,
        places=places,
        options={**options, **computed},
        client=os.getpid(),
    )


def _table(jobs: Sequence[Job], states: Sequence[State], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """What became of each slide; failures are told once more, where they are easily missed."""
    import pandas as pd

    rows = []
    for job, state, (made, error) in zip(jobs, states, outcomes, strict=True):
        status = "failed" if made is None else "written" if state.made is None else "kept"
        n_obs, n_genes = made or (None, None)
        rows.append((str(job.slide), str(job.target), status, n_obs, n_genes, error))
    if failed := [job.slide.name for job, outcome in zip(jobs, outcomes, strict=True) if outcome.error]:
        log.error(
            "%d of %s failed: %s. The same call tries them again.", len(failed), counted(jobs, "slide"), listing(failed)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_obs": "Int64", "n_genes": "Int64"})
