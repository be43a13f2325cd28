"""More experts than memory: the engines that sleep, those that wake, and the cost.

May import router. Begin with `types.py` (states and costs) and `scheduler.py` (pure).
"""
