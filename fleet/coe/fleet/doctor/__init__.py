"""`coe doctor gpu`: what this host's engines really do, with models of random weights. Begin with `checks.py`."""
