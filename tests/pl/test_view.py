"""`pl.view` with a module that stands in for napari-spatialdata, which needs a screen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation

from sthggep import datasets, pl
from sthggep._image._level import Level
from sthggep._keys import UNITS
from sthggep._slides._elements import _image as image_element

Make = Callable[..., AnnData]


class Interactive:
    """What `pl.view` calls of the viewer."""

    def __init__(self, sdata: SpatialData, headless: bool = False) -> None:
        self.sdata, self.headless = sdata, headless
        self.shown: list[tuple[str, str]] = []
        self.runs = 0

    def add_element(self, element: str, element_coordinate_system: str, view_element_system: bool = False) -> None:
        assert view_element_system
        assert element_coordinate_system in get_transformation(self.sdata[element], get_all=True)
        self.shown.append((element, element_coordinate_system))

    def run(self) -> None:
        self.runs += 1


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("napari_spatialdata")
    module.Interactive = Interactive
    monkeypatch.setitem(sys.modules, "napari_spatialdata", module)


def test_without_the_package_the_error_says_how_to_install_it(section: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "napari_spatialdata", None)
    with pytest.raises(
        ImportError, match=r"needs napari-spatialdata.*`pip install 'napari-spatialdata\[all\]'`.*gene_map"
    ):
        pl.view(section())


@pytest.mark.usefixtures("napari")
def test_an_anndata_becomes_image_spots_and_table(section: Make):
    adata = section("a section/1")
    before = adata.copy()
    viewer = pl.view(adata)
    sdata, name = viewer.sdata, "a_section_1"
    assert viewer.headless  # elements are added before the event loop starts
    assert viewer.runs == 1
    assert viewer.shown == [(f"{name}_image", name), (name, name)]
    spots = sdata[name]
    np.testing.assert_array_equal(np.column_stack([spots.geometry.x, spots.geometry.y]), adata.obsm["spatial"])
    assert set(spots["radius"]) == {25.0}
    # Pixels of the image, which is half as large, lie where the spots are
    matrix = get_transformation(sdata[f"{name}_image"], name).to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, np.diag([2.0, 2.0, 1.0]))
    np.testing.assert_array_equal(
        sdata[f"{name}_image"].values[0], adata.uns["spatial"]["a section/1"]["images"]["hires"][..., 0]
    )
    assert list(sdata[f"{name}_image"].coords["c"].values) == ["r", "g", "b"]
    table = sdata["hggep"]
    assert list(table.var_names) == list(adata.uns["hggep"]["genes"])
    np.testing.assert_array_equal(table.X, adata.obsm["hggep"])
    assert list(table.obs["sthggep_region"]) == [name] * adata.n_obs
    np.testing.assert_array_equal(spots.index, table.obs["sthggep_spot"])
    assert list(adata.obs) == list(before.obs)
    assert list(adata.uns) == list(before.uns)


def test_an_image_may_be_stretched_in_one_direction():
    image = image_element(Level(np.zeros((4, 6, 3), np.uint8), scale=(0.5, 0.25)), "system")
    matrix = get_transformation(image, "system").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(matrix, np.diag([2.0, 4.0, 1.0]))
    assert image.sizes == {"c": 3, "y": 4, "x": 6}


@pytest.mark.usefixtures("napari")
def test_several_sections_and_spots_without_a_prediction(section: Make):
    first, second = section("A", 0), section("B", 1)
    joined = ad.concat([first, second], index_unique="-")
    joined.uns = {"spatial": first.uns["spatial"] | second.uns["spatial"], "hggep": first.uns["hggep"]}
    joined.obsm["hggep"][5] = np.nan
    viewer = pl.view(joined, library_key="section", headless=True)
    assert viewer.runs == 0
    assert set(viewer.sdata.shapes) == {"A", "B"}
    table = viewer.sdata["hggep"]
    assert table.n_obs == 47
    of_second = table[table.obs["sthggep_region"] == "B"]
    shapes = viewer.sdata["B"].loc[of_second.obs["sthggep_spot"]]
    np.testing.assert_array_equal(np.column_stack([shapes.geometry.x, shapes.geometry.y]), of_second.obsm["spatial"])


@pytest.mark.usefixtures("napari")
def test_a_spatialdata_gets_a_further_table():
    sdata = datasets.toy(size_um=(1200.0, 1200.0), n_genes=4, as_spatialdata=True)
    table = sdata["table"]
    table.obsm["mine"] = np.random.default_rng(0).random((table.n_obs, 4), dtype=np.float32)
    genes = np.array(table.var_names)
    table.uns["mine"] = {"tool": "sthggep", "genes": genes, "units": UNITS, "model": "m", "params": {}}
    viewer = pl.view(sdata, key="mine")
    assert set(viewer.sdata.tables) == {"table", "mine"}
    assert set(sdata.tables) == {"table"}  # the slide stays as it is
    np.testing.assert_array_equal(viewer.sdata["mine"].X, table.obsm["mine"])
    image, spots = (name for name, _ in viewer.shown)
    assert image in sdata.images
    assert spots in sdata.shapes
    with pytest.raises(KeyError, match=r"tl\.predict"):
        pl.view(sdata)
