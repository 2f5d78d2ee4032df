"""Legacy Spatial Transcriptomics sections."""

from __future__ import annotations

import gzip
import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

from sthggep._slides import _resolve
from sthggep.io import read_st


def frame(section, **changes):
    """Arguments of `read_st`, as tables in memory."""
    return {"counts": section.counts, "image": None, "spots": section.spots} | changes


# --- reading ------------------------------------------------------------------------------------------------------


def test_layout(section):
    paths = section.paths
    adata = read_st(paths.counts, paths.image, paths.spots, patient="P")
    assert adata.shape == (9, 3)
    assert isinstance(adata.X, csr_matrix)
    assert adata.X.dtype == np.float32
    assert list(adata.obs.columns) == ["patient", "section", "array_x", "array_y"]
    assert adata.obs["patient"].unique().tolist() == ["P"]
    assert adata.obs["section"].unique().tolist() == ["S1"]  # from the file name
    assert isinstance(adata.obs["patient"].dtype, pd.CategoricalDtype)
    assert adata.obs["array_x"].dtype.kind == "i"
    assert list(adata.obs_names) == list(section.counts.index)
    assert adata.obsm["spatial"].dtype == np.float64
    library = adata.uns["spatial"]["S1"]
    np.testing.assert_array_equal(library["images"]["hires"], section.image)
    assert list(library["images"]) == ["hires"]
    assert library["scalefactors"]["tissue_hires_scalef"] == 1.0
    assert library["metadata"] == {
        "pitch_um": 200.0,
        "mpp": pytest.approx(4.0),
        "source_image_path": str(paths.image.resolve()),
    }
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(25.0)


def test_counts_positions_and_pixels_belong_together(section):
    adata = read_st(section.paths.counts, section.paths.image, section.paths.spots)
    counts = adata.to_df()
    np.testing.assert_array_equal(counts["X"], adata.obs["array_x"])
    np.testing.assert_array_equal(counts["Y"], adata.obs["array_y"])
    expected = 50.0 * (adata.obs[["array_x", "array_y"]].to_numpy() - [10, 20]) + [100, 40]
    assert np.abs(adata.obsm["spatial"] - expected).max() < 6
    # The pixel under a spot holds its position: red x, green y.
    x, y = np.rint(adata.obsm["spatial"][0]).astype(int)
    assert adata.uns["spatial"]["S1"]["images"]["hires"][y, x, :2].tolist() == [x, y]


def test_tables_in_memory_give_the_same_and_do_not_change(section):
    counts, spots = section.counts.copy(), section.spots.copy()
    adata = read_st(section.counts, None, section.spots, section="S1")
    other = read_st(section.paths.counts, None, section.paths.spots)
    np.testing.assert_array_equal(adata.X.toarray(), other.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], other.obsm["spatial"])
    pd.testing.assert_frame_equal(section.counts, counts)
    pd.testing.assert_frame_equal(section.spots, spots)


def test_no_image_and_no_patient(section):
    adata = read_st(**frame(section))
    assert "images" not in adata.uns["spatial"]["section"]
    assert adata.uns["spatial"]["section"]["metadata"]["mpp"] == pytest.approx(4.0)
    assert adata.obs["patient"].isna().all()


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz", ".csv"])
def test_plain_zipped_and_comma_separated(section, suffix):
    path = section.folder / f"B1{suffix}"
    section.counts.to_csv(path, sep="," if suffix == ".csv" else "\t")
    adata = read_st(path, None, section.spots)
    assert adata.uns["spatial"].keys() == {"B1"}
    assert adata.X.sum() == section.counts.to_numpy().sum()


def test_zipped_jpeg(section):
    Image.fromarray(section.image).save(section.folder / "S1.jpg", quality=95)
    path = section.folder / "S1.jpg.gz"
    path.write_bytes(gzip.compress((section.folder / "S1.jpg").read_bytes()))
    adata = read_st(section.counts, path, section.spots)
    difference = adata.uns["spatial"]["section"]["images"]["hires"].astype(int) - section.image
    assert np.abs(difference).mean() < 4


