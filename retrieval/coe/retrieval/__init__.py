"""Retrieval: experts that embed or match words, the choice among them per query, and vector stores to search.

Begin with `service.py`, which puts one process's retrieval together from experts.yaml. `types.py` has the words,
`experts` the kinds of experts, `index` their vector indexes, `routing` the choice of an expert, `stores` files, chunks
and search, `training` of experts and the pilot library (needs the 'retrieval' extra).

May import decision_log, fleet, router and base; the gateway may not import its `training`.
"""
