"""The kit that every report is made with: a page of sections, each a title with sentences, tables and charts.

`page` draws it as one HTML file that loads nothing and writes it next to its record; `charts` has the forms
of charts, `numbers` the way figures are printed. It imports nothing of the reports themselves.
"""
