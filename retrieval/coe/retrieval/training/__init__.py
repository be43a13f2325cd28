"""Training of retrieval experts and of the pilot library."""
