"""Calls that are killed at any moment and made again: the results are those of a call that was not.

Each call runs in a copy of this process, which ends without any clean-up at some event on disk (a file opened, moved or removed, a
folder made). `STHGGEP_KILLS=100` kills each call a hundred times.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import anndata
import pytest
import torch

from sthggep import HGGEP, datasets, pp, tl
from sthggep._encoders._frozen import FrozenEncoder, read_state
from sthggep._inputs._inputs import Inputs
from sthggep.nn import FeatureHGGEPNet
from sthggep.tl import _predict_cohort
from sthggep.tl._cohort._run import Outcome
from sthggep.tl._cohort._tasks import run_task

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="Needs processes that begin as copies."),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
KILLS = int(os.environ.get("STHGGEP_KILLS", "3"))
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "tempfile.mkdtemp")
KILLED = 9
GENES = ["FAT1", "STRO1", "IMMU1", "PLEO1"]
QUIET = {"show_progress_bar": False, "device": "cpu"}
FIT = {"obsm": "morphology", "validation": None, "n_members": 2, "max_epochs": 2, **QUIET}


@pytest.fixture(scope="module")
def model() -> HGGEP:
    torch.manual_seed(0)
    frozen = FrozenEncoder("shufflenet_he", None, torch.device("cpu"))
    net = FeatureHGGEPNet([frozen.entry.dim], 4, dim=16, heads=2, rank=2)
    net.programs.loadings.normal_()
    inputs = Inputs("features", (160.0,), frozen.entry.size_px, "shufflenet_he", flips=False)
    return HGGEP([net], GENES, inputs, encoder_state=read_state(frozen.module))


@pytest.fixture(scope="module")
def sections() -> list[anndata.AnnData]:
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

    def __init__(self, model: HGGEP, sections: list[anndata.AnnData]) -> None:
        self.model, self.sections = model, sections

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
        for name, slide in zip("ab", self.sections, strict=True):
            if not Path(f"{name}.h5ad").exists():
                slide.write_h5ad(f"{name}.h5ad")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_predict_cohort, "run_jobs", run_here)
            patched.setattr(_predict_cohort, "connected", lambda *_: nullcontext())
            table = tl.predict_cohort(["a.h5ad", "b.h5ad"], self.model, out="out", batch_size=1, **QUIET)
        assert table["error"].eq("").all()
        return [anndata.read_h5ad(path).X.tolist() for path in table["path"]]

    def fit(self) -> object:
        fitted = tl.fit(self.sections[0], genes=GENES, checkpoint_dir="ck", **FIT)
        return fitted.id, fitted.history.astype(str).to_numpy().tolist()


# What a call may refuse to do again, since it was finished already
FINISHED = {"save": "model", "predict_to_zarr": "p.zarr", "predict_to_h5ad": "p.h5ad"}
NAMES = [name for name in vars(Calls) if not name.startswith("_")]


def run_in_a_copy(call: Callable[[], object], folder: Path, kill_at: int) -> tuple[int, int]:
    """Run a call in a copy of this process, which dies at an event on disk; return its exit code and its number of events."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        count = [0]

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event in EVENTS and str(arguments[0]).startswith((str(folder), "/tmp")):
                count[0] += 1
                if count[0] == kill_at:
                    os._exit(KILLED)

        code = 1
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            sys.addaudithook(watch)
            call()
            code = 0
        finally:
            os.write(write, str(count[0]).encode())
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(write)
    events = os.read(read, 20)
    os.close(read)
    return code, int(events or 0)


def prepare(name: str) -> None:
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if name == "save_over_another":
        HGGEP.from_pretrained("her2st").save("model")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.handles("a call that is killed at any moment and made again gives the result of a whole one, to the bit")
def test_killed_calls_are_made_again(
    name: str, model: HGGEP, sections: list[anndata.AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    call: Callable[[], object] = getattr(Calls(model, sections), name)
    prepare(name)
    whole = call()
    prepare(name)
    code, events = run_in_a_copy(call, tmp_path, kill_at=0)
    assert (code, events > 5) == (0, True)
    moments = random.Random(name).sample(range(1, events), min(KILLS, events - 1))
    for moment in moments:
        prepare(name)
        code, _ = run_in_a_copy(call, tmp_path, kill_at=moment)
        assert code == KILLED, moment
        left = name in FINISHED and Path(FINISHED[name]).exists()
        try:
            again = call()
        except FileExistsError:
            # It was killed when all was done
            assert left, moment
            continue
        assert again == whole, moment
        assert not [path for path in Path().rglob("*") if path.name.endswith((".part", ".lock"))], moment
