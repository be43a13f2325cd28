"""Data sets, fitting, evidence from the decision log, the gate that promotes, and `coe retrain`.

The package may import retrieval, decision_log, fleet, router and base. Begin with `fit.py` (from labelled queries and
outcomes to an artifact) and `retrain.py` (one round on the log).
"""
