"""Cohorts: many slides on the workers of a dask cluster, with interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch
from distributed import CancelledError, Client, KilledWorker, LocalCluster, WorkerPlugin

from sthggep import HGGEP, datasets, io, pp, tl
from sthggep._encoders._frozen import FrozenEncoder, read_state
from sthggep._inputs._inputs import Inputs
from sthggep.nn import FeatureHGGEPNet
from sthggep.tl import _predict_cohort
from sthggep.tl._cohort import _run as _cohort_run
from sthggep.tl._cohort import _tasks as _cohort_tasks

# Blocks are 16 batches: of one spot each, so that a small section has several
QUIET = {"show_progress_bar": False, "device": "cpu", "batch_size": 1}
SIZE_UM = (1500.0, 1200.0)
NAMES = ("a.h5ad", "b.zarr", "c.h5ad")


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and a worker, as threads of this process that communicate by TCP."""
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=False, protocol="tcp://", **options) as local_cluster:
        yield local_cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster, set_as_default=False) as open_client:
        yield open_client


@pytest.fixture(scope="module")
def quick() -> HGGEP:
    """An untrained network on features of the real encoder."""
    torch.manual_seed(0)
    frozen = FrozenEncoder("shufflenet_he", None, torch.device("cpu"))
    net = FeatureHGGEPNet([frozen.entry.dim], 4, dim=16, heads=2, rank=2)
    net.programs.loadings.normal_()
    inputs = Inputs("features", (160.0,), frozen.entry.size_px, "shufflenet_he", flips=False)
    return HGGEP([net], ["FAT1", "STRO1", "IMMU1", "PLEO1"], inputs, encoder_state=read_state(frozen.module))


@pytest.fixture(scope="module")
def sections(quick: HGGEP) -> list[anndata.AnnData]:
    """Three sections with the prediction of `tl.predict`."""
    slides = [datasets.toy(seed=seed, size_um=SIZE_UM, mpp=2.0, n_genes=20) for seed in (5, 6)]
    slides.append(datasets.toy(seed=7, size_um=(900.0, 900.0), mpp=2.0, n_genes=20))
    for slide in slides:
        tl.predict(slide, quick, key_added="expected", **QUIET)
        assert (slide.obsm["expected"].std(axis=0) > 1e-3).all()
    return slides


@pytest.fixture(scope="module")
def files_folder(sections, quick, tmp_path_factory) -> Path:
    """The sections as files, and their model beside them."""
    folder = tmp_path_factory.mktemp("cohort")
    for name, slide in zip(NAMES, sections, strict=True):
        bare = slide.copy()
        del bare.obsm["expected"], bare.uns["expected"]
        bare.write_zarr(folder / name) if name.endswith("zarr") else bare.write_h5ad(folder / name)
    quick.save(folder / "model")
    return folder