def test_large_image_gets_a_preview(section):
    large = Image.fromarray(section.image).resize((2600, 1300), Image.Resampling.NEAREST)
    large.save(section.folder / "large.png")
    adata = read_st(section.counts, section.folder / "large.png", section.spots)
    library = adata.uns["spatial"]["section"]
    assert library["images"]["hires"].shape == (1000, 2000, 3)
    assert library["images"]["hires"].dtype == np.uint8
    np.testing.assert_array_equal(library["images"]["fullres"], np.asarray(large))
    assert library["scalefactors"]["tissue_hires_scalef"] == pytest.approx(2000 / 2600)
    assert library["scalefactors"]["tissue_fullres_scalef"] == 1.0
    np.testing.assert_allclose(library["images"]["hires"][500, 1000], large.getpixel((1300, 650)), atol=3)


def test_full_resolution_can_stay_in_its_file(section, caplog):
    Image.fromarray(section.image).resize((2600, 1872)).save(section.folder / "large.png")
    adata = read_st(section.counts, section.folder / "large.png", section.spots, fullres=False)
    assert list(adata.uns["spatial"]["section"]["images"]) == ["hires"]
    slide = _resolve.resolve_one(adata)
    assert slide.levels[0].shape == (1872, 2600)
    assert slide.mpp == pytest.approx(4.0)
    (section.folder / "large.png").unlink()
    with caplog.at_level(logging.INFO, "sthggep"):
        preview = _resolve.resolve_one(adata)
    assert preview.levels[0].shape == (1440, 2000)
    assert preview.mpp == pytest.approx(4.0)
    assert "large.png does not exist; sthggep uses the smaller image" in caplog.text


@pytest.fixture
def images_opened(monkeypatch) -> list[Path]:
    """The image files that Pillow opens, with repetitions."""
    paths, open_image = [], Image.open

    def note(path, *args, **options):
        paths.append(path)
        return open_image(path, *args, **options)

    monkeypatch.setattr(Image, "open", note)
    return paths


@pytest.mark.parametrize("fullres", [True, False])
def test_a_large_image_is_read_once(section, images_opened, fullres):
    path = section.folder / "large.png"
    Image.fromarray(section.image).resize((2600, 1300)).save(path)
    read_st(section.counts, path, section.spots, fullres=fullres)
    assert images_opened == [path]


def steps(call: Callable[[], object]) -> int:
    """Number of function calls: a measure of work that does not depend on the machine."""
    n = 0

    def count(at, event: str, _) -> None:
        nonlocal n
        # A generator that goes on is no call: so does pandas 3 read a column of text
        n += event == "c_call" or (event == "call" and not at.f_code.co_flags & inspect.CO_GENERATOR)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return n


