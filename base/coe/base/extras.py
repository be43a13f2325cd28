"""The extra that installs a package, and the error if a package is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from typing import Final

from coe.base.errors import RouterError

EXTRAS: Final = {
    "budgets": ("scipy",),
    "encoders": ("onnxruntime", "tokenizers", "huggingface_hub"),
    "llamacpp": ("gguf", "xllamacpp"),
    "train": ("ir_measures", "pyarrow", "scipy", "sklearn"),
    "eval": ("pyarrow", "vl_convert"),
    "stores": ("bm25s", "faiss", "lxml", "pypdf", "scipy", "Stemmer", "tokenizers"),
    "providers": ("litellm",),
    "postgres": ("psycopg",),
    "ray": ("ray",),
    "oidc": ("jwt", "cryptography"),
    "otel": ("opentelemetry", "opentelemetry.proto", "opentelemetry.sdk", "google"),
    "adapters": ("gguf", "peft", "torch", "transformers"),
    "retrieval": ("accelerate", "datasets", "ir_measures", "peft", "sentence_transformers", "torch"),
    "vllm": ("vllm",),
}
"""Import names of the packages of each extra. Errors about a package name the first extra that has it."""


class MissingExtraError(RouterError):
    """An optional dependency is not installed; the message is one sentence with the command that installs it."""

    def __init__(self, feature: str, *extras: str) -> None:
        quoted = [f"'{extra}'" for extra in extras]
        noun = f"the {quoted[0]} extra" if len(extras) == 1 else f"the extras {' and '.join(quoted)}"
        listed = ",".join(extras)
        name, folder = distribution_of(extras)
        super().__init__(
            f"{feature} needs {noun}: pip install '{name}[{listed}]', "
            f"or in the project's folder pip install -e '{folder}[{listed}]'"
        )
        self.extras = extras


DISTRIBUTIONS: Final = {"composition-of-experts": ".", "coe-router": "./router"}
"""Folder of each distribution in the project. The second one is the library, which installs without the first."""


def distribution_of(extras: Iterable[str]) -> tuple[str, str]:
    """Return the installed distribution that has these extras, and its folder; the first one if none is installed."""
    for name, folder in DISTRIBUTIONS.items():
        with suppress(PackageNotFoundError):
            if {*extras} <= {*(metadata(name).get_all("Provides-Extra") or ())}:
                return name, folder
    return next(iter(DISTRIBUTIONS.items()))


def missing(packages: Iterable[str]) -> set[str]:
    """Return the packages that are not installed. It imports only the parents of dotted names."""
    return {name for name in packages if find_spec(name.partition(".")[0]) is None or find_spec(name) is None}


def extras_of(packages: Iterable[str]) -> tuple[str, ...]:
    """Return a small set of extras that together install these packages; empty for packages that no extra installs."""
    wanted, found = {*packages}, list[str]()
    while wanted:
        best = max(EXTRAS, key=lambda extra: len(wanted & {*EXTRAS[extra]}))
        if not wanted & {*EXTRAS[best]}:
            break
        wanted -= {*EXTRAS[best]}
        found.append(best)
    return tuple(found)


def require_installed(feature: str, *packages: str) -> None:
    """Check that packages are installed.

    Raises:
        MissingExtraError: a package is missing; the message names the extras that install it.
    """
    if lacking := missing(packages):
        raise MissingExtraError(feature, *extras_of(lacking))


def require_extras(feature: str, extras: Iterable[str]) -> None:
    """Check that every package of the extras is installed.

    Raises:
        MissingExtraError: a package is missing; the message names its extra.
    """
    if lacking := [extra for extra in extras if missing(EXTRAS[extra])]:
        raise MissingExtraError(feature, *lacking)


@contextmanager
def needing(feature: str, extras: Iterable[str]) -> Iterator[None]:
    """Require extras before a block, and raise MissingExtraError for a failed import of another extra's package too."""
    require_extras(feature, extras)
    try:
        yield
    except ModuleNotFoundError as error:
        if not (found := extras_of({str(error.name).partition(".")[0]})):
            raise
        raise MissingExtraError(feature, *found) from error
