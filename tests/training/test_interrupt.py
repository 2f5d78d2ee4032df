"""Ctrl-C in a training, and options of a training that fail later."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from anndata import AnnData
from lightning.pytorch.callbacks import Callback

from sthggep import datasets, tl
from sthggep._training._interrupt import describe_stored, interruptible


class Interrupt(Callback):
    """Ctrl-C at the start of some epoch of some network: the system's signal, or the error that it becomes."""

    def __init__(self, network: int, epoch: int, *, by_signal: bool) -> None:
        self.at, self.by_signal, self.network = (network, epoch), by_signal, -1

    def on_fit_start(self, *_: object) -> None:
        self.network += 1

    def on_train_epoch_start(self, trainer, *_: object) -> None:
        if (self.network, trainer.current_epoch) == self.at:
            if not self.by_signal:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def slide() -> AnnData:
    return datasets.toy(size_um=(1200.0, 1200.0), mpp=4.0, n_genes=6)


OPTIONS = {"obsm": "morphology", "n_members": 2, "max_epochs": 3, "validation": None, "show_progress_bar": False}


@pytest.mark.parametrize(
    "by_signal", [pytest.param(True, id="Ctrl-C"), pytest.param(False, id="an interrupt of a notebook")]
)
@pytest.mark.handles("`tl.fit` raises KeyboardInterrupt and logs what `checkpoint_dir` holds. The same call resumes.")
def test_fit_is_interrupted(slide: AnnData, tmp_path: Path, caplog: pytest.LogCaptureFixture, by_signal: bool):
    handler = signal.getsignal(signal.SIGINT)
    stop = {"trainer_kwargs": {"callbacks": [Interrupt(1, 1, by_signal=by_signal)]}}
    with caplog.at_level(logging.WARNING, logger="sthggep"), pytest.raises(KeyboardInterrupt):
        tl.fit(slide, **OPTIONS, **stop, checkpoint_dir=tmp_path / "ck")
    assert signal.getsignal(signal.SIGINT) is handler, "the next Ctrl-C must work, too"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Interrupted. ")
    assert "ck' holds 1 trained network of at most 2 and the last complete epoch of the next network; the same" in line
    resumed, whole = tl.fit(slide, **OPTIONS, checkpoint_dir=tmp_path / "ck"), tl.fit(slide, **OPTIONS)
    assert resumed.id == whole.id
    pd.testing.assert_frame_equal(resumed.history, whole.history)


def test_fit_without_a_folder_says_what_would_have_been_kept(slide: AnnData, caplog: pytest.LogCaptureFixture):
    stop = {"trainer_kwargs": {"callbacks": [Interrupt(0, 1, by_signal=False)]}}
    with caplog.at_level(logging.WARNING, logger="sthggep"), pytest.raises(KeyboardInterrupt):
        tl.fit(slide, **OPTIONS, **stop)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "Interrupted. Nothing is stored: with `checkpoint_dir=` the same call would resume at the last complete epoch."
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "'ck' holds no complete epoch yet; the same call starts again."),
        (
            ["network-0/epoch.ckpt"],
            "'ck' holds the last complete epoch of the first network; the same call resumes there.",
        ),
        (["network-0/finished.pt"], "'ck' holds 1 trained network of at most 5; the same call resumes there."),
    ],
)
def test_what_a_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], words: str):
    monkeypatch.chdir(tmp_path)
    for file in map(Path("ck").joinpath, files):
        file.parent.mkdir(parents=True)
        file.touch()
    assert describe_stored("ck", 5) == words


def test_an_interrupted_closed_form_names_no_networks(
    slide: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sthggep._training._networks.build_closed_form", interrupt)
    with caplog.at_level(logging.WARNING, logger="sthggep"), pytest.raises(KeyboardInterrupt):
        tl.fit(slide, **{**OPTIONS, "n_members": 0}, checkpoint_dir=tmp_path / "ck")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "Interrupted. Nothing is stored: the closed form is solved in one step, and the same call starts again."
    )


def test_other_exits_pass():
    with pytest.raises(SystemExit, match="3"), interruptible():
        raise SystemExit(3)
    with pytest.raises(ValueError, match="3"), interruptible():
        raise ValueError(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"max_epoch": 3}, "Unknown option in `trainer_kwargs` 'max_epoch'. Did you mean 'max_epochs'", id="a misspelled option"),
        pytest.param({"accelerator": "quantum"}, "`trainer_kwargs`: Lightning's Trainer refuses .*quantum", id="an accelerator that is not there"),
        pytest.param({"max_epochs": -5}, "`trainer_kwargs`: Lightning's Trainer refuses .*-5", id="a negative number of epochs"),
        pytest.param({"precision": "lots"}, "`trainer_kwargs`: Lightning's Trainer refuses .*lots", id="an unknown precision"),
        pytest.param({"devices": 0}, "`trainer_kwargs`: Lightning's Trainer refuses", id="no device"),
    ],
)  # fmt: skip
@pytest.mark.handles("`tl.fit` rejects the option before work starts.")
def test_options_of_the_trainer(slide: AnnData, monkeypatch: pytest.MonkeyPatch, options: dict, message: str):
    monkeypatch.setattr("sthggep._training._train.train", lambda *_: pytest.fail("work has started"))
    with pytest.raises(ValueError, match=message):
        tl.fit(slide, **OPTIONS, trainer_kwargs=options)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_places_of_checkpoints(slide: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.setattr("sthggep._training._train.train", lambda *_: pytest.fail("work has started"))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="`checkpoint_dir` must be a folder, found the file"):
        tl.fit(slide, **OPTIONS, checkpoint_dir=tmp_path / place)
