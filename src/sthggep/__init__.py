"""Gene expression from H&E by hypergraph neural networks, on AnnData and SpatialData.

>>> import sthggep
>>> train = [sthggep.datasets.her2st(s) for s in ("B4", "C2", "C3", "C4")]
>>> model = sthggep.tl.fit(train)  # choose genes, cut patches, tie hyperedges, train
>>> slide = sthggep.datasets.her2st("C5")  # tissue that the model has not seen
>>> sthggep.tl.predict(slide, model)  # obsm["hggep"], uns["hggep"]
>>> scores = sthggep.tl.evaluate(slide)  # per gene, beside the ceiling that noise leaves
>>> sthggep.pl.gene_map(slide, list(scores["pearson"].nlargest(2).index))  # H&E | observed | predicted
>>> model.save("her2_model")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sthggep import _log
from sthggep._imports import import_whole
from sthggep._version import __version__

if TYPE_CHECKING:
    from sthggep import datasets, io, nn, pl, pp, tl
    from sthggep.model import HGGEP

__all__ = ["HGGEP", "__version__", "datasets", "io", "nn", "pl", "pp", "tl"]

_log.set_up()

_NAMESPACES = ("datasets", "io", "nn", "pl", "pp", "tl")


def __getattr__(name: str) -> Any:
    # Namespaces load on first use: torch and Lightning take seconds that `import sthggep` need not cost
    if name in ("HGGEP", "nn"):
        import_whole("torch")
    if name in _NAMESPACES:
        return import_module(f"sthggep.{name}")
    if name == "HGGEP":
        return import_module("sthggep.model").HGGEP
    msg = f"module 'sthggep' has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
