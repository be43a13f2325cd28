"""A seccomp filter for a process that only computes: the system calls it may make, as a classic BPF program.

Numbers are from the kernel's `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`; the
instructions and `struct seccomp_data` from `linux/bpf_common.h` and `linux/seccomp.h`.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Machine:
    """`opens`: open calls with the index of their flags argument; they may read but not write."""

    audit_arch: int
    opens: tuple[tuple[int, int], ...]
    allowed: str

    @property
    def numbers(self) -> list[int]:
        return [int(word) for word in self.allowed.split() if word.isdecimal()]


# Reading and writing open files, memory, clocks, randomness, own signals' handlers, identity, exit. Not among them:
# anything that makes a process or thread, runs a program, opens a socket, changes a file, a limit or another process.
_X86_64: Final = _Machine(
    0xC000003E,
    ((2, 1), (257, 2)),
    """
    read 0 write 1 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13
    rt_sigprocmask 14 rt_sigreturn 15 pread64 17 readv 19 writev 20 access 21 select 23 sched_yield 24 mremap 25
    madvise 28 nanosleep 35 getpid 39 exit 60 uname 63 getcwd 79 readlink 89 gettimeofday 96 getrusage 98 sysinfo 99
    times 100 getuid 102 getgid 104 geteuid 107 getegid 108 sigaltstack 131 gettid 186 time 201 futex 202
    sched_getaffinity 204 getdents64 217 restart_syscall 219 clock_gettime 228 clock_getres 229 clock_nanosleep 230
    exit_group 231 newfstatat 262 readlinkat 267 faccessat 269 pselect6 270 ppoll 271 getrandom 318 membarrier 324
    statx 332 rseq 334 faccessat2 439
    """,
)
_AARCH64: Final = _Machine(
    0xC00000B7,
    ((56, 2),),
    """
    getcwd 17 faccessat 48 close 57 getdents64 61 lseek 62 read 63 write 64 readv 65 writev 66 pread64 67 pselect6 72
    ppoll 73 readlinkat 78 newfstatat 79 fstat 80 exit 93 exit_group 94 futex 98 nanosleep 101 clock_gettime 113
    clock_getres 114 clock_nanosleep 115 sched_getaffinity 123 sched_yield 124 restart_syscall 128 sigaltstack 132
    rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139 times 153 uname 160 getrusage 165 gettimeofday 169 getpid 172
    getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179 brk 214 munmap 215 mremap 216 mmap 222
    mprotect 226 madvise 233 getrandom 278 membarrier 283 statx 291 rseq 293 faccessat2 439
    """,
)
_MACHINES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 value."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def filter_program(platform: str, machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`; empty where there is none (not Linux, another processor, a
    32-bit interpreter). Calls that are not listed fail with EPERM.

    Args:
        platform: `sys.platform`.
        machine: `platform.machine()`.
    """
    known = _MACHINES.get(machine)
    if known is None or platform != "linux" or sys.maxsize < 2**32:
        return b""
    program = _instruction(_LOAD_WORD, _ARCH_OFFSET)
    program += _instruction(_JUMP_IF_EQUAL, known.audit_arch, 1, 0) + _instruction(_RETURN, _DENY)
    program += _instruction(_LOAD_WORD, _NR_OFFSET)
    for number, flags_index in known.opens:  # denied with a flag that writes
        program += _instruction(_JUMP_IF_EQUAL, number, 0, 4) + _instruction(_LOAD_WORD, _ARGS_OFFSET + 8 * flags_index)
        program += _instruction(_JUMP_IF_ANY_BIT, _WRITE_FLAGS, 0, 1) + _instruction(_RETURN, _DENY)
        program += _instruction(_RETURN, _ALLOW)
    for number in known.numbers:
        program += _instruction(_JUMP_IF_EQUAL, number, 0, 1) + _instruction(_RETURN, _ALLOW)
    return program + _instruction(_RETURN, _DENY)
