"""Presets, validation, closed form, networks, fine-tuning: from sections to a trained model."""
