"""A trained model: predict, save, load, share."""

from sthggep.model._hggep import HGGEP

__all__ = ["HGGEP"]
