"""Calls that are killed at any moment and made again: `python kills.py N SEED [NAME...]` kills each call N times.

Each call runs in a copy of this process, which ends without any clean-up at some event on disk: a file opened, moved or removed, a folder
made. The results of the call that is made again must be those of one that was not killed. This process computes nothing itself: a copy
of one with threads would wait for them forever.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import anndata
import torch

from sthggep import HGGEP, datasets, pp, tl
from sthggep._disk._lock import BusyError
from sthggep._encoders._frozen import FrozenEncoder, read_state
from sthggep._inputs._inputs import Inputs
from sthggep.nn import FeatureHGGEPNet
from sthggep.tl import _predict_cohort
from sthggep.tl._cohort._run import Outcome
from sthggep.tl._cohort._tasks import run_task

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "tempfile.mkdtemp")
KILLED, FAILED, THERE, BUSY = 9, 1, 2, 3  # exit codes of the copies
GENES = ["FAT1", "STRO1", "IMMU1", "PLEO1"]
QUIET = {"show_progress_bar": False, "device": "cpu"}
FIT = {"obsm": "morphology", "validation": None, "n_members": 2, "max_epochs": 2, **QUIET}


def make_model() -> HGGEP:
    torch.manual_seed(0)
    frozen = FrozenEncoder("shufflenet_he", None, torch.device("cpu"))
    net = FeatureHGGEPNet([frozen.entry.dim], 4, dim=16, heads=2, rank=2)
    net.programs.loadings.normal_()
    inputs = Inputs("features", (160.0,), frozen.entry.size_px, "shufflenet_he", flips=False)
    return HGGEP([net], GENES, inputs, encoder_state=read_state(frozen.module))


def draw_sections() -> list[anndata.AnnData]:
    drawn = [datasets.toy(seed=seed, size_um=(900.0, 900.0), mpp=4.0, n_genes=8) for seed in (5, 6)]
    for slide, patient in zip(drawn, "AB", strict=True):
        slide.obs["patient"] = patient
    return drawn


def run_here(_: object, jobs, *, show: bool) -> list[Outcome]:
    """The tasks of a cohort, in this process."""
    outcomes = []
    for job in jobs:
        result = run_task("begin", job)
        if isinstance(result.value, list):
            for block in result.value:
                run_task("encode", job, block)
            result = run_task("finish", job)
        outcomes.append(Outcome(None if result.error else result.value, result.error))
    return outcomes


# ---------------------------------------------------------------- the calls, and what each leaves


class Calls:
    """Calls that write to the current folder; each returns its result in plain arrays."""

    def __init__(self, model: HGGEP, sections: list[anndata.AnnData], folder: Path) -> None:
        self.model, self.sections = model, sections
        self.files = [folder / f"{name}.h5ad" for name in "ab"]
        for file, slide in zip(self.files, sections, strict=True):
            slide.write_h5ad(file)

    def save(self) -> object:
        self.model.save("model")
        return HGGEP.load("model").id

    def save_over_another(self) -> object:
        self.model.save("model", overwrite=True)
        return HGGEP.load("model").id

    def features(self) -> object:
        slide = self.sections[0].copy()
        pp.features(slide, size_um=160, flips=False, cache="cache", **QUIET)
        return slide.obsm["X_shufflenet_he_160"].tolist()

    def predict(self) -> object:
        slide = self.sections[0].copy()
        tl.predict(slide, self.model, checkpoint_dir="blocks", batch_size=1, **QUIET)
        return slide.obsm["hggep"].tolist()

    def predict_to_zarr(self) -> object:
        return self._predict_to("p.zarr")

    def predict_to_h5ad(self) -> object:
        return self._predict_to("p.h5ad")

    def _predict_to(self, out: str) -> object:
        slide = self.sections[0].copy()
        tl.predict(slide, self.model, out=out, **QUIET)
        return tl.to_adata(slide).to_memory().X.tolist()

    def cross_validate(self) -> object:
        scores = tl.cross_validate(self.sections, out="folds", genes=GENES, baselines=["mean"], **FIT)
        return scores.drop(columns="leak").astype(str).to_numpy().tolist()

    def predict_cohort(self) -> object:
        _predict_cohort.run_jobs, _predict_cohort.connected = run_here, lambda *_: nullcontext()
        table = tl.predict_cohort(self.files, self.model, out="out", batch_size=1, **QUIET)
        assert table["error"].eq("").all()
        return [anndata.read_h5ad(path).X.tolist() for path in table["path"]]

    def fit(self) -> object:
        fitted = tl.fit(self.sections[0], genes=GENES, checkpoint_dir="ck", **FIT)
        return fitted.id, fitted.history.astype(str).to_numpy().tolist()


# What a call may refuse to do again, since it was finished already
FINISHED = {"save": "model", "predict_to_zarr": "p.zarr", "predict_to_h5ad": "p.h5ad"}


def start_copy(call: Callable[[], object], kill_at: int = 0) -> tuple[int, int]:
    """Start a call in a copy of this process, which dies at an event on disk; return its number and where it answers."""
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, read
    count, here = [0], (os.getcwd(), tempfile.gettempdir())

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and os.path.abspath(str(arguments[0])).startswith(here):
            count[0] += 1
            if count[0] == kill_at:
                os._exit(KILLED)

    code, result = FAILED, None
    try:
        sys.addaudithook(watch)
        result, code = call(), 0
    except FileExistsError:
        code = THERE
    except BusyError:
        code = BUSY
    finally:
        with open(write, "wb") as file:
            file.write(pickle.dumps((count[0], result)))
        os._exit(code)


def wait_for_copy(process: int, read: int) -> tuple[int, int, object]:
    """Wait for a copy; return its exit code, its number of events and its result."""
    with open(read, "rb") as file:
        answer = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, *(pickle.loads(answer) if answer else (0, None))


def run_in_a_copy(call: Callable[[], object], kill_at: int = 0) -> tuple[int, int, object]:
    """Run a call in a copy of this process."""
    return wait_for_copy(*start_copy(call, kill_at))


def try_two_at_once(name: str, call: Callable[[], object], whole: object) -> str:
    """Make a call in two processes at once: both finish, or the second learns that the first is at work."""
    prepare(name)
    one, two = (wait_for_copy(*copy) for copy in [start_copy(call), start_copy(call)])
    codes = sorted([one[0], two[0]])
    same = all(result == whole for code, _, result in (one, two) if code == 0)
    left = list_left()
    return (
        ""
        if codes[0] == 0 and codes[1] in (0, BUSY, THERE) and same and not left
        else f"{name} twice: {codes} {same} {left}"
    )


def list_left() -> list[str]:
    """What half-written things and locks lie in the current folder."""
    return [path.name for path in Path().rglob("*") if path.name.endswith((".part", ".lock"))]


def prepare(name: str) -> None:
    """Empty the current folder, but for what the call finds there."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if name == "save_over_another":
        HGGEP.from_pretrained("her2st").save("model")


