"""One file per source of training data."""