@pytest.fixture
def cohort(files_folder, sections, tmp_path, monkeypatch) -> dict[str, anndata.AnnData]:
    """Copy the files to the current folder, and return the sections by file name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(files_folder, tmp_path, dirs_exist_ok=True)
    return dict(zip(NAMES, sections, strict=True))


@pytest.fixture
def steps(monkeypatch) -> list[tuple]:
    """Record the steps that the worker in this process runs."""
    records = []
    for name, step in list(_cohort_tasks.STEPS.items()):

        def recording_step(job, *arguments, name=name, step=step):
            records.append((name, job.slide.name, *arguments))
            return step(job, *arguments)

        monkeypatch.setitem(_cohort_tasks.STEPS, name, recording_step)
    return records


def n_blocks(slide: anndata.AnnData) -> int:
    return -(-slide.n_obs // 16)


def assert_whole(folder: str, cohort: dict[str, anndata.AnnData], names=NAMES) -> None:
    """Check that the folder holds exactly the predictions of `tl.predict`, and no other files."""
    assert sorted(p.name for p in Path(folder).iterdir()) == sorted(f"{Path(name).stem}.h5ad" for name in names)
    for name in names:
        prediction = anndata.read_h5ad(Path(folder) / f"{Path(name).stem}.h5ad")
        np.testing.assert_array_equal(prediction.X, cohort[name].obsm["expected"])
        assert prediction.obs_names.equals(cohort[name].obs_names)
        assert prediction.uns["hggep"]["model"] == cohort[name].uns["expected"]["model"]


# ---------------------------------------------------------------- predictions


def test_a_cohort_equals_single_predictions(cohort, client, steps):
    table = tl.predict_cohort(list(cohort), "model", out="p", scheduler=client, **QUIET)
    assert_whole("p", cohort)
    assert table["status"].tolist() == ["written"] * 3
    assert table["n_obs"].tolist() == [slide.n_obs for slide in cohort.values()]
    assert table["n_genes"].tolist() == [4] * 3
    assert table["path"].tolist() == [str(Path("p", f"{name}.h5ad").absolute()) for name in "abc"]
    assert table["error"].tolist() == [""] * 3
    # The last slide is no larger than a block: one task
    assert n_blocks(cohort["a.h5ad"]) > 1 == n_blocks(cohort["c.h5ad"])
    expected = 3 + sum(n_blocks(cohort[name]) + 1 for name in ("a.h5ad", "b.zarr"))
    assert len(steps) == len(set(steps)) == expected
    assert client.scheduler_info()["workers"]  # the client of the user stays open


def test_a_second_call_does_nothing(cohort, cluster, steps):
    tl.predict_cohort(list(cohort), "model", out="p", scheduler=cluster.scheduler_address, **QUIET)
    before = {path: path.stat().st_mtime_ns for path in Path("p").iterdir()}
    steps.clear()
    # No scheduler has this address, and the call does not connect
    table = tl.predict_cohort(list(cohort), "model", out="p", scheduler="tcp://127.0.0.1:9", **QUIET)
    assert table["status"].tolist() == ["kept"] * 3
    assert table["n_obs"].tolist() == [slide.n_obs for slide in cohort.values()]
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in Path("p").iterdir()} == before


def test_options_are_those_of_predict(cohort, client, quick):
    genes = quick.genes[4:1:-1]
    options = {"genes": genes, "latent": True, "key_added": "mine", "window": np.int64(12)}
    for status in ("written", "kept"):
        table = tl.predict_cohort(["a.h5ad"], quick, out="p", scheduler=client, **options, **QUIET)
        assert table["status"].tolist() == [status]
    prediction, slide = anndata.read_h5ad("p/a.h5ad"), anndata.read_h5ad("a.h5ad")
    tl.predict(slide, quick, **options, **QUIET)
    assert prediction.var_names.tolist() == genes
    np.testing.assert_array_equal(prediction.X, slide.obsm["mine"])
    np.testing.assert_array_equal(prediction.obsm["X_mine"], slide.obsm["X_mine"])


def test_images_get_spots(cohort, client, quick):
    """Spots are those of `pp.tissue_grid` at that spacing, and values those of `tl.predict`."""
    from PIL import Image

    picture = next(iter(cohort["c.h5ad"].uns["spatial"].values()))["images"]["hires"]
    Image.fromarray(np.asarray(picture)).save("biopsy.png")
    options = {"spacing_um": 300, "mpp": 2}
    table = tl.predict_cohort(["biopsy.png", "c.h5ad"], "model", out="p", scheduler=client, **options, **QUIET)
    assert table["status"].tolist() == ["written"] * 2
    prediction = anndata.read_h5ad("p/biopsy.h5ad")
    sdata = io.read_slide("biopsy.png", mpp=2)
    grid = pp.tissue_grid(sdata, spacing_um=300)
    tl.predict(sdata, quick, table_key="tissue_grid", **QUIET)
    assert prediction.n_obs == grid.n_obs > 3
    np.testing.assert_array_equal(prediction.obsm["spatial"], grid.obsm["spatial"])
    np.testing.assert_allclose(np.diff(np.unique(prediction.obsm["spatial"][:, 1])), 150)
    np.testing.assert_array_equal(prediction.X, grid.obsm["hggep"])


# ---------------------------------------------------------------- lost workers and clients


def kill_at_block_1(record: Path) -> WorkerPlugin:
    """A plugin for workers that record the blocks they encode; the first worker at block 1 is killed."""

    class Dies(WorkerPlugin):
        def setup(self, worker):
            from sthggep._encoders._block_store import BlockStore

            make = BlockStore.make
            if make.__name__ == "watched":
                return

            def make_and_record(self, number, progress=None):
                with record.open("a") as file:
                    file.write(f"{number}\n")
                if record.read_text().split().count("1") == 1 == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return make(self, number, progress)

            BlockStore.make = make_and_record

    return Dies()


def test_a_lost_worker_costs_its_block(shell, cohort, tmp_path, monkeypatch):
    """The shell starts a worker process; another slide of the call is bad."""
    record, pids = tmp_path / "said", []

    def run_and_record(client, jobs, **options):
        client.register_plugin(kill_at_block_1(record))
        pids.append(client.run(os.getpid))
        outcomes = _cohort_run.run_jobs(client, jobs, **options)
        pids.append(client.run(os.getpid))
        return outcomes

    monkeypatch.setattr(_predict_cohort, "run_jobs", run_and_record)
    Path("bad.h5ad").write_bytes(b"no slide")
    words = ("predict", "a.h5ad", "bad.h5ad", "--model", "model", "--out", "p", "--batch-size", 1, "--device", "cpu")
    result = shell(*words, "--workers", 1)
    assert result.exit_code == 1, result.stderr
    assert "bad.h5ad failed: ValueError: " in result.stderr
    assert "Error: 1 of 2 slides failed: 'bad.h5ad'. The same call tries them again.\n" in result.stderr
    first_pids, last_pids = (set(by_worker.values()) for by_worker in pids)
    assert len(first_pids) == len(last_pids) == 1
    assert first_pids.isdisjoint({*last_pids, os.getpid()})
    numbers = [int(line) for line in record.read_text().split()]
    assert sorted(numbers) == sorted([*range(n_blocks(cohort["a.h5ad"])), 1])
    np.testing.assert_array_equal(anndata.read_h5ad("p/a.h5ad").X, cohort["a.h5ad"].obsm["expected"])


SCRIPT = """
import os, signal
from distributed import Client
from sthggep import tl
from sthggep._encoders._block_store import BlockStore

