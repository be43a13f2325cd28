"""Measures and reports: grades answers, compares routing with other choices, reads the decision log.

It may import `training`'s data sets and types, and what lies below; two modules have training fit what they measure.
Begin with `collect.py` (graded answers), `routing/routing_run.py` (what routing wins) and `report/page.py` (the kit
that draws every report).
"""
