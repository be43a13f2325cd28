"""A seccomp filter for a process that only computes: the allowed system calls, as a classic BPF program.

The calls are in system_calls.toml; the instructions and `struct seccomp_data` are from `linux/bpf_common.h` and
`linux/seccomp.h`.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]. Low words on little-endian machines.
_NR_OFFSET: Final = 0
_ARCH_OFFSET: Final = 4
_ARGS_OFFSET: Final = 16

_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_ALLOW: Final = 0x7FFF0000  # SECCOMP_RET_ALLOW
_DENY: Final = 0x00050000 | errno.EPERM  # SECCOMP_RET_ERRNO: the call fails, as an OSError in Python
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Pack one `struct sock_filter`: u16 code, u8 jump if true, u8 jump if false, u32 value."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


@cache
def filter_program(platform: str, machine: str) -> bytes:
    """Return the filter as an array of `struct sock_filter`; calls that are not listed fail with EPERM.

    It is empty outside Linux, on other processors, and in a 32-bit interpreter.

    Args:
        platform: `sys.platform`.
        machine: `platform.machine()`.
    """
    known = tomllib.loads(Path(__file__).with_name("system_calls.toml").read_text(encoding="utf-8")).get(machine)
    if known is None or platform != "linux" or sys.maxsize < 2**32:
        return b""
    program = _instruction(_LOAD_WORD, _ARCH_OFFSET)
    program += _instruction(_JUMP_IF_EQUAL, known["audit_arch"], 1, 0) + _instruction(_RETURN, _DENY)
    program += _instruction(_LOAD_WORD, _NR_OFFSET)
    for number, flags_index in known["opens"]:  # denied with a flag that writes
        program += _instruction(_JUMP_IF_EQUAL, number, 0, 4) + _instruction(_LOAD_WORD, _ARGS_OFFSET + 8 * flags_index)
        program += _instruction(_JUMP_IF_ANY_BIT, _WRITE_FLAGS, 0, 1) + _instruction(_RETURN, _DENY)
        program += _instruction(_RETURN, _ALLOW)
    for number in known["allowed"].split()[1::2]:
        program += _instruction(_JUMP_IF_EQUAL, int(number), 0, 1) + _instruction(_RETURN, _ALLOW)
    return program + _instruction(_RETURN, _DENY)
