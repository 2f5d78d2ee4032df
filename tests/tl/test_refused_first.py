"""Places, names and tables that a prediction cannot be written to: found before work starts."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, pp, tl
from sthggep._disk._lock import BusyError, locked

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def toys() -> SimpleNamespace:
    slide = datasets.toy(size_um=(1000.0, 1000.0), mpp=2.0, n_genes=8)
    options = {"obsm": "morphology", "max_epochs": 1, "n_members": 1, "validation": None, **QUIET}
    return SimpleNamespace(slide=slide, model=tl.fit(slide, **options))


@pytest.fixture
def slide(toys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AnnData:
    """A slide, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return toys.slide.copy()


@pytest.fixture
def model(toys: SimpleNamespace) -> HGGEP:
    return toys.model


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that begins fails."""
    monkeypatch.setattr("sthggep.tl._predict_table._predict_sections", lambda *_, **__: pytest.fail("work has started"))


def contents(adata: AnnData) -> tuple[object, ...]:
    return {key: np.asarray(value).tobytes() for key, value in adata.obsm.items()}, adata.obs.to_csv(), repr(adata.uns)


# --- tables


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda data, model: tl.predict(data, model, **QUIET), id="tl.predict of a view of a file"),
        pytest.param(lambda data, model: tl.predict(data, model, out="p.h5ad", **QUIET), id="tl.predict(out=) of a view of a file"),
        pytest.param(lambda data, model: tl.predict(data, model, copy=True, **QUIET), id="tl.predict(copy=True) of a view of a file"),
        pytest.param(lambda data, _: pp.features(data, size_um=80, **QUIET), id="pp.features of a view of a file"),
        pytest.param(lambda data, _: pp.hypergraph(data), id="pp.hypergraph of a view of a file"),
    ],
)  # fmt: skip
@pytest.mark.handles("sthggep rejects the call before work starts. The message names the call that loads the data.")
def test_views_of_files(slide: AnnData, model: HGGEP, call):
    slide.write_h5ad("a.h5ad")
    part = anndata.read_h5ad("a.h5ad", backed="r")[slide.obs_names[:10]]
    with pytest.raises(ValueError, match=r"Load it first: `data = data\.to_memory\(\)`"):
        call(part, model)
    assert [path.name for path in Path().iterdir()] == ["a.h5ad"]


def test_a_table_in_a_file_is_no_view(slide: AnnData, model: HGGEP):
    slide.write_h5ad("a.h5ad")
    whole = anndata.read_h5ad("a.h5ad", backed="r")
    tl.predict(whole, model, **QUIET)
    assert whole.obsm["hggep"].shape == (slide.n_obs, 8)
    with pytest.raises(ValueError, match=r"`copy=True` copies an AnnData in memory.*to_memory"):
        tl.predict(whole, model, copy=True, **QUIET)


def set_metadata(slide: AnnData, key: str, value: object) -> None:
    slide.uns["spatial"]["toy1"]["metadata"][key] = value


@pytest.mark.parametrize(
    ("change", "place"),
    [
        pytest.param(lambda s: s.obs.__setitem__("note", [1, "a", None, *[2.5] * (s.n_obs - 3)]), "obs['note']", id="a column of numbers and text"),
        pytest.param(lambda s: s.obs.__setitem__("note", [{"a": 1}] * s.n_obs), "obs['note']", id="a column of dicts"),
        pytest.param(lambda s: set_metadata(s, "source", Path("a.tif")), "uns['spatial']['toy1']['metadata']['source']", id="a Path in the metadata"),
        pytest.param(lambda s: set_metadata(s, "size", object()), "uns['spatial']['toy1']['metadata']['size']", id="an object in the metadata"),
        pytest.param(lambda s: set_metadata(s, "a/b", 1), "uns['spatial']['toy1']['metadata']['a/b']", id="a key with a slash in the metadata"),
        pytest.param(lambda s: set_metadata(s, 3, 1), "uns['spatial']['toy1']['metadata'][3]", id="a number as a key of the metadata"),
    ],
)  # fmt: skip
@pytest.mark.handles("`tl.predict(out=)` warns and omits the entry from the file. Your data stay unchanged.")
def test_what_files_cannot_hold_is_left_out(slide: AnnData, model: HGGEP, change, place: str):
    change(slide)
    expected = slide.copy()
    tl.predict(expected, model, **QUIET)
    with pytest.warns(UserWarning, match="leaves out 1 value of a type that files cannot hold") as records:
        tl.predict(slide, model, out="p.h5ad", **QUIET)
    assert any(place in str(record.message) for record in records)
    read = anndata.read_h5ad("p.h5ad")
    np.testing.assert_array_equal(np.asarray(read.X), expected.obsm["hggep"])
    assert set(slide.obs.columns) - set(read.obs.columns) == ({"note"} if "note" in place else set())
    assert read.uns["spatial"]["toy1"]["metadata"]["mpp"] == 2.0


def test_a_zarr_leaves_it_out_too(slide: AnnData, model: HGGEP):
    slide.obs["note"] = [1, "a", None, *[2.5] * (slide.n_obs - 3)]
    with pytest.warns(UserWarning, match=r"p\.zarr leaves out 1 value.*note"):
        tl.predict(slide, model, out="p.zarr", **QUIET)
    assert "note" not in anndata.read_zarr("p.zarr").obs


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("P1/2", id="a section with a slash in its name"),
        pytest.param("..", id="a section called .."),
        pytest.param("x" * 300, id="a section with a name of 300 characters"),
        pytest.param(5, id="a section whose name is a number"),
    ],
)
@pytest.mark.handles("`tl.predict(out=)` rejects the name before work starts.")
def test_sections_that_files_would_rename(slide: AnnData, model: HGGEP, name: str | int):
    slide.uns["spatial"] = {name: slide.uns["spatial"]["toy1"]}
    before = contents(slide)
    with pytest.raises(ValueError, match=r"files split names at slashes, and hold only text .*Rename the section"):
        tl.predict(slide, model, out="p.h5ad", **QUIET)
    assert contents(slide) == before
    assert list(Path().iterdir()) == []


# --- places and names


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"out": "p.csv"}, ValueError, r"`out` must end in \.zarr or \.h5ad", id="out= with another ending"),
        pytest.param({"out": "p.csv"}, ValueError, r"to_adata\(data\)\.to_df\(\)\.to_csv\('p\.csv'\)", id="out= of a table"),
        pytest.param({"out": "p.parquet"}, ValueError, r"to_df\(\)\.to_parquet\('p\.parquet'\)", id="out= of a table in Parquet"),
        pytest.param({"out": ".h5ad"}, ValueError, "`out` must end in", id="out= without a name"),
        pytest.param({"out": "absent/p.h5ad"}, FileNotFoundError, "Make it first", id="out= in a folder that is not there"),
        pytest.param({"out": "there.h5ad"}, FileExistsError, "exists already and is left alone", id="out= that exists"),
        pytest.param({"out": "there.h5ad/p.h5ad"}, FileNotFoundError, "there is no folder", id="out= below a file"),
        pytest.param({"out": "x" * 300 + ".h5ad"}, ValueError, "`out`: names of files have 255 bytes at most", id="out= of 300 characters"),
        pytest.param({"out": ""}, ValueError, "`out` must be the name of a file", id="out= that is empty"),
        pytest.param({"out": "a\0.h5ad"}, ValueError, "`out` .* NUL", id="out= with the character NUL"),
        pytest.param({"checkpoint_dir": "there.h5ad"}, FileExistsError, "`checkpoint_dir` must be a folder", id="checkpoint_dir= that is a file"),
        pytest.param({"checkpoint_dir": "there.h5ad/ck"}, FileExistsError, "`checkpoint_dir` must be a folder", id="checkpoint_dir= below a file"),
        pytest.param({"key_added": "spatial"}, ValueError, "sthggep did not write it", id="key_added= of your own array"),
        pytest.param({"key_added": "MORPHOLOGY"}, ValueError, "one file on a disk that ignores case", id="key_added= that differs from another key by case"),
        pytest.param({"key_added": "morpholog\u0079"}, ValueError, "sthggep did not write it", id="key_added= of your own features"),
        pytest.param({"device": "cuda:99"}, ValueError, "Device 'cuda:99' cannot be used here", id="a device that is not there"),
        pytest.param({"device": "abacus"}, ValueError, "Device 'abacus' cannot be used here", id="a device that does not exist"),
        pytest.param({"device": "cpu:5"}, ValueError, "Device 'cpu:5' cannot be used here", id="a sixth CPU"),
        pytest.param({"device": "hpu"}, ValueError, "Device 'hpu' cannot be used here", id="a device of another package"),
        pytest.param({"genes": ["ABSENT"]}, KeyError, "Not among the 8 genes", id="a gene that the model lacks"),
        pytest.param({"spatial_key": "absent"}, KeyError, "'absent' is not in obsm", id="coordinates that are not there"),
    ],
)  # fmt: skip
@pytest.mark.handles("`tl.predict` rejects the call before work starts. It changes neither the AnnData nor files.")
def test_requests_that_cannot_be_fulfilled(
    slide: AnnData, model: HGGEP, options: dict[str, object], error: type[Exception], message: str
):
    Path("there.h5ad").write_text("precious")
    before = contents(slide)
    with pytest.raises(error, match=message):
        tl.predict(slide, model, **QUIET, **options)
    assert contents(slide) == before
    assert Path("there.h5ad").read_text() == "precious"
    assert [path.name for path in Path().iterdir()] == ["there.h5ad"]


def test_features_that_are_not_there(slide: AnnData, model: HGGEP):
    del slide.obsm["morphology"]
    with pytest.raises(KeyError, match="'morphology' is not in obsm"):
        tl.predict(slide, model, **QUIET)


def test_a_folder_where_no_file_can_be_made(slide: AnnData, model: HGGEP, monkeypatch: pytest.MonkeyPatch):
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sthggep._disk._run_folder.tempfile.TemporaryFile", full)
    with pytest.raises(PermissionError, match=r"`out`: no file can be made in .* \(No space left on device\)"):
        tl.predict(slide, model, out="p.h5ad", **QUIET)


@pytest.mark.usefixtures("no_work")
def test_a_file_that_another_process_writes(slide: AnnData, model: HGGEP):
    with locked(Path("p.h5ad").absolute(), "a prediction"), pytest.raises(BusyError, match="Another process writes"):
        tl.predict(slide, model, out="p.h5ad", **QUIET)
    assert "hggep" not in slide.obsm


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_prediction_that_fails_leaves_no_file(
    slide: AnnData, model: HGGEP, monkeypatch: pytest.MonkeyPatch, ending: str
):
    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = contents(slide)
    monkeypatch.setattr("sthggep.tl._predict_table._predict_sections", fails)
    with pytest.raises(KeyboardInterrupt):
        tl.predict(slide, model, out=f"p.{ending}", **QUIET)
    assert list(Path().iterdir()) == []
    assert contents(slide) == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(["A.h5ad", "a.h5ad"], "would all be written to .*some disks ignore upper case", id="slides whose names differ by case"),
        pytest.param(["Tum\u00f6r.h5ad", "Tumo\u0308r.h5ad"], "would all be written to", id="slides whose names differ by the form of an accent"),
    ],
)  # fmt: skip
@pytest.mark.handles("`tl.predict_cohort` rejects the slides, because some disks would store both under one name.")
def test_slides_that_are_one_on_some_disk(tmp_path: Path, names: list[str], message: str):
    for name in names:
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("This disk holds one file of both.")
    with pytest.raises(ValueError, match=message):
        tl.predict_cohort([tmp_path / name for name in names], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("...h5ad", r"name-[0-9a-f]{8}\.h5ad", id="a slide called ...h5ad"),
        pytest.param("..h5ad", r"name-[0-9a-f]{8}\.h5ad", id="a slide called ..h5ad"),
        pytest.param("CON.h5ad", r"CON-[0-9a-f]{8}\.h5ad", id="a slide called CON"),
        pytest.param("a .h5ad", r"a-[0-9a-f]{8}\.h5ad", id="a slide with a blank at the end of its name"),
        pytest.param("B4.h5ad", r"B4\.h5ad", id="a slide called B4"),
    ],
)
@pytest.mark.handles("`tl.predict_cohort` writes only within its folders. The file of the prediction has a name that every disk accepts.")  # fmt: skip
def test_files_of_a_cohort(slide: AnnData, model: HGGEP, monkeypatch: pytest.MonkeyPatch, name: str, file: str):
    from sthggep.tl import _predict_cohort
    from sthggep.tl._cohort._run import Outcome

    Path(name).touch()
    jobs = []

    def note(_: object, requested, *__: object, **___: object) -> list[Outcome]:
        jobs.extend(requested)
        return [Outcome(error="stopped")]

    monkeypatch.setattr(_predict_cohort, "_run", note)
    tl.predict_cohort([name], model, out="out", **QUIET)
    (job,) = jobs
    assert re.fullmatch(file, job.target.name)
    folders = (job.folder, job.model)
    state = Path("out/.cohort").resolve()
    assert all(folder.resolve().parent.parent == state for folder in folders)
    assert job.folder.resolve() != job.model.resolve()


# --- devices and features: before counts are read and a panel is chosen


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param({"obsm": "X_uni"}, "X_uni", id="features that are not there"),
        pytest.param({"device": "quantum"}, "Device 'quantum' cannot be used here", id="a device that is not there"),
        pytest.param({"window": -3}, "window", id="a window of no spots"),
    ],
)
@pytest.mark.handles("`tl.fit` and `tl.cross_validate` reject the option before they read counts.")
def test_devices_and_features_are_checked_first(
    toys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, option: dict, message: str
):
    monkeypatch.setattr("sthggep.tl._fit_task.choose_panel", lambda *_, **__: pytest.fail("work has started"))
    monkeypatch.setattr(
        "sthggep.tl._cross_validation._plan.section_fingerprint", lambda *_, **__: pytest.fail("work has started")
    )
    with pytest.raises((KeyError, ValueError), match=message):
        tl.fit(toys.slide, **option, **QUIET)
    other = datasets.toy(seed=1, size_um=(1000.0, 1000.0), mpp=2.0, n_genes=8)
    if "window" not in option:
        with pytest.raises((KeyError, ValueError), match=message):
            tl.cross_validate([toys.slide, other], group_key="section", **option, **QUIET)


def test_the_bundled_model_is_refused_for_a_table_with_none_of_its_genes(slide: AnnData, no_work: None):
    slide.var_names = [f"mouse-{i}" for i in range(slide.n_vars)]
    with pytest.raises(ValueError, match=r"You passed no model.*853 genes.*pass `model='her2st'`"):
        tl.predict(slide, **QUIET)
    with pytest.warns(UserWarning, match="Counts of this table cannot score"), pytest.raises(pytest.fail.Exception):
        tl.predict(slide, "her2st", **QUIET)


def test_the_bundled_model_is_refused_for_genes_of_another_species(slide: AnnData, no_work: None):
    """A name that both species have does not make it a slide of breast tumor."""
    genes = HGGEP.from_pretrained("her2st").genes
    slide.var_names = [genes[0], *(gene.capitalize() for gene in genes[1 : slide.n_vars])]
    message = r"this table holds 1 of them.*They are written as genes of human .*, but the names here as those of mouse or rat"
    with pytest.raises(ValueError, match=message):
        tl.predict(slide, **QUIET)
    with (
        pytest.warns(UserWarning, match=r"1 of the model's 853 genes .*mouse or rat"),
        pytest.raises(pytest.fail.Exception),
    ):
        tl.predict(slide, "her2st", **QUIET)


def test_few_of_the_genes_are_logged_before_the_work(slide: AnnData, model: HGGEP, caplog: pytest.LogCaptureFixture):
    few = slide[:, :3].copy()
    with caplog.at_level("INFO", logger="sthggep"):
        tl.predict(few, model, **QUIET)
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith("The table holds 3 of the model's 8 genes. `sthggep.tl.evaluate` cannot") for line in lines
    )
