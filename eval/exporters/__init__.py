"""One file per format that others read; see `eval.export_formats`."""
