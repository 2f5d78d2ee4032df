"""Preparation: patches, features and their encoders, hypergraph, gene panel, pseudo-spots over tissue."""

from sthggep._encoders._registry import encoders, register_encoder
from sthggep._slides._patches import Patches
from sthggep.pp._faults import image_faults
from sthggep.pp._features import features
from sthggep.pp._genes import gene_panel
from sthggep.pp._grid import tissue_grid
from sthggep.pp._hypergraph import hypergraph
from sthggep.pp._patches import patches

__all__ = [
    "Patches",
    "encoders",
    "features",
    "gene_panel",
    "hypergraph",
    "image_faults",
    "patches",
    "register_encoder",
    "tissue_grid",
]
