"""Clocks, peak memory, and what the machine can do at best: the floor that times stand beside."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def shortest(calls: Mapping[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True) -> dict[str, float]:
    """Least seconds of each call; in turns, so that a busy moment hits all alike."""
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(repeats + warm_up):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def memory(field: str) -> float:
    """Resident memory of this process in GB, now (``VmRSS``) or at its highest (``VmHWM``)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e6 * 1.024


def peak(call: Callable[[], Any]) -> dict[str, float]:
    """Highest resident memory during a call, and how much of it was there before; Linux only."""
    before = memory("VmRSS")
    REFS.write_text("5")  # the high-water mark starts anew
    call()
    highest = memory("VmHWM")
    return {"peak": highest, "above": highest - before}


def rates() -> dict[str, float]:
    """Matrix products in GFLOP/s by precision, decoding of an image in MB of pixels a second: the best of a few."""
    import torch

    n = 1536
    a = {"float32": torch.randn(n, n), "bfloat16": torch.randn(n, n, dtype=torch.bfloat16)}
    calls: dict[str, Callable[[], Any]] = {name: lambda x=x: x @ x for name, x in a.items()}
    read, size = _decoder()
    found = shortest(calls | {"decode": read}, 6)
    return {name: 2 * n**3 / found[name] / 1e9 for name in a} | {"decode": size / found["decode"] / 1e6}


def _decoder() -> tuple[Callable[[], Any], int]:
    """Reads a tiled JPEG as slides are stored, and the bytes of its pixels."""
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(80, 256, (64, 64, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((1024, 1024), Image.Resampling.BICUBIC))
    held = io.BytesIO()
    options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256)}
    try:
        tifffile.imwrite(held, pixels, compression="jpeg", **options)
    except (ImportError, KeyError, ValueError):  # no imagecodecs
        tifffile.imwrite(held, pixels, compression="zlib", **options)

    def read() -> Any:
        held.seek(0)
        return tifffile.imread(held)

    return read, pixels.nbytes


def import_seconds(repeats: int = 8) -> dict[str, float]:
    """Seconds from the start of Python until the import is done."""

    def run(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    codes = {"anndata": "import anndata", "sthggep": "import anndata, sthggep"}
    return shortest({name: run(code) for name, code in codes.items()}, repeats)


def cpu() -> Any:
    """The device that all is measured on."""
    import torch

    return torch.device("cpu")


def machine() -> dict[str, Any]:
    """What the figures were taken on, and what else was going on there."""
    import torch

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "load": round(os.getloadavg()[0], 1),
    }
