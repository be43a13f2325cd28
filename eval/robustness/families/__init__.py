"""One file per family of perturbations; see `eval.robustness.cases` and router/plugins.py."""
