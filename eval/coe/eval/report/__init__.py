"""The kit that every report is made with.

`page` has the parts of a report as data, draws them as one HTML file that loads nothing, and writes it next to its
record; `drawing` has the kinds of charts, `numbers` the way figures are written.
"""
