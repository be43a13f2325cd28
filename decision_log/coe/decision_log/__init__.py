"""Record of what happened: the decision log, from spool and Redis stream to SQL, and the questions that are asked of
it.

May import fleet and router. Begin with `decision_record.py` (a row), `sink.py` (the write path), `tables` (the
schema) and `read.py` (the columns that training, evaluation and replay read).
"""
