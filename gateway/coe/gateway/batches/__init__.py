"""Batches: files of requests that the gateway asks itself, when clients leave room. Begin with `runner.py`."""
