"""Calls of experts and their answers: order of tries, the first bytes, errors, and usage read from a stream.

The chat imports it; it imports HTTP and the values of an exchange, never the chat.
Begin with `call.py`.
"""
