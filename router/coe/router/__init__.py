"""The router: query in, decision out, from artifacts that training wrote.

    from coe.router import Router

    router = Router.load("experts.yaml", "data")
    decision = router.route("What is 15% of 80?")
    print(decision.expert, decision.category, decision.confidence)

These four names are the public Python interface; everything else may change without notice. The package may import
base alone: no web server, Redis, SQL or fitting. Begin with `pipeline.py` (from query to decision), then `types.py` and
`build.py` (from an artifact to a router).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coe.router.library import QueryFacts, Router, RouterError, RoutingDecision

__all__ = ["QueryFacts", "Router", "RouterError", "RoutingDecision"]


def __getattr__(name: str) -> object:
    """Import the library at its first use, because other packages import modules beside it."""
    if name not in __all__:
        raise AttributeError(f"module 'coe.router' has no attribute '{name}'; it has {', '.join(__all__)}")
    from coe.router import library

    return getattr(library, name)
