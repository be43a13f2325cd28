"""A trained router as a Python object. Import it from `coe.router`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from coe.base.errors import RequestError, RouterError
from coe.router.types import QueryFacts, RoutingDecision

if TYPE_CHECKING:
    import numpy as np

    from coe.router.pipeline import Router as LoadedRouter

__all__ = ["QueryFacts", "Router", "RouterError", "RoutingDecision"]


class Router:
    """The live router of a data folder. Immutable, and safe to share between threads; `load` again after a promotion.

    Args:
        loaded: the router behind it; callers use `Router.load`.
        rng: draws where a policy explores; None is seeded by the operating system.
    """

    def __init__(self, loaded: LoadedRouter, rng: np.random.Generator | None = None) -> None:
        import numpy as np

        self._loaded = loaded
        self._rng = rng or np.random.default_rng()

    @classmethod
    def load(cls, config: str | PathLike[str] = "experts.yaml", data_dir: str | PathLike[str] = "data") -> Router:
        """Load the live router, as `coe train`, `coe retrain` or `coe router --promote` stored it. It raises
        RouterError if the file is invalid, no router is live, or it does not fit the file."""
        from coe.router.build import live_router
        from coe.router.config.composition import load_config

        return cls(live_router(load_config(Path(config)), Path(data_dir)))

    @property
    def version(self) -> str:
        """The content hash of the router's artifact."""
        return self._loaded.version

    @property
    def expert_of(self) -> dict[str, str]:
        """The map in force under the default policy: category to expert."""
        return self._loaded.expert_of()

    def route(self, text: str, *, policy: str = "default", facts: QueryFacts | None = None) -> RoutingDecision:
        """Decide which expert should answer a query. No expert is called, and nothing is logged.

        Args:
            text: the query, as a person typed it.
            policy: a policy of experts.yaml.
            facts: what the request needs (images, tools, JSON, tokens); the default needs nothing but the text.

        Raises:
            RouterError: unknown policy, no expert can take the request, or the text is not Unicode.
        """
        from coe.router.types import Query

        known = facts or QueryFacts(prompt_chars=len(text))
        query = Query(id="library", text=checked_text(text), facts=known)
        return self._loaded.decide(query, policy=policy, rng=self._rng)

    def categories(self, text: str) -> Mapping[str, float]:
        """Return the calibrated probability of each learned category for a query; they sum to 1. It raises RouterError
        if the text is not Unicode."""
        found = self._loaded.predict_categories(self._loaded.encoder.encode([checked_text(text)]))
        return dict(zip(found.categories, (float(prob) for prob in found.probs[0]), strict=True))


def checked_text(text: str) -> str:
    """Return a text without spaces around it. Raises RequestError for half of a surrogate pair, which no encoder
    takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"text: character {error.start} is half of a surrogate pair; allowed: Unicode text"
        raise RequestError(problem, code="invalid_value", param="text") from error
    return text.strip()
