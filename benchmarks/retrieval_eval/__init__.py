"""Measures retrieval experts and the routing among them on collections with judgements."""
