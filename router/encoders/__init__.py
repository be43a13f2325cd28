"""One file per kind; see router/plugins.py. A kind that calls another machine is a client: `fleet.encoders`."""

ELSEWHERE = ("fleet.encoders",)
"""Packages with more kinds, looked up by name as all kinds are: the router imports no room above it."""
