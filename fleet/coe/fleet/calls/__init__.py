"""Calls of experts: the pool with its breakers, replicas, and the interface of a provider.

The gateway, residency and providers import it; it imports vLLM's served names alone.
Begin with `pool.py`.
"""