def try_kills(name: str, call: Callable[[], object], n: int, seed: int) -> dict[str, object]:
    """Kill a call at ``n`` moments, make it again after each, and count what comes of it."""
    prepare(name)
    code, events, whole = run_in_a_copy(call)
    assert code == 0, f"{name} fails without a kill"
    faults: list[str] = []
    moments = random.Random(f"{name} {seed}").sample(range(1, events), min(n, events - 1))
    for moment in moments:
        prepare(name)
        code, _, _ = run_in_a_copy(call, moment)
        is_finished = name in FINISHED and Path(FINISHED[name]).exists()
        code, _, again = (code, 0, None) if code != KILLED else run_in_a_copy(call)
        if code == THERE and is_finished:
            continue  # it was killed when all was done
        left = list_left()
        if code or again != whole or left:
            faults.append(
                f"{name} killed at event {moment} of {events}: exit code {code}, same {again == whole}, left {left}"
            )
    twice = try_two_at_once(name, call, whole)
    return {"twice": twice, "events": events, "kills": len(moments), "faults": faults}


if __name__ == "__main__":
    n_kills, seed_of_moments = int(sys.argv[1]), int(sys.argv[2])
    names = sys.argv[3:] or [name for name in vars(Calls) if not name.startswith("_")]
    warnings.simplefilter("ignore")
    logging.getLogger("sthggep").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as folder:
        calls = Calls(make_model(), draw_sections(), Path(inputs))
        os.chdir(folder)
        results = {name: try_kills(name, getattr(calls, name), n_kills, seed_of_moments) for name in names}
        os.chdir("/")
    sys.stdout.write(json.dumps(results, indent=1))
