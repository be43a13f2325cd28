"""One file per kind; see router/plugins.py. `base` is not a kind: it is the section's encoder."""
