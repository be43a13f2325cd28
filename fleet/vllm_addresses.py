"""`<data>/engines/vllm.json`: the addresses of experts, written by `coe up --engines` for `coe up` and `coe serve`.

The file counts while the process that wrote it holds the lock on its folder. A process id would not do: after a crash
another process may have it, in a container always the same one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from base.errors import DataError, EngineError
from fleet.folder_lock import FolderLock, holder_of, is_held

FILE_NAME = "vllm.json"


def vllm_file(data_dir: Path) -> Path:
    return data_dir / "engines" / FILE_NAME


def claim_vllm(data_dir: Path) -> FolderLock:
    """The right to run the engines of a data folder, until it is released or the process ends.

    Raises:
        EngineError: another process has it, or the folder cannot be written.
    """
    folder = vllm_file(data_dir).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock.try_acquire(folder)
    except OSError as error:
        raise EngineError(f"{folder} cannot hold the addresses of engines ({error.strerror})") from error
    if lock is None:
        raise EngineError(f"another `coe up --engines` (process {holder_of(folder)}) runs the engines of {data_dir}")
    return lock


def write_vllm_addresses(data_dir: Path, urls: Mapping[str, str]) -> None:
    """Written by the process that runs the engines and has their lock, at once or not at all."""
    file = vllm_file(data_dir)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"urls": dict(urls)}), encoding="utf-8")
    part.replace(file)


def remove_vllm_addresses(data_dir: Path) -> None:
    vllm_file(data_dir).unlink(missing_ok=True)


def read_vllm_addresses(data_dir: Path) -> dict[str, str]:
    """API root per expert; empty when no `coe up --engines` lives.

    Raises:
        DataError: the file is not what `write_vllm_addresses` wrote.
    """
    file = vllm_file(data_dir)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        urls = {str(name): str(url) for name, url in record["urls"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged ({error}); delete it and run `coe up --engines` again") from error
    return urls if is_held(file.parent) else {}
