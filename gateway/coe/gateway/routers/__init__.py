"""Routers in force: the live one, the one on trial, and the replay of a logged decision.

Chats, metrics and the start import it; it imports settings alone.
Begin with `live_router.py`.
"""
