"""The prompts of `coe certify`: the graded ones, and those that are drawn to be graded next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coe.base.errors import DataError
from coe.base.journal import Journal
from coe.eval.certify.certify import shown_plans
from coe.eval.certify.ladder import Choices, Ladder
from coe.eval.certify.units import Drawn, Units, draw_chances, draw_number, text_key, units_of
from coe.eval.probe_set import Probe
from coe.router.types import FloatArray
from coe.training.types import OutcomeTable

DRAWS_FILE, NEXT_FILE, GRADES_FOLDER = "draws.jsonl", "next.jsonl", "grades"
"""Names in a certificate's folder: prompts taken up, with their chance; probes to grade; the folder of their grades."""


@dataclass
class Prompts:
    """Grades so far (`table`, whose columns are the router's experts), more probes of the same traffic, and the prompts
    that were taken up, in order.

    Raises:
        DataError: the text of a prompt that was taken up is missing.
    """

    ladder: Ladder
    table: OutcomeTable
    probes: Sequence[Probe]
    embed: Callable[[Sequence[str]], FloatArray]
    folder: Path
    now: str

    def __post_init__(self) -> None:
        self._journal = Journal(self.folder / DRAWS_FILE, Drawn)
        self.drawn = self._journal.read()
        self._row: Mapping[str, int] = {text_key(text): row for row, text in enumerate(self.table.texts)}
        self._probe: Mapping[str, Probe] = {text_key(probe.text): probe for probe in self.probes}
        known = {each.text for each in self.drawn}
        if lacking := known - self._row.keys() - self._probe.keys():
            raise DataError(f"--prompts: {len(lacking)} prompts that were taken up are not there any more")
        new = self._row.keys() - known - self._probe.keys()
        self._add([Drawn(text=key, at=self.now) for key in sorted(new, key=draw_number)])

    def _add(self, lines: Sequence[Drawn]) -> None:
        self._journal.append(*lines)
        self.drawn += lines

    def choices(self, keys: Sequence[str]) -> Choices:
        """Return the ladder's choices for prompts, given by `text_key`."""
        row, texts = self._row, self.table.texts
        own = [texts[row[key]] if key in row else self._probe[key].text for key in keys]
        return self.ladder.choices(self.embed(own))

    def units(self) -> Units:
        """Return the units of the prompts taken up so far."""
        keys = [each.text for each in self.drawn]
        at = np.array([self._row.get(key, -1) for key in keys], dtype=np.int64)
        return units_of(self.drawn, self.table, at, self.choices(keys), self.ladder)

    def pending(self) -> list[Probe]:
        """Return the drawn probes without a grade."""
        return [self._probe[each.text] for each in self.drawn if each.is_drawn and each.text not in self._row]

    def draw(self, units: Units, within: float, wanted: int) -> list[Probe]:
        """Take up more probes until `wanted` are drawn or none is left; return the probes to grade now."""
        keys = sorted(self._probe.keys() - {each.text for each in self.drawn}, key=draw_number)
        if self.pending() or not keys:
            return self.pending()
        n_shown = shown_plans(units, within)[1]
        plan = min(n_shown, len(self.ladder.names) - 1)
        new, before = self.choices(keys), self.choices([each.text for each in self.drawn])
        chance = draw_chances(units.gains, before, new, plan)
        least = float(chance[chance > 0].min(initial=1.0))
        lines = [
            Drawn(text=key, chance=p, least=least, is_drawn=draw_number(key[::-1]) < p, at=self.now)
            for key, p in zip(keys, chance.tolist(), strict=True)
        ]
        enough = np.flatnonzero(np.cumsum([line.is_drawn for line in lines]) >= wanted)
        self._add(lines[: enough[0] + 1] if len(enough) else lines)
        return self.pending()
