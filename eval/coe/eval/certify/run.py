"""A run of `coe certify`: reads grades or the log, tests the ladder, publishes the certificate, draws what to grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coe.base.embedding_cache import CachedEncoder
from coe.base.errors import ConfigError, allowed_values
from coe.base.whole_files import write_whole
from coe.cli.progress import Progress
from coe.decision_log.default_database import database_url_of
from coe.decision_log.privacy import load_key
from coe.eval.certify.certify import Claim, certificate_of
from coe.eval.certify.ladder import build_ladder
from coe.eval.certify.log_units import log_units
from coe.eval.certify.prompts import GRADES_FOLDER, NEXT_FILE, Prompts
from coe.eval.certify.units import easier_only, in_columns, text_key
from coe.eval.probe_set import load_probe_file
from coe.fleet.certificate import Certificate, publish
from coe.fleet.expert_fingerprint import expert_fingerprint
from coe.router.build import build_encoder, configured_router
from coe.router.config.composition import load_config
from coe.router.config.policy import PolicyConfig
from coe.router.live_pointer import ROUTERS_FOLDER, required_pointer
from coe.router.model_files.artifact import load_artifact
from coe.router.pipeline import Router
from coe.router.types import FloatArray
from coe.training.datasets.outcomes import read_outcome_folders
from coe.training.types import OutcomeTable

ENCODE_BATCH = 64
MAX_PILOT = 1000
"""Largest number of prompts the router learned from that choose the plans before the test (ours)."""


@dataclass(frozen=True)
class Places:
    """The files of a run; `prompts` are probes that may be graded."""

    config: Path
    data_dir: Path
    out: Path
    prompts: Path | None
    cache: Path


def run_certify(
    places: Places, asked: Claim, since: float | None, batch: int, progress: Progress
) -> tuple[Certificate, int]:
    """Test the ladder and publish the certificate; return it with the number of prompts to grade next.

    Args:
        since: Unix seconds, to test on the decision log; None tests on grades.

    Raises:
        ConfigError: the policy is unknown, it has no floor, or no plan is cheaper.
        ArtifactError, DataError, StoreError: there is no live router, or the grades or the log cannot be read.
    """
    config, root = load_config(places.config), places.data_dir / ROUTERS_FOLDER
    if asked.policy not in config.policies:
        raise ConfigError(f"--policy: unknown policy '{asked.policy}'{allowed_values(asked.policy, config.policies)}")
    artifact = load_artifact(root / required_pointer(root).version)
    encoder = CachedEncoder(build_encoder(config.router.encoder), places.cache)

    def load(more: Mapping[str, PolicyConfig]) -> Router:
        return configured_router(
            config.model_copy(update={"policies": config.policies | dict(more)}), artifact, encoder
        )

    def embed(texts: Sequence[str]) -> FloatArray:
        progress(f"encoding {len(texts)} prompts")
        starts = range(0, max(len(texts), 1), ENCODE_BATCH)
        return np.concatenate([encoder.encode(texts[start : start + ENCODE_BATCH]) for start in starts])

    progress("solving the plans")
    ladder, n_next = build_ladder(load, asked.policy, config.policies), 0
    experts = ladder.router.experts
    if since is not None:
        units = log_units(database_url_of(places.data_dir), ladder, config.feedback, since)
    else:
        learned = in_columns(read_outcome_folders(places.data_dir / "outcomes", experts), experts)
        pilot = learned.rows(np.linspace(0, len(learned.texts) - 1, min(len(learned.texts), MAX_PILOT)).astype(int))
        ladder = easier_only(ladder, pilot, ladder.choices(embed(pilot.texts)), asked.within)
        places.out.mkdir(parents=True, exist_ok=True)
        probes, grades = load_probe_file(places.prompts) if places.prompts else (), new_grades(places.out, learned)
        prompts = Prompts(ladder, grades, probes, embed, places.out, asked.made_at.isoformat(timespec="seconds"))
        units = prompts.units()
        following = prompts.draw(units, asked.within, batch)
        write_whole(places.out / NEXT_FILE, "".join(f"{probe.model_dump_json()}\n" for probe in following))
        n_next = len(following)
    folder = places.config.resolve().parent
    fingerprints = {name: expert_fingerprint(config.experts[name], folder) for name in experts}
    made = certificate_of(units, ladder, asked, fingerprints).signed(load_key(places.data_dir))
    publish(places.data_dir, made)
    return made, n_next


def new_grades(out: Path, learned: OutcomeTable) -> OutcomeTable:
    """Return the grades of a folder without prompts that the router learned from; raise DataError if it cannot be
    read."""
    folder, known = out / GRADES_FOLDER, {text_key(text) for text in learned.texts}
    table = in_columns(read_outcome_folders(folder, learned.experts), learned.experts) if folder.is_dir() else learned
    return table.rows(np.array([text_key(text) not in known for text in table.texts], dtype=bool))
