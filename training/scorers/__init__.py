"""One file per kind of `router.scorers` that learns arrays of its own: `fit(options, data, rng)` returns them."""
