"""Asking more than one expert: whose answers are the same, whom to ask next, whose answer to serve. Pure.

Begin with `machines.py`: a strategy is told the answers so far, and says whom to ask or what to serve.
"""
