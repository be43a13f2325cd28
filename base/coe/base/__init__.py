"""Text, files, errors and the terminal: what every room uses, and nothing of routing.

Imports no other room. Begin with `errors.py`, `json_text.py` and `terminal.py`.
"""