def square_of_counts(side: int, n_genes: int) -> dict[str, object]:
    """Arguments of `read_st` for a full array of spots."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(1, side + 1), np.arange(1, side + 1)))
    spots = pd.DataFrame({"x": x, "y": y, "pixel_x": x * 10.0, "pixel_y": y * 10.0})
    counts = np.random.default_rng(0).poisson(1.0, (side**2, n_genes))
    names = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    genes = [f"g{i}" for i in range(n_genes)]
    return {"counts": pd.DataFrame(counts, index=names, columns=genes), "image": None, "spots": spots}


def test_work_grows_with_the_spots_and_not_with_their_counts(tmp_path):
    """A section has millions of counts: a function call for each count, or for each gene, would take minutes."""
    small, more_genes, more_spots = square_of_counts(6, 200), square_of_counts(6, 2000), square_of_counts(12, 2000)
    read_st(**small)  # the first call also fills caches
    in_memory = [steps(lambda tables=tables: read_st(**tables)) for tables in (small, more_genes, more_spots)]
    assert in_memory[1] - in_memory[0] < 1800 / 2  # of 1,800 genes more
    assert in_memory[2] - in_memory[1] < 20 * 108  # of 108 spots more, with 216,000 counts
    in_files = []
    for tables in (more_genes, more_spots):
        tables["counts"].to_csv(tmp_path / "counts.tsv.gz", sep="\t")
        in_files.append(
            steps(lambda spots=tables["spots"]: read_st(tmp_path / "counts.tsv.gz", image=None, spots=spots))
        )
    assert in_files[1] - in_files[0] < 20 * 108


def test_slide_has_the_same_spots_and_image(section):
    slide = _resolve.resolve_one(read_st(section.paths.counts, section.paths.image, section.paths.spots))
    x, y = np.rint(slide.xy[3]).astype(int)
    assert slide.levels[0].read([[x, y, x + 1, y + 1]])[0][0, 0, :2].tolist() == [x, y]


@pytest.mark.parametrize("with_image", [True, False])
def test_the_section_survives_h5ad(section, with_image):
    paths = section.paths
    adata = read_st(paths.counts, paths.image if with_image else None, paths.spots, labels=labels_table())
    adata.write_h5ad(section.folder / "s.h5ad")
    copy = ad.read_h5ad(section.folder / "s.h5ad")
    assert copy.uns["spatial"]["S1"]["metadata"]["mpp"] == pytest.approx(4.0)
    assert copy.obs["patient"].isna().all()
    assert copy.obs["label"].tolist()[:1] == adata.obs["label"].tolist()[:1]


# --- matching -----------------------------------------------------------------------------------------------------


def test_refined_row_names_are_rounded(section):
    jitter = np.random.default_rng(1).uniform(-0.4, 0.4, (9, 2))
    places = [tuple(map(int, name.split("x"))) for name in section.counts.index]
    refined = section.counts.set_axis(
        [f"{x + dx:.2f}x{y + dy:.2f}" for (x, y), (dx, dy) in zip(places, jitter, strict=True)]
    )
    adata = read_st(**frame(section, counts=refined))
    assert list(adata.obs_names) == list(section.counts.index)


def test_off_tissue_spots_are_dropped_quietly(section):
    spots = section.spots.assign(selected=[0, 1, 1, 1, 0, 1, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adata = read_st(**frame(section, spots=spots))
    assert sorted(set(section.counts.index) - set(adata.obs_names)) == ["10x20", "11x21"]


def test_spots_in_one_table_only_are_reported_and_dropped(section):
    counts = section.counts.drop(["10x20", "12x22"])
    counts.loc["30x31"] = 1
    with pytest.warns(UserWarning, match="left out") as records:
        adata = read_st(**frame(section, counts=counts), section="S9")
    own = [warning for warning in records if issubclass(warning.category, UserWarning)]
    messages = sorted(str(warning.message) for warning in own)
    assert messages == [
        "S9: left out, since absent from the spots table: 1 of 8 spots (30x31). "
        "Do both tables belong to this section, and are they complete?",
        "S9: left out, since without counts: 2 of 9 spots (10x20, 12x22). Do both tables belong to this section, and are they complete?",
    ]
    assert {warning.filename for warning in own} == {__file__}
    assert adata.n_obs == 7


def test_few_spots_in_one_table_only_are_no_warning(caplog):
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(1, 7), np.arange(1, 7)))
    spots = pd.DataFrame({"x": x, "y": y, "pixel_x": x * 10.0, "pixel_y": y * 10.0})
    counts = pd.DataFrame({"g": 1}, index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)])
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "sthggep"):
        warnings.simplefilter("error", UserWarning)
        adata = read_st(counts.drop("3x4"), None, spots, section="S9")
    assert adata.n_obs == 35
    assert "S9: left out, since without counts: 1 of 36 spots (3x4)." in caplog.messages


def test_swapped_row_names(section):
    swapped = section.counts.set_axis(["x".join(name.split("x")[::-1]) for name in section.counts.index])
    with pytest.raises(ValueError, match="x and y swapped"):
        read_st(**frame(section, counts=swapped))


def test_swapped_row_names_that_mostly_exist():
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(1, 21), np.arange(1, 24)))
    spots = pd.DataFrame({"x": x, "y": y, "pixel_x": x * 10.0, "pixel_y": y * 10.0})
    counts = pd.DataFrame({"g": 1}, index=[f"{b}x{a}" for a, b in zip(x, y, strict=True)])
    with pytest.raises(ValueError, match="x and y swapped"):
        read_st(counts, None, spots)


def test_tables_of_different_sections(section):
    with pytest.raises(ValueError, match=r"0 of 9 counts rows.*60x20.*Are they of the same section"):
        read_st(**frame(section, spots=section.spots.assign(x=section.spots["x"] + 50)))


def test_nothing_selected(section):
    with pytest.raises(ValueError, match="selected != 0"):
        read_st(**frame(section, spots=section.spots.assign(selected=0)))


# --- labels -------------------------------------------------------------------------------------------------------


def labels_table() -> pd.DataFrame:
    rows = [
        (10.4, 19.6, "tumor"),
        (11.49, 20.51, "fat"),
        (11.6, 22.0, "tumor"),
        (40.0, 40.0, "far"),
        (np.nan, 3.0, "lost"),
    ]
    return pd.DataFrame(rows, columns=["x", "y", "label"])


def test_labels_join_on_rounded_array_positions(section):
    adata = read_st(**frame(section, labels=labels_table()))
    labels = adata.obs["label"].dropna().astype(str).to_dict()
    assert labels == {"10x20": "tumor", "11x21": "fat", "12x22": "tumor"}
    assert isinstance(adata.obs["label"].dtype, pd.CategoricalDtype)
    assert adata.obs["label"].isna().sum() == 6


def test_labels_from_a_file(section):
    labels_table().to_csv(section.folder / "labels.tsv", sep="\t", index=False)
    adata = read_st(**frame(section, labels=section.folder / "labels.tsv"))
    assert adata.obs.loc["10x20", "label"] == "tumor"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (pd.DataFrame({"x": [1000.0], "y": [1015.0], "label": ["fat"]}), "array positions, not pixels"),
        (pd.DataFrame({"x": [10, 10], "y": [20, 20], "label": ["fat", "duct"]}), "must be unique"),
        (pd.DataFrame({"x": [10], "y": [20]}), "lacks 'label'"),
    ],
)
def test_bad_labels(section, labels, words):
    with pytest.raises(ValueError, match=words):
        read_st(**frame(section, labels=labels))


# --- refusals ------------------------------------------------------------------------------------------------------


def with_value(table: pd.DataFrame, row: int, column: str, value) -> pd.DataFrame:
    table = table.copy()
    table[column] = table[column].astype(object if isinstance(value, str) else float)
    table.iloc[row, table.columns.get_loc(column)] = value
    return table


BAD_COUNTS = {
    "negative": (lambda t: with_value(t, 1, "X", -3), r"1 are negative \(the least is -3\)"),
    "fractions": (lambda t: with_value(t, 1, "X", 1.5), "1 are not whole numbers"),
    "missing": (lambda t: with_value(t, 1, "X", np.nan), "1 are missing"),
    "text": (lambda t: with_value(t, 1, "X", "many"), "1 column without numbers: 'X'"),
    "same gene twice": (lambda t: t.set_axis(["X", "X", "Y"], axis=1), "Gene names of the counts must be unique"),
    "same spot twice": (lambda t: pd.concat([t, t.iloc[:1]]), "Array positions of the counts must be unique"),
    "same spot after rounding": (lambda t: t.set_axis(["10.2x20", *t.index[1:-1], "9.8x20"]), "must be unique"),
    "transposed": (lambda t: t.T, "transpose it"),
    "barcodes": (lambda t: t.set_axis([f"AACG{i}" for i in range(9)]), "9 of 9 row names .* such as 10x21"),
    "empty": (lambda t: t.iloc[:, :0], "empty"),
}


@pytest.mark.parametrize(("change", "words"), BAD_COUNTS.values(), ids=BAD_COUNTS)
def test_bad_counts(section, change, words):
    with pytest.raises(ValueError, match=words):
        read_st(**frame(section, counts=change(section.counts)))


BAD_SPOTS = {
    "no pixels": (lambda t: t.drop(columns=["pixel_x"]), "lacks 'pixel_x'; it has 'x', 'y'"),
    "missing pixel": (lambda t: with_value(t, 2, "pixel_y", np.nan), "'pixel_y' of the spots table holds 1"),
    "text": (lambda t: with_value(t, 2, "pixel_y", "here"), "1 value not a number: 'here'"),
    "same place twice": (lambda t: pd.concat([t, t.iloc[:1]]), "must be unique"),
}


@pytest.mark.parametrize(("change", "words"), BAD_SPOTS.values(), ids=BAD_SPOTS)
def test_bad_spots(section, change, words):
    with pytest.raises(ValueError, match=words):
        read_st(**frame(section, spots=change(section.spots)))


def test_spots_off_the_image(section):
    swapped = section.spots.rename(columns={"pixel_x": "pixel_y", "pixel_y": "pixel_x"})
    swapped[["pixel_x", "pixel_y"]] += [0, 40]
    with pytest.raises(ValueError, match="pixel_x and pixel_y swapped"):
        read_st(section.counts, section.paths.image, swapped)
    with pytest.raises(ValueError, match="belong together"):
        read_st(section.counts, section.paths.image, section.spots.assign(pixel_x=section.spots["pixel_x"] * 5))
    outside = with_value(section.spots, 8, "pixel_x", 300.0)
    with pytest.warns(UserWarning, match=r"1 of 9 spots .* lie outside the image"):
        read_st(section.counts, section.paths.image, outside)


def test_absent_and_broken_files(section):
    paths = section.paths
    with pytest.raises(FileNotFoundError, match="no counts file"):
        read_st(section.folder / "no.tsv", None, paths.spots)
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_st(paths.counts, section.folder / "no.jpg", paths.spots)
    paths.counts.write_bytes(paths.counts.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"S1\.tsv\.gz cannot be read"):
        read_st(paths.counts, None, paths.spots)
    with pytest.raises(ValueError, match="pitch_um"):
        read_st(**frame(section, pitch_um=0))


def test_interleaved_array_has_its_own_pitch():
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(1, 15), np.arange(1, 15)))
    keep = (x + y) % 2 == 0
    spots = pd.DataFrame({"x": x[keep], "y": y[keep], "pixel_x": x[keep] * 10.0, "pixel_y": y[keep] * 10.0})
    counts = pd.DataFrame({"g": 1}, index=[f"{a}x{b}" for a, b in zip(spots["x"], spots["y"], strict=True)])
    with pytest.warns(UserWarning, match="pitch_um=141"):
        read_st(counts, None, spots)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adata = read_st(counts, None, spots, pitch_um=141.42)
    assert adata.uns["spatial"]["section"]["metadata"]["mpp"] == pytest.approx(10.0, rel=1e-3)


def test_a_single_spot_has_no_scale(section):
    spot = section.spots.iloc[[0]]
    with pytest.warns(UserWarning, match="microns per pixel cannot be computed"):
        adata = read_st(section.counts.loc[["10x20"]], None, spot)
    assert "mpp" not in adata.uns["spatial"]["section"]["metadata"]


# --- real sections ------------------------------------------------------------------------------------------------


def test_her2st_section(data_root, images_opened):
    root = data_root / "her2st/data"
    image = next((root / "ST-imgs/C/C2").glob("*.jpg"))
    adata = read_st(root / "ST-cnts/C2.tsv.gz", image, root / "ST-spotfiles/C2_selection.tsv")
    assert images_opened == [image]
    assert adata.shape == (187, 15706)
    library = adata.uns["spatial"]["C2"]
    assert library["metadata"]["mpp"] == pytest.approx(0.688, abs=0.001)
    assert max(library["images"]["hires"].shape) == 2000
    assert library["images"]["fullres"].shape == (9911, 9274, 3)
    # Tissue is darker than glass: the spots lie on it, but would not with x and y swapped.
    xy = np.rint(adata.obsm["spatial"]).astype(int)
    under = library["images"]["fullres"][xy[:, 1], xy[:, 0]].mean()
    assert under < library["images"]["hires"].mean()


def test_first_row_of_her2st_equals_the_file(data_root, caplog):
    root = data_root / "her2st/data"
    with caplog.at_level(logging.INFO, "sthggep"):
        adata = read_st(root / "ST-cnts/B4.tsv.gz", None, root / "ST-spotfiles/B4_selection.tsv")
    assert "B4: left out, since without counts: 1 of 284 spots (18x20)." in caplog.messages
    assert adata.n_obs == 283
    assert adata.obsm["spatial"][adata.obs_names.get_loc("9x13")].tolist() == [2307.86, 3500.48]
    assert adata["10x14", "SDF4"].X.toarray().item() == 3
