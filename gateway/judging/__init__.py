"""A second opinion on a sample of answers: an expert grades them, beside answers of experts that were not chosen."""
