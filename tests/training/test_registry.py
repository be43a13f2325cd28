from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from router.artifact import save_artifact
from router.errors import ArtifactError, ConfigError
from training.registry import Registry

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "routers")


def add(registry: Registry, temperature: float) -> str:
    manifest = {
        "created_at": (START + timedelta(days=temperature)).isoformat(),
        "encoder": {"kind": "hashing", "fingerprint": "f", "dim": 4},
        "classifier": {"kind": "logistic"},
        "scorer": {"kind": "map"},
        "categories": ("code", "facts"),
        "experts": ("a",),
        "temperature": temperature,
    }
    return save_artifact(registry.root, manifest, {"map.mass": np.ones(3, np.float32)}).manifest.version


def test_promote_and_rollback_walk_the_history(registry):
    one, two, three = (add(registry, t) for t in (1.0, 2.0, 3.0))
    for version in (one, two, three):
        registry.promote(version, START)
    assert registry.live().history == (two, one)
    assert registry.rollback(START).version == two
    assert registry.rollback(START).version == one
    with pytest.raises(ConfigError, match="nothing to go back to"):
        registry.rollback(START)


def test_promoting_the_live_one_again_changes_nothing(registry):
    version = add(registry, 1.0)
    first = registry.promote(version, START)
    assert registry.promote(version, START + timedelta(days=1)) == first


def test_versions_are_listed_oldest_first_and_found_by_their_beginning(registry):
    two, one = add(registry, 2.0), add(registry, 1.0)
    assert [m.version for m in registry.versions()] == [one, two]
    assert registry.folder(one[:8]).name == one


@pytest.mark.parametrize("name", ["", "zzzz"])
def test_an_unknown_version_lists_the_known(registry, name):
    version = add(registry, 1.0)
    with pytest.raises(ConfigError, match=f"router version '{name}'.*{version}"):
        registry.folder(name)


def test_a_damaged_router_is_never_promoted_and_is_listed_as_such(registry):
    good, bad = add(registry, 1.0), add(registry, 2.0)
    registry.promote(good, START)
    path = registry.root / bad / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="SHA-256"):
        registry.promote(bad, START)
    assert registry.live().version == good
    (registry.root / bad / "manifest.json").write_text("{}")
    assert list(registry.damaged()) == [bad]
    assert [m.version for m in registry.versions()] == [good]


def test_a_damaged_pointer_is_an_error_and_no_pointer_is_none(registry):
    assert registry.live() is None
    version = add(registry, 1.0)
    registry.promote(version, START)
    (registry.root / "live.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a live pointer"):
        registry.live()


def test_adopt_copies_a_router_from_elsewhere(registry, tmp_path):
    other = Registry(tmp_path / "candidate")
    version = add(other, 1.5)
    assert registry.adopt(other.root / version) == version
    assert registry.promote(version, START).version == version
