"""What is installed here, and what an install of some requirements would bring."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.metadata import distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def brought(wanted: Iterable[Requirement]) -> set[str]:
    """Names of the distributions that an install of some brings."""
    found, waiting = set[str](), [*wanted]
    while waiting:
        requirement = waiting.pop()
        found.add(canonicalize_name(requirement.name))
        for inner in map(Requirement, distribution(requirement.name).requires or ()):
            extras = requirement.extras or {""}
            is_needed = inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras)
            if is_needed and canonicalize_name(inner.name) not in found:
                waiting.append(inner)
    return found


def absent_beside(present: Collection[str]) -> str:
    """Packages, with commas between, that are installed here and of no distribution of those names, nor ours."""
    return ",".join(
        package
        for package, owners in packages_distributions().items()
        if package != "coe" and not {*map(canonicalize_name, owners)} & {*present}
    )
