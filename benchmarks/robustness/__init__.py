"""Decisions that flip when a text changes and what is asked does not."""
