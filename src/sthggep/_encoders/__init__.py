"""Frozen image encoders, and the tissue seen through them."""
