"""The documentation lists all public names; its notebooks are executed, and scripts make its drawings."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS, NOTEBOOKS = ROOT / "docs", sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not (DOCS / "conf.py").is_file(), reason="The documentation is not in this copy.")


@pytest.mark.parametrize("namespace", ["datasets", "io", "nn", "pl", "pp", "tl"])
def test_api_pages_list_all_public_names(namespace: str):
    page = (DOCS / "api" / f"{namespace}.md").read_text()
    names = re.findall(r"^   (\w+)$", page, flags=re.MULTILINE)
    assert sorted(names) == sorted(importlib.import_module(f"sthggep.{namespace}").__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_shown_and_executed(path: Path):
    assert f"notebooks/{path.stem}\n" in (DOCS / "index.md").read_text()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    text = "".join(part for output in outputs for part in [*output.get("text", []), *_plain(output)])
    assert not re.findall(r"(?<![\w:/.])/(?:[\w.-]+/)+", text), "an absolute path of the machine it ran on"
    assert "Warning:" not in text


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_of_notebooks_are_of_this_version_and_code(path: Path):
    notebook = json.loads(path.read_text())
    expected = load_script("stamp_notebooks").expected_stamp(notebook)
    assert notebook["metadata"].get("sthggep") == expected, "execute the notebooks anew: `make notebooks`"


def test_a_stamp_changes_with_the_code_alone(tmp_path: Path):
    script = load_script("stamp_notebooks")
    path = tmp_path / "a.ipynb"
    cells = [{"cell_type": "markdown", "source": ["# µ"]}, {"cell_type": "code", "source": ["1 + 1"], "outputs": []}]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    script.stamp(path)
    notebook = json.loads(path.read_text())
    assert notebook["cells"] == cells
    assert notebook["metadata"]["sthggep"] == script.expected_stamp(notebook)
    notebook["cells"][0]["source"] = ["# other words"]
    assert notebook["metadata"]["sthggep"] == script.expected_stamp(notebook)
    notebook["cells"][1]["source"] = ["1 + 2"]
    assert notebook["metadata"]["sthggep"] != script.expected_stamp(notebook)


def _plain(output: dict) -> list[str]:
    return output.get("data", {}).get("text/plain", [])


def test_drawings_are_made_by_scripts():
    names = {path.stem for path in (DOCS / "_static" / "drawings").iterdir()}
    assert names == {path.stem for path in (DOCS / "drawings").glob("[a-z]*.py")}
    pages = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    assert [name for name in sorted(names) if f"drawings/{name}." not in pages] == []


def test_page_of_odd_inputs_is_made_from_the_tests(request):
    """Run with all tests, the page must be the one that they make; run alone, this test cannot tell and skips."""
    script = load_script("odd_inputs")
    collected = {item.path for item in request.session.items}
    showing = {path for path in (ROOT / "tests").rglob("test_*.py") if "mark.handles(" in path.read_text()}
    if not showing - {Path(__file__)} <= collected:
        pytest.skip("Needs all tests in one run, to compare them with the page.")
    page = script.make_page(script.rows_by_room(request.session.items))
    assert script.PAGE.read_text() == page, "run `python docs/odd_inputs.py`"


def test_pairs_of_odd_inputs_are_listed_once():
    phrases = load_script("odd_inputs")._phrases
    assert phrases([("zeros",), ("a list",)]) == ["zeros", "a list"]
    lists = [(first, second) for first in ("zeros", "a list", "text") for second in (".zarr", ".h5ad")]
    assert phrases(lists) == ["a list; text; zeros (each: .h5ad, .zarr)"]
    assert phrases(lists[:-1]) == [", ".join(pair) for pair in lists[:-1]]
    optional = [(second, first) for first in ("zeros", "a list", "text") for second in ("", "as text")]
    assert phrases(optional) == ["a list; text; zeros (each also as text)"]
    assert phrases(optional[:2]) == ["zeros", "as text, zeros"]
