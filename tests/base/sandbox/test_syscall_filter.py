from __future__ import annotations

import os
import struct

import pytest

from coe.base.sandbox.syscall_filter import filter_program

ALLOW, DENY = 0x7FFF0000, 0x00050001
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(machine: str, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """The kernel's verdict: a classic BPF machine with the four instructions the filter uses."""
    program = [struct.unpack_from("=HBBI", filter_program("linux", machine), i) for i in range(0, size(machine), 8)]
    data = struct.pack("=iIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *(*arguments, *[0] * 6)[:6])
    at, word = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
        elif code == 0x15:
            at += if_true if word == value else if_false
        elif code == 0x45:
            at += if_true if word & value else if_false
        else:
            assert code == 0x06
            return int(value)


def size(machine: str) -> int:
    return len(filter_program("linux", machine))


# read, write, mmap, brk, exit_group, clock_gettime, getrandom
@pytest.mark.parametrize(
    ("machine", "numbers"),
    [("x86_64", (0, 1, 9, 12, 231, 228, 318)), ("aarch64", (63, 64, 222, 214, 94, 113, 278))],
)
def test_computing_is_allowed(machine: str, numbers: tuple[int, ...]) -> None:
    assert {verdict(machine, number) for number in numbers} == {ALLOW}


# socket, connect, clone, execve, kill, ptrace, prctl, unlinkat, renameat2, setrlimit or prlimit64, io_uring_setup,
# openat2, clone3, pidfd_open, bpf, unshare
@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        ("x86_64", (41, 42, 56, 59, 62, 101, 157, 263, 316, 160, 425, 437, 435, 434, 321, 272, 57, 58, 87, 82)),
        ("aarch64", (198, 203, 220, 221, 129, 117, 167, 35, 276, 261, 425, 437, 435, 434, 280, 97)),
    ],
)
def test_leaving_the_process_is_denied(machine: str, numbers: tuple[int, ...]) -> None:
    assert {verdict(machine, number) for number in numbers} == {DENY}


@pytest.mark.parametrize(("machine", "number", "flags_at"), [("x86_64", 257, 2), ("x86_64", 2, 1), ("aarch64", 56, 2)])
def test_open_reads_only(machine: str, number: int, flags_at: int) -> None:
    def opened(flags: int) -> int:
        arguments = [0] * 6
        arguments[flags_at] = flags
        return verdict(machine, number, tuple(arguments))

    assert opened(os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    assert {opened(f) for f in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_RDWR | os.O_CLOEXEC)} == {DENY}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_another_calling_convention_is_denied(machine: str) -> None:
    assert verdict(machine, 1, arch=0x40000003) == DENY
    assert verdict(machine, 0x40000001) == DENY


@pytest.mark.parametrize(("platform", "machine"), [("darwin", "x86_64"), ("linux", "riscv64"), ("win32", "AMD64")])
def test_no_filter_elsewhere(platform: str, machine: str) -> None:
    assert filter_program(platform, machine) == b""
