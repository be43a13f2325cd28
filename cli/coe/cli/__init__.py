"""The public Python interface: a trained router as a library.

    from coe.router import Router

    router = Router.load("experts.yaml", "data")
    decision = router.route("What is 15% of 80?")
    print(decision.expert, decision.category, decision.confidence)

Everything else in this distribution may change without notice.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coe.router.library import QueryFacts, Router, RouterError, RoutingDecision

__all__ = ["QueryFacts", "Router", "RouterError", "RoutingDecision"]

ROOT = Path(__file__).parents[1]
PACKAGES = frozenset({"base", "router", "fleet", "decision_log", "retrieval", "training", "gateway", "eval"})


class OwnPackages(MetaPathFinder):
    """Finds the packages of this distribution, whose names are common, in its own folder: a `router` beside the user's
    program is not taken for ours."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The place of one of our packages; None for all other names, which Python goes on to look for."""
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in PACKAGES else None


if not any(isinstance(each, OwnPackages) for each in sys.meta_path):
    sys.meta_path.insert(0, OwnPackages())


def check_packages() -> None:
    """Raises ImportError where another package is imported already under the name of one of ours."""
    for name in sorted(PACKAGES & {*sys.modules}):
        module = sys.modules[name]
        where = [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]
        if str(ROOT / name) not in where:
            raise ImportError(
                f"coe has a package '{name}', and another one of that name is imported already, from {where[0]}: "
                "import coe before it, or rename it"
            )


def __getattr__(name: str) -> object:
    """Imports the library when it is asked for: the command line lives in this package, too, and starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'coe' has no attribute '{name}'; it has {', '.join(__all__)}")
    check_packages()
    from coe.cli import library

    return getattr(library, name)
