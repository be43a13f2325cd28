"""Prices of answers: rates by kind of token, usage as providers report it, and the public price list. The
configuration, policies and logs import it; it imports values alone. Begin with `cost.py`."""
