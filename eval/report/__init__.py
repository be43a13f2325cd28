"""The report of `coe eval routing`: report.json (schema.py) and report.html (page.py, charts.py)."""
