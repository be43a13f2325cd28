"""The process that reads one document for the gateway: see `DocumentReader`.

Its argument is the job, as JSON; standard input is the document. Standard output gets the chunks, or as JSON the reason
why there are none.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import BinaryIO

from coe.base.sandbox.child import die_with, limit
from coe.retrieval.stores.cutting import chunk_spans
from coe.retrieval.stores.document_text import UnreadableFileError, read_text

REFUSED, OUT_OF_MEMORY, TOO_MUCH_OUTPUT = 3, 4, 5  # exit codes; 0: the chunks are there
LENGTH_BYTES = 4  # before each chunk, big-endian
MAX_CHUNKS = 100_000
MAX_OUTPUT_BYTES = 1 << 30
MAX_OPEN_FILES = 32
NICENESS = 10  # requests come first


def main() -> None:
    """Read one document under limits; the gateway enforces the wall clock."""
    job = json.loads(sys.argv[1])
    die_with(job["parent_pid"])
    os.nice(NICENESS)
    set_limits(job["cpu_s"], job["memory_bytes"])
    out, code = open(sys.stdout.fileno(), "wb", closefd=False), 0  # noqa: SIM115 - closed with the process
    try:
        text = read_text(job["filename"], sys.stdin.buffer.read())
        write_chunks(out, text, job["max_tokens"], job["overlap_tokens"])
        out.flush()
    except UnreadableFileError as error:
        code = REFUSED
        out.seek(0)
        out.truncate()
        out.write(json.dumps({"message": str(error), "code": error.code}).encode())
        out.flush()
    except MemoryError:
        code = OUT_OF_MEMORY
    except OSError:
        code = TOO_MUCH_OUTPUT
    os._exit(code)


def set_limits(cpu_s: int, memory_bytes: int) -> None:
    """Limit this process."""
    limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)  # the first ends it by a signal of its own, the second by SIGKILL
    limit(resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES)
    limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)
    limit(resource.RLIMIT_CORE, 0, 0)
    if sys.platform == "linux":  # elsewhere a limit on the address space is refused
        limit(resource.RLIMIT_AS, memory_bytes, memory_bytes)


def write_chunks(out: BinaryIO, text: str, max_tokens: int, overlap_tokens: int) -> None:
    """Write the chunks; raise UnreadableFileError if there are too many, OSError if they are too long."""
    for number, (start, end) in enumerate(chunk_spans(text, max_tokens, overlap_tokens), start=1):
        if number > MAX_CHUNKS:
            raise UnreadableFileError(
                f"the file makes more than {MAX_CHUNKS} chunks of {max_tokens} tokens: split it, or ask for larger ones"
            )
        chunk = text[start:end].encode("utf-8", "replace")
        out.write(len(chunk).to_bytes(LENGTH_BYTES, "big") + chunk)
