"""A second opinion on a sample of answers: an expert grades them, next to answers of experts that were not chosen."""
