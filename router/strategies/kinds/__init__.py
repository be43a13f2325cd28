"""Kinds of answers, one file each; see router/plugins.py. A kind gives an answer its key: answers of one key are the
same answer. It is None where the answer states nothing of the kind."""
