"""Indexes of document vectors, all of one base encoder: on local disk by default, in Postgres beyond one machine."""
