"""What is said without any set-up, and progress where no bar can be drawn."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from sthggep import _progress
from sthggep._log import Default, log, set_up
from sthggep._progress import can_draw, progress

USUAL = "import logging, sthggep\nlog = logging.getLogger('sthggep')\n"


def said(code: str) -> list[str]:
    """Lines on stderr of a Python of its own: here pytest has set up logging."""
    done = subprocess.run([sys.executable, "-c", USUAL + code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_lines_are_shown_without_set_up_and_silenced_easily():
    assert said("log.info('panel: %d', 3); log.debug('x')") == ["panel: 3"]
    assert said("log.setLevel(logging.WARNING); log.info('a'); log.warning('b')") == ["b"]
    assert said("log.addHandler(logging.NullHandler()); log.info('a')") == []


def test_no_line_twice_where_logging_is_set_up():
    assert said("logging.basicConfig(level=logging.INFO); log.info('a')") == ["INFO:sthggep:a"]
    assert said("log.addHandler(logging.StreamHandler()); log.info('a')") == ["a"]
    assert said("import importlib; importlib.reload(sthggep); log.info('a')") == ["a"]


def test_a_level_that_was_set_before_stays(monkeypatch):
    monkeypatch.setattr(log, "level", logging.ERROR)
    before = list(log.handlers)
    set_up()
    assert log.level == logging.ERROR
    assert log.handlers == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def alone(monkeypatch):
    """Call it, and nobody but sthggep listens, as on a stderr of your own: pytest sets up logging between fixture and test."""

    def listen(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(log, "handlers", [Default()])
        monkeypatch.setattr(log, "propagate", False)
        return stream

    return listen


def test_what_is_found_on_a_slide_is_said_once(alone, toy):
    from sthggep._slides._resolve import resolve

    stream = alone(io.StringIO())
    slide = toy.copy()
    slide.uns["spatial"]["toy1"]["metadata"].pop("mpp")
    for _ in range(2):
        resolve(slide)
    assert stream.getvalue() == "Section toy1: 2 µm/px, from the spot pitch.\n"


# ---------------------------------------------------------------- progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by 20 s at every look."""
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(times)))
    monkeypatch.setattr(_progress.Progress, "last_line", float("-inf"))


def test_lines_now_and_then_where_no_bar_can_be(alone, clock):
    stream = alone(io.StringIO())
    with progress(200, "Training", "epoch", show=True) as done:
        for _ in range(5):
            done.update(2, {"loss": 0.12345})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Training: epoch 4 of 200, loss 0.123"
    assert len(lines) < 5
    assert "\r" not in stream.getvalue()
    assert done.n == 10


def test_there_may_be_more_to_do_than_was_known(alone, clock):
    stream = alone(io.StringIO())
    with progress(3, "Cohort", "task", show=True) as done:
        done.grow(5)
        for _ in range(2):
            done.update()
        assert done.bar.total == 8
    assert stream.getvalue().splitlines()[0] == "Cohort: task 2 of 8"


def test_nothing_where_progress_is_not_wanted(alone, clock):
    stream = alone(io.StringIO())
    with progress(200, "Training", "epoch", show=False) as done:
        for _ in range(5):
            done.update(2)
    assert stream.getvalue() == ""
    assert (done.n, done.lines) == (10, False)


def test_a_bar_on_a_terminal_with_lines_above_it(alone, clock):
    stream = alone(Terminal())
    with progress(4, "Training", "epoch", show=True) as done:
        done.update(2, {"loss": 0.5})
        log.info("a line")
        done.update(2)
    text = stream.getvalue()
    assert "\rTraining: 100%" in text
    assert "loss=0.500" in text
    assert "a line\n" in text.replace("\r", "\n")
    assert done.lines is False


def test_a_notebook_draws_bars_though_it_is_no_terminal(monkeypatch):
    kernel = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.setattr(sys, "stderr", kernel())
    assert can_draw()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not can_draw()
