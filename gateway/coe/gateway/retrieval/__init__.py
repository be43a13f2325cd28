"""Serving retrieval: documents, their chunks and vectors, and the search that picks an expert per query."""
