"""Log files of Inspect: JSON, or a zip with `header.json` and one `samples/*.json` each (`.eval`)."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.errors import DataError, MissingExtraError
from training.datasets.record_files import Record, as_record, json_value, parse_json

HEADER, JOURNAL_START = "header.json", "_journal/start.json"
SAMPLES = "samples/"
ZSTD = 93
"""Zip's number of the Zstandard compression, which Inspect may use and Python's zipfile does not read."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""A file's header inside a zip: magic, 22 bytes that the directory tells too, length of the name and of the extras."""


@dataclass(frozen=True)
class InspectLog:
    """One run. `model` is its name in the log, `name` what it is called in the table."""

    task: str
    model: str
    name: str
    samples: tuple[Record, ...]


def read_inspect_log(path: Path) -> InspectLog:
    """Raises DataError when the file is no log of a finished run, is damaged, or holds no sample."""
    if path.suffix.lower() == ".eval":
        header, samples = read_zip(path)
    else:
        header = as_record(json_value(path), str(path))
        listed = header.get("samples")
        if not isinstance(listed, list):
            raise DataError(f"{path}: field 'samples': the log has no samples (was it run with --no-log-samples?)")
        samples = [as_record(value, f"{path}: row {i}") for i, value in enumerate(listed, start=1)]
    status = header.text("status")
    if status != "success":
        raise header.fault("status", f"'{status}' is a run that did not finish; `inspect eval-retry` finishes it")
    if not samples:
        raise DataError(f"{path}: holds no sample")
    model = header.text("eval.model")
    return InspectLog(header.text("eval.task"), model, model, tuple(samples))


def read_zip(path: Path) -> tuple[Record, list[Record]]:
    """Header and samples. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as log:
            names = log.namelist()
            if HEADER not in names:
                started = " (it was started, and did not finish)" if JOURNAL_START in names else ""
                raise DataError(f"{path}: holds no {HEADER}: is no Inspect log of a finished run{started}")
            header = as_record(parse_json(read_entry(log, HEADER), f"{path}: {HEADER}"), f"{path}: {HEADER}")
            return header, list(zip_samples(path, log, names))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is not a zip file, or only half of it ({error})") from error
    except (OSError, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted, or another compression
        raise DataError(f"{path}: cannot be read ({error})") from error


def zip_samples(path: Path, log: zipfile.ZipFile, names: list[str]) -> Iterator[Record]:
    found = [name for name in dict.fromkeys(names) if name.startswith(SAMPLES) and name.endswith(".json")]
    for name in sorted(found, key=natural):
        place = f"{path}: {name}"
        yield as_record(parse_json(read_entry(log, name), place), place)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """`10` after `9`, as Inspect sorts samples."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def read_entry(log: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one file. Raises zipfile.BadZipFile, OSError, zlib.error, MissingExtraError."""
    entry = log.getinfo(name)
    if entry.compress_type != ZSTD:
        return log.read(entry)
    data = unpack_zstd(raw_bytes(log, entry))
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise zipfile.BadZipFile(f"bad checksum of '{name}'")
    return data


def raw_bytes(log: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The compressed bytes of one file."""
    stream: Any = log.fp
    stream.seek(entry.header_offset)
    magic, name_length, extra_length = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header of '{entry.filename}'")
    stream.seek(name_length + extra_length, 1)
    return bytes(stream.read(entry.compress_size))


def unpack_zstd(data: bytes) -> bytes:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("reading a Zstandard compressed log", "train") from error
    return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
