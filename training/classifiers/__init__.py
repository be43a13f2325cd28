"""How each kind of classifier is fitted: one file per kind of router.classifiers, with `fit`."""
