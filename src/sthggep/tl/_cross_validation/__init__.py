"""A cross-validation: options, folds, leaks, baselines."""
