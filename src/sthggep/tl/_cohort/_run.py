"""The client's side of a cohort: a cluster, and the tasks of each slide in their order."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from sthggep._checks import counted, warn_user
from sthggep._log import log
from sthggep._progress import Progress, progress
from sthggep.tl._cohort._tasks import Block, PredictionSize, SlideJob, TaskResult, run_task

if TYPE_CHECKING:
    from distributed import Client, Future

SECONDS = 10  # for a scheduler to answer
# Slides in work are finished before others begin
PRIORITY = {"begin": 0, "encode": 1, "finish": 2}


@contextmanager
def connected(scheduler: str | Client | None, workers: int) -> Iterator[Client]:
    """Connect to a scheduler, or start worker processes on this machine and stop them at the end.

    Raises
    ------
    ConnectionError
        No scheduler answers at that address.
    """
    from distributed import Client, LocalCluster

    if isinstance(scheduler, Client):
        yield scheduler
    elif scheduler is not None:
        try:
            client = Client(scheduler, timeout=SECONDS, set_as_default=False)
        except (OSError, ValueError) as reason:
            msg = (
                f"No scheduler of dask answers at {scheduler!r} ({reason}). Start one by `dask scheduler` and its workers by "
                "`dask worker ADDRESS`, pass the address that it shows, or `workers=` for processes on this machine."
            )
            raise ConnectionError(msg) from reason
        with client:
            yield client
    else:
        # By default dask divides the memory, kills a worker above its part, and warns of each slow exit
        with (
            no_main(),
            LocalCluster(
                n_workers=workers,
                processes=True,
                threads_per_worker=1,
                memory_limit=0,
                silence_logs=logging.ERROR,
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


@contextmanager
def no_main() -> Iterator[None]:
    """Keep workers from importing the user's script, which would begin its cohort anew in each of them."""
    main = vars(sys.modules["__main__"])
    originals: dict[str, object] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main.update(dict.fromkeys(originals))  # as in a notebook, which workers do not import either
    try:
        yield
    finally:
        main.update(originals)


class Outcome(NamedTuple):
    """Size of a slide's finished prediction, or the error of the slide."""

    size: PredictionSize | None = None
    error: str = ""


def run_jobs(client: Client, jobs: Sequence[SlideJob], *, show: bool) -> list[Outcome]:
    """Run all jobs and return their outcomes in the same order; a job that fails does not stop the others.

    Raises
    ------
    ConnectionError
        The scheduler went away.
    """
    if not client.scheduler_info()["workers"]:
        log.warning("The scheduler has no workers yet; work begins when there are some.")
    with progress(len(jobs), "Cohort", "task", show=show) as bar:
        return _CohortRun(client, jobs, bar).outcomes()


class _CohortRun:
    """Jobs in work on a cluster. The result of a slide's first task decides which tasks follow."""

    def __init__(self, client: Client, jobs: Sequence[SlideJob], bar: Progress) -> None:
        from distributed import as_completed

        self.client, self.jobs, self.bar = client, jobs, bar
        self.completed = as_completed(loop=client.loop)
        self.running: dict[str, tuple[int, Future[TaskResult]]] = {}
        self.n_missing: dict[int, int] = {}  # blocks of each job that are not encoded yet
        self.by_job: dict[int, Outcome] = {}
        self.shown: set[str] = set()

    def outcomes(self) -> list[Outcome]:
        """Run all jobs to their end."""
        try:
            for i in range(len(self.jobs)):
                self._submit("begin", i)
            for future in self.completed:
                i, _ = self.running.pop(future.key)
                self.bar.update()
                if i not in self.by_job:
                    self._proceed(i, self._result(future))
        finally:
            if self.client.status == "running":
                self.client.cancel([future for _, future in self.running.values()])
        return [self.by_job[i] for i in range(len(self.jobs))]

    def _submit(self, step: str, i: int, *blocks: Block) -> None:
        key = f"sthggep_{step}-{uuid4().hex}"
        future = self.client.submit(run_task, step, self.jobs[i], *blocks, key=key, priority=PRIORITY[step], pure=False)
        self.running[key] = (i, future)
        self.completed.add(future)

    def _result(self, future: Future[TaskResult]) -> TaskResult:
        """The result of a task; an error if its workers were lost again and again."""
        from distributed import CancelledError, KilledWorker

        try:
            result: TaskResult = future.result()
        except CancelledError as reason:
            msg = "The scheduler of dask went away. Finished slides and blocks are stored: make the same call again to resume."
            raise ConnectionError(msg) from reason
        except KilledWorker as reason:
            times = counted(reason.allowed_failures + 1, "time")
            return TaskResult(
                error=f"its worker was lost {times} at the same task: it may need more memory than there is."
            )
        except Exception as reason:  # noqa: BLE001
            return TaskResult(error=f"{type(reason).__name__}: {reason}")
        return result

    def _proceed(self, i: int, result: TaskResult) -> None:
        """Submit the tasks of a job that follow from a result."""
        self._warn(i, result.warnings)
        if result.error:
            self._end(i, Outcome(error=result.error))
        elif isinstance(result.value, PredictionSize):
            self._end(i, Outcome(result.value))
        elif result.value:
            self.n_missing[i] = len(result.value)
            self.bar.grow(len(result.value) + 1)
            for block in result.value:
                self._submit("encode", i, block)
        else:
            self.n_missing[i] -= 1
            if not self.n_missing[i]:
                self._submit("finish", i)

    def _end(self, i: int, outcome: Outcome) -> None:
        """Store the outcome of a job, and log it."""
        self.by_job[i] = outcome
        job = self.jobs[i]
        if outcome.size is None:
            log.error("%s failed: %s", job.slide, outcome.error)
            self.client.cancel([future for owner, future in self.running.values() if owner == i])
            return
        n_obs, n_genes = outcome.size
        n_written = sum(finished.size is not None for finished in self.by_job.values())
        log.info("%s written (%d of %d): %d genes at %d spots", job.target, n_written, len(self.jobs), n_genes, n_obs)

    def _warn(self, i: int, messages: Sequence[str]) -> None:
        """Show the warnings of a worker, each once a slide."""
        for message in messages:
            if (line := f"{self.jobs[i].slide}: {message}") not in self.shown:
                self.shown.add(line)
                warn_user(line)
