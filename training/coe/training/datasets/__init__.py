"""Sources of training data, one file each."""
