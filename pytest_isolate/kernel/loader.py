"""What the kernel and the dynamic loader need to start this interpreter where its libraries are elsewhere."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest_isolate.syscalls

__all__ = ["LAUNCHER", "MOST_DIRECTORIES", "Loader", "find_loader", "needed_libraries", "requested_loader"]

#: Starts the host's interpreter in any root (native/interpreter.c).
LAUNCHER = os.fspath(Path(pytest_isolate.syscalls.__file__).with_name("isolate-interpreter"))
MOST_DIRECTORIES = 8  # that it knows of
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3  # elf(5)
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5
MAX_NAME_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    path: str
    directories: tuple[str, ...]  #: of all libraries that this process has mapped
    interpreter: str  #: the file, without links

    @property
    def has_argv0(self) -> bool:
        """Whether it can give a program another name (--argv0 of ld.so(8), since glibc 2.33)."""
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        return name == "glibc" and numbers >= [2, 33] and len(self.directories) <= MOST_DIRECTORIES


def find_loader(executable: str) -> Loader | None:
    """None if ``executable`` is linked statically and needs none, or is no program at all."""
    path = requested_loader(executable) if os.path.isfile(executable) else None
    if path is None:
        return None
    real = os.path.realpath(path)
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        # address perms offset dev inode pathname (proc(5))
        mapped = {line.rstrip("\n").split(maxsplit=5)[5] for line in lines if " /" in line}
    # Extension modules, which have no such names, are found by Python.
    found = {os.path.dirname(name) for name in mapped if os.path.basename(name).startswith("lib")}
    # The system's last, as when ld.so searches by itself: it may have other versions of what an interpreter
    # brings along, its libpython first of all, and --library-path goes before DT_RUNPATH (ld.so(8)).
    system = os.path.dirname(real)
    others = sorted(path for path in found - {system, "/"} if os.path.isdir(path))
    return Loader(path=real, directories=(*others, system), interpreter=os.path.realpath(executable))


def requested_loader(executable: str) -> str | None:
    """The program interpreter that an ELF file asks for."""
    with open(executable, "rb") as file:
        for kind, offset, _, size_bytes in _segments(file):
            if kind == PT_INTERP:
                file.seek(offset)
                return os.fsdecode(file.read(size_bytes).rstrip(b"\0"))
    return None


def needed_libraries(path: str) -> list[str]:
    """Names of the libraries that an ELF file asks for (DT_NEEDED); none of a file that is no ELF file."""
    with open(path, "rb") as file:
        segments = [*_segments(file)]
        dynamic = next((s for s in segments if s[0] == PT_DYNAMIC), None)
        if dynamic is None:
            return []
        file.seek(dynamic[1])
        data = file.read(dynamic[3])
        entries = [*struct.iter_unpack("=qQ", data[: len(data) // 16 * 16])]
        if (DT_NULL, 0) in entries:
            entries = entries[: entries.index((DT_NULL, 0))]
        table = next((value for tag, value in entries if tag == DT_STRTAB), None)
        start = _offset_of(table, segments)
        if start is None:
            return []
        return [_text_at(file, start + value) for tag, value in entries if tag == DT_NEEDED]


def _segments(file: IO[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """(kind, offset, address, bytes in the file) of each program header."""
    head = file.read(64)
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":  # 64 bits, as all machines that the package is built for
        return
    order = "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    for number in range(count):
        file.seek(table + number * size)
        header = file.read(40)
        if len(header) < 40:
            return
        kind, _, offset, address, _, size_bytes = struct.unpack(f"{order}IIQQQQ", header)
        yield kind, offset, address, size_bytes


def _offset_of(address: int | None, segments: list[tuple[int, int, int, int]]) -> int | None:
    """Where in the file is what is at an address in memory."""
    for kind, offset, start, size_bytes in segments:
        if kind == PT_LOAD and address is not None and start <= address < start + size_bytes:
            return offset + address - start
    return None


def _text_at(file: IO[bytes], offset: int) -> str:
    file.seek(offset)
    return os.fsdecode(file.read(MAX_NAME_BYTES).partition(b"\0")[0])
