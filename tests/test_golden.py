"""Predictions equal those of the golden file, which is valid until the bundled model is trained again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sthggep import datasets

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def maker():
    """The script that wrote the file."""
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "predictions.npz"))


def assert_unchanged(actual: np.ndarray, expected: np.ndarray) -> None:
    """Check that values are equal to 3e-4 of each gene's spread over the spots, or of the value.

    Other versions of the libraries that solve and resample differ by 1e-4.
    """
    assert actual.shape == expected.shape
    tolerance = 3e-4 * np.maximum(np.abs(expected), expected.std(axis=0))
    assert (np.abs(actual - expected) <= tolerance).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("section", ["B4", "C2"])
def test_bundled_model_on_real_sections(maker, expected, section, data_root):
    slide = datasets.her2st(section, root=data_root / "her2st", fullres=False)
    assert_unchanged(maker.predict_bundled(slide), expected[section])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bundled_model_on_toy_tissue(maker, expected):
    assert_unchanged(maker.predict_bundled(maker.toy_sections()[2]), expected["toy"])


def test_closed_form_of_a_fit(maker, expected):
    assert_unchanged(maker.predict_closed_form(), expected["closed_form"])
