"""The process that reads documents for the gateway, which starts `main` in an empty folder: see `DocumentReader`.

Standard input gives one job a line, as JSON; the document lies in the folder as `DOCUMENT`. A child is forked for each
document, so that nothing of one reaches the next, and gets limits before it opens it. It leaves its chunks in `CHUNKS`,
or says in `REFUSAL` why there are none. Standard output gets one line for each job: how the child ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base.sandbox.child import limit
from retrieval.stores.cutting import chunk_spans
from retrieval.stores.document_text import UnreadableFileError, read_text

DOCUMENT, CHUNKS, REFUSAL = "document", "chunks", "refusal"
REFUSED, OUT_OF_MEMORY, TOO_MUCH_OUTPUT = 3, 4, 5  # exit codes of the child; 0: the chunks are there
LENGTH_BYTES = 4  # before each chunk, big-endian
MAX_CHUNKS = 100_000
MAX_OUTPUT_BYTES = 1 << 30
MAX_OPEN_FILES = 32
NICENESS = 10  # requests come first


def main() -> None:
    """Serves jobs until standard input ends, which it does with the gateway."""
    import pypdf  # noqa: F401 - here and above for the children, which then need not

    os.nice(NICENESS)
    with contextlib.suppress(BrokenPipeError):  # the gateway went while a document was read
        for line in iter(lambda: sys.stdin.buffer.readline(), b""):
            sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
            sys.stdout.flush()
    for file in Path.cwd().iterdir():  # a gateway that was killed leaves nothing behind either
        file.unlink()
    Path.cwd().rmdir()


def run(job: Mapping[str, Any]) -> dict[str, int | bool]:
    """Reads one document in a child of its own.

    Args:
        job: filename, max_tokens and overlap_tokens of a chunk, cpu_s, wall_s, memory_bytes.

    Returns:
        `code`: the child's exit code, or the number of the signal that ended it, negative; `is_late`: it was ended by
        the clock.
    """
    until_ended, held_by_child = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(read(job))
    os.close(held_by_child)
    ready, _, _ = select.select([until_ended, sys.stdin], [], [], job["wall_s"])
    if until_ended not in ready:  # too slow, or the gateway is gone
        os.kill(pid, signal.SIGKILL)
    os.close(until_ended)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "is_late": not ready}


def read(job: Mapping[str, Any]) -> int:
    """The child's exit code."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # jobs and answers are its parent's
        os.dup2(nothing, stream)
    try:
        set_limits(job["cpu_s"], job["memory_bytes"])
        text = read_text(job["filename"], Path(DOCUMENT).read_bytes())
        write_chunks(text, job["max_tokens"], job["overlap_tokens"])
    except UnreadableFileError as error:
        Path(REFUSAL).write_text(json.dumps({"message": str(error), "code": error.code}), encoding="utf-8")
        return REFUSED
    except MemoryError:
        return OUT_OF_MEMORY
    except OSError:
        return TOO_MUCH_OUTPUT
    return 0


def set_limits(cpu_s: int, memory_bytes: int) -> None:
    """Limits of this process."""
    limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)  # the first ends it by a signal of its own, the second by SIGKILL
    limit(resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES)
    limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)
    limit(resource.RLIMIT_CORE, 0, 0)
    if sys.platform == "linux":  # elsewhere a limit on the address space is refused
        limit(resource.RLIMIT_AS, memory_bytes, memory_bytes)


def write_chunks(text: str, max_tokens: int, overlap_tokens: int) -> None:
    """Raises UnreadableFileError when there are too many, OSError when they are too long."""
    with Path(CHUNKS).open("wb") as out:
        for number, (start, end) in enumerate(chunk_spans(text, max_tokens, overlap_tokens), start=1):
            if number > MAX_CHUNKS:
                raise UnreadableFileError(
                    f"the file makes more than {MAX_CHUNKS} chunks of {max_tokens} tokens: split it, or ask for larger "
                    "ones"
                )
            chunk = text[start:end].encode("utf-8", "replace")
            out.write(len(chunk).to_bytes(LENGTH_BYTES, "big") + chunk)
