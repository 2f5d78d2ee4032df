"""Tools: train models, predict expression, score predictions, cross-validate."""

from sthggep.tl._agreement import agreement
from sthggep.tl._attach import attach
from sthggep.tl._attribution import Attribution, attribution
from sthggep.tl._compare import Comparison, compare
from sthggep.tl._cross_validate import cross_validate
from sthggep.tl._evaluate import evaluate
from sthggep.tl._fit import fit
from sthggep.tl._folds import folds
from sthggep.tl._predict import predict
from sthggep.tl._predict_cohort import predict_cohort
from sthggep.tl._regions import regions
from sthggep.tl._summary import summary
from sthggep.tl._to_adata import to_adata
from sthggep.tl._top_genes import top_genes
from sthggep.tl._trust import trust

__all__ = [
    "Attribution",
    "Comparison",
    "agreement",
    "attach",
    "attribution",
    "compare",
    "cross_validate",
    "evaluate",
    "fit",
    "folds",
    "predict",
    "predict_cohort",
    "regions",
    "summary",
    "to_adata",
    "top_genes",
    "trust",
]
