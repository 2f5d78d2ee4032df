"""Places: from the keywords of a call to the sections."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from sthggep import datasets, pp
from sthggep._slides._places import Places
from sthggep._slides._resolve import extra_sections_of, resolve_one


def test_the_defaults_are_those_of_the_public_calls():
    parameters = inspect.signature(pp.patches).parameters
    assert asdict(Places()) == {field.name: parameters[field.name].default for field in fields(Places)}


def test_places_among_other_options():
    options = {"genes": ["A"], "spatial_key": "xy", "mpp": 0.5, "layer": "counts"}
    assert Places.among(options) == Places(spatial_key="xy", mpp=0.5)


def test_places_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Places().mpp = 0.5


def test_extra_sections_do_not_use_the_mpp_of_the_slides():
    data = datasets.toy(seed=0, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=4)
    places = Places(mpp=4.4)
    assert resolve_one(data, places).mpp == 4.4
    (section,) = extra_sections_of(data, places)
    assert section.mpp == 4.0
