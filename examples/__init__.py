"""Compositions that can be started as they are."""
