"""Retrieval: embedding and word-matching experts, the choice among them per query, and searchable vector stores.

Begin with `service.py`, which builds one process's retrieval from experts.yaml. `types.py` has the terms, `experts` the
kinds of experts, `index` their vector indexes, `routing` the choice of an expert, `stores` files, chunks and search.
`training` has the training of experts and the pilot library (it needs the 'retrieval' extra).

It may import decision_log, fleet, router and base; the gateway may not import its `training`.
"""
