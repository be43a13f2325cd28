"""Engines of this host: their plans, GPUs and processes, from experts.yaml to addresses.

The gateway's lifecycle and `coe doctor` import it; it imports vLLM, residency and processes.
Begin with `engines.py`.
"""
