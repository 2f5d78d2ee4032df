"""Training: presets, validation, networks, closed form, Lightning, fine-tuning."""
