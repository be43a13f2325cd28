"""The choice of retrieval experts for a query: pilot embeddings, predicted gains, and fusion of rankings."""
