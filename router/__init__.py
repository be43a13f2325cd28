"""The routing library: query in, decision out. No web server, no training (see `gateway` and `training`)."""
