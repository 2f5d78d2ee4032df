"""Inputs and targets of the networks: sections and windows as tensors."""
