"""Experts and routers as running things: providers, the pool with its breakers, engine processes, the live router.

It may import router, cli and base. Begin with `calls/pool.py`, then `providers/vllm.py` and `hosts/engines.py`.
"""
