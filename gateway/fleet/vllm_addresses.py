"""`<data>/engines/vllm.json`: how `coe experts up` tells `coe up` and `coe serve` where its experts answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from router.errors import DataError

FILE_NAME = "vllm.json"


def vllm_file(data_dir: Path) -> Path:
    return data_dir / "engines" / FILE_NAME


def write_vllm_addresses(data_dir: Path, urls: Mapping[str, str]) -> None:
    """Written by the process that runs the engines, at once or not at all."""
    file = vllm_file(data_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"pid": os.getpid(), "urls": dict(urls)}), encoding="utf-8")
    part.replace(file)


def remove_vllm_addresses(data_dir: Path) -> None:
    vllm_file(data_dir).unlink(missing_ok=True)


def read_vllm_addresses(data_dir: Path) -> dict[str, str]:
    """API root per expert; empty when no `coe experts up` lives.

    Raises:
        DataError: the file is not what `write_vllm_addresses` wrote.
    """
    file = vllm_file(data_dir)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        pid, urls = int(record["pid"]), {str(name): str(url) for name, url in record["urls"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged ({error}); delete it and run `coe experts up` again") from error
    return urls if is_alive(pid) else {}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
