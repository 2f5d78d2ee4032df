"""Ctrl-C while a network is trained."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sthggep._checks import counted
from sthggep._training._checkpoints import FINISHED, STATE


def describe_stored(folder: str | Path | None, most_networks: int) -> str:
    """What an interrupted training leaves, in words; ``most_networks`` is 0 if it solves the closed form alone."""
    if not most_networks:
        return "Nothing is stored: the closed form is solved in one step, and the same call starts again."
    if folder is None:
        return "Nothing is stored: with `checkpoint_dir=` the same call would resume at the last complete epoch."
    finished = len(list(Path(folder).glob(f"network-*/{FINISHED}")))
    parts = [f"{counted(finished, 'trained network')} of at most {most_networks}"] if finished else []
    if any(Path(folder).glob(f"network-*/{STATE}")):
        parts.append(f"the last complete epoch of the {'next' if finished else 'first'} network")
    if not parts:
        return f"{str(folder)!r} holds no complete epoch yet; the same call starts again."
    return f"{str(folder)!r} holds {' and '.join(parts)}; the same call resumes there."


@contextmanager
def interruptible() -> Iterator[None]:
    """Pass an interrupt (Ctrl-C) on: Lightning makes an exit of the whole process of it, and ignores later ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (Exception, SystemExit) as end:
        # Lightning's clean-up may fail in turn; in another thread it cannot touch signals
        reason: BaseException | None = end
        while reason is not None and not isinstance(reason, KeyboardInterrupt):
            reason = reason.__context__
        if reason is None:
            raise
        raise reason from None
    finally:
        if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
