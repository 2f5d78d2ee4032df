"""Sections and windows as a network is fed them."""
