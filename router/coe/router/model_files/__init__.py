"""Files of trained routers and encoders: artifacts, weights and tokenizers. Every package that loads or stores a model
imports it; it imports values alone. Begin with `artifact.py`."""
