"""Downloads models as vLLM would: `python pull_script.py MODEL[@REVISION] ...`.

A program by itself: it runs in the interpreter of vLLM, which has huggingface_hub and no coe, and in containers.
"""

import sys
from fnmatch import fnmatch

WEIGHTS = ("consolidated*.safetensors", "*.safetensors", "*.bin", "*.pt")
"""The first pattern that a repository has is the only one that vLLM loads (`DefaultModelLoader._prepare_weights`)."""
OTHER_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken"]


def pull(argument: str) -> str:
    """Download a model, and return its folder. Raises whatever huggingface_hub does."""
    from huggingface_hub import list_repo_files, snapshot_download

    model, _, revision = argument.partition("@")
    names = list_repo_files(model, revision=revision or None)
    weights = [pattern for pattern in WEIGHTS if any(fnmatch(name, pattern) for name in names)]
    return snapshot_download(model, revision=revision or None, allow_patterns=[*weights[:1], *OTHER_FILES])


if __name__ == "__main__":
    try:
        for each in sys.argv[1:]:
            print(pull(each))
    except Exception as error:  # noqa: BLE001 (the caller looks for its cause: a traceback would say less)
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
