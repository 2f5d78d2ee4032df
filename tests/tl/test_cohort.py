"""Cohorts: many slides by the workers of a dask cluster, killed and gone on with."""

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
    """A scheduler and a worker, threads of this process that are reached by TCP."""
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(processes=False, protocol="tcp://", **options) as found:
        yield found


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster, set_as_default=False) as found:
        yield found


@pytest.fixture(scope="module")
def quick() -> HGGEP:
    """A network that has learned nothing, on features of the true encoder."""
    torch.manual_seed(0)
    frozen = FrozenEncoder("shufflenet_he", None, torch.device("cpu"))
    net = FeatureHGGEPNet([frozen.entry.dim], 4, dim=16, heads=2, rank=2)
    net.programs.loadings.normal_()
    inputs = Inputs("features", (160.0,), frozen.entry.size_px, "shufflenet_he", flips=False)
    return HGGEP([net], ["FAT1", "STRO1", "IMMU1", "PLEO1"], inputs, encoder_state=read_state(frozen.module))


@pytest.fixture(scope="module")
def drawn(quick: HGGEP) -> list[anndata.AnnData]:
    """Three sections, and what `tl.predict` says of them."""
    slides = [datasets.toy(seed=seed, size_um=SIZE_UM, mpp=2.0, n_genes=20) for seed in (5, 6)]
    slides.append(datasets.toy(seed=7, size_um=(900.0, 900.0), mpp=2.0, n_genes=20))
    for slide in slides:
        tl.predict(slide, quick, key_added="expected", **QUIET)
        assert (slide.obsm["expected"].std(axis=0) > 1e-3).all()
    return slides


@pytest.fixture(scope="module")
def written(drawn, quick, tmp_path_factory) -> Path:
    """The sections as files, and their model beside them."""
    folder = tmp_path_factory.mktemp("cohort")
    for name, slide in zip(NAMES, drawn, strict=True):
        bare = slide.copy()
        del bare.obsm["expected"], bare.uns["expected"]
        bare.write_zarr(folder / name) if name.endswith("zarr") else bare.write_h5ad(folder / name)
    quick.save(folder / "model")
    return folder


