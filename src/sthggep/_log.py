"""The logger ``sthggep``: its lines go to stderr unless the user has set up logging."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("sthggep")
# Every call reads the slide anew; a line with `extra=ONCE` is shown the first time only
ONCE = {"once": True}
# A line that the commands of the shell replace by one in a form of their own
NOTEBOOK = {"notebook": True}


def once_about(subject: str) -> dict[str, str]:
    """Return the ``extra=`` of lines of which only the first about a subject is shown, whatever its text."""
    return {"once": subject}


@contextmanager
def on_interrupt(what_is_stored: Callable[[], str]) -> Iterator[None]:
    """Say in one line what an interrupt (Ctrl-C) within the block leaves behind."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        log.warning("Interrupted. %s", what_is_stored())
        interrupt.is_logged = True  # type: ignore[attr-defined]  # the shell says it otherwise
        raise


class Stderr(logging.Handler):
    """Handler for the current stderr (each cell of a notebook has its own); writes above a progress bar, not through it."""

    def __init__(self) -> None:
        super().__init__()
        self._shown_once: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if once := getattr(record, "once", False):
            subject = once if isinstance(once, str) else record.getMessage()
            if subject in self._shown_once:
                return
            self._shown_once.add(subject)
        try:
            line = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is None:
                sys.stderr.write(f"{line}\n")
            else:
                tqdm.tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
        except (OSError, ValueError):
            self.handleError(record)


class Default(Stderr):
    """Handler like ``logging.lastResort``, but from INFO on; silent if another handler receives the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless another handler does."""
        elsewhere = [handler for handler in log.handlers if handler is not self]
        if log.propagate:
            elsewhere += logging.getLogger().handlers
        if not elsewhere:
            super().emit(record)


def set_up() -> None:
    """Show lines from INFO on, unless another level was set before."""
    if not any(isinstance(handler, Default) for handler in log.handlers):
        log.addHandler(Default())
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
