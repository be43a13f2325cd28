"""The router: query in, decision out, from artifacts that training wrote.

May import base only: no web server, Redis, SQL or fitting. Begin with `pipeline.py` (the way of a query), `types.py`
and `build.py` (from an artifact to a router).
"""
