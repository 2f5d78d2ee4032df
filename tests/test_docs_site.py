"""The site: its front page, the index of functions, the rows of the comparison, and how pages of functions are laid out."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS, NOTEBOOKS = ROOT / "docs", sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not (DOCS / "conf.py").is_file(), reason="The documentation is not in this copy.")


def extension(name: str) -> ModuleType:
    """Import an extension of the documentation, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("namespace", ["datasets", "io", "nn", "pl", "pp", "tl"])
def test_the_index_lists_the_functions_of_a_namespace_in_the_order_of_its_page(namespace: str):
    names = re.findall(r"^   (\w+)$", (DOCS / "api" / f"{namespace}.md").read_text(), flags=re.MULTILINE)
    (part,) = re.findall(
        rf"^\.\. currentmodule:: sthggep\.{namespace}\n(.*?)^```$",
        (DOCS / "api" / "index.md").read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    assert re.findall(r"^   (\w+)$", part, flags=re.MULTILINE) == names
    assert sorted(names) == sorted(importlib.import_module(f"sthggep.{namespace}").__all__)


def test_the_front_page_shows_a_wide_picture_that_is_sharp_on_fine_screens():
    assert "{figure} _static/drawings/front_page.png" in (DOCS / "index.md").read_text()
    assert "(docs/_static/drawings/front_page.png)" in (ROOT / "README.md").read_text()
    with Image.open(DOCS / "_static" / "drawings" / "front_page.png") as picture:
        assert picture.width > 1800
        assert picture.width > 3 * picture.height
        values = np.asarray(picture.convert("RGBA"))
    thirds = [third[third[..., 3] > 250] for third in np.array_split(values, 3, axis=1)]
    pink = [np.mean(third[:, 0].astype(int) - third[:, 1] > 30) for third in thirds]
    assert pink[0] > 0.5
    assert max(pink[1:]) < 0.2
    assert (values[:, 0, 3] == 0).all(), "the picture stands on any background"


def test_the_site_has_logo_icon_version_and_repository():
    conf = (DOCS / "conf.py").read_text()
    for name in set(re.findall(r"_static/[\w.]+", conf)):
        assert (DOCS / name).is_file(), name
    for option in ("html_favicon", '"image_dark"', '"repository_url"', '"version.html"'):
        assert option in conf
    assert "{{ release }}" in (DOCS / "_templates" / "version.html").read_text()


def test_cards_of_the_front_page_link_to_pages():
    cards = re.findall(r"^:::\{grid-item-card\} (.*?)\n(.*?)^:::$", (DOCS / "index.md").read_text(), re.M | re.S)
    assert len(cards) == 9 + len(NOTEBOOKS)
    for title, body in cards:
        options = dict(re.findall(r"^:([\w-]+): (.*)$", body, re.M))
        assert options["link-type"] == "doc", title
        page = Path(options["link"])
        assert any((DOCS / page).with_suffix(ending).is_file() for ending in (".md", ".ipynb")), title
        # Options end at the first other line: what follows is text
        text = re.sub(r"\A(:.*\n)+", "", body)
        assert text.strip(), title
        assert not re.search(r"^:|/", text, re.M), title


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_a_card_with_a_thumbnail(path: Path):
    page = (DOCS / "index.md").read_text()
    assert f":img-top: _thumbnails/{path.stem}.png\n" in page
    assert f":link: notebooks/{path.stem}\n" in page
    thumbnails = extension("thumbnails")
    picture = thumbnails.thumbnail(path)
    assert picture.size == (thumbnails.WIDTH, thumbnails.HEIGHT)
    assert np.asarray(picture).std() > 10


def test_thumbnails_show_the_call_that_stands_for_a_notebook(tmp_path: Path):
    thumbnails = extension("thumbnails")
    for stem, call in thumbnails.CALLS.items():
        assert any(call in source for source, _ in thumbnails.figures(ROOT / "notebooks" / f"{stem}.ipynb"))
    empty = tmp_path / "empty.ipynb"
    empty.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Nothing"]}]}))
    with pytest.raises(ValueError, match=r"figure among the outputs of empty\.ipynb.*make notebooks"):
        thumbnails.thumbnail(empty)


def test_examples_stand_above_the_arguments_and_defaults_are_told_once():
    layout = extension("examples_first")
    lines = [
        "Train.",
        "",
        ":param slides: The slides.",
        ":type slides: AnnData",
        ":param genes: The panel.",
        "    Default: all.",
        ":type genes: list | None (default: ``None``)",
        ":param table_key: The table.",
        ":type table_key: str (default: ``'table'``)",
        ":returns: The model.",
        ".. rubric:: Examples",
        "",
        ">>> fit(slides)",
        ".. rubric:: Notes",
        "",
        "More.",
    ]
    document = list(lines)
    layout.rearrange(None, "function", "fit", None, None, document)
    assert document[:5] == ["Train.", "", ".. rubric:: Examples", "", ">>> fit(slides)"]
    assert document[-3:] == [".. rubric:: Notes", "", "More."]
    assert ":type genes: list | None" in document
    assert ":type table_key: str (default: ``'table'``)" in document
    assert sorted(set(document)) == sorted({line.replace(" | None (default: ``None``)", " | None") for line in lines})
    assert layout.examples_first(["A word.", ".. rubric:: Examples"]) == ["A word.", ".. rubric:: Examples"]


@pytest.mark.parametrize(
    "tool",
    ["omicverse", "SpatialEx", "deepspotm", "expression-copilot", "GHIST", "STimage", "UTOPIA", "LazySlide", "HEST"],
)
def test_the_comparison_has_a_row_of_each_tool(tool: str):
    page = (DOCS / "comparison.md").read_text()
    assert re.search(rf"^\| {tool}[ 0-9.]* \|", page, flags=re.MULTILINE)


def test_rows_of_the_comparison_have_as_many_cells_as_their_heads():
    widths: list[int] = []
    for line in (DOCS / "comparison.md").read_text().splitlines():
        widths = [*widths, line.count("|")] if line.startswith("|") else []
        assert len(set(widths)) <= 1, line


def test_a_page_of_the_documentation_is_reached_from_the_front_page():
    entries = {
        (page.parent / entry).resolve()
        for page in DOCS.rglob("*.md")
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), flags=re.DOTALL)
        for line in tree.splitlines()
        if (entry := re.sub(r".*<(.*)>", r"\1", line).strip()) and not entry.startswith(":")
    }
    pages = {page.with_suffix("").resolve() for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert pages - entries == {(DOCS / "index").resolve()}
