"""Commands of the gateway: `coe up`, `coe serve`, `coe check`, `coe keys`, `coe replay` and their kin.

Only the command line imports it; it imports the lifecycle and the checks.
Begin with `run.py`.
"""
