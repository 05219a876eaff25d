"""The filter of system calls: its numbers against the kernel's headers, its program by running it here."""

from __future__ import annotations

import errno
import platform
import re
import subprocess
from functools import cache

import pytest

from pytest_isolate.kernel.seccomp import (
    AUDIT_ARCH,
    COMPANIONS,
    DENIED,
    ENOSYS_NAMES,
    INSTRUCTION,
    NUMBERS,
    X32_BIT,
    filter_program,
)

ALLOWED = 0
HEADERS = {
    "x86_64": "asm/unistd_64.h",
    "i386": "asm/unistd_32.h",
    "aarch64": "asm-generic/unistd.h",
}
CHECKED = {"ioctl", "socket", "socketcall"}  # by their arguments
NAMES = {name for names in DENIED.values() for name in names} | CHECKED
MACHINES = [(machine, arch) for machine in COMPANIONS for arch in (machine, *COMPANIONS[machine])]


@cache
def header(arch: str) -> dict[str, int]:
    """Numbers by name, as the compiler of this machine finds them."""
    source = f"#include <{HEADERS[arch]}>\n"
    command = ["cc", "-E", "-dM", "-D__BITS_PER_LONG=64", "-xc", "-"]
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)\n", text)}


def run(machine: str, arch: int, number: int, *args: int) -> int:
    """What the kernel would make of a call: 0, or an errno."""
    program = [*INSTRUCTION.iter_unpack(filter_program(machine))]
    data = {0: number, 4: arch, **{16 + 8 * index: arg & 0xFFFFFFFF for index, arg in enumerate(args)}}
    at, accumulator = 0, 0
    while True:
        code, true, false, value = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = data.get(value, 0)
            case 0x05:
                at += value
            case 0x15:
                at += true if accumulator == value else false
            case 0x35:
                at += true if accumulator >= value else false
            case 0x06:
                assert value == 0x7FFF0000 or value >> 16 == 5
                return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF
            case _:
                pytest.fail(f"no such instruction: {code:#x}")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_numbers_are_those_of_the_headers(arch: str) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("Debian has the headers of both on x86_64 only")
    for name in sorted(NAMES):
        assert NUMBERS[arch].get(name) == header(arch).get(name), name


def test_numbers_of_32_bits_are_those_of_the_headers() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("32-bit programs of this machine are refused altogether")
    for name in sorted(NAMES):
        assert NUMBERS["i386"].get(name) == header("i386").get(name), name


def test_every_name_has_a_number_somewhere() -> None:
    assert {name for numbers in NUMBERS.values() for name in numbers} == NAMES


@pytest.mark.parametrize(("machine", "arch"), MACHINES)
def test_these_calls_are_refused_and_no_others(machine: str, arch: str) -> None:
    names = {number: name for name, number in NUMBERS[arch].items()}
    for number in range(600):
        name = names.get(number)
        refused = errno.ENOSYS if name in ENOSYS_NAMES else errno.EPERM
        expected = ALLOWED if name is None or name in CHECKED else refused
        assert run(machine, AUDIT_ARCH[arch], number) == expected, (number, name)


@pytest.mark.parametrize(("machine", "arch"), MACHINES)
def test_arguments_decide(machine: str, arch: str) -> None:
    numbers, audit = NUMBERS[arch], AUDIT_ARCH[arch]
    ioctl = numbers["ioctl"]
    assert run(machine, audit, ioctl, 0, 0x5412) == errno.EPERM  # TIOCSTI
    assert run(machine, audit, ioctl, 0, 0x7_0000_5412) == errno.EPERM  # the kernel sees no upper half
    assert run(machine, audit, ioctl, 0x5412, 0x541C) == errno.EPERM  # TIOCLINUX
    assert run(machine, audit, ioctl, 0x5412, 0x5401) == ALLOWED  # TCGETS
    assert run(machine, audit, numbers["socket"], 40, 1) == errno.EAFNOSUPPORT  # AF_VSOCK
    assert run(machine, audit, numbers["socket"], 1, 40) == ALLOWED
    if "socketcall" in numbers:
        assert run(machine, audit, numbers["socketcall"], 1) == errno.ENOSYS  # socket()
        assert run(machine, audit, numbers["socketcall"], 3) == ALLOWED  # connect()


def test_other_ways_to_call_the_kernel_do_not_exist() -> None:
    assert run("x86_64", AUDIT_ARCH["x86_64"], X32_BIT + 1) == errno.ENOSYS
    assert run("x86_64", AUDIT_ARCH["aarch64"], 1) == errno.ENOSYS
    assert run("aarch64", 0x40000028, 1) == errno.ENOSYS  # AUDIT_ARCH_ARM


def test_the_program_is_one_that_the_kernel_takes() -> None:
    for machine in COMPANIONS:
        assert 10 < len(filter_program(machine)) // INSTRUCTION.size < 4096  # BPF_MAXINSNS
