"""her2st, cSCC and mouse olfactory bulb: from a folder, from `$STHGGEP_DATA`, from the network."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sthggep import datasets
from sthggep.datasets import _cscc, _download, _her2st, _mob

# --- small copies of each layout ----------------------------------------------------------------------------------


def tables(first: int = 5, step: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(first, first + 6), np.arange(first, first + 6)))
    keep = (x + y) % step == 0
    x, y = x[keep], y[keep]
    spots = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.01, "new_y": y, "pixel_x": x * 10.1, "pixel_y": y * 10.1})
    counts = pd.DataFrame({"ACTB": x, "GAPDH": y}, index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)])
    return counts, spots.assign(selected=1)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (150, 140), (200, 150, 180)).save(path.with_suffix("") if path.suffix == ".gz" else path)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
        path.with_suffix("").unlink()


def table(path: Path, content: pd.DataFrame, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content.to_csv(path, sep="\t", **options)


@pytest.fixture
def her2st_root(tmp_path: Path) -> Path:
    root = tmp_path / "her2st"
    counts, spots = tables()
    for section in ("A1", "B2"):
        table(root / f"data/ST-cnts/{section}.tsv.gz", counts)
        table(root / f"data/ST-spotfiles/{section}_selection.tsv", spots, index=False)
        clusters = spots[["x", "y"]].assign(label=spots["x"] % 3)
        table(root / f"res/ST-cluster/lbl/{section}-cluster-annotation.tsv.gz", clusters, index=False)
    labels = pd.DataFrame({"x": [5.2, 6.9], "y": [4.9, 8.1], "pixel_x": 1, "pixel_y": 1, "label": ["fat", "duct"]})
    table(root / "data/ST-pat/lbl/A1_labeled_coordinates.tsv", labels, index=False)
    picture(root / "data/ST-imgs/A/A1/HE_1.jpg")
    return root


@pytest.fixture
def cscc_root(tmp_path: Path) -> Path:
    root = tmp_path / "cscc"
    for sample, gsm, step in (("P2_ST_rep1", 4284316, 1), ("P10_ST_rep1", 4284325, 2)):
        counts, spots = tables(step=step)
        table(root / f"GSM{gsm}_{sample}_stdata.tsv.gz", counts)
        table(root / f"GSM{gsm}_spot_data-selection-{sample}.tsv.gz", spots, index=False)
    picture(root / "GSM4284316_P2_ST_rep1.jpg.gz")
    return root


@pytest.fixture
def mob_root(tmp_path: Path) -> Path:
    root = tmp_path / "mob"
    counts, spots = tables(step=2)
    table(root / "MOB1.tsv", counts)
    table(root / "alignment_table_MOB1.tsv", spots, index=False)
    picture(root / "MOB1.jpg")
    return root


# --- from a folder ------------------------------------------------------------------------------------------------


def test_her2st_section_with_everything(her2st_root: Path):
    adata = datasets.her2st("A1", root=her2st_root)
    assert adata.n_obs == 36
    assert adata.obs["patient"].unique().tolist() == ["A"]
    assert adata.obs["section"].unique().tolist() == ["A1"]
    assert adata.obs["label"].dropna().astype(str).to_dict() == {"5x5": "fat", "7x8": "duct"}
    assert (adata.obs["cluster"].astype(int) == adata.obs["array_x"] % 3).all()
    library = adata.uns["spatial"]["A1"]
    assert library["images"]["hires"].shape == (140, 150, 3)
    assert library["metadata"]["mpp"] == pytest.approx(200 / 10.1)


def test_her2st_section_without_image_or_labels(her2st_root: Path):
    with pytest.warns(UserWarning, match="B2 has no image in .*: read without. Pass `image=False`"):
        adata = datasets.her2st("B2", root=her2st_root)
    assert "images" not in adata.uns["spatial"]["B2"]
    assert "label" not in adata.obs
    assert "cluster" in adata.obs
    plain = datasets.her2st("A1", root=her2st_root, labels=False, image=False)
    assert not {"label", "cluster"} & set(plain.obs)
    assert "images" not in plain.uns["spatial"]["A1"]


def test_sections(her2st_root: Path, cscc_root: Path, mob_root: Path):
    assert datasets.sections("her2st", root=her2st_root) == ["A1", "B2"]
    assert datasets.sections("her2st", root=her2st_root, with_image=True) == ["A1"]
    assert datasets.sections("cscc", root=cscc_root) == ["P2_ST_rep1", "P10_ST_rep1"]
    assert datasets.sections("cscc", root=cscc_root, with_image=True) == ["P2_ST_rep1"]
    assert datasets.sections("mob", root=mob_root) == ["MOB1"]
    with pytest.raises(ValueError, match="'her2st', 'cscc', 'mob'"):
        datasets.sections("visium")


def test_cscc(cscc_root: Path):
    adata = datasets.cscc("P2_ST_rep1", root=cscc_root)
    assert adata.obs["patient"].unique().tolist() == ["P2"]
    assert adata.uns["spatial"]["P2_ST_rep1"]["images"]["hires"].shape == (140, 150, 3)
    assert adata.uns["spatial"]["P2_ST_rep1"]["metadata"]["pitch_um"] == 200
    with pytest.warns(UserWarning, match="P10_ST_rep1 has no image"):
        without_image = datasets.cscc("P10_ST_rep1", root=cscc_root)
    assert without_image.obs["patient"].unique().tolist() == ["P10"]
    # Every other place only: the 2K array, whose spots are closer.
    assert without_image.uns["spatial"]["P10_ST_rep1"]["metadata"]["pitch_um"] == pytest.approx(141.42)
    with_pitch = datasets.cscc("P10_ST_rep1", root=cscc_root, image=False, pitch_um=150)
    assert with_pitch.uns["spatial"]["P10_ST_rep1"]["metadata"]["pitch_um"] == 150


def test_cscc_unpacked_and_without_prefix(cscc_root: Path):
    for path in list(cscc_root.glob("*P2_ST_rep1*.gz")):
        plain = path.with_name(path.name.removesuffix(".gz").removeprefix("GSM4284316_"))
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert datasets.cscc("P2_ST_rep1", root=cscc_root).n_obs == 36


def test_mob(mob_root: Path):
    adata = datasets.mob("MOB1", root=mob_root)
    assert adata.obs["patient"].unique().tolist() == ["MOB1"]
    assert adata.uns["spatial"]["MOB1"]["metadata"]["mpp"] == pytest.approx(100 / 10.1, rel=1e-3)


def test_environment_variable(her2st_root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STHGGEP_DATA", str(her2st_root.parent))
    assert datasets.sections("her2st") == ["A1", "B2"]
    assert datasets.her2st("A1").n_obs == 36


def test_unknown_names_say_what_there_is(her2st_root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"^Unknown her2st section 'Z9'\. In {her2st_root} there is: 'A1', 'B2'\.$"):
        datasets.her2st("Z9", root=her2st_root)
    with pytest.raises(FileNotFoundError, match="git clone"):
        datasets.her2st("A1", root=tmp_path / "nowhere")
    (tmp_path / "mob").mkdir()
    with pytest.raises(ValueError, match="there is: nothing"):
        datasets.mob("MOB1", root=tmp_path / "mob")
    (her2st_root / "data/ST-spotfiles/A1_selection.tsv").rename(her2st_root / "moved.tsv")
    with pytest.raises(ValueError, match="'B2'"):
        datasets.her2st("A1", root=her2st_root)


# --- from the network ---------------------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve a folder and record the requests."""

    requests: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        QuietHandler.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A local server of the temporary folder; an empty cache; no `$STHGGEP_DATA`; no known checksums."""
    monkeypatch.delenv("STHGGEP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    known_checksums: dict[str, dict[str, str]] = {"her2st": {}, "mob": {}, "cscc": {}}
    for module in (_download, _her2st):
        monkeypatch.setattr(module, "checksums", lambda: known_checksums)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    QuietHandler.requests = []
    for name in known_checksums:
        monkeypatch.setenv(f"STHGGEP_{name.upper()}_URL", f"http://127.0.0.1:{server.server_port}/{name}")
    yield known_checksums
    server.shutdown()
    server.server_close()


def test_download_once_then_from_the_cache(server_checksums, mob_root: Path, tmp_path: Path, caplog):
    for path in mob_root.iterdir():
        server_checksums["mob"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    with caplog.at_level(logging.WARNING, logger="sthggep"):
        adata = datasets.mob("MOB1")
    assert adata.n_obs == 18
    assert not caplog.records
    assert sorted(QuietHandler.requests) == ["/mob/MOB1.jpg", "/mob/MOB1.tsv", "/mob/alignment_table_MOB1.tsv"]
    assert (tmp_path / "cache/sthggep/mob/MOB1.tsv").is_file()
    datasets.mob("MOB1")
    assert len(QuietHandler.requests) == 3


def test_wrong_checksum(server_checksums, mob_root: Path, tmp_path: Path):
    server_checksums["mob"]["MOB1.tsv"] = "0" * 64
    with pytest.raises(ValueError, match=r"mob: MOB1\.tsv .* checksum differs.*STUtility"):
        datasets.mob("MOB1")
    assert not (tmp_path / "cache/sthggep/mob/MOB1.tsv").exists()


def test_unknown_checksum_is_logged(server_checksums, cscc_root: Path, caplog):
    with caplog.at_level(logging.WARNING, logger="sthggep"):
        adata = datasets.cscc("P2_ST_rep1")
    assert adata.uns["spatial"]["P2_ST_rep1"]["images"]["hires"].shape == (140, 150, 3)
    assert sum("no checksum is known" in record.message for record in caplog.records) == 3


def test_name_of_the_her2st_image_comes_from_the_listing(server_checksums, her2st_root: Path):
    listing = [{"name": "README"}, {"name": "HE_1.jpg"}]
    (her2st_root / "data/ST-imgs/A/A1/index.json").write_text(json.dumps(listing))
    adata = datasets.her2st("A1")
    assert adata.uns["spatial"]["A1"]["images"]["hires"].shape == (140, 150, 3)
    assert {"label", "cluster"} <= set(adata.obs)
    assert len(datasets.sections("her2st")) == 36


def test_known_image_needs_no_listing(server_checksums, her2st_root: Path):
    path = her2st_root / "data/ST-imgs/A/A1/HE_1.jpg"
    server_checksums["her2st"]["data/ST-imgs/A/A1/HE_1.jpg"] = hashlib.sha256(path.read_bytes()).hexdigest()
    datasets.her2st("A1")
    assert not any("index.json" in requests for requests in QuietHandler.requests)


def test_missing_file_on_the_server(server_checksums, mob_root: Path):
    (mob_root / "MOB1.jpg").unlink()
    with pytest.raises(ConnectionError, match=r"MOB1\.jpg could not be fetched from http://127.*404"):
        datasets.mob("MOB1")


def test_no_network(server_checksums, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STHGGEP_HER2ST_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError) as error:
        datasets.her2st("B4", image=False)
    message = str(error.value)
    assert "her2st: " in message
    assert "git clone https://github.com/almaan/her2st" in message
    assert "root=" in message
    assert "$STHGGEP_DATA" in message


def test_addresses():
    commit = _her2st._COMMITS["data/ST-cnts"]
    assert _her2st.SOURCE.url("data/ST-cnts/B4.tsv.gz") == (
        f"https://raw.githubusercontent.com/almaan/her2st/{commit}/data/ST-cnts/B4.tsv.gz"
    )
    assert _cscc.SOURCE.url("GSM4284323_P9_ST_rep2.jpg.gz").endswith(
        "/geo/samples/GSM4284nnn/GSM4284323/suppl/GSM4284323_P9_ST_rep2.jpg.gz"
    )
    assert _cscc._GSM["P9_ST_rep2"] == "GSM4284323"
    assert _cscc._GSM["P10_ST_rep3"] == "GSM4284327"
    assert len(_her2st._PUBLISHED) == 36
    assert set(_mob._COMMITS) == set(_download.checksums()["mob"])


# --- real files ---------------------------------------------------------------------------------------------------


def test_checksums_are_those_of_the_files(data_root: Path):
    checksums = _download.checksums()
    for relative in ("data/ST-cnts/B4.tsv.gz", "data/ST-spotfiles/C2_selection.tsv"):
        assert (
            hashlib.sha256((data_root / "her2st" / relative).read_bytes()).hexdigest() == checksums["her2st"][relative]
        )
    plain = gzip.decompress((data_root / "mob/MOB1.tsv.gz").read_bytes())
    assert hashlib.sha256(plain).hexdigest() == checksums["mob"]["MOB1.tsv"]


def test_real_her2st(data_root: Path):
    names = datasets.sections("her2st")
    assert len(names) == 34
    assert datasets.sections("her2st", with_image=True) == ["B4", "C2", "C3", "C4", "C5"]
    spots = {
        name: len(pd.read_csv(data_root / f"her2st/data/ST-spotfiles/{name}_selection.tsv", sep="\t")) for name in names
    }
    assert (min(spots.values()), max(spots.values())) == (177, 712)
    with pytest.warns(UserWarning, match="B1 has no image"):
        adata = datasets.her2st("B1")
    assert adata.shape == (295, 15109)
    assert adata.obs["label"].value_counts().to_dict() == {
        "connective tissue": 95,
        "adipose tissue": 70,
        "invasive cancer": 63,
        "breast glands": 41,
        "undetermined": 26,
    }
    assert adata.obs["cluster"].notna().sum() == 261


def test_published_sections_load_without_a_warning(data_root: Path):
    for name in ("C4", "D6"):  # three spots of each have no counts
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            datasets.her2st(name, image=False)


def test_warnings_name_the_line_of_the_user(her2st_root: Path):
    with pytest.warns(UserWarning, match="no image") as records:
        datasets.her2st("B2", root=her2st_root)
    assert [warning.filename for warning in records if issubclass(warning.category, UserWarning)] == [__file__]


def test_labels_with_lost_positions(data_root: Path):
    adata = datasets.her2st("G2", image=False)
    assert adata.n_obs == 467
    assert adata.obs["label"].notna().all()


@pytest.mark.parametrize(("section", "n_spots"), [("MOB1", 379), ("MOB3", 438)])
def test_real_mob(data_root: Path, section: str, n_spots: int, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "sthggep"):
        adata = datasets.mob(section)
    assert f"{section}: left out, since absent from the spots table: 11 of 193" in caplog.text
    assert adata.shape == (n_spots, 1000)
    assert adata.uns["spatial"][section]["metadata"]["mpp"] == pytest.approx(4.37, abs=0.01)
    assert adata.uns["spatial"][section]["images"]["hires"].shape == (1905, 1905, 3)
