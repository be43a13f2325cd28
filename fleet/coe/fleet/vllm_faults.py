"""Why vLLM did not start, read from its log: the cause stands far above the last lines, which name none."""

from __future__ import annotations

import re

CAUSES = (
    (
        r"Free memory on device \S+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\).*?\([\d.]+, (?P<gib>[\d.]+) GiB\)",
        "its GPU has {free} of {total} GiB free and it wants {gib}: end what else is on the GPU (nvidia-smi lists it), "
        "or give it less by `gpu_gib`",
    ),
    (
        r"max seq len \((?P<asked>\d+)\), \(?(?P<need>[\d.]+) GiB KV cache is needed.*?memory \((?P<gib>[\d.]+) GiB\)"
        r"(?:.*?maximum model length is (?P<longest>\d+))?",
        "one request of {asked} tokens needs {need} GiB of cache and {gib} are left: lower `context_tokens` (vLLM "
        "estimates at most {longest}), or raise `gpu_gib`",
    ),
    (
        r"No available memory for the cache blocks",
        "its weights leave no memory for a cache: raise `gpu_gib`, or use a quantised model or `tensor-parallel-size`",
    ),
    (
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\S*?=(?P<most>[\d.]+)",
        "the model reads {most} tokens and {asked} are asked for: lower `context_tokens`",
    ),
    (
        r"NVIDIA driver on your system is too old|libcudart\.so\.13|driver version is insufficient|"
        r"forward compatibility was attempted",
        "the NVIDIA driver is older than the wheel of vLLM needs: 0.32 and 0.33 are for CUDA 13, driver 580 or newer",
    ),
    (
        r"no kernel image is available|[Nn]o valid attention backend found|compute capability \S+ is not supported",
        "this build of vLLM has no kernel for the GPU, the data type or the quantisation: try `dtype: half` or another "
        "`attention-backend` in vllm.args, or build vLLM for the GPU",
    ),
    (
        r"GatedRepoError|access a gated repo|Cannot access gated repo",
        "the model is gated: accept its licence at huggingface.co and set HF_TOKEN in the environment",
    ),
    (
        r"No space left on device|\[Errno 28\]",
        "a disk is full: models go to HF_HOME, compiled graphs to VLLM_CACHE_ROOT, logs to the data folder",
    ),
    (
        r"RepositoryNotFoundError|Repository Not Found|is not a valid model identifier|LocalEntryNotFoundError|"
        r"OfflineModeIsEnabled|Invalid repository ID or local directory|[Cc]annot find the requested files in the",
        "the model is neither a folder nor on the hub or in its cache: check `model`, and HF_HUB_OFFLINE, HF_HOME and "
        "HF_TOKEN",
    ),
    (r"[Aa]ddress already in use|\[Errno 98\]", "its port is taken: choose another range by `vllm.first_port`"),
    (
        r"unrecognized arguments: (?P<flags>[^\n]+)",
        "this version of vLLM does not know {flags}: see `vllm.args` and `engine_args`",
    ),
    (r"No module named '?vllm", "the interpreter has no vLLM: `vllm.python` names the one that has"),
    (
        r"Model architectures (?P<names>\[[^\]]*\]) are not supported",
        "this version of vLLM does not serve {names}: another version, or another `model`",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory",
        "its GPU ran out of memory while it started: lower `max-num-seqs` or `max-num-batched-tokens` in "
        "`engine_args`, or raise `gpu_gib`",
    ),
)
"""What a log says, in the words of vLLM 0.32 and of PyTorch and the hub below it, and the repair. Earlier ones win:
what comes later may follow from them."""

PATTERNS = tuple((re.compile(pattern), repair) for pattern, repair in CAUSES)


def cause_in(log: str) -> str | None:
    """The cause and its repair; None where the log names none that is known."""
    for pattern, repair in PATTERNS:
        if (found := pattern.search(log)) is not None:
            return repair.format(**{name: value or "fewer" for name, value in found.groupdict().items()})
    return None
