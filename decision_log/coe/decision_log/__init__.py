"""The decision log: it takes records from spool and Redis stream to SQL, and answers queries about them.

It may import fleet and router. Begin with `decision_record.py` (a row), `sink.py` (the write path), `tables` (the
schema) and `read.py` (the columns that training, evaluation and replay read).
"""
