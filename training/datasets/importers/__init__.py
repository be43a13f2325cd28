"""One file per format of another tool; see `training.datasets.import_formats`."""
