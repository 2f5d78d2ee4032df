"""Regions, ids and images of a SpatialData that do not fit each other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData, concatenate
from spatialdata.models import Labels2DModel, TableModel
from spatialdata.transformations import Identity, set_transformation

from sthggep import datasets, pp, tl
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve, resolve_one

OPTIONS = {"size_um": (1000.0, 1000.0), "mpp": 2.0, "n_genes": 8, "as_spatialdata": True}
Change = Callable[[pd.Series], Any]


@pytest.fixture
def sdata() -> SpatialData:
    return datasets.toy(seed=0, **OPTIONS)


@pytest.fixture(scope="module")
def _both() -> SpatialData:
    sections = {name: datasets.toy(seed=seed, **OPTIONS) for seed, name in enumerate("ab")}
    for section in sections.values():
        del section["table"].obsm["morphology"]  # `concatenate` leaves it the names of the spots before
    return concatenate(sections, concatenate_tables=True)


@pytest.fixture
def both(_both: SpatialData) -> SpatialData:
    """Two sections, each with its image in a coordinate system of its own."""
    from spatialdata import deepcopy

    return deepcopy(_both)


def in_one_system(sdata: SpatialData) -> SpatialData:
    for elements in (sdata.images, sdata.shapes):
        for name in elements:
            set_transformation(elements[name], {"global": Identity()}, set_all=True)
    return sdata


# --- ids ----------------------------------------------------------------------------------------------------------


def with_ids(sdata: SpatialData, ids: Change, index: Change) -> SpatialData:
    """Replace the ids in the table, and in the index of the shapes, by others."""
    table = sdata["table"].copy()
    numbers = table.obs["spot_id"].astype(int)
    del table.uns["spatialdata_attrs"]
    shapes = sdata.shapes["toy1"].copy()
    shapes.index = pd.Index(index(pd.Series(np.asarray(shapes.index, dtype=int))))
    sdata.shapes["toy1"] = shapes[::-1]
    sdata.tables["table"] = TableModel.parse(table, region="toy1", region_key="region", instance_key="spot_id")
    sdata["table"].obs["spot_id"] = ids(numbers)
    return sdata


PLAIN: Change = lambda s: s
TEXT: Change = lambda s: s.astype(str)
DECIMAL: Change = lambda s: s.astype(float)
DECIMAL_TEXT: Change = lambda s: s.astype(float).astype(str)


@pytest.mark.handles("sthggep matches each row to its shape.")
@pytest.mark.parametrize(
    ("ids", "index"),
    [
        pytest.param(TEXT, PLAIN, id="text in the table, numbers in the shapes"),
        pytest.param(PLAIN, TEXT, id="numbers in the table, text in the shapes"),
        pytest.param(DECIMAL, TEXT, id="numbers with decimals in the table, text in the shapes"),
        pytest.param(DECIMAL_TEXT, PLAIN, id="1.0 as text in the table, 1 in the shapes"),
        pytest.param(DECIMAL, PLAIN, id="1.0 in the table, 1 in the shapes"),
        pytest.param(lambda s: s.astype(np.int16), PLAIN, id="short integers"),
        pytest.param(lambda s: s.astype("Int64"), PLAIN, id="integers that may be missing"),
        pytest.param(lambda s: s.astype(str).astype("category"), PLAIN, id="categories"),
        pytest.param(lambda s: s.astype(str).str.encode("ascii"), PLAIN, id="bytes"),
        pytest.param(lambda s: "c" + s.astype(str), lambda s: "c" + s.astype(str), id="names in both"),
    ],
)
def test_ids_of_another_type(sdata: SpatialData, ids: Change, index: Change):
    expected = resolve_one(sdata).xy
    np.testing.assert_array_equal(resolve_one(with_ids(sdata, ids, index)).xy, expected)


@pytest.mark.handles(
    "sthggep rejects the slide. The message names the ids and their types in the table and in the shapes."
)
@pytest.mark.parametrize(
    ("ids", "index", "words"),
    [
        pytest.param(
            lambda s: "c" + s.astype(str),
            PLAIN,
            r"lacks \d+ of them: 'c0', .*\(text\)\. Its ids are such as .*\(numbers\)",
            id="names in the table, numbers in the shapes",
        ),
        pytest.param(
            lambda s: s + 1,
            TEXT,
            r"lacks 1 of them: '\d+' \(numbers\)\. Its ids are such as .*\(text\)",
            id="counted from one, and text in the shapes",
        ),
        pytest.param(lambda s: s.astype(str).str.zfill(5), PLAIN, "lacks .*'00001'", id="zeros before the number"),
        pytest.param(lambda s: s.astype(float).where(s > 0), PLAIN, "lacks 1 of them: 'nan'", id="a missing id"),
        pytest.param(PLAIN, lambda s: s * 0, "index has duplicates", id="shapes of one id"),
    ],
)
def test_ids_that_do_not_match(sdata: SpatialData, ids: Change, index: Change, words: str):
    with pytest.raises(ValueError, match=words):
        resolve(with_ids(sdata, ids, index))


@pytest.mark.parametrize("kind", [str, float, "float text"])
def test_ids_of_labels(sdata: SpatialData, kind):
    expected = resolve_one(sdata)
    raster = np.zeros((500, 500), np.int32)
    for number, (x, y) in enumerate(expected.xy, start=1):
        raster[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = number
    table = sdata["table"].copy()
    del table.uns["spatialdata_attrs"]
    table.obs["region"] = pd.Categorical(["cells"] * table.n_obs)
    table.obs["spot_id"] = np.arange(1, table.n_obs + 1)
    sdata.labels["cells"] = Labels2DModel.parse(raster, dims=("y", "x"), transformations=_systems(sdata))
    sdata.tables["table"] = TableModel.parse(table, region="cells", region_key="region", instance_key="spot_id")
    ids = sdata["table"].obs["spot_id"]
    sdata["table"].obs["spot_id"] = ids.astype(float).astype(str) if kind == "float text" else ids.astype(kind)
    np.testing.assert_allclose(resolve_one(sdata).xy, np.floor(expected.xy) + 0.5, atol=1e-6)
    sdata["table"].obs["spot_id"] = "c" + sdata["table"].obs["spot_id"].astype(str)
    with pytest.raises(ValueError, match=r"have no pixel there: 'c1.*\(text\)\. Its labels are such as '0'"):
        resolve(sdata)


def _systems(sdata: SpatialData) -> dict[str, Any]:
    from spatialdata.transformations import get_transformation

    return get_transformation(next(iter(sdata.images.values())), get_all=True)


# --- regions ------------------------------------------------------------------------------------------------------


def test_a_region_that_filtering_left_without_rows(both: SpatialData, caplog):
    table = both["table"]
    table._inplace_subset_obs((table.obs["region"] == "toy1-a").to_numpy())
    with caplog.at_level(logging.INFO, logger="sthggep"):
        (section,) = resolve(both)
    assert (section.name, section.n_spots) == ("toy1-a", table.n_obs)
    assert "no rows of 'toy2-b'" in caplog.text
    assert len(pp.gene_panel(both)) > 0
    with pytest.raises(ValueError, match=r"no spots of region 'toy2-b'.*Regions with rows: 'toy1-a'"):
        resolve(both, Places(shapes_key="toy2-b"))


@pytest.mark.handles("sthggep rejects the table and names the missing entry.")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda t: t._inplace_subset_obs(np.zeros(t.n_obs, bool)), "holds no spots of region", id="no rows at all"
        ),
        pytest.param(
            lambda t: t.uns.pop("spatialdata_attrs"),
            "'spatialdata_attrs' is not in uns of table 'table'",
            id="no link to shapes",
        ),
        pytest.param(
            lambda t: t.uns.update(spatialdata_attrs="toy1"),
            "must be a dict, found str",
            id="a word as the link to shapes",
        ),
        pytest.param(
            lambda t: t.uns["spatialdata_attrs"].pop("instance_key"),
            "'instance_key' is not in uns",
            id="no name of the ids",
        ),
        pytest.param(lambda t: t.obs.drop(columns="spot_id", inplace=True), "'spot_id' is not in obs", id="no ids"),
        pytest.param(lambda t: t.obs.drop(columns="region", inplace=True), "'region' is not in obs", id="no regions"),
    ],
)
def test_a_table_without_its_link(sdata: SpatialData, change: Callable[[Any], object], words: str):
    change(sdata.tables["table"])
    with pytest.raises((KeyError, ValueError), match=words):
        resolve(sdata)


# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.handles("sthggep rejects the slide. The message says: pass one region per call by `shapes_key=`.")
@pytest.mark.parametrize(
    ("image_key", "words"),
    [
        pytest.param(
            "toy1_full_image-a",
            "`image_key='toy1_full_image-a'` would be that of 'toy1-a', 'toy2-b'",
            id="image_key of one of two sections",
        ),
        pytest.param(
            "toy2_full_image-b", "`image_key='toy2_full_image-b'` would be that of", id="image_key of the other section"
        ),
        pytest.param(
            None,
            "several images .*of several regions, one a call by `shapes_key=`",
            id="two sections and two images in one system",
        ),
    ],
)
def test_one_image_for_two_sections(both: SpatialData, image_key: str | None, words: str):
    in_one_system(both)
    for call in (lambda: resolve(both, Places(image_key=image_key)), lambda: tl.fit(both, image_key=image_key)):
        with pytest.raises(ValueError, match=words):
            call()
    for region, image in (("toy1-a", "toy1_full_image-a"), ("toy2-b", "toy2_full_image-b")):
        section = resolve_one(both, Places(shapes_key=region, image_key=image))
        assert (section.name, section.image) == (region, image)


def test_two_sections_on_the_only_image(both: SpatialData):
    in_one_system(both)
    del both.images["toy2_full_image-b"]
    with pytest.raises(
        ValueError, match=r"'toy1-a', 'toy2-b' lie over each other on the image 'toy1_full_image-a'.*shapes_key"
    ):
        resolve(both)
    assert len(resolve(both, need_image=False)) == 2


def test_two_sections_beside_each_other_on_one_image(both: SpatialData):
    """A slide with two pieces of tissue: the second lies right of the first, on the same image."""
    in_one_system(both)
    width = resolve_one(both, Places(shapes_key="toy1-a", image_key="toy1_full_image-a")).size[0]
    for region, side in (("toy1-a", 0.0), ("toy2-b", 0.5)):
        shapes = both.shapes[region].copy()
        shapes.geometry = shapes.geometry.scale(0.4, 0.9, origin=(0, 0)).translate(side * width, 0.0)
        both.shapes[region] = shapes
    first, second = resolve(both, Places(image_key="toy1_full_image-a"))
    assert first.image == second.image == "toy1_full_image-a"
    assert first.xy[:, 0].max() < second.xy[:, 0].min()
