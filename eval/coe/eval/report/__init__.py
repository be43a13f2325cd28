"""The kit that draws every report.

`page` has the parts of a report as data, renders them as one HTML file that loads nothing, and writes it next to its
record. `drawing` has the kinds of charts, `numbers` the format of figures.
"""
