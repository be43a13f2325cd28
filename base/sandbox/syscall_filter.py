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
    allowed: tuple[int, ...]


# Reading and writing open files, memory, clocks, randomness, own signals' handlers, identity, exit. Not among them:
# anything that makes a process or thread, runs a program, opens a socket, changes a file, a limit or another process.
_X86_64: Final = _Machine(
    0xC000003E,
    ((2, 1), (257, 2)),
    (
        # read write close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
        *(0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        # pread64 readv writev access select sched_yield mremap madvise nanosleep getpid exit uname getcwd readlink
        *(17, 19, 20, 21, 23, 24, 25, 28, 35, 39, 60, 63, 79, 89),
        # gettimeofday getrusage sysinfo times getuid getgid geteuid getegid sigaltstack gettid time futex
        *(96, 98, 99, 100, 102, 104, 107, 108, 131, 186, 201, 202),
        # sched_getaffinity getdents64 restart_syscall clock_gettime clock_getres clock_nanosleep exit_group newfstatat
        *(204, 217, 219, 228, 229, 230, 231, 262),
        # readlinkat faccessat pselect6 ppoll getrandom membarrier statx rseq faccessat2
        *(267, 269, 270, 271, 318, 324, 332, 334, 439),
    ),
)
_AARCH64: Final = _Machine(
    0xC00000B7,
    ((56, 2),),
    (
        # getcwd faccessat close getdents64 lseek read write readv writev pread64 pselect6 ppoll readlinkat newfstatat
        # fstat
        *(17, 48, 57, 61, 62, 63, 64, 65, 66, 67, 72, 73, 78, 79, 80),
        # exit exit_group futex nanosleep clock_gettime clock_getres clock_nanosleep sched_getaffinity sched_yield
        *(93, 94, 98, 101, 113, 114, 115, 123, 124),
        # restart_syscall sigaltstack rt_sigaction rt_sigprocmask rt_sigreturn times uname getrusage gettimeofday
        *(128, 132, 134, 135, 139, 153, 160, 165, 169),
        # getpid getuid geteuid getgid getegid gettid sysinfo brk munmap mremap mmap mprotect madvise
        *(172, 174, 175, 176, 177, 178, 179, 214, 215, 216, 222, 226, 233),
        # getrandom membarrier statx rseq faccessat2
        *(278, 283, 291, 293, 439),
    ),
)
_MACHINES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 value."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _open_checks(machine: _Machine) -> bytes:
    """Per open call: deny when a write flag is set, else allow. Enters and leaves with the call number loaded."""
    checks = b""
    for number, flags_index in machine.opens:
        checks += _instruction(_JUMP_IF_EQUAL, number, 0, 4)
        checks += _instruction(_LOAD_WORD, _ARGS_OFFSET + 8 * flags_index)
        checks += _instruction(_JUMP_IF_ANY_BIT, _WRITE_FLAGS, 0, 1)
        checks += _instruction(_RETURN, _DENY)
        checks += _instruction(_RETURN, _ALLOW)
    return checks


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
    program += _instruction(_LOAD_WORD, _NR_OFFSET) + _open_checks(known)
    for number in known.allowed:
        program += _instruction(_JUMP_IF_EQUAL, number, 0, 1) + _instruction(_RETURN, _ALLOW)
    return program + _instruction(_RETURN, _DENY)
