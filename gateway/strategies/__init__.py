"""Several experts for one request: `choose.py` says which, `run.py` asks, and makes one answer of theirs."""
