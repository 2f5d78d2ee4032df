"""The report page: its content, and in a browser, clicks that change the map."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import datasets, pl
from sthggep.model._record import TrainingRecord
from sthggep.pl._report_data import choose_genes

CLICK = """
<script>
const seen = { errors: [] };
window.addEventListener("error", e => seen.errors.push(e.message));
const paint = kind => document.getElementById("map-" + kind).toDataURL();
const timer = setInterval(() => {
  if (document.body.dataset.ready !== "yes") return;
  clearInterval(timer);
  const rows = [...document.querySelectorAll("#scores tbody tr")];
  seen.rows = rows.map(r => r.dataset.gene); seen.first = document.getElementById("gene").textContent;
  const before = paint("predicted"), observed = paint("observed"), picture = paint("picture");
  rows[rows.length - 1].click();
  seen.second = document.getElementById("gene").textContent;
  seen.changed = [paint("predicted") !== before, paint("observed") !== observed, paint("picture") !== picture];
  seen.caption = document.getElementById("caption-predicted").textContent;
  const search = document.getElementById("search"); search.value = rows[1].dataset.gene.toLowerCase(); search.dispatchEvent(new Event("input"));
  seen.searched = document.getElementById("gene").textContent;
  const pen = document.getElementById("map-predicted").getContext("2d");
  const s = DATA.sections[0]; seen.pixel = [...pen.getImageData(Math.round(s.xs[0]), Math.round(s.ys[0]), 1, 1).data].slice(0, 3);
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 20);
</script>
"""


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
    history = pd.DataFrame({"member": 0, "epoch": [0, 1], "train_loss": [2.0, 1.0]})
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
    x = np.frombuffer(base64.b64decode(section["x"]), dtype="<f4")
    assert np.corrcoef(x, slide.obsm["spatial"][:, 0])[0, 1] > 0.9999
    predicted = np.frombuffer(base64.b64decode(section["predicted"]), dtype=np.uint8).reshape(3, slide.n_obs)
    low, high = data["ends"][0]
    values = low + (high - low) * predicted[0] / 254
    np.testing.assert_allclose(values, np.clip(slide.obsm["hggep"][:, 0], low, high), atol=(high - low) / 250)
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
    assert np.frombuffer(base64.b64decode(section["predicted"]), dtype=np.uint8)[2] == 255


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
    low, high = section["intervalEnds"][1]
    np.testing.assert_allclose(
        [low, high], [slide.obsm["hggep"][:, 1].min() - 1, slide.obsm["hggep"][:, 1].max() + 2], atol=1e-3
    )
    upper = np.frombuffer(base64.b64decode(section["upper"]), dtype=np.uint8).reshape(3, slide.n_obs)[1]
    np.testing.assert_allclose(low + (high - low) * upper / 254, slide.obsm["hggep"][:, 1] + 2, atol=(high - low) / 250)


FILTER = """
<script>
const seen = { errors: [] };
window.addEventListener("error", e => seen.errors.push(e.message));
const timer = setInterval(() => {
  if (document.body.dataset.ready !== "yes") return;
  clearInterval(timer);
  const genes = () => [...document.querySelectorAll("#scores tbody tr")].map(r => r.dataset.gene);
  const words = () => [document.getElementById("gene").textContent, document.getElementById("verdict").textContent, document.getElementById("gene").className];
  const filter = document.getElementById("filter");
  seen.all = genes();
  filter.value = "not predicted"; filter.dispatchEvent(new Event("change"));
  seen.doubtful = genes(); seen.words = words();
  filter.value = "spot"; filter.dispatchEvent(new Event("change"));
  seen.spot = genes(); seen.plain = words();
  filter.value = "region"; filter.dispatchEvent(new Event("change"));
  seen.none = document.querySelector("#scores tbody").textContent;
  const canvas = document.getElementById("map-predicted"), box = canvas.getBoundingClientRect(), s = DATA.sections[0];
  canvas.dispatchEvent(new MouseEvent("mousemove", { clientX: box.left + s.xs[0] * box.width / canvas.width, clientY: box.top + s.ys[0] * box.height / canvas.height }));
  seen.readout = document.getElementById("readout").textContent;
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 20);
</script>
"""


def test_the_table_is_filtered_by_verdict(slide, in_browser, tmp_path):
    first, *others = slide.uns["hggep"]["genes"]
    output = in_browser(pl.report(with_verdicts(slide), tmp_path / "page.html"), FILTER)
    assert output["errors"] == []
    assert sorted(output["all"]) == sorted([first, *others])
    assert sorted(output["doubtful"]) == sorted(others)
    assert output["words"][0] in others
    assert output["words"][1:] == ["not predicted", "doubtful"]
    assert output["spot"] == [first]
    assert output["plain"] == [first, "", ""]
    assert "no gene" in output["none"]
    value = slide.obsm["hggep"][0, 0]
    ends = f"({value - 1:.2f} to {value + 2:.2f})"
    shown = output["readout"].replace("−", "-")
    assert abs(float(shown.split("(")[1].split(" to ")[0]) - (value - 1)) < 0.1, ends
    assert abs(float(shown.split(" to ")[1].split(")")[0]) - (value + 2)) < 0.1, ends


def test_a_model_alone(model, tmp_path):
    data = data_of(pl.report(model, tmp_path / "model.html"))
    assert data["sections"] == []
    assert data["title"] == "Model hggep-x"
    assert data["model"]["genes"] == ["A", "B"]
    assert ["predicts by", "1 network"] in data["model"]["rows"]
    assert data["model"]["curves"]
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
    with pytest.raises(TypeError, match="must be an HGGEP"):
        pl.report(slide, tmp_path / "other.html", model="her2st")
    with pytest.raises(TypeError, match="not two models"):
        pl.report(model, tmp_path / "other.html", model=model)
    assert existing.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_click_changes_the_map(slide, model, in_browser, tmp_path):
    output = in_browser(pl.report(slide, tmp_path / "page.html", model=model), CLICK)
    assert output["errors"] == []
    assert sorted(output["rows"]) == sorted(slide.uns["hggep"]["genes"])
    assert output["first"] == output["rows"][0]
    assert output["second"] == output["rows"][-1]
    assert output["changed"] == [True, True, False]
    assert output["caption"].startswith("predicted, PCC ")
    assert output["searched"] == output["rows"][1]
