"""Fingerprint of an expert, by which answers it gave earlier are known to be its own."""

from __future__ import annotations

from pathlib import Path

from coe.base.errors import MissingWeightsError
from coe.fleet.calls.connect import PROVIDERS
from coe.fleet.hosts.adapter_files import adapter_digest
from coe.fleet.vllm.command import adapter_folder
from coe.router import plugins
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint


def expert_fingerprint(entry: ExpertConfig, folder: Path) -> str:
    """Digest of what decides an expert's answers: the content of its weights and adapter where they are files of this
    machine, their names otherwise, and the engine with its flags; the code and the options of a plugin.

    Args:
        folder: where experts.yaml lies.
    """
    model, adapter = entry.model, entry.adapter
    try:
        if entry.engine is Engine.PLUGIN:
            home = Path(str(plugins.load(PROVIDERS, entry.model).__file__)).parent  # it may import what is beside it
            code = [file_sha256(path) for path in sorted(home.glob("*.py"))]
            model = fingerprint(model, sorted(entry.params.items()), *code)
        if entry.engine is Engine.LLAMACPP:
            model = file_sha256(resolve_weights(entry.model, folder))
        if entry.adapter is not None:
            adapter = adapter_digest(adapter_folder(entry, folder))
    except (MissingWeightsError, OSError):
        pass  # asked from a machine that does not hold them
    return fingerprint(
        entry.engine,
        model,
        adapter,
        next(iter(entry.roots), None),
        entry.served_model,
        sorted(entry.engine_args.items()),
    )
