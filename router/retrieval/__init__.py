"""Retrieval experts over one frozen document index, and the choice among them; see docs/retrieval.md."""
