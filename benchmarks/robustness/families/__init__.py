"""One file for each family of perturbations; see `benchmarks.robustness.flips`."""
