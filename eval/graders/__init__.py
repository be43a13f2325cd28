"""Graders: one file per kind, the file name is the kind. `eval.types.Grader` is what `build` returns."""
