"""The chat endpoint of every client API: decide, call an expert, stream its answer, log the outcome.

The application and the endpoints import it; it imports experts, routers in force, HTTP and keys.
Begin with `chat.py`.
"""
