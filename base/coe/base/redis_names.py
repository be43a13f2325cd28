"""The names of all that the project keeps in Redis, so that no two parts share one and `coe:*` is a rule for all.

What one script changes together has the same part in braces, which a cluster keeps in one place.
"""

from __future__ import annotations

DECISIONS = "coe:decisions"
"""The stream of the decision log, unless experts.yaml names it otherwise."""

DEAD_LETTERS = ":dead"
"""End of the name of the stream of records that were given up."""

CONVERSATIONS = "coe:conversation:"
"""Before a conversation's hash: its expert."""

CACHED_ANSWERS, CACHED_FROM = "coe:cache:answer:", "coe:cache:of:"
"""Before the hash of a request: its answer; before a decision's id: the hash."""

LIMITS = "coe:limits"
"""Before a team in braces: what its keys have used of their caps."""