@pytest.fixture
def cohort(written, drawn, tmp_path, monkeypatch) -> dict[str, anndata.AnnData]:
    """Those files in the current folder; what they hold by their names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return dict(zip(NAMES, drawn, strict=True))


@pytest.fixture
def steps(monkeypatch) -> list[tuple]:
    """What the worker in this process is asked to do."""
    done = []
    for name, step in list(_cohort_tasks.STEPS.items()):

        def counted(job, *which, name=name, step=step):
            done.append((name, job.slide.name, *which))
            return step(job, *which)

        monkeypatch.setitem(_cohort_tasks.STEPS, name, counted)
    return done


def n_blocks(slide: anndata.AnnData) -> int:
    return -(-slide.n_obs // 16)


def assert_whole(folder: str, cohort: dict[str, anndata.AnnData], names=NAMES) -> None:
    """The predictions are there, those of `tl.predict` to the digit, and nothing else."""
    assert sorted(p.name for p in Path(folder).iterdir()) == sorted(f"{Path(name).stem}.h5ad" for name in names)
    for name in names:
        found = anndata.read_h5ad(Path(folder) / f"{Path(name).stem}.h5ad")
        np.testing.assert_array_equal(found.X, cohort[name].obsm["expected"])
        assert found.obs_names.equals(cohort[name].obs_names)
        assert found.uns["hggep"]["model"] == cohort[name].uns["expected"]["model"]


# ---------------------------------------------------------------- what is predicted


def test_a_cohort_is_what_predict_says(cohort, client, steps):
    table = tl.predict_cohort(list(cohort), "model", out="p", scheduler=client, **QUIET)
    assert_whole("p", cohort)
    assert table["status"].tolist() == ["written"] * 3
    assert table["n_obs"].tolist() == [slide.n_obs for slide in cohort.values()]
    assert table["n_genes"].tolist() == [4] * 3
    assert table["path"].tolist() == [str(Path("p", f"{name}.h5ad").absolute()) for name in "abc"]
    assert table["error"].tolist() == [""] * 3
    # The last is no larger than a block: one task
    assert n_blocks(cohort["a.h5ad"]) > 1 == n_blocks(cohort["c.h5ad"])
    expected = 3 + sum(n_blocks(cohort[name]) + 1 for name in ("a.h5ad", "b.zarr"))
    assert len(steps) == len(set(steps)) == expected
    assert client.scheduler_info()["workers"]  # a client that was given stays open


def test_a_second_call_does_nothing(cohort, cluster, steps):
    tl.predict_cohort(list(cohort), "model", out="p", scheduler=cluster.scheduler_address, **QUIET)
    before = {path: path.stat().st_mtime_ns for path in Path("p").iterdir()}
    steps.clear()
    # Nobody is at that address, and nobody is asked
    table = tl.predict_cohort(list(cohort), "model", out="p", scheduler="tcp://127.0.0.1:9", **QUIET)
    assert table["status"].tolist() == ["kept"] * 3
    assert table["n_obs"].tolist() == [slide.n_obs for slide in cohort.values()]
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in Path("p").iterdir()} == before


def test_options_are_those_of_predict(cohort, client, quick):
    genes = quick.genes[4:1:-1]
    asked = {"genes": genes, "latent": True, "key_added": "mine", "window": np.int64(12)}
    for status in ("written", "kept"):
        table = tl.predict_cohort(["a.h5ad"], quick, out="p", scheduler=client, **asked, **QUIET)
        assert table["status"].tolist() == [status]
    found, kept = anndata.read_h5ad("p/a.h5ad"), anndata.read_h5ad("a.h5ad")
    tl.predict(kept, quick, **asked, **QUIET)
    assert found.var_names.tolist() == genes
    np.testing.assert_array_equal(found.X, kept.obsm["mine"])
    np.testing.assert_array_equal(found.obsm["X_mine"], kept.obsm["X_mine"])


def test_images_get_spots(cohort, client, quick):
    """The spots are those of `pp.tissue_grid` at that spacing, the values those of `tl.predict`."""
    from PIL import Image

    picture = next(iter(cohort["c.h5ad"].uns["spatial"].values()))["images"]["hires"]
    Image.fromarray(np.asarray(picture)).save("biopsy.png")
    asked = {"spacing_um": 300, "mpp": 2}
    table = tl.predict_cohort(["biopsy.png", "c.h5ad"], "model", out="p", scheduler=client, **asked, **QUIET)
    assert table["status"].tolist() == ["written"] * 2
    found = anndata.read_h5ad("p/biopsy.h5ad")
    sdata = io.read_slide("biopsy.png", mpp=2)
    grid = pp.tissue_grid(sdata, spacing_um=300)
    tl.predict(sdata, quick, table_key="tissue_grid", **QUIET)
    assert found.n_obs == grid.n_obs > 3
    np.testing.assert_array_equal(found.obsm["spatial"], grid.obsm["spatial"])
    np.testing.assert_allclose(np.diff(np.unique(found.obsm["spatial"][:, 1])), 150)
    np.testing.assert_array_equal(found.X, grid.obsm["hggep"])


# ---------------------------------------------------------------- workers and clients that are lost


def dies_at_block_1(said: Path) -> WorkerPlugin:
    """Workers that write down what they encode; the first at block 1 is killed in the middle of it."""

    class Dies(WorkerPlugin):
        def setup(self, worker):
            from sthggep._encoders._kept_blocks import BlockStore

            make = BlockStore.make
            if make.__name__ == "watched":
                return

            def watched(self, number, done=None):
                with said.open("a") as file:
                    file.write(f"{number}\n")
                if said.read_text().split().count("1") == 1 == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return make(self, number, done)

            BlockStore.make = watched

    return Dies()


def test_a_lost_worker_costs_its_block(shell, cohort, tmp_path, monkeypatch):
    """From a shell, by a process of its own; a bad slide stands beside."""
    said, pids = tmp_path / "said", []

    def watched(client, jobs, **options):
        client.register_plugin(dies_at_block_1(said))
        pids.append(client.run(os.getpid))
        found = _cohort_run.run_jobs(client, jobs, **options)
        pids.append(client.run(os.getpid))
        return found

    monkeypatch.setattr(_predict_cohort, "run_jobs", watched)
    Path("bad.h5ad").write_bytes(b"no slide")
    words = ("predict", "a.h5ad", "bad.h5ad", "--model", "model", "--out", "p", "--batch-size", 1, "--device", "cpu")
    done = shell(*words, "--workers", 1)
    assert done.exit_code == 1, done.stderr
    assert "bad.h5ad failed: ValueError: " in done.stderr
    assert "Error: 1 of 2 slides failed: 'bad.h5ad'. The same call tries them again.\n" in done.stderr
    before, after = (set(found.values()) for found in pids)
    assert len(before) == len(after) == 1
    assert before.isdisjoint({*after, os.getpid()})
    numbers = [int(line) for line in said.read_text().split()]
    assert sorted(numbers) == sorted([*range(n_blocks(cohort["a.h5ad"])), 1])
    np.testing.assert_array_equal(anndata.read_h5ad("p/a.h5ad").X, cohort["a.h5ad"].obsm["expected"])


SCRIPT = """
import os, signal
from distributed import Client
from sthggep import tl
from sthggep._encoders._kept_blocks import BlockStore

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


