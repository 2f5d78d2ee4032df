"""A cohort: many slides, predicted by tasks on several workers, one file each."""
