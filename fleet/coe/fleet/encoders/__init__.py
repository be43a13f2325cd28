"""Encoders behind an endpoint, one file per kind of `router.encoders`; see router/plugins.py."""
