"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Read when numpy, numba and torch are first imported, hence before anything else.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, os.environ.get("OMP_NUM_THREADS", "2"))

import matplotlib as mpl
import pytest
from anndata import AnnData

mpl.use("Agg")


def _folder(variable: str, what: str) -> Path:
    """The folder an environment variable names, or a skip that says so."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{what}: set ${variable} to the folder that holds them.")
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        pytest.skip(f"{what}: ${variable} is {value!r}, and there is no such folder.")
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with real sections (`her2st/`, `mob/`, ...)."""
    return _folder("STHGGEP_DATA", "Needs real sections")


@pytest.fixture(scope="session")
def reference_root() -> Path:
    """Folder with outputs of the authors' network and the published gene panels."""
    return _folder("STHGGEP_REFERENCE", "Needs reference outputs")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """Folder with ImageNet weights of the image encoders."""
    return _folder("STHGGEP_WEIGHTS", "Needs image weights")


@pytest.fixture(scope="session")
def toy() -> AnnData:
    """One small section of toy tissue, shared by all tests: copy it before changing it."""
    from sthggep import datasets

    return datasets.toy(size_um=(2000.0, 2000.0), mpp=2.0, n_genes=20)


@pytest.fixture(autouse=True)
def _close_figures():
    """Close what a test drew."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
