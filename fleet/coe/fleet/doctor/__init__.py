"""`coe doctor gpu`: checks of this host's engines with models of random weights. Begin with `checks.py`."""
