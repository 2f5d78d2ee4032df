"""The numbers of a section: counts, gene names, targets, predictions, scores."""
