"""Log lines without any set-up, and progress where no bar can be drawn."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from sthggep import _progress
from sthggep._log import Default, log, once_about, set_up
from sthggep._progress import can_draw, progress

USUAL = "import logging, sthggep\nlog = logging.getLogger('sthggep')\n"


def stderr_lines(code: str) -> list[str]:
    """Run code in a new Python process, since pytest sets up logging in this one; return the lines on stderr."""
    result = subprocess.run([sys.executable, "-c", USUAL + code], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_lines_appear_without_set_up_and_can_be_silenced():
    assert stderr_lines("log.info('panel: %d', 3); log.debug('x')") == ["panel: 3"]
    assert stderr_lines("log.setLevel(logging.WARNING); log.info('a'); log.warning('b')") == ["b"]
    assert stderr_lines("log.addHandler(logging.NullHandler()); log.info('a')") == []


def test_lines_appear_once_if_the_user_has_set_up_logging():
    assert stderr_lines("logging.basicConfig(level=logging.INFO); log.info('a')") == ["INFO:sthggep:a"]
    assert stderr_lines("log.addHandler(logging.StreamHandler()); log.info('a')") == ["a"]
    assert stderr_lines("import importlib; importlib.reload(sthggep); log.info('a')") == ["a"]


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
def capture_log(monkeypatch):
    """Return a function that sends only sthggep's lines to a stream. Call it in the test: pytest sets up logging before."""

    def listen(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(log, "handlers", [Default()])
        monkeypatch.setattr(log, "propagate", False)
        return stream

    return listen


def test_the_source_of_the_mpp_is_logged_once(capture_log, toy):
    from sthggep._slides._resolve import resolve

    stream = capture_log(io.StringIO())
    slide = toy.copy()
    slide.uns["spatial"]["toy1"]["metadata"].pop("mpp")
    for _ in range(2):
        resolve(slide)
    assert stream.getvalue() == "Section toy1: 2 µm/px, from the spot pitch.\n"


# ---------------------------------------------------------------- progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by 20 s at every call."""
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(times)))
    monkeypatch.setattr(_progress.Progress, "last_line", float("-inf"))


def test_progress_is_logged_now_and_then_without_a_bar(capture_log, clock):
    stream = capture_log(io.StringIO())
    with progress(200, "Training", "epoch", show=True) as bar:
        for _ in range(5):
            bar.update(2, {"loss": 0.12345})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Training, epoch 4 of 200, loss 0.123"
    assert len(lines) < 5
    assert "\r" not in stream.getvalue()
    assert bar.n == 10


def test_an_area_is_logged_as_a_quantity(capture_log, clock):
    stream = capture_log(io.StringIO())
    with progress(101.8, "Features of S at 80 µm", "mm²", show=True) as bar:
        bar.update(12.34)
        bar.update(3)
    assert stream.getvalue().splitlines()[0] == "Features of S at 80 µm, 15.3 of 101.8 mm² of image"


def test_the_number_of_steps_may_grow(capture_log, clock):
    stream = capture_log(io.StringIO())
    with progress(3, "Cohort", "task", show=True) as work:
        work.grow(5)
        for _ in range(2):
            work.update()
        assert work.bar.total == 8
    assert stream.getvalue().splitlines()[0] == "Cohort, task 2 of 8"


def test_a_bar_starts_over_with_each_piece_of_work(capture_log, clock):
    stream = capture_log(io.StringIO())
    with progress(40, "Training", "epoch", show=True) as bar:
        for network in (1, 2):
            bar.restart(40, f"Training network {network} of 5")
            for _ in range(6):
                bar.update(2)
            bar.finish()
            assert (bar.n, bar.total) == (12, 12)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Training network 1 of 5, epoch 4 of 40"
    assert any(line.startswith("Training network 2 of 5, epoch ") and line.endswith(" of 40") for line in lines)
    assert not [line for line in lines if line.endswith(" of 80")]


def test_a_bar_of_work_that_was_done_before_is_full(capture_log):
    capture_log(io.StringIO())
    with progress(40, "Training", "epoch", show=True) as bar:
        bar.finish()
        assert (bar.n, bar.bar.n, bar.bar.total) == (40, 40, 40)


def test_one_line_about_a_subject(capture_log):
    stream = capture_log(io.StringIO())
    for subject in ("a", "a", "b"):
        log.info("about %s", subject, extra=once_about(subject[:1]))
    log.info("about a again", extra=once_about("a"))
    assert stream.getvalue().splitlines() == ["about a", "about b"]


def test_no_line_if_progress_is_off(capture_log, clock):
    stream = capture_log(io.StringIO())
    with progress(200, "Training", "epoch", show=False) as bar:
        for _ in range(5):
            bar.update(2)
    assert stream.getvalue() == ""
    assert (bar.n, bar.lines) == (10, False)


def test_a_bar_on_a_terminal_with_lines_above_it(capture_log, clock):
    stream = capture_log(Terminal())
    with progress(4, "Training", "epoch", show=True) as bar:
        bar.update(2, {"loss": 0.5})
        log.info("a line")
        bar.update(2)
    text = stream.getvalue()
    assert "\rTraining: 100%" in text
    assert "loss=0.500" in text
    assert "a line\n" in text.replace("\r", "\n")
    assert bar.lines is False


def test_a_notebook_draws_bars_though_it_is_no_terminal(monkeypatch):
    kernel = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.setattr(sys, "stderr", kernel())
    assert can_draw()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not can_draw()