begun, make = [], BlockStore.make

def dies_at_the_second(self, number, done=None):
    begun.append(number)
    if len(begun) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(self, number, done)

BlockStore.make = dies_at_the_second
client = Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler=client, device="cpu", batch_size=1)
"""


def test_a_killed_cohort_resumes(cohort, client, steps):
    result = subprocess.run([sys.executable, "-c", SCRIPT], check=False, timeout=250)
    assert result.returncode == -signal.SIGKILL
    assert not Path("p/a.h5ad").exists()
    n_finished = len(list(Path("p/.cohort/slides/a").glob("*.npy")))
    assert n_finished == 1 < n_blocks(cohort["a.h5ad"])
    tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert_whole("p", cohort, ["a.h5ad"])
    assert [name for name, *_ in steps].count("encode") == n_blocks(cohort["a.h5ad"]) - n_finished


def test_blocks_of_a_slide_that_failed_are_kept(cohort, client, steps, monkeypatch):
    def broken(job):
        msg = "the disk is full"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setitem(_cohort_tasks.STEPS, "finish", broken)
        table = tl.predict_cohort(["a.h5ad", "c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert table["status"].tolist() == ["failed", "written"]
    assert table["error"].tolist() == ["OSError: the disk is full", ""]
    assert table["n_obs"].isna().tolist() == [True, False]
    assert len(list(Path("p/.cohort/slides/a").glob("*.npy"))) == n_blocks(cohort["a.h5ad"])
    steps.clear()
    table = tl.predict_cohort(["a.h5ad", "c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert table["status"].tolist() == ["written", "kept"]
    assert steps == [("begin", "a.h5ad")]
    assert_whole("p", cohort, ["a.h5ad", "c.h5ad"])


def test_errors_of_the_cluster_are_explained():
    def result_of(error: Exception):
        def result():
            raise error

        return object.__new__(_cohort_run._CohortRun)._result(SimpleNamespace(result=result))

    worker_error = KilledWorker("task", SimpleNamespace(address="tcp://there"), 3)
    assert result_of(worker_error).error.startswith("its worker was lost 4 times at the same task")
    import_error = ModuleNotFoundError("No module named 'sthggep'")
    assert result_of(import_error).error == "ModuleNotFoundError: No module named 'sthggep'"
    with pytest.raises(ConnectionError, match=r"went away\. Finished slides and blocks are stored"):
        result_of(CancelledError("task"))


def test_workers_that_see_other_files(cohort, client, steps):
    job = SimpleNamespace(
        slide=Path("absent.h5ad"), model=Path("model"), record=SimpleNamespace(version="0"), client=os.getpid()
    )
    assert "absent.h5ad does not exist on the worker's machine" in _cohort_tasks.run_task("begin", job).error
    job.slide = Path("a.h5ad")
    assert "you have 0. Install the same version" in _cohort_tasks.run_task("begin", job).error


# ---------------------------------------------------------------- failures and refusals


def test_a_bad_slide_does_not_stop_the_others(cohort, client, caplog):
    Path("bad.h5ad").write_bytes(b"no slide")
    glass = anndata.read_h5ad("c.h5ad")
    del glass.uns["spatial"]
    glass.write_h5ad("glass.h5ad")
    table = tl.predict_cohort(["bad.h5ad", "glass.h5ad", "c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert table["status"].tolist() == ["failed", "failed", "written"]
    bad, glass, good = table["error"]
    assert "bad.h5ad cannot be read" in bad
    assert "image" in glass
    assert good == ""
    np.testing.assert_array_equal(anndata.read_h5ad("p/c.h5ad").X, cohort["c.h5ad"].obsm["expected"])
    assert "2 of 3 slides failed: 'bad.h5ad', 'glass.h5ad'." in caplog.text


def test_other_files_are_not_replaced(cohort, client, quick):
    names = ["a.h5ad", "c.h5ad"]
    options = {"out": "p", "scheduler": client, **QUIET}
    tl.predict_cohort(names, "model", **options)
    before = {path.name: path.read_bytes() for path in Path("p").iterdir()}
    with pytest.raises(FileExistsError, match=r"is of another genes .and 1 more such files.*overwrite=True"):
        tl.predict_cohort(names, "model", genes=quick.genes[:3], **options)
    os.utime("c.h5ad")
    with pytest.raises(FileExistsError, match=r"c\.h5ad was made before its slide was changed .*; it is left alone"):
        tl.predict_cohort(names, "model", **options)
    Path("p/b.h5ad").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"b\.h5ad was not written by `predict_cohort`"):
        tl.predict_cohort(["b.zarr"], "model", **options)
    Path("p/b.h5ad").unlink()
    assert {path.name: path.read_bytes() for path in Path("p").iterdir()} == before
    table = tl.predict_cohort(names, "model", overwrite=True, **options)
    assert table["status"].tolist() == ["kept", "written"]
    assert_whole("p", cohort, names)


def test_predictions_of_another_model_are_not_replaced(cohort, client, quick):
    tl.predict_cohort(["c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    other = HGGEP.load("model")
    next(iter(other.members.parameters())).data.add_(0.1)
    with pytest.raises(FileExistsError, match="is of another model"):
        tl.predict_cohort(["c.h5ad"], other, out="p", scheduler=client, **QUIET)


@pytest.mark.parametrize(
    ("slides", "options", "error", "fault"),
    [
        ([], {}, ValueError, "must be a list of files, found"),
        ("a.h5ad", {}, TypeError, "`slides` must be a list, found 'a.h5ad'"),
        (["absent.h5ad"], {}, FileNotFoundError, "absent.h5ad does not exist"),
        (["a.h5ad", "sub/a.h5ad"], {}, ValueError, "would all be written to .*a.h5ad"),
        (["a.h5ad"], {"out": "."}, ValueError, "would be written over a slide that is read"),
        (["a.h5ad"], {"out": "p.h5ad"}, ValueError, "must be a folder"),
        (["a.h5ad"], {"out": "c.h5ad"}, FileExistsError, "must be a folder"),
        (["a.h5ad"], {"model": "absent"}, FileNotFoundError, "No model is called 'absent'"),
        (["a.h5ad"], {"genes": ["ABSENT"]}, KeyError, "ABSENT"),
        (["a.h5ad"], {"counts": True}, ValueError, "no head for counts"),
        (["a.h5ad"], {"window": "all"}, ValueError, "Unknown window 'all'"),
        (["a.h5ad"], {"window": -1}, ValueError, "positive"),
        (["a.h5ad"], {"spacing_um": 0}, ValueError, "positive"),
        (["a.h5ad"], {"workers": 0}, ValueError, "positive"),
        (["a.h5ad"], {"workers": 2, "scheduler": "tcp://a:1"}, ValueError, "Pass one of them"),
    ],
)
def test_mistakes_are_refused_before_work_starts(cohort, monkeypatch, slides, options, error, fault):
    monkeypatch.setattr(_predict_cohort, "connected", lambda *_: pytest.fail("work began"))
    Path("sub").mkdir()
    Path("sub/a.h5ad").symlink_to("../a.h5ad")
    before = sorted(Path().rglob("*"))
    with pytest.raises(error, match=fault):
        tl.predict_cohort(slides, **{"model": "model", "out": "p", **QUIET, **options})
    assert sorted(Path().rglob("*")) == before


def test_an_unreachable_scheduler_is_named(cohort, monkeypatch):
    monkeypatch.setattr(_cohort_run, "SECONDS", 0.5)
    with pytest.raises(ConnectionError, match=r"No scheduler of dask answers at 'tcp://127\.0\.0\.1:9'"):
        tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler="tcp://127.0.0.1:9", **QUIET)
    with pytest.raises(ConnectionError, match="No scheduler of dask answers at 'nonsense'"):
        tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler="nonsense", **QUIET)
    assert not Path("p").exists()


def test_workers_do_not_import_the_script(monkeypatch):
    """Workers would start a script again if its calls are not under `if __name__ == "__main__"`."""
    from multiprocessing.spawn import get_preparation_data

    def main_modules() -> set[str]:
        return {"init_main_from_name", "init_main_from_path"} & set(get_preparation_data("worker"))

    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert main_modules() == {"init_main_from_path"}
    with _cohort_run.no_main():
        assert main_modules() == set()
    assert (main.__file__, main.__spec__) == ("script.py", None)
    monkeypatch.delattr(main, "__file__")
    with _cohort_run.no_main():
        assert main_modules() == set()
    assert not hasattr(main, "__file__")


# ---------------------------------------------------------------- from a shell


def test_from_a_shell_by_a_scheduler(shell, cohort, cluster):
    words = ("predict", "a.h5ad", "b.zarr", "--model", "model", "--out", "p", "--batch-size", 1, "--device", "cpu")
    result = shell(*words, "--scheduler", cluster.scheduler_address)
    assert result.exit_code == 0, result.stderr
    assert "p/a.h5ad written (" in result.stderr
    assert f"4 genes at {cohort['b.zarr'].n_obs} spots" in result.stderr
    assert_whole("p", cohort, ["a.h5ad", "b.zarr"])
    Path("run.yaml").write_text(f"scheduler: {cluster.scheduler_address}\n")
    result = shell(*words, "--config", "run.yaml")
    assert result.exit_code == 0, result.stderr
    assert "2 of 2 slides are predicted already." in result.stderr
    result = shell(*words, "--config", "run.yaml", "--latent")
    assert result.exit_code == 1
    assert (
        "is of another latent (and 1 more such files); it is left alone. Pass another --out, or --overwrite"
        in result.stderr
    )


def test_wrong_usage(shell, cohort):
    words = ("predict", "c.h5ad", "--model", "model", "--out")
    assert shell(*words, "p", "--workers", 0).exit_code == 2
    assert shell(*words, "p", "--workers", 1, "--scheduler", "tcp://a:1").exit_code == 1
    result = shell(*words, "p.h5ad", "--workers", 1)
    assert (result.exit_code, "--out must be a folder" in result.stderr) == (1, True)
