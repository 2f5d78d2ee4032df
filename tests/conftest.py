"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

# Read when numpy, numba and torch are first imported, hence before anything else.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, os.environ.get("OMP_NUM_THREADS", "2"))
# A plugin of pytest (fast-array-utils') imports numba before this file; once its threads run, a change is an error.
if "numba" in sys.modules:
    sys.modules["numba"].core.config.reload_config()

import matplotlib as mpl
import numpy as np
import pytest
from anndata import AnnData

mpl.use("Agg")


def _folder(variable: str, content: str) -> Path:
    """Return the folder that an environment variable names; skip the test if there is none."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{content}: set ${variable} to the folder that holds them.")
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        pytest.skip(f"{content}: ${variable} is {value!r}, and there is no such folder.")
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
    """One small section of toy tissue, which all tests share: copy it before you change it."""
    from sthggep import datasets

    return datasets.toy(size_um=(2000.0, 2000.0), mpp=2.0, n_genes=20)


@pytest.fixture(autouse=True)
def _close_figures():
    """Close the figures of a test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


SIZES_UM = (320.0, 640.0)  # smaller fields of view take most of the time


@pytest.fixture(scope="session")
def _sections() -> list[AnnData]:
    """Three sections of toy tissue with the features of `fit_options`, which spares each fit the encoding."""
    from sthggep import datasets, pp

    sections = [datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=16) for seed in range(3)]
    for slide in sections:
        options = {"encoding": "tissue", "flips": False, "weights": "random", "show_progress_bar": False}
        pp.features(slide, size_um=SIZES_UM, **options)
    return sections


@pytest.fixture
def slides(_sections: list[AnnData]) -> list[AnnData]:
    """Copies of three toy sections with features: two to train on, one to predict."""
    return [slide.copy() for slide in _sections]


@pytest.fixture(scope="session")
def fit_options() -> dict[str, object]:
    """Options of a fit that takes seconds."""
    return {
        "size_um": SIZES_UM,
        "weights": "random",
        "n_members": 2,
        "max_epochs": 8,
        "device": "cpu",
        "show_progress_bar": False,
    }


@contextmanager
def _networks_earn_a_share() -> Iterator[None]:
    """Give the networks of the default preset a share in the prediction, whatever held-out tissue says."""
    from sthggep._training._presets import PRESETS

    default = PRESETS["default"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "default", replace(default, recipe=replace(default.recipe, shares=(0.25,))))
        yield


@pytest.fixture(scope="session")
def with_networks() -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which networks earn a share beside the closed form, so that `tl.fit` trains all of them."""
    return _networks_earn_a_share


@pytest.fixture
def networks(with_networks) -> Iterator[None]:
    """Let networks earn a share in this test."""
    with with_networks():
        yield


@pytest.fixture(scope="session")
def model(_sections: list[AnnData], fit_options: dict[str, object], with_networks):
    """A small model of two networks beside the closed form, trained on the first two sections."""
    from sthggep import tl

    with with_networks():
        return tl.fit(_sections[:2], genes=list(_sections[0].var_names), **fit_options)


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """Run a command of the package within this process, in an empty folder (``shell.folder``)."""
    from click.testing import CliRunner, Result

    from sthggep._cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="sthggep")

    run.folder = tmp_path
    return run


@pytest.fixture
def files(slides: list[AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AnnData]:
    """Three toy sections with features as a.h5ad, b.h5ad, c.h5ad in the current folder, of patients P1 to P3."""
    monkeypatch.chdir(tmp_path)
    for slide, name, patient in zip(slides, "abc", ("P1", "P2", "P3"), strict=True):
        slide.obs["patient"] = patient
        slide.write_h5ad(f"{name}.h5ad")
    return slides


@pytest.fixture(scope="session")
def light_model(toy: AnnData):
    """A model with one field of view and one network, which predicts in seconds."""
    from sthggep import datasets, tl

    second = datasets.toy(seed=1, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=toy.n_vars)
    options = {"size_um": 320, "n_members": 1, "max_epochs": 20, "validation": None, "show_progress_bar": False}
    return tl.fit([toy, second], genes=list(toy.var_names), device="cpu", **options)


@pytest.fixture(scope="session")
def stains() -> SimpleNamespace:
    """Changes of stain, each under the name of the method that reverses it."""
    from skimage.color import lab2rgb, rgb2lab

    def basis(*vectors: tuple[float, float, float]) -> np.ndarray:
        rows = np.vstack([vectors, np.cross(*vectors)])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    original, changed = basis((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), basis((0.55, 0.75, 0.36), (0.20, 0.93, 0.30))

    def restained(pixels: np.ndarray) -> np.ndarray:
        """Hematoxylin stronger, eosin weaker, both of another hue."""
        density = -np.log((pixels.astype(float) + 1) / 256) @ np.linalg.inv(original) @ np.diag([1.6, 0.6, 1]) @ changed
        return np.rint(256 * np.exp(-density) - 1).clip(0, 255).astype(np.uint8)

    def shifted(pixels: np.ndarray) -> np.ndarray:
        """Darker, bluer, with less contrast: a scanner of another make."""
        lab = (rgb2lab(pixels) - (80, 10, -5)) * (0.9, 0.8, 1.1) + (72, 10, -13)
        return np.rint(lab2rgb(lab) * 255).astype(np.uint8)

    return SimpleNamespace(changes={"reinhard": shifted, "macenko": restained}, vectors=original[:2])