def test_a_killed_cohort_goes_on(cohort, client, steps):
    killed = subprocess.run([sys.executable, "-c", SCRIPT], check=False, timeout=250)
    assert killed.returncode == -signal.SIGKILL
    assert not Path("p/a.h5ad").exists()
    kept = len(list(Path("p/.cohort/a").glob("*.npy")))
    assert kept == 1 < n_blocks(cohort["a.h5ad"])
    tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert_whole("p", cohort, ["a.h5ad"])
    assert [name for name, *_ in steps].count("encode") == n_blocks(cohort["a.h5ad"]) - kept


def test_blocks_of_a_slide_that_failed_are_kept(cohort, client, steps, monkeypatch):
    def broken(job):
        msg = "the disk is full"
        raise OSError(msg)

    with monkeypatch.context() as patched:
        patched.setitem(_cohort_tasks.STEPS, "finish", broken)
        table = tl.predict_cohort(["a.h5ad", "c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert table["status"].tolist() == ["failed", "written"]
    assert table["error"].tolist() == ["OSError: the disk is full", ""]
    assert table["n_obs"].isna().tolist() == [True, False]
    assert len(list(Path("p/.cohort/a").glob("*.npy"))) == n_blocks(cohort["a.h5ad"])
    steps.clear()
    table = tl.predict_cohort(["a.h5ad", "c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    assert table["status"].tolist() == ["written", "kept"]
    assert steps == [("begin", "a.h5ad")]
    assert_whole("p", cohort, ["a.h5ad", "c.h5ad"])


def test_what_the_cluster_says_of_a_task():
    def result_of(error: Exception):
        def result():
            raise error

        return object.__new__(_cohort_run._CohortRun)._result(SimpleNamespace(result=result))

    lost = KilledWorker("task", SimpleNamespace(address="tcp://there"), 3)
    assert result_of(lost).error.startswith("its worker was lost 4 times at the same task")
    other = ModuleNotFoundError("No module named 'sthggep'")
    assert result_of(other).error == "ModuleNotFoundError: No module named 'sthggep'"
    with pytest.raises(ConnectionError, match=r"went away\. Finished slides and blocks are stored"):
        result_of(CancelledError("task"))


def test_workers_that_see_other_files(cohort, client, steps):
    job = SimpleNamespace(
        slide=Path("absent.h5ad"), model=Path("model"), record=SimpleNamespace(version="0"), client=os.getpid()
    )
    assert "absent.h5ad does not exist on the worker's machine" in _cohort_tasks.run_task("begin", job).error
    job.slide = Path("a.h5ad")
    assert "you have 0. Install the same version" in _cohort_tasks.run_task("begin", job).error


# ---------------------------------------------------------------- slides that fail, and what is refused


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


def test_other_predictions_are_left_alone(cohort, client, quick):
    names = ["a.h5ad", "c.h5ad"]
    given = {"out": "p", "scheduler": client, **QUIET}
    tl.predict_cohort(names, "model", **given)
    before = {path.name: path.read_bytes() for path in Path("p").iterdir()}
    with pytest.raises(FileExistsError, match=r"is of another genes .and 1 more such files.*overwrite=True"):
        tl.predict_cohort(names, "model", genes=quick.genes[:3], **given)
    os.utime("c.h5ad")
    with pytest.raises(FileExistsError, match=r"c\.h5ad was made before its slide was changed .*; it is left alone"):
        tl.predict_cohort(names, "model", **given)
    Path("p/b.h5ad").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"b\.h5ad was not written by `predict_cohort`"):
        tl.predict_cohort(["b.zarr"], "model", **given)
    Path("p/b.h5ad").unlink()
    assert {path.name: path.read_bytes() for path in Path("p").iterdir()} == before
    table = tl.predict_cohort(names, "model", overwrite=True, **given)
    assert table["status"].tolist() == ["kept", "written"]
    assert_whole("p", cohort, names)


def test_another_model_is_another_prediction(cohort, client, quick):
    tl.predict_cohort(["c.h5ad"], "model", out="p", scheduler=client, **QUIET)
    other = HGGEP.load("model")
    next(iter(other.members.parameters())).data.add_(0.1)
    with pytest.raises(FileExistsError, match="is of another model"):
        tl.predict_cohort(["c.h5ad"], other, out="p", scheduler=client, **QUIET)


@pytest.mark.parametrize(
    ("slides", "options", "error", "fault"),
    [
        ([], {}, ValueError, "must be a list of files, found"),
        ("a.h5ad", {}, ValueError, "must be a list of files, found 'a.h5ad'"),
        (["absent.h5ad"], {}, FileNotFoundError, "absent.h5ad does not exist"),
        (["a.h5ad", "sub/a.h5ad"], {}, ValueError, "would all be written to .*a.h5ad"),
        (["a.h5ad"], {"out": "."}, ValueError, "would be written over a slide that is read"),
        (["a.h5ad"], {"out": "p.h5ad"}, ValueError, "must be a folder"),
        (["a.h5ad"], {"out": "c.h5ad"}, FileExistsError, "must be a folder"),
        (["a.h5ad"], {"model": "absent"}, FileNotFoundError, "No model is called 'absent'"),
        (["a.h5ad"], {"genes": ["ABSENT"]}, KeyError, "ABSENT"),
        (["a.h5ad"], {"counts": True}, ValueError, "no head for counts"),
        (["a.h5ad"], {"uncertainty": True}, ValueError, "this model has one"),
        (["a.h5ad"], {"window": "all"}, ValueError, "Unknown window 'all'"),
        (["a.h5ad"], {"window": -1}, ValueError, "positive"),
        (["a.h5ad"], {"spacing_um": 0}, ValueError, "positive"),
        (["a.h5ad"], {"workers": 0}, ValueError, "positive"),
        (["a.h5ad"], {"workers": 2, "scheduler": "tcp://a:1"}, ValueError, "Pass one of them"),
    ],
)
def test_nothing_begins_with_a_mistake(cohort, monkeypatch, slides, options, error, fault):
    monkeypatch.setattr(_predict_cohort, "connected", lambda *_: pytest.fail("work began"))
    Path("sub").mkdir()
    Path("sub/a.h5ad").symlink_to("../a.h5ad")
    before = sorted(Path().rglob("*"))
    with pytest.raises(error, match=fault):
        tl.predict_cohort(slides, **{"model": "model", "out": "p", **QUIET, **options})
    assert sorted(Path().rglob("*")) == before


def test_nobody_answers(cohort, monkeypatch):
    monkeypatch.setattr(_cohort_run, "SECONDS", 0.5)
    with pytest.raises(ConnectionError, match=r"No scheduler of dask answers at 'tcp://127\.0\.0\.1:9'"):
        tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler="tcp://127.0.0.1:9", **QUIET)
    with pytest.raises(ConnectionError, match="No scheduler of dask answers at 'nonsense'"):
        tl.predict_cohort(["a.h5ad"], "model", out="p", scheduler="nonsense", **QUIET)
    assert not Path("p").exists()


def test_workers_do_not_import_the_script(monkeypatch):
    """A script whose calls stand under no `if __name__ == "__main__"` would begin anew in each of them."""
    from multiprocessing.spawn import get_preparation_data

    def imported() -> set[str]:
        return {"init_main_from_name", "init_main_from_path"} & set(get_preparation_data("worker"))

    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert imported() == {"init_main_from_path"}
    with _cohort_run.no_main():
        assert imported() == set()
    assert (main.__file__, main.__spec__) == ("script.py", None)
    monkeypatch.delattr(main, "__file__")
    with _cohort_run.no_main():
        assert imported() == set()
    assert not hasattr(main, "__file__")


# ---------------------------------------------------------------- from a shell


def test_from_a_shell_by_a_scheduler(shell, cohort, cluster):
    words = ("predict", "a.h5ad", "b.zarr", "--model", "model", "--out", "p", "--batch-size", 1, "--device", "cpu")
    done = shell(*words, "--scheduler", cluster.scheduler_address)
    assert done.exit_code == 0, done.stderr
    assert "p/a.h5ad written (" in done.stderr
    assert f"4 genes at {cohort['b.zarr'].n_obs} spots" in done.stderr
    assert_whole("p", cohort, ["a.h5ad", "b.zarr"])
    Path("run.yaml").write_text(f"scheduler: {cluster.scheduler_address}\n")
    done = shell(*words, "--config", "run.yaml")
    assert done.exit_code == 0, done.stderr
    assert "2 of 2 slides are predicted already." in done.stderr
    done = shell(*words, "--config", "run.yaml", "--latent")
    assert done.exit_code == 1
    assert (
        "is of another latent (and 1 more such files); it is left alone. Pass another --out, or --overwrite"
        in done.stderr
    )


def test_wrong_usage(shell, cohort):
    words = ("predict", "c.h5ad", "--model", "model", "--out")
    assert shell(*words, "p", "--workers", 0).exit_code == 2
    assert shell(*words, "p", "--workers", 1, "--scheduler", "tcp://a:1").exit_code == 1
    done = shell(*words, "p.h5ad", "--workers", 1)
    assert (done.exit_code, "--out must be a folder" in done.stderr) == (1, True)
