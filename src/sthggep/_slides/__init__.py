"""Containers to sections: where spots and images are, in AnnData and SpatialData."""
