"""One file for each family of perturbations; see `eval.robustness.flips`."""
