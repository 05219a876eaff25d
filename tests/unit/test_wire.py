"""Python packs what C reads: the layouts of native/wire.h and enter.h, held against each other."""

from __future__ import annotations

import resource

from pytest_isolate.kernel import attempts, supervisor
from pytest_isolate.kernel.process import effective_capabilities
from pytest_isolate.kernel.readback import namespace_inodes, tell_entered
from pytest_isolate.sandbox import enter, template
from pytest_isolate.sandbox.channel import open_channel
from pytest_isolate.sandbox.messages import Entered
from pytest_isolate.sandbox.oci import container
from pytest_isolate.syscalls import program
from pytest_isolate.syscalls._native import ffi, lib


def test_struct_sizes() -> None:
    assert program.OP.size == ffi.sizeof("struct op") == supervisor.OP_BYTES
    assert supervisor.REQUEST.size == ffi.sizeof("struct request")
    assert supervisor.REPLY.size == ffi.sizeof("struct reply")
    assert attempts.ATTEMPT.size == ffi.sizeof("struct attempt")
    longest = lib.ATTEMPT_MAX_ADDRESS + lib.ATTEMPT_MAX_PAYLOAD + lib.ATTEMPT_MAX_COMMAND
    assert supervisor.REPLY.size + attempts.ATTEMPT.size + longest <= supervisor.REPLY_BYTES
    assert supervisor.REPLY.size + 4 * lib.ATTEMPT_MAX_COUNTS <= supervisor.REPLY_BYTES
    assert container.STATUS.size == ffi.sizeof("struct container_status")


def test_orders_of_a_template() -> None:
    assert template.ORDER.size == ffi.offsetof("struct template_order", "text")
    assert template.ORDER.size + lib.TEMPLATE_MAX_TEXT == ffi.sizeof("struct template_order")


def test_what_c_says_of_an_entered_process_is_a_message() -> None:
    ours, theirs = open_channel()
    with theirs:
        tell_entered(theirs.fileno())
        (message,) = ours.receive()
    ours.close()
    assert isinstance(message, Entered)
    assert message.evidence["namespaces"] == namespace_inodes()
    assert message.evidence["limits"]["RLIMIT_NOFILE"] == str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert int(message.evidence["capabilities"], 16) == effective_capabilities()
    assert {*message.evidence} == {
        "namespaces", "root", "mounts", "masked", "read_only", "limits",
        "capabilities", "capabilities_bounding", "no_new_privs", "seccomp", "confined",
    }  # fmt: skip


def test_entry_report_fits_its_page() -> None:
    assert ffi.sizeof("struct enter_result") <= enter.PAGE_BYTES


def test_entering_may_fail_at_a_step_that_has_no_name() -> None:
    report = enter.EntryReport()
    assert report.failure is None
    report.pointer.step, report.pointer.error = 77, -(2**31)
    assert report.failure == ("step 77", -(2**31))
    report.drop()
    report.drop()


def test_every_step_of_entering_has_a_name() -> None:
    steps = {name for name in dir(lib) if name.startswith("ENTER_")} - {"ENTER_MAX_TASKS"}
    assert {getattr(lib, name) for name in steps} == set(enter.STEP_NAMES)
