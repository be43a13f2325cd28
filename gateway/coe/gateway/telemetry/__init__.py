"""Traces, metrics and a line in the log of each request. Nothing here runs unless the environment asks for it.

Begin with `telemetry.py`. The decision log does not depend on any of it.
"""
