from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coe.base.errors import ArtifactError, ConfigError
from coe.cli.command_line import run
from coe.decision_log.admin_log import AdminLog
from coe.decision_log.database import Database
from coe.fleet.router_registry import Registry
from coe.router.live_pointer import Trial
from coe.router.model_files.artifact import save_artifact

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
    with pytest.raises(ArtifactError, match="not a router manifest"):
        registry.promote(bad, START)
    assert [m.version for m in registry.versions()] == [good]


def test_a_damaged_pointer_is_an_error_and_no_pointer_is_none(registry):
    assert registry.live() is None
    version = add(registry, 1.0)
    registry.promote(version, START)
    (registry.root / "live.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a live pointer"):
        registry.live()


def trial_of(version: str, **fields: object) -> Trial:
    return Trial.model_validate({"version": version, "share": 0.1, "started_at": 1.0, **fields})


def test_a_trial_needs_a_live_router_and_another_version(registry):
    one, two = add(registry, 1.0), add(registry, 2.0)
    with pytest.raises(ConfigError, match="no live router to compare with"):
        registry.try_out(trial_of(two))
    registry.promote(one, START)
    with pytest.raises(ConfigError, match="is live already"):
        registry.try_out(trial_of(one))
    assert registry.try_out(trial_of(two)).trial == trial_of(two)
    assert registry.live().version == one


def test_rollback_ends_the_trial_before_it_touches_the_live_router(registry):
    one, two, three = (add(registry, t) for t in (1.0, 2.0, 3.0))
    for version in (one, two):
        registry.promote(version, START)
    registry.try_out(trial_of(three))
    pointer = registry.rollback(START)
    assert (pointer.version, pointer.trial) == (two, None)
    assert [(gone.version, gone.reason) for gone in pointer.withdrawn] == [(three, "withdrawn by hand")]
    assert registry.rollback(START).version == one


def test_a_candidate_that_is_promoted_was_not_withdrawn_and_any_other_was(registry):
    one, two, three = (add(registry, t) for t in (1.0, 2.0, 3.0))
    registry.promote(one, START)
    registry.try_out(trial_of(two))
    assert registry.promote(two, START).withdrawn == ()
    registry.try_out(trial_of(one))
    pointer = registry.promote(three, START)
    assert (pointer.version, pointer.trial) == (three, None)
    assert [gone.version for gone in pointer.withdrawn] == [one]
    assert pointer.history == (two, one)


def test_promote_repairs_a_damaged_pointer(registry):
    version = add(registry, 1.0)
    (registry.root / "live.json").write_text("{")
    assert registry.promote(version, START).version == version


def test_changes_at_the_same_time_lose_nothing(registry):
    versions = [add(registry, float(t)) for t in range(1, 9)]
    registry.promote(versions[0], START)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: registry.promote(version, START), versions[1:]))
    live = registry.live()
    assert {live.version, *live.history} == set(versions)


def test_the_commands_say_what_they_did(registry, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("coe.training.train_command.require_loadable", lambda config, folder: None)
    one, two = add(registry, 1.0), add(registry, 2.0)

    def coe(*arguments: str) -> tuple[int, str]:
        status = run("router", [*arguments, "--data-dir", str(tmp_path)])
        seen = capsys.readouterr()
        return status, seen.out + seen.err

    assert coe("live")[1].endswith("there is no live router yet; name a version\n")
    assert coe(one, "--promote") == (0, f"router {one} is live\n")
    for version, shown in ((two[:10], two), ("live", one)):
        assert coe(version)[1].startswith(f"router {shown}, ")
    status, said = coe(two[:10], "--share", "0.25")
    assert status == 0
    assert said.startswith(f"router {two} serves 25.00% of the conversations, {one} the others\n")
    assert "canary 25.0%" in coe()[1]
    assert coe("--back") == (0, f"router {one} is live, {two} no longer\n")
    assert f"{two}: withdrawn by hand" in coe()[1]
    assert "one of --promote, --share and --back" in coe(two, "--promote", "--share", "0.1")[1]
    assert coe(two, "--share", "0.1")[0] == 0
    assert coe(two, "--promote")[0] == 0
    assert coe("--back") == (0, f"router {one} is live, {two} no longer\n")
    assert coe("zzz", "--promote")[0] == 1
    database = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    assert [each[3:7] for each in AdminLog(database).actions()] == [
        ("promote", "router", "", one),
        ("try", "router", one, two),
        ("rollback", "router", two, one),
        ("try", "router", one, two),
        ("promote", "router", one, two),
        ("rollback", "router", two, one),
    ]
    database.close()
    lock = registry.root / ".live.lock"
    lock.unlink()
    lock.mkdir()  # stands for every file that the system refuses: root may write to a read-only folder
    assert coe(one, "--promote") == (1, f"coe: {lock}: cannot be read or written (Is a directory)\n")
    assert coe(two, "--share", "2")[0] == 2
