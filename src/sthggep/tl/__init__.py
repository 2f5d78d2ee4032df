"""Tools: fit, predict, evaluate, cross-validate, and predictions as an AnnData of their own."""

from __future__ import annotations

from sthggep.tl._cross_validate import cross_validate
from sthggep.tl._evaluate import evaluate
from sthggep.tl._fit import fit
from sthggep.tl._predict import predict
from sthggep.tl._to_adata import to_adata

__all__ = ["cross_validate", "evaluate", "fit", "predict", "to_adata"]
