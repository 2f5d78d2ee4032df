"""Names in the report page and in HTML representations that look like markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, pl
from sthggep._inputs._inputs import Inputs
from sthggep.model._card import render_card
from sthggep.model._record import TrainingRecord
from sthggep.nn import FeatureHGGEPNet

NAMES = {
    "an image with a handler": "<img src=x onerror=ran()>",
    "the end of a script and another one": "</script><script>ran()</script>",
    "the start of a comment": "<!--<script>",
    "the place of the data in the template": "/*DATA*/null",
    "the place of the title in the template": "<!--TITLE-->",
    "a separator of lines of JavaScript": "a\u2028ran()\u2029b",
    "quotes": "\"' onmouseover='ran()' x=`\"",
    "a template of JavaScript": "${ran()}",
    "the end of a CDATA section": "]]><script>ran()</script>",
    "half of a surrogate pair": "A\ud800",
    "a backslash": "\\u003cscript>ran()\\",
    "the name of a prototype": "__proto__",
    "an entity": "&lt;b&gt;&amp;",
}
CLEAN = ["A", "B", "C"]
LOOK = """({
  ran: window.count || 0, images: document.querySelectorAll("img:not(.curves)").length,
  scripts: document.scripts.length, handlers: document.querySelectorAll("[onerror],[onmouseover]").length,
  rows: [...document.querySelectorAll("#scores tbody tr")].map(r => r.firstChild.textContent),
  section: document.querySelector("#section option").textContent, heading: document.querySelector("h1").textContent,
})"""
COUNT = "<script>window.count = 0; function ran() { window.count += 1; }</script>"


def slide_named(section: str, genes: list[str]) -> AnnData:
    adata = datasets.toy(seed=5, size_um=(1000.0, 1000.0), mpp=4.0, n_genes=13)[:, : len(genes)].copy()
    adata.var_names = pd.Index(genes, dtype=object)  # text of pandas 3 holds no half a pair
    library = next(iter(adata.uns["spatial"]))
    adata.uns["spatial"] = {section: adata.uns["spatial"][library]}
    adata.obsm["hggep"] = np.random.default_rng(0).random((adata.n_obs, len(genes)), dtype=np.float32)
    everything = np.array(genes, dtype=object)
    params = {"sections": np.array([section], dtype=object), "learned_from": np.array([section], dtype=object)}
    adata.uns["hggep"] = {
        "tool": "sthggep",
        "genes": everything,
        "panel": everything,
        "units": "x",
        "model": section,
        "params": params,
    }
    return adata


class Elements(HTMLParser):
    """Names of the elements of a page, and of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def clean_page(tmp_path_factory) -> Elements:
    path = pl.report(slide_named("S", CLEAN), tmp_path_factory.mktemp("clean") / "page.html")
    return Elements(path.read_text(encoding="utf-8"))


@pytest.mark.handles("The report shows the name as text. The name adds no element, attribute or script.")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_page_has_the_elements_of_a_clean_one(name, clean_page, tmp_path):
    path = pl.report(slide_named(name, [name, *CLEAN[1:]]), tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    page = Elements(text)
    assert page.names == clean_page.names
    assert page.attributes == clean_page.attributes
    (line,) = re.findall(r"^const DATA = (.*);$", text, re.MULTILINE)
    assert not set("<>\u2028\u2029") & set(line)
    data = json.loads(line)
    assert data["genes"] == [name, *CLEAN[1:]]
    assert data["sections"][0]["name"] == name
    assert data["title"] == f"Predicted expression: {name}"


@pytest.mark.handles("A browser shows the name as text and runs nothing of it.")
@pytest.mark.parametrize(
    "section",
    [pytest.param(NAMES[key], id=f"a section called like {key}") for key in list(NAMES)[1:4]],
)
def test_a_browser_shows_names_as_text(section, open_page, tmp_path):
    genes = list(NAMES.values())
    path = pl.report(slide_named(section, genes), tmp_path / "page.html")
    path.write_text(path.read_text(encoding="utf-8").replace("<body>", f"<body>{COUNT}"), encoding="utf-8")
    output = open_page(path).see(LOOK)
    assert (output["ran"], output["images"], output["handlers"], output["scripts"]) == (0, 0, 0, 2)
    assert sorted(output["rows"]) == sorted(genes)
    assert output["section"].startswith(section)
    assert output["heading"] == f"Predicted expression: {section}"


def test_a_page_asks_nothing_of_a_network(tmp_path):
    text = pl.report(slide_named("S", CLEAN), tmp_path / "page.html").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy


def model_named(name: str) -> HGGEP:
    record = TrainingRecord(sections=[name], n_spots=[5], validation=[name], model=name, held_out_pearson=[0.5, 0.1])
    inputs = Inputs("obsm", sizes_um=(), obsm=(name,))
    history = pd.DataFrame({"member": 1, "epoch": [1, 2], "train_loss": [2.0, 1.0]})
    return HGGEP(
        [FeatureHGGEPNet([3], 2, dim=8, heads=2, rank=2)], [name, "B"], inputs, training=record, history=history
    )


@pytest.mark.handles("Notebooks and the model card show the name as text.")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_representations_of_a_model(name, tmp_path):
    model = model_named(name)
    table, clean = Elements(model._repr_html_()), Elements(model_named("A")._repr_html_())
    assert (table.names, table.attributes) == (clean.names, clean.attributes)
    card = Elements(render_card(model, "lab/name"))
    assert sorted(set(card.names)) == ["details", "summary"]
    page = Elements(pl.report(model, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "onerror" not in page.attributes
    assert page.names.count("script") == 1
