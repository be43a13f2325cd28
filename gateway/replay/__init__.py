"""Decisions of the log made again: by the router that made them, or by another one."""
