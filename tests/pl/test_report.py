"""The report page: its content. `test_report_browser` opens it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image

from sthggep import datasets, pl
from sthggep._keys import UNITS
from sthggep._slides._resolve import resolve_one
from sthggep.model._record import TrainingRecord
from sthggep.pl._report_data import choose_genes
from sthggep.pl._report_model import _held_out
from sthggep.pl._tissue import spot_diameter


@pytest.fixture
def slide() -> AnnData:
    """Toy tissue with a prediction of three genes that rise to the right, downwards and to the left."""
    adata = datasets.toy(size_um=(1800.0, 1400.0), mpp=4.0, n_genes=12)
    genes = list(adata.var_names[[4, 0, 2]])
    x, y = adata.obsm["spatial"].T
    adata.obsm["hggep"] = np.column_stack([x, y, -x]).astype(np.float32) / 100
    adata.obsm["hggep_lower"], adata.obsm["hggep_upper"] = adata.obsm["hggep"] - 1, adata.obsm["hggep"] + 2
    adata.uns["hggep"] = {
        "tool": "sthggep",
        "genes": np.array(genes, dtype=object),
        "units": "log",
        "model": "hggep-test",
        "held_out_pearson": np.array([0.1, np.nan, 0.3]),
        "params": {"learned_from": np.array([], dtype=object)},
    }
    return adata


@pytest.fixture
def model() -> SimpleNamespace:
    """The attributes of a model that the page reads."""
    history = pd.DataFrame({"member": 1, "epoch": [1, 2], "train_loss": [2.0, 1.0]})
    training = TrainingRecord(sections=["a</script>b"], n_spots=[5], held_out_pearson=[0.5, None], ceiling=[0.9, 0.1])
    return SimpleNamespace(
        id="hggep-x",
        preset="default",
        genes=["A", "B"],
        units="log",
        inputs="patches",
        members=[1],
        architecture="1 network",
        is_closed_form=False,
        training=training,
        history=history,
    )


def floats(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f4")


def words(text: str) -> list[str]:
    return zlib.decompress(base64.b64decode(text)).decode().split("\n")


def decode(section: dict, name: str, n_genes: int) -> np.ndarray:
    """The values (n_spots, n_genes) of a map, as the script of the page reads them."""
    packed = section[name]
    if packed["kind"] == "shift":
        return np.maximum(decode(section, "predicted", n_genes) + floats(packed["by"]), floats(packed["least"]))
    assert packed["kind"] == "bytes"
    coded = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype=np.uint8).reshape(n_genes, -1).T
    low, high = np.array(packed["ends"]).T
    return np.where(coded == 255, np.nan, low + (high - low) * coded / 254)


def shown(slide: AnnData, gene: int) -> np.ndarray:
    """Values of both maps of a gene, which have one color scale."""
    counts = slide[:, slide.uns["hggep"]["genes"]].X.toarray()
    observed = np.log10(1 + 1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return np.concatenate([observed[:, gene], slide.obsm["hggep"][:, gene]])


def data_of(path: Path) -> dict:
    """The data that a page holds."""
    return json.loads(re.search(r"^const DATA = (.*);$", path.read_text(), re.MULTILINE).group(1))


def test_content_of_the_page(slide, model, tmp_path):
    path = pl.report(slide, tmp_path / "new" / "page.html", model=model, title="A & B <i>")
    text, data = path.read_text(), data_of(path)
    assert "<title>A &amp; B &lt;i&gt;</title>" in text
    # the page loads nothing from other addresses
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert data["genes"] == list(slide.uns["hggep"]["genes"])
    assert data["heldOut"] == [0.1, None, 0.3]
    (section,) = data["sections"]
    np.testing.assert_allclose(floats(section["x"]), slide.obsm["spatial"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(floats(section["y"]), slide.obsm["spatial"][:, 1], rtol=1e-6)
    assert section["radius"] == spot_diameter(resolve_one(slide)) / 2
    assert words(section["spots"]) == list(slide.obs_names)
    values, step = decode(section, "predicted", 3), np.ptp(slide.obsm["hggep"], axis=0) / 254
    assert (np.abs(values - slide.obsm["hggep"]) <= 0.51 * step + 1e-4).all()
    assert data["ends"][1] == pytest.approx(np.percentile(shown(slide, 1), [2, 98]), abs=1e-4)
    assert data["model"]["heldOut"] == [0.5, None]
    assert ["trained on", "a</script>b"] in data["model"]["rows"]
    assert data["model"]["curves"].startswith("data:image/png;base64,")
    assert not list(path.parent.glob("*.part"))


def test_scores_are_those_of_the_slide(slide, tmp_path):
    from sthggep import tl

    (section,) = data_of(pl.report(slide, tmp_path / "page.html"))["sections"]
    scores = tl.evaluate(slide)
    np.testing.assert_allclose(section["pearson"], scores["pearson"], atol=1e-4)
    np.testing.assert_allclose(section["ceiling"], scores["ceiling"], atol=0.05)


def test_a_slide_without_counts_and_a_gap_in_the_prediction(slide, tmp_path):
    bare = AnnData(obs=slide.obs, obsm=dict(slide.obsm), uns=dict(slide.uns))
    bare.obsm["hggep"][2, 0] = np.nan
    (section,) = data_of(pl.report({"mine": bare}, tmp_path / "page.html"))["sections"]
    assert section["name"] == "mine"
    assert section["observed"] is None
    assert section["pearson"] == [None, None, None]
    assert np.isnan(decode(section, "predicted", 3)[2, 0])
    assert np.isfinite(np.delete(decode(section, "predicted", 3), 2, axis=0)).all()


def with_verdicts(slide: AnnData) -> AnnData:
    """The slide with a record of held-out tissue, on which the first gene was predicted, and the others were not."""
    from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence

    ones, scales = np.ones(3, np.float32), np.ones((len(SCALES_UM), 3), np.float32)
    z, none = np.array([[9, 0, 0.5]] * 2, np.float32), np.empty((0, 3), np.float32)
    spread, scores = np.ones((len(REGION_SPOTS), 3), np.float32), np.ones(len(REGION_LEVELS), np.float32)
    evidence = Evidence(z / 10, z, none, none, ones, ones, scales, scales, spread, scores, ones, none)
    slide.uns["hggep"]["evidence"] = evidence.to_arrays()
    slide.obs["hggep_novelty"] = np.float32(0.5)
    return slide


def test_verdicts_and_ends_of_intervals(slide, tmp_path):
    (section,) = data_of(pl.report(slide, tmp_path / "plain.html"))["sections"]
    assert section["verdict"] is None
    data = data_of(pl.report(with_verdicts(slide), tmp_path / "page.html"))
    (section,) = data["sections"]
    assert section["verdict"] == ["spot", "not predicted", "not predicted"]
    assert section["reason"][0] == "correlated spot by spot on held-out tissue"
    # Ends at one distance from the prediction take a number a gene
    assert (section["lower"]["kind"], section["upper"]["kind"]) == ("shift", "shift")
    np.testing.assert_allclose(decode(section, "upper", 3), slide.obsm["hggep"] + 2, atol=0.2)
    assert section["interval"] == "interval"
    slide.uns["hggep"]["interval"] = {"level": 0.9, "of": "expression"}
    (section,) = data_of(pl.report(slide, tmp_path / "of.html"))["sections"]
    assert section["interval"] == "90 % interval of the expression without counting noise"


def test_verdicts_on_gene_sets(slide, tmp_path):
    with_verdicts(slide)
    assert data_of(pl.report(slide, tmp_path / "page.html"))["sections"][0]["sets"] == []
    slide.uns["hggep"] |= {"gene_sets": np.array(["a", "b", "c"]), "set_evidence": slide.uns["hggep"]["evidence"]}
    slide.uns["hggep"]["program_evidence"] = slide.uns["hggep"]["evidence"]
    sets = data_of(pl.report(slide, tmp_path / "sets.html"))["sections"][0]["sets"]
    assert [(each["name"], each["kind"], each["verdict"]) for each in sets[:2]] == [
        ("a", "gene set", "spot"),
        ("b", "gene set", "not predicted"),
    ]
    assert [each["name"] for each in sets[3:]] == ["program 0", "program 1", "program 2"]
    assert sets[0]["heldOut"] == pytest.approx(0.9)


def test_a_slide_that_lacks_a_gene_of_the_panel(slide, tmp_path):
    genes = list(slide.uns["hggep"]["genes"])
    slide.uns["hggep"]["panel"] = np.array(genes, dtype=object)
    fewer = slide[:, [name for name in slide.var_names if name != genes[1]]].copy()
    with pytest.warns(UserWarning, match=genes[1]):
        (section,) = data_of(pl.report(fewer, tmp_path / "page.html"))["sections"]
    assert [score is None for score in section["ceiling"]] == [False, True, False]
    assert np.isnan(decode(section, "observed", 3)).all(axis=0).tolist() == [False, True, False]


def test_tissue_that_the_model_was_trained_on(slide, tmp_path):
    assert data_of(pl.report(slide, tmp_path / "new.html"))["sections"][0]["trainedOn"] is False
    slide.uns["hggep"]["params"]["learned_from"] = np.array(["toy1"], dtype=object)
    data = data_of(pl.report(slide, tmp_path / "old.html"))
    assert data["sections"][0]["trainedOn"] is True
    assert data["learnedFrom"] == ["toy1"]


def test_tiles_in_a_folder(slide, tmp_path):
    path = pl.report(slide, tmp_path / "my page.html", tiles="folder")
    (section,) = data_of(path)["sections"]
    assert section["tiles"]["images"] == []
    assert section["tiles"]["folder"] == "my%20page_tiles/0"
    assert [p.name for p in (tmp_path / "my page_tiles" / "0" / "0").iterdir()] == ["0_0.jpg"]
    assert "img-src data: 'self' file:;" in path.read_text()
    path.unlink()
    with pytest.raises(FileExistsError, match=r"my page_tiles.*overwrite=True"):
        pl.report(slide, path, tiles="folder")
    (tmp_path / "my page_tiles" / "mine.txt").touch()
    pl.report(slide, path, tiles="folder", overwrite=True)
    assert not (tmp_path / "my page_tiles" / "mine.txt").exists()
    assert pl.report(slide, tmp_path / "no_folder.html").exists()
    assert not (tmp_path / "no_folder_tiles").exists()


def test_a_page_of_a_visium_section_fits_into_a_mail(tmp_path):
    rng = np.random.default_rng(0)
    n_spots, n_genes = 4000, 800
    # Counts that follow twenty programs, under fine-grained tissue
    programs, weights = rng.gamma(1.0, 1.0, (n_spots, 20)), rng.gamma(0.3, 1.0, (20, n_genes))
    counts = rng.poisson(0.3 * programs @ weights).astype(np.float32)
    adata = AnnData(counts, var=pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)]))
    adata.obsm["spatial"] = rng.uniform(100, 1900, (n_spots, 2))
    image = np.asarray(Image.fromarray(rng.integers(0, 255, (500, 500, 3), dtype=np.uint8)).resize((2000, 2000)))
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 15.0}
    adata.uns["spatial"] = {"S": {"images": {"hires": image}, "scalefactors": factors}}
    adata.obsm["hggep"] = (0.1 * programs @ weights).astype(np.float32)
    adata.obsm["hggep_lower"] = np.maximum(adata.obsm["hggep"] - 0.5, 0)
    adata.obsm["hggep_upper"] = adata.obsm["hggep"] + 0.7
    genes = np.array(adata.var_names, dtype=object)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": genes, "units": UNITS, "model": "m", "params": {}}
    path = pl.report(adata, tmp_path / "page.html", mpp=4.0)
    (section,) = data_of(path)["sections"]
    kinds = [section[name]["kind"] for name in ("predicted", "observed", "lower", "upper")]
    assert kinds == ["factors", "counts", "shift", "shift"]
    assert path.stat().st_size < 5_000_000


def test_a_model_alone(model, tmp_path):
    data = data_of(pl.report(model, tmp_path / "model.html"))
    assert data["sections"] == []
    assert data["title"] == "Model hggep-x"
    assert data["model"]["genes"] == ["A", "B"]
    assert ["predicts by", "1 network"] in data["model"]["rows"]
    assert data["model"]["curves"]
    assert _held_out(["0", "1", "2", "0"], ["S1"]) == "blocks of tissue, in 3 parts by turns"
    assert _held_out(["0", "1", "0"], ["0", "1"]) == "0; 1"
    assert _held_out([], ["S1"]) == "nothing"
    # A network that was tried and predicts nothing has no curves on the page
    model.architecture, model.is_closed_form = "closed form of 3 gene programs, no network", True
    alone = data_of(pl.report(model, tmp_path / "alone.html"))["model"]
    assert ["predicts by", "closed form of 3 gene programs, no network"] in alone["rows"]
    assert not alone["curves"]


def test_large_slides_show_the_genes_with_the_best_held_out_correlation(caplog):
    genes = choose_genes(None, ["a", "b", "c", "d"], [0.1, None, 0.5, 0.3], 9_000_000)
    assert genes == ["c", "d"]
    assert "2 of 4 genes" in caplog.text
    assert choose_genes(["b"], ["a", "b"], [None, None], 10**9) == ["b"]


def test_bad_arguments_are_refused(slide, model, tmp_path):
    existing = tmp_path / "page.html"
    existing.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        pl.report(slide, existing)
    with pytest.raises(ValueError, match=r"must end in \.html"):
        pl.report(slide, tmp_path / "page.pdf")
    with pytest.raises(KeyError, match="NONE"):
        pl.report(slide, tmp_path / "other.html", genes=["NONE"])
    with pytest.raises(ValueError, match="place of the tiles 'zip'"):
        pl.report(slide, tmp_path / "other.html", tiles="zip")
    with pytest.raises(TypeError, match="must be an HGGEP"):
        pl.report(slide, tmp_path / "other.html", model="her2st")
    with pytest.raises(TypeError, match="not two models"):
        pl.report(model, tmp_path / "other.html", model=model)
    assert existing.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
