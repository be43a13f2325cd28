"""Experts and routers as running things: providers that call them, the pool with its breakers, the processes that we
start, and which router is live.

May import router. Begin with `pool.py`, `providers/vllm.py` and `engines.py`.
"""
