"""Text, files and errors that every package uses. Begin with `errors.py`, `json_text.py` and `record_files.py`."""
