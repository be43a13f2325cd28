"""The sections of a report: each from arrays to its records, one file each; `build.py` makes all of them."""
