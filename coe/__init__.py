"""The public Python interface: a trained router as a library.

    from coe import Router

    router = Router.load("experts.yaml", "data")
    decision = router.route("What is 15% of 80?")
    print(decision.expert, decision.category, decision.confidence)

Everything else in this distribution may change without notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coe.library import QueryFacts, Router, RouterError, RoutingDecision

__all__ = ["QueryFacts", "Router", "RouterError", "RoutingDecision"]


def __getattr__(name: str) -> object:
    """Imports the library when it is asked for: the command line lives in this package, too, and starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'coe' has no attribute '{name}'; it has {', '.join(__all__)}")
    from coe import library

    return getattr(library, name)
