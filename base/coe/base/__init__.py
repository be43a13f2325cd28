"""Text, files, errors and the terminal: what every package uses, and nothing about routing.

It imports no other package. Begin with `errors.py`, `json_text.py` and `record_files.py`.
"""
