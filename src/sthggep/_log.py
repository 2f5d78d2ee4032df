"""What the user is told: lines of the logger ``sthggep``, on stderr unless somebody else has set up logging."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("sthggep")
# Every call reads the slide anew; a line with `extra=ONCE` is shown the first time only
ONCE = {"once": True}


class Stderr(logging.Handler):
    """Writes to the stderr of the moment (a notebook has one for each cell), above a progress bar rather than through it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if getattr(record, "once", False):
            text = record.getMessage()
            if text in self._said:
                return
            self._said.add(text)
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
    """As ``logging.lastResort`` but from INFO on: silent as soon as there is another handler to send lines to."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless somebody else does."""
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
