"""Cross-validation: plan, folds, leaks, baselines."""
