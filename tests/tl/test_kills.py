"""Calls that are killed at any moment and made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "kills.py"
NAMES = [
    "save",
    "save_over_another",
    "features",
    "predict",
    "predict_to_zarr",
    "predict_to_h5ad",
    "cross_validate",
    "predict_cohort",
    "fit",
]
KILLS = 2
IDS = [f"the call {name}" for name in NAMES]


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    """A process of its own kills every call; see the script for more kills."""
    command = [sys.executable, str(SCRIPT), str(KILLS), "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Needs processes that begin as copies.")
@pytest.mark.parametrize("name", NAMES, ids=IDS)
@pytest.mark.handles(
    "A process that is killed at any moment and started again gives the result of an uninterrupted one, bit for bit."
)
def test_killed_calls_are_made_again(results: dict[str, dict], name: str):
    assert results[name]["kills"] == KILLS
    assert results[name]["faults"] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Needs processes that begin as copies.")
@pytest.mark.parametrize("name", NAMES, ids=IDS)
@pytest.mark.handles("Of two processes at once, both finish, or the second stops and names the first.")
def test_calls_are_made_twice_at_once(results: dict[str, dict], name: str):
    assert results[name]["twice"] == ""


def test_all_calls_are_killed(results: dict[str, dict]):
    assert list(results) == NAMES
