"""Python packs what C reads: the layouts of native/wire.h and enter.h, held against each other."""

from __future__ import annotations

from pytest_isolate.kernel import supervisor
from pytest_isolate.sandbox import enter
from pytest_isolate.syscalls import program
from pytest_isolate.syscalls._native import ffi, lib


def test_struct_sizes() -> None:
    assert program.OP.size == ffi.sizeof("struct op") == supervisor.OP_BYTES
    assert supervisor.REQUEST.size == ffi.sizeof("struct request")
    assert supervisor.REPLY.size == ffi.sizeof("struct reply")


def test_entry_report_fits_its_page() -> None:
    assert ffi.sizeof("struct enter_result") <= enter.PAGE_BYTES


def test_every_step_of_entering_has_a_name() -> None:
    steps = {name for name in dir(lib) if name.startswith("ENTER_")} - {"ENTER_MAX_TASKS"}
    assert {getattr(lib, name) for name in steps} == set(enter.STEP_NAMES)
