"""The certificate of a policy: what `coe certify` has shown of its plan, signed; and whether that still holds.

`<data>/certificate.json` is signed with the key of the data folder (HMAC-SHA-256), so what was edited is not believed.
What withdraws it for good is kept beside it, in `certificate.withdrawn`.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from coe.base.json_text import to_json
from coe.base.whole_files import write_whole
from coe.fleet.expert_fingerprint import expert_fingerprint
from coe.fleet.router_registry import Registry
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import ExpertConfig
from coe.router.live_pointer import ROUTERS_FOLDER
from coe.router.pipeline import Router
from coe.router.types import Metric, Record

CERTIFICATE_FILE, WITHDRAWN_FILE = "certificate.json", "certificate.withdrawn"
SIGNED_AS = b"\xffcertificate "
"""Prefix of the signed bytes. The same key hashes texts of clients, and none of those begins with 0xFF."""

VALID = "valid"
STATES = (VALID, "nothing certified", "forged", "expired", "another router", "another plan", "changed", "drifted")


class PlanResult(Record):
    """A plan of the sequence. `gain` is its quality less that of what it is compared with, `saving` the share of the
    price that it saves. `odds` is the capital of the test now; from 20 to 1 on the plan is shown."""

    floor: float = Field(description="`quality_floor.within` that it was solved for")
    plan: str = Field(description="fingerprint of the policy so solved")
    gain: Metric
    saving: Metric
    odds: float
    is_shown: bool


class Certificate(Record):
    """All of certificate.json. Times are ISO 8601 in UTC; `facts` are for people, name to text."""

    statement: str
    policy: str
    of: str
    within: float
    router: str
    experts: dict[str, str] = Field(description="expert that the plan asks -> fingerprint")
    data: str = Field(description="fingerprint of the grades")
    n_graded: int
    needed: int | None = Field(description="how many more would show the next plan; None: none, or too many")
    plans: tuple[PlanResult, ...]
    since: str = Field(description="when the first of the grades were taken up")
    made_at: str
    until: str
    facts: dict[str, str]
    signature: str = ""

    @property
    def shown(self) -> tuple[PlanResult, ...]:
        """The last one is certified."""
        return tuple(plan for plan in self.plans if plan.is_shown)

    def signed(self, key: bytes) -> Certificate:
        return self.model_copy(update={"signature": self._signature(key)})

    def is_signed(self, key: bytes) -> bool:
        return hmac.compare_digest(self.signature.encode(), self._signature(key).encode())

    def _signature(self, key: bytes) -> str:
        content = to_json(self.model_dump(mode="json", exclude={"signature"}))
        return hmac.digest(key, SIGNED_AS + content, "sha256").hex()


class Standing(NamedTuple):
    """A certificate with one of STATES, and why it is in that."""

    certificate: Certificate
    state: str
    why: str = ""


def publish(data_dir: Path, certificate: Certificate) -> None:
    """Puts it in the place of the one before. Raises OSError."""
    write_whole(data_dir / CERTIFICATE_FILE, certificate.model_dump_json(indent=1))
    (data_dir / WITHDRAWN_FILE).unlink(missing_ok=True)


def read_standing(
    data_dir: Path,
    key: bytes,
    config: CoeConfig,
    folder: Path,
    router: Router | None,
    replaced: Collection[str] = (),
    now: datetime | None = None,
) -> Standing | None:
    """The certificate of a data folder, withdrawn where it no longer holds; None without one that can be read.

    Args:
        folder: where experts.yaml lies.
        router: the one that serves.
        replaced: experts whose answers name another model than they did.
    """
    try:
        found = Certificate.model_validate_json((data_dir / CERTIFICATE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    if not found.is_signed(key):
        return Standing(found, "forged", "the signature is not that of this data folder")
    if not found.shown:
        return Standing(found, "nothing certified")
    withdrawn = data_dir / WITHDRAWN_FILE
    if withdrawn.exists():
        state, _, why = withdrawn.read_text(encoding="utf-8").partition(": ")
        return Standing(found, state, why)
    state, why = withdrawal(found, data_dir, config, folder, replaced)
    if state:
        with suppress(OSError):  # what cannot be written is found again
            write_whole(withdrawn, f"{state}: {why}")
        return Standing(found, state, why)
    if found.until <= (now or datetime.now(UTC)).isoformat():
        return Standing(found, "expired", f"it was valid until {found.until[:10]}")
    if router is None or router.version != found.router:
        return Standing(found, "another router", f"router {found.router} was certified")
    if found.policy not in router.policies or router.policy(found.policy).fingerprint != found.shown[-1].plan:
        repair = "write the quality_floor that the certificate names into experts.yaml, then `coe config apply`"
        return Standing(
            found, "another plan", f"policy {found.policy} has another plan than the certified one; {repair}"
        )
    return Standing(found, VALID)


def withdrawal(
    found: Certificate, data_dir: Path, config: CoeConfig, folder: Path, replaced: Collection[str]
) -> tuple[str, str]:
    """State and reason if an expert has changed since it was graded; empty strings if none has."""
    for name, fingerprint in found.experts.items():
        entry = config.experts.get(name)
        if entry is None or fingerprint_of(entry.model_dump_json(), str(folder)) != fingerprint or name in replaced:
            return "changed", f"expert {name} is not the one that was graded"
    for change in changes_of(Registry(data_dir / ROUTERS_FOLDER)):
        if change.get("expert") in found.experts and change["at"] >= datetime.fromisoformat(found.since).timestamp():
            state = "changed" if change.get("model") else "drifted"
            return state, f"`coe retrain` found that expert {change['expert']} changed on {change['category']}"
    return "", ""


def changes_of(registry: Registry) -> list[Mapping[str, Any]]:
    """Changes of experts that the kept rounds of `coe retrain` found; none where they cannot be read."""
    try:
        return [change for each in registry.rounds() for change in each.get("quality_changes", ())]
    except (OSError, ValueError):
        return []


@lru_cache(maxsize=256)
def fingerprint_of(entry: str, folder: str) -> str:
    """Of an entry as JSON. Weights on disk are read once: what a process serves was loaded from them."""
    return expert_fingerprint(ExpertConfig.model_validate_json(entry), Path(folder))
