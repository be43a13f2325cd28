"""Kinds of retrieval experts, one file each; see router/plugins.py. `base` is no kind: it is the section's encoder."""
