"""Sphinx configuration. `make docs` builds with warnings as errors and unresolved references as warnings."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

info = metadata("sthggep")
project = info["Name"]
author = "The sthggep developers"
copyright = f"{datetime.now():%Y}, {author}"
version = release = info["Version"]
REPOSITORY = "https://github.com/sthggep/sthggep"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",  # after napoleon, which makes the fields that it fills
    "scanpydoc.definition_list_typed_field",
    "scanpydoc.elegant_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
    # In `extensions`, after those that make the fields of a docstring
    "examples_first",
    "thumbnails",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "extensions", "**.ipynb_checkpoints", "Thumbs.db", ".DS_Store"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

# -- API ------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_member_order = "bysource"
default_role = "code"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
typehints_defaults = "braces"
always_use_bars_union = True
python_use_unqualified_type_names = True
qualname_overrides = {
    "sthggep.model._hggep.HGGEP": "sthggep.HGGEP",
    "sthggep._slides._patches.Patches": "sthggep.pp.Patches",
    "matplotlib.figure.Figure": "matplotlib.figure.Figure",
    "spatialdata._core.spatialdata.SpatialData": "spatialdata.SpatialData",
    "torch.Tensor": "torch.Tensor",
    "pathlib._local.Path": "pathlib.Path",
    "shapely.geometry.multipolygon.MultiPolygon": "shapely.MultiPolygon",
    "shapely.geometry.polygon.Polygon": "shapely.Polygon",
}

# -- References -----------------------------------------------------------------------------------

nitpicky = True
INVENTORIES = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "distributed": "https://distributed.dask.org/en/stable/",
    "lightning": "https://lightning.ai/docs/pytorch/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/pandas-docs/stable/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.readthedocs.io/en/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "shapely": "https://shapely.readthedocs.io/en/stable/",
    "spatialdata": "https://spatialdata.scverse.org/en/stable/",
    "spatialdata_io": "https://spatialdata.scverse.org/projects/io/en/stable/",
    "squidpy": "https://squidpy.readthedocs.io/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "torch_geometric": "https://pytorch-geometric.readthedocs.io/en/stable/",
    "xarray": "https://docs.xarray.dev/en/stable/",
}
# Without network other projects' names cannot be looked up; our own always are.
nitpick_ignore_regex = [("py:.*", rf"({'|'.join(INVENTORIES)}|collections|pathlib|typing)\..*")]
nitpick_ignore_regex += [
    ("py:.*", "(bool|bytes|dict|float|int|list|object|str|tuple|type|None|Ellipsis|slice)"),  # Python's own
    # Types that stand in signatures for those who build on the networks, and are nobody's to make
    ("py:.*", r"sthggep\.(\w+\.)*_\w+\..*"),
    ("py:.*", r"sthggep\.model\.Predicted"),
    ("py:class", "Tensor"),
]


def _reached(url: str) -> bool:
    """Whether the inventory is there: one that is not would be a warning, and stop the build."""
    try:
        with urlopen(Request(f"{url}objects.inv", headers={"User-Agent": "sphinx"}), timeout=10) as reply:
            return reply.status == 200
    except (URLError, OSError):
        return False


with ThreadPoolExecutor(len(INVENTORIES)) as pool:
    reached = dict(zip(INVENTORIES, pool.map(_reached, INVENTORIES.values()), strict=True))
intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if reached[name]}
intersphinx_timeout = 30

# -- Pages and notebooks --------------------------------------------------------------------------

myst_heading_anchors = 3
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_substitutions = {"version": version, "repository": f"[repository]({REPOSITORY})"}
myst_url_schemes = ("http", "https", "mailto")
nb_execution_mode = "off"  # outputs are stored: `make notebooks` executes
nb_merge_streams = True
nb_output_stderr = "remove"

# -- Looks ----------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = f"{project} {version}"
html_favicon = "_static/logo_light.svg"
html_static_path = ["_static"]
html_css_files = ["sthggep.css"]
html_show_sourcelink = False
html_sidebars = {
    "**": ["navbar-logo.html", "version.html", "icon-links.html", "search-button-field.html", "sbt-sidebar-nav.html"]
}
html_theme_options = {
    "logo": {"image_light": "_static/logo_light.svg", "image_dark": "_static/logo_dark.svg", "text": project},
    "repository_url": REPOSITORY,
    "use_repository_button": True,
    "use_issues_button": True,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # else a second search field stands above the page
}
pygments_style = "default"
# A link to a page shows its title and first lines; cards drawn for every page would only repeat them
ogp_site_url = "https://sthggep.readthedocs.io/en/stable/"
ogp_site_name = project
ogp_social_cards = {"enable": False}
