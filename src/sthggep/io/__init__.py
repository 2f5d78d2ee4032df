"""Readers of formats that nobody else reads: legacy Spatial Transcriptomics sections, and bare slides.

Visium, Visium HD and Xenium are read by `spatialdata-io`; what it returns can be passed on as it is.
"""

from sthggep.io._slide_file import read_slide
from sthggep.io._st import read_st

__all__ = ["read_slide", "read_st"]
