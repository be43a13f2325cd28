"""HTTP below any endpoint: the protocol with its limits, bodies, uploads, admission and authentication.

Endpoints, chats and experts import it; it imports keys and the values of an exchange.
Begin with `asgi.py`.
"""
