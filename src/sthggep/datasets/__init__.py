"""Data sets: toy tissue whose truth is known, and public sections read from a folder or fetched."""

from sthggep.datasets._cscc import cscc
from sthggep.datasets._her2st import her2st
from sthggep.datasets._mob import mob
from sthggep.datasets._sections import sections
from sthggep.datasets._toy import toy

__all__ = ["cscc", "her2st", "mob", "sections", "toy"]
