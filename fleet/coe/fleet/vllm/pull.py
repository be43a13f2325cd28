"""`coe experts pull`: downloads the models of vLLM engines, so that no start waits for a hub."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from coe.base.errors import ConfigError, EngineError
from coe.fleet.vllm.command import VllmProcess, read_adapter_ranks, vllm_processes
from coe.fleet.vllm.faults import cause_in
from coe.router.config.composition import CoeConfig

SCRIPT = Path(__file__).with_name("pull_script.py")


def pull_models(config: CoeConfig, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Download each model once, and yield a line for it. Models that are folders are only looked for.

    Args:
        folder: where experts.yaml lies.
        environment: variables that engines get before their own; HF_HOME and HF_TOKEN are read from them.

    Raises:
        ConfigError: no expert has an engine that this host starts, or the interpreter of `vllm.python` cannot be run.
        ArtifactError: an adapter cannot be read.
        EngineError: one or more models could not be had; the others have been downloaded.
    """
    processes = vllm_processes(config, folder, read_adapter_ranks(config, folder))
    if not processes:
        raise ConfigError("no expert has engine 'vllm' without a url: nothing to download")
    failed: list[str] = []
    done: set[tuple[str, str]] = set()
    for process in processes:
        argument = pull_argument(process)
        cache = str(process.flags.get("download-dir", ""))
        if (argument, cache) in done:
            continue
        done.add((argument, cache))
        try:
            found = model_folder(process, argument, {**environment, **process.env}, cache)
        except EngineError as error:
            failed.append(str(error))
        else:
            yield f"{process.model} ({', '.join(process.experts)}): {size_gib(found):.1f} GiB in {found}"
    if failed:
        raise EngineError("\n".join(failed))


def pull_argument(process: VllmProcess) -> str:
    """Return the model and its revision, if an argument names one, as the script takes them."""
    revision = process.flags.get("revision")
    return f"{process.model}@{revision}" if revision else process.model


def model_folder(process: VllmProcess, argument: str, environment: Mapping[str, str], cache: str) -> Path:
    """Return the folder of a process's model on this host, after a download if it is on a hub.

    Raises:
        ConfigError: the interpreter cannot be run.
        EngineError: there is no such model, or it could not be downloaded.
    """
    if Path(process.model).is_absolute():
        if not (Path(process.model) / "config.json").is_file():
            raise EngineError(f"{process.key}.model: {process.model} has no config.json")
        return Path(process.model)
    python, own = process.argv[0], {"HF_HUB_CACHE": cache} if cache else {}
    try:
        done = subprocess.run(
            [python, str(SCRIPT), argument], env={**environment, **own}, stdout=subprocess.PIPE, text=True, check=False
        )
    except OSError as error:
        raise ConfigError(f"vllm.python: '{python}' cannot be run ({error.strerror})") from error
    said = done.stdout.strip()
    if done.returncode != 0:
        cause = cause_in(said) or " ".join(said.split())[-300:] or f"its download ended with {done.returncode}"
        raise EngineError(f"{process.key}.model: '{argument}' was not downloaded: {cause}")
    return Path(said.splitlines()[-1])


def size_gib(folder: Path) -> float:
    """Return the size of a folder's files, in GiB; links of the hub's cache count as what they point to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**30
