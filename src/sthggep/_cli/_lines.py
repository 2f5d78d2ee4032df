"""Lines on stderr while a command runs: plain on a terminal, with the time in a log file."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sthggep._log import Stderr, log

DEVELOPER_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
PREFIX = {logging.WARNING: "Warning: ", logging.ERROR: "Error: "}


class Format(logging.Formatter):
    """Format a line; warnings and errors start with that word, and ``advise`` rewrites advice."""

    def __init__(self, *, times: bool, advise: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(message)s" if times else "%(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        self.advise = advise

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line."""
        if record.levelno >= logging.INFO:
            record.message = PREFIX.get(record.levelno, "") + self.advise(record.message)
        return super().formatMessage(record)


@contextmanager
def lines(advise: Callable[[str], str], *, quiet: bool, verbose: bool) -> Iterator[None]:
    """Show log lines and warnings; ``quiet`` shows warnings and errors only, ``verbose`` adds other libraries' lines."""
    handler = Stderr()
    handler.setFormatter(Format(times=not sys.stderr.isatty(), advise=advise))
    handler.addFilter(lambda record: verbose or record.levelno > logging.INFO or not hasattr(record, "notebook"))
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    others = [logging.getLogger(name) for name in ("spatialdata", "lightning", "lightning.pytorch", "fsspec")]
    levels = [other.level for other in others]
    for other in () if verbose else others:
        other.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = WarningLines()
            yield
    finally:
        for other, level in zip(others, levels, strict=True):
            other.setLevel(level)
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


class WarningLines:
    """Logs warnings without the file and the line of code, each text once."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        """Replaces ``warnings.showwarning``."""
        text = str(message)
        if text in self.texts:
            return
        self.texts.add(text)
        # Future changes of other libraries concern developers only
        minor = issubclass(category, DEVELOPER_WARNINGS) or re.search(r"deprecat|next (minor |major )?release", text)
        log.log(logging.DEBUG if minor else logging.WARNING, "%s", text)
