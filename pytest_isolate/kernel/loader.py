"""What the kernel and the dynamic loader need to start this interpreter where its libraries are elsewhere."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

__all__ = ["Loader", "find_loader", "requested_loader"]

PT_INTERP = 3  # elf(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    path: str
    directories: tuple[str, ...]  #: of all libraries that this process has mapped


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
    return Loader(path=real, directories=(*others, system))


def requested_loader(executable: str) -> str | None:
    """The program interpreter that an ELF file asks for."""
    with open(executable, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":  # 64 bits, as all machines that the package is built for
            return None
        order = "<" if head[5] == 1 else ">"
        (table,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        for number in range(count):
            file.seek(table + number * size)
            kind, _, offset, _, _, length = struct.unpack(f"{order}IIQQQQ", file.read(40))
            if kind == PT_INTERP:
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None
