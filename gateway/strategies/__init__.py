"""Several experts for one request: `choose.py` says which, `run.py` asks, `told.py` makes one answer of theirs."""
