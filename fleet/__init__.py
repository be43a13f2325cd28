"""Experts as running things: clients of their wires, the pool with its breakers, the processes that we start.

May import router. Begin with `pool.py`, `wires/vllm.py` and `engines.py`.
"""
