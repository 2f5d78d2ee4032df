"""The client's side of a cohort: a cluster, and tasks that follow each other slide by slide."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from sthggep._checks import counted, warn_user
from sthggep._log import log
from sthggep._progress import Progress, progress
from sthggep.tl._cohort._tasks import Answer, Job, Made, attempt

if TYPE_CHECKING:
    from distributed import Client, Future

SECONDS = 10  # for a scheduler to answer
# What is begun is finished before more is begun
PRIORITY = {"begin": 0, "encode": 1, "finish": 2}


@contextmanager
def connected(scheduler: str | Client | None, workers: int) -> Iterator[Client]:
    """A client of that scheduler, or of worker processes on this machine, which go away in the end.

    Raises
    ------
    ConnectionError
        Nobody answers at that address.
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
        # Dask would share out the memory and kill a worker that takes more than its part; and it warns of each slow exit
        limits: dict[str, Any] = {"threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.ERROR}
        limits |= {"dashboard_address": "127.0.0.1:0"}
        with (
            no_main(),
            LocalCluster(n_workers=workers, processes=True, **limits) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


@contextmanager
def no_main() -> Iterator[None]:
    """Workers import sthggep alone: a script that each of them imported would begin its cohort anew."""
    main: Any = sys.modules["__main__"]
    held = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    vars(main).update(dict.fromkeys(held))  # as in a notebook, which is not imported either
    try:
        yield
    finally:
        vars(main).update(held)


class Outcome(NamedTuple):
    """What became of a slide."""

    made: Made | None = None
    error: str = ""


def run_jobs(client: Client, jobs: Sequence[Job], *, show: bool) -> list[Outcome]:
    """Do all jobs, in the order of ``jobs``; one that fails does not stop the others.

    Raises
    ------
    ConnectionError
        The scheduler went away.
    """
    if not client.scheduler_info()["workers"]:
        log.warning("The scheduler has no workers yet; work begins when there are some.")
    with progress(len(jobs), "Cohort", "task", show=show) as bar:
        return _Run(client, jobs, bar).to_the_end()


class _Run:
    """Jobs on their way through a cluster: what is to come of a slide is known when its first task is done."""

    def __init__(self, client: Client, jobs: Sequence[Job], bar: Progress) -> None:
        from distributed import as_completed

        self.client, self.jobs, self.bar = client, jobs, bar
        self.events = as_completed(loop=client.loop)
        self.running: dict[str, tuple[int, Future[Answer]]] = {}
        self.missing: dict[int, int] = {}  # blocks of each job that are still to be done
        self.outcomes: dict[int, Outcome] = {}
        self.warned: set[str] = set()

    def to_the_end(self) -> list[Outcome]:
        try:
            for at in range(len(self.jobs)):
                self._submit("begin", at)
            for future in self.events:
                at, _ = self.running.pop(future.key)
                self.bar.update()
                if at not in self.outcomes:
                    self._go_on(at, self._answer(future))
        finally:
            if self.client.status == "running":
                self.client.cancel([future for _, future in self.running.values()])
        return [self.outcomes[at] for at in range(len(self.jobs))]

    def _submit(self, step: str, at: int, *which: Any) -> None:
        key = f"sthggep_{step}-{uuid4().hex}"
        job, options = self.jobs[at], {"key": key, "priority": PRIORITY[step], "pure": False}
        future = self.client.submit(attempt, step, job, *which, **options)
        self.running[key] = (at, future)
        self.events.add(future)

    def _answer(self, future: Future[Answer]) -> Answer:
        """What a task said; one that never came to an end has lost its worker again and again."""
        from distributed import CancelledError, KilledWorker

        try:
            found: Answer = future.result()
        except CancelledError as reason:
            msg = "The scheduler of dask went away. What is finished is kept: make the same call again to go on."
            raise ConnectionError(msg) from reason
        except KilledWorker as reason:
            times = counted(reason.allowed_failures + 1, "time")
            return Answer(error=f"its worker was lost {times} at the same task: it may need more memory than there is.")
        except Exception as reason:  # noqa: BLE001
            return Answer(error=f"{type(reason).__name__}: {reason}")
        return found

    def _go_on(self, at: int, answer: Answer) -> None:
        """Ask for what comes next of a job."""
        self._warn(at, answer.warnings)
        if answer.error:
            self._end(at, Outcome(error=answer.error))
        elif isinstance(answer.value, Made):
            self._end(at, Outcome(answer.value))
        elif answer.value:
            self.missing[at] = len(answer.value)
            self.bar.grow(len(answer.value) + 1)
            for block in answer.value:
                self._submit("encode", at, block)
        else:
            self.missing[at] -= 1
            if not self.missing[at]:
                self._submit("finish", at)

    def _end(self, at: int, outcome: Outcome) -> None:
        self.outcomes[at] = outcome
        job = self.jobs[at]
        if outcome.made is None:
            log.error("%s failed: %s", job.slide, outcome.error)
            self.client.cancel([future for of, future in self.running.values() if of == at])
            return
        n_obs, n_genes = outcome.made
        done = sum(known.made is not None for known in self.outcomes.values())
        log.info("%s written (%d of %d): %d genes at %d spots", job.target, done, len(self.jobs), n_genes, n_obs)

    def _warn(self, at: int, said: Sequence[str]) -> None:
        """Say what a worker warned of, once a slide."""
        for text in said:
            if (line := f"{self.jobs[at].slide}: {text}") not in self.warned:
                self.warned.add(line)
                warn_user(line)
