"""vLLM as this host knows it: command lines, memory, model sizes, addresses and faults of engines.

Hosts, residency and `coe doctor` import it; it imports processes and GPUs.
Begin with `command.py`.
"""
