"""HTTP and what it needs: the OpenAI-compatible endpoints, limits, judging and replay.

May import all rooms but training and eval. Begin with `app.py` (the application and its parts) and `chat.py` (the way
of a chat).
"""
