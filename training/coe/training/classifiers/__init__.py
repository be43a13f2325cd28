"""Fitting of each kind of classifier: one file per kind of router.classifiers, with `fit`."""
