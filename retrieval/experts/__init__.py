"""One file per kind; see router/plugins.py. `base` is no kind: it is the section's encoder and always there."""
