"""Experts of the demo that are no language models: plugins that experts.yaml names by their path (docs/plugins.md)."""
