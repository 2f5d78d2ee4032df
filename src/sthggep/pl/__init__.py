"""Plots: maps of genes, clusters, patches, hyperedges and colors; scores, held-out sections, training curves, a report, a viewer."""

from sthggep.pl._agreement import agreement
from sthggep.pl._attribution import attribution
from sthggep.pl._calibration import calibration
from sthggep.pl._cluster_colors import cluster_colors
from sthggep.pl._colors import colors
from sthggep.pl._compare import compare
from sthggep.pl._cross_validation import cross_validation
from sthggep.pl._gene_map import gene_map
from sthggep.pl._history import history
from sthggep.pl._hypergraph import hypergraph
from sthggep.pl._patch_gallery import patch_gallery
from sthggep.pl._patches import patches
from sthggep.pl._report import report
from sthggep.pl._scores import scores
from sthggep.pl._view import view

__all__ = [
    "agreement",
    "attribution",
    "calibration",
    "cluster_colors",
    "colors",
    "compare",
    "cross_validation",
    "gene_map",
    "history",
    "hypergraph",
    "patch_gallery",
    "patches",
    "report",
    "scores",
    "view",
]
