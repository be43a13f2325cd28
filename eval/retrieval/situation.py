"""What is known when test queries come: the library and the experts that may serve."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.routing.pilot_library import PilotLibrary
from retrieval.training.build_library import without_data_set
from retrieval.types import Arm


@dataclass(frozen=True)
class Situation:
    """What is known when test queries of one collection come: the library and the experts that may serve."""

    library: PilotLibrary | None
    experts: tuple[str, ...]
    arms: tuple[Arm, ...]

    def without(self, collection: str) -> Situation:
        """As if nobody had prepared for that collection."""
        library = None if self.library is None else without_data_set(self.library, collection)
        if library is not None and not len(library.keys):
            library = None
        return Situation(library, tuple(name for name in self.experts if name != collection), self.arms)

    @property
    def lexical(self) -> str | None:
        """The expert over words that dense experts are fused with."""
        return next((arm.members[1] for arm in self.arms if len(arm.members) == 2), None)

    def single_columns(self) -> list[int]:
        """Columns of arms that are one expert who may serve."""
        return [i for i, arm in enumerate(self.arms) if len(arm.members) == 1 and arm.members[0] in self.experts]

    def column(self, expert: str) -> int | None:
        """Column of that expert alone; None when it may not serve."""
        return next((i for i in self.single_columns() if self.arms[i].members[0] == expert), None)
