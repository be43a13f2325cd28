"""Child processes, background tasks, signals, locks and logs of a running program.

Hosts, calls and residency import it; it imports nothing of this package.
Begin with `process.py`.
"""
