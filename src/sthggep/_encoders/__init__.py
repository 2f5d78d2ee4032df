"""Frozen image encoders, and the features that they compute of tissue."""
