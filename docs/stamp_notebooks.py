"""Record in notebooks which version of sthggep made their outputs, and from which code; `make notebooks` calls it.

A test compares the record with the package and with the cells, so that outputs of another version or of other code show.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def expected_stamp(notebook: dict[str, Any]) -> dict[str, str]:
    """Version of the installed package, and a hash of the code cells."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return {"version": version("sthggep"), "code": hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]}


def stamp(path: Path) -> None:
    """Write the record into the metadata of a notebook, which has just been executed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["sthggep"] = expected_stamp(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        stamp(Path(name))
