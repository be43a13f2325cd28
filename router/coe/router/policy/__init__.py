"""Choice of an expert under a policy: the solved map, its floor, exploration, and moves of a conversation.

The pipeline, training and reports import it; it imports the configuration, prices and strategies.
Begin with `solved_policy.py`.
"""
