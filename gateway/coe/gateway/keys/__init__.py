"""Keys of clients and teams: who may call, which experts and policies, and how much. Begin with `grants.py`."""
