"""Names of everything that the project stores in Redis. All begin with `coe:`, so that one access rule covers them.

Keys that one script changes together share the part in braces, so that a cluster stores them on one node.
"""

from __future__ import annotations

DECISIONS = "coe:decisions"
"""Stream of the decision log, unless experts.yaml gives another name."""

DEAD_LETTERS = ":dead"
"""Suffix of the stream of records that could not be stored."""

CONVERSATIONS = "coe:conversation:"
"""Prefix of a conversation's hash; the value is its expert."""

CACHED_ANSWERS, CACHED_FROM = "coe:cache:answer:", "coe:cache:of:"
"""Prefixes: of a request's hash, for its answer; and of a decision's id, for that hash."""

LIMITS = "coe:limits"
"""Prefix of a team in braces, for what its keys have used of their limits."""
