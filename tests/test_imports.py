"""Ctrl-C while a large library is imported."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

from sthggep._imports import import_whole, interrupt_waits

LIBRARY = """
import signal
begun = True
signal.raise_signal(signal.SIGINT)
done = True
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library in whose import Ctrl-C is pressed."""
    (tmp_path / "large_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    yield "large_library"
    sys.modules.pop("large_library", None)


@pytest.mark.handles("The interrupt waits for the import. The next call works.")
@pytest.mark.parametrize("name", [pytest.param("large_library", id="Ctrl-C in the first import of a library")])
def test_an_interrupt_waits_for_an_import(library: str, name: str):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        import_whole(library)
    assert sys.modules[name].done
    assert signal.getsignal(signal.SIGINT) is handler
    import_whole(library)  # the second time it is there


def test_an_interrupt_between_imports_is_at_once():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_of_an_import_passes(library: str):
    with pytest.raises(ModuleNotFoundError):
        import_whole("no_such_library")


def test_other_threads_leave_signals_alone():
    handler, handlers = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with interrupt_waits():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [handler]
