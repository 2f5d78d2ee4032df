"""Preparation: patches, features, hypergraph, gene panel."""

from __future__ import annotations

from sthggep.pp._features import features
from sthggep.pp._genes import gene_panel
from sthggep.pp._hypergraph import hypergraph
from sthggep.pp._patches import Patches, patches

__all__ = ["Patches", "features", "gene_panel", "hypergraph", "patches"]
