"""The networks, piece by piece. Knows torch and arrays; nothing of AnnData, images or training."""

from sthggep.nn._backbone import FeatureMaps, ShuffleNetV2, load_backbone
from sthggep.nn._closed_form import ClosedFormNet
from sthggep.nn._distillation import augment_section, bake_targets, self_distillation
from sthggep.nn._features import FeatureHGGEPNet
from sthggep.nn._heads import CountHead, Output
from sthggep.nn._hggep import HGGEPNet
from sthggep.nn._hyperconv import HypergraphBlock, HypergraphConv
from sthggep.nn._hypergraph import (
    Neighbors,
    similar_incidence,
    spatial_incidence,
    spatial_neighbors,
    stack_incidences,
)
from sthggep.nn._losses import correlation_loss, nb_nll, zinb_nll
from sthggep.nn._published import published_hypergraph, published_neighbors
from sthggep.nn._reference import from_reference_state_dict, load_reference_state_dict, reference_sizes

__all__ = [
    "ClosedFormNet",
    "CountHead",
    "FeatureHGGEPNet",
    "FeatureMaps",
    "HGGEPNet",
    "HypergraphBlock",
    "HypergraphConv",
    "Neighbors",
    "Output",
    "ShuffleNetV2",
    "augment_section",
    "bake_targets",
    "correlation_loss",
    "from_reference_state_dict",
    "load_backbone",
    "load_reference_state_dict",
    "nb_nll",
    "published_hypergraph",
    "published_neighbors",
    "reference_sizes",
    "self_distillation",
    "similar_incidence",
    "spatial_incidence",
    "spatial_neighbors",
    "stack_incidences",
    "zinb_nll",
]
