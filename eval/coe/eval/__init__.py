"""Measurement and reports: grades answers, compares routing with other choices, reads the decision log.

The package may import the data sets and types of `training` and every package below it; two modules let training fit
what they measure. Begin with `collect.py` (graded answers), `routing/routing_run.py` (what routing gains) and
`report/page.py` (the kit that draws every report).
"""
