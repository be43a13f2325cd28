"""Exploration with a given share, for tests of what follows from a draw."""

import numpy as np

from coe.router.policy.exploration import Exploration


def explored(share: float, k: int = 3, m: int = 3) -> Exploration | None:
    """Tries all m experts of all k rows, whatever is known of them; together in that share of the queries."""
    return Exploration(np.full((k, m), 100.0), np.zeros((k, m)), others=share) if share else None
