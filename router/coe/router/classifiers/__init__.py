"""One file per kind; see router/plugins.py."""
