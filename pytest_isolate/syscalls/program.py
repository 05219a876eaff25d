"""A program of system calls: recorded here, run by the init of a sandbox.

The supervisor knows no mount, no overlay and no capability: it runs what this class packs. So all that is
done to build a sandbox stands in Python, can be printed, and costs Python nothing at the time it runs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pytest_isolate.syscalls._native import lib

__all__ = ["Call", "Program", "Slot"]

OP = struct.Struct("=IIii6Q8B")  # struct op of wire.h
MASK = 2**64 - 1
#: Names of calls that the supervisor makes, not the kernel.
NO_CALLS = {"map_ids": "OP_MAP_IDS", "map_ids_by_helpers": "OP_MAP_IDS_BY_HELPERS"}


@dataclass(frozen=True, slots=True)
class Slot:
    """The result of an earlier call, as an argument."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call; strings and bytes are passed by address.

    ``tolerated`` is an errno that does not end the program, ``label`` names what asked for the call.
    """

    name: str
    args: tuple[int | str | bytes | Slot, ...]
    label: str
    tolerated: int = 0
    slot: int = -1
    export: bool = False


class Program:
    """Calls in order. ``label`` is attached to each and comes back when it fails."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.label = ""
        self.limits: Slot | None = (
            None  #: a descriptor of /proc/sys/user, for steps after the one that opens it
        )
        self._packed: tuple[int, bytes] | None = None

    def call(
        self,
        name: str,
        *args: int | str | bytes | Slot,
        tolerated: int = 0,
        keep: bool = False,
        export: bool = False,
    ) -> Slot:
        """Append system call ``name``. With ``keep`` its result can be an argument of later ones, with
        ``export`` it is a descriptor that the caller of the supervisor gets, in order of the calls."""
        slot = sum(call.slot >= 0 for call in self.calls) if keep else -1
        if slot >= lib.WIRE_MAX_SLOTS:
            raise ValueError("too many kept results in one program")
        self._append(
            Call(name=name, args=args, label=self.label, tolerated=tolerated, slot=slot, export=export)
        )
        return Slot(slot)

    def _append(self, call: Call) -> None:
        self.calls.append(call)
        self._packed = None

    def map_ids(self, uid_map: str, gid_map: str) -> None:
        """Have the supervisor write the maps of the user namespace that the init is in by now."""
        self._append(Call(name="map_ids", args=(uid_map, gid_map), label=self.label))

    def map_ids_by_helpers(self, uid_map: str, gid_map: str, newuidmap: str, newgidmap: str) -> None:
        """The same, by programs that may do what the supervisor may not (newuidmap(1))."""
        args = (uid_map, gid_map, newuidmap, newgidmap)
        self._append(Call(name="map_ids_by_helpers", args=args, label=self.label))

    def write_file(self, path: str, text: str) -> None:
        file = self.call("openat", lib.AT_FDCWD, path, lib.O_WRONLY | lib.O_CLOEXEC, 0, keep=True)
        self.call("write", file, text, len(text.encode()))
        self.call("close", file)

    def label_of(self, op_index: int) -> str:
        """What the call was for that the supervisor names; one past the last: the creation itself."""
        return self.calls[op_index].label if op_index < len(self.calls) else "create the namespaces"

    def pack(self) -> tuple[int, bytes]:
        """(number of calls, the ops and their data) as wire.h lays them out; made once, used per test."""
        if self._packed is None:
            self._packed = self._pack()
        return self._packed

    def _pack(self) -> tuple[int, bytes]:
        data = bytearray()
        offsets: dict[bytes, int] = {}
        ops = []
        for call in self.calls:
            values, kinds = [0] * 6, [lib.ARG_VALUE] * 8
            for i, arg in enumerate(call.args):
                match arg:
                    case int():
                        values[i] = arg & MASK
                    case Slot(index):
                        values[i], kinds[i] = index, lib.ARG_SLOT
                    case str() | bytes():
                        raw = arg.encode() + b"\0" if isinstance(arg, str) else arg
                        if raw not in offsets:
                            data += b"\0" * (-len(data) % 8)  # structs are read in place
                            offsets[raw] = len(data)
                            data += raw
                        values[i], kinds[i] = offsets[raw], lib.ARG_DATA
            number = getattr(lib, NO_CALLS.get(call.name, f"SYS_{call.name}"))
            flags = lib.OP_EXPORT if call.export else 0
            ops.append(OP.pack(number, flags, call.tolerated, call.slot, *values, *kinds))
        return len(ops), b"".join(ops) + bytes(data)
