"""A copy of pytest that makes the processes of tests, so that pytest itself need not fork for each.

After a fork pytest copies each page of memory that it touches: some 1,500 for each test. The template, which
waits in C (native/template.c), touches next to none. What its children inherit is pytest as it was when the
template was made; so it serves as long as that is right for the tests to come.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from pytest_isolate.kernel.cgroups.base import Cgroup
from pytest_isolate.kernel.process import fork, kill
from pytest_isolate.sandbox.birth import Birth, Maker
from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.enter import EntryReport, entry_files, entry_request, settle_in
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["Served", "Template", "TemplateBody", "TemplateChild"]

ORDER = struct.Struct("=IIIId")
ANSWER = struct.Struct("=i")
RESULT_BYTES: int = ffi.sizeof("struct enter_result")
#: How long it may take to make a process.
PATIENCE_S = 5.0
SLOTS = mmap.PAGESIZE // RESULT_BYTES


@dataclass(frozen=True, slots=True)
class Served:
    """What a process made by a template is told: it is in its sandbox."""

    item: int  #: place among the session's items
    cgroup_paths: tuple[str, ...]
    born_s: float  #: by CLOCK_MONOTONIC


class TemplateChild:
    """What the template's own process has: everything that its children will have, at the same numbers."""

    def __init__(self, plan: Plan, orders: socket.socket, page: mmap.mmap) -> None:
        self.plan = plan
        ours, self._unused = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = ChildEnd(ours)  # another socket takes its place in each child
        self.trace_fd = os.memfd_create("faulthandler")
        self._orders = orders
        self._request = entry_request(plan)
        self._page = page

    def serve(self) -> Served:
        """Returns in each process of a test, and never in the template."""
        places = ffi.new("struct template_places *")
        places.orders_fd = self._orders.detach()
        places.channel_fd, places.trace_fd = self.channel.fileno(), self.trace_fd
        places.results = ffi.cast("struct enter_result *", ffi.from_buffer(self._page))
        places.results_bytes = len(self._page)
        order = ffi.new("struct template_order *")
        self._unused.close()
        lib.isolate_serve(self._request, places, order)
        self.channel.claim()
        settle_in(self.plan)
        paths = os.fsdecode(ffi.string(order.text))
        return Served(order.item, tuple(paths.split("\n")) if paths else (), order.born_s)


TemplateBody = Callable[[TemplateChild], NoReturn]


class Template:
    """pytest's end. ``forget``: in the template, drops what is pytest's alone."""

    def __init__(
        self,
        plan: Plan,
        loop: Loop,
        *,
        forget: Callable[[], None],
        body: TemplateBody,
    ) -> None:
        self.plan = plan
        self._loop = loop
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._count = 0
        self._waiting: deque[Callable[[int], None]] = deque()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = fork()
            if self._pid == 0:
                self._run(theirs, forget, body)
        loop.watch(self._socket, self._receive)

    def _run(self, theirs: socket.socket, forget: Callable[[], None], body: TemplateBody) -> NoReturn:
        try:
            forget()
            self._socket.close()
            body(TemplateChild(self.plan, theirs, self._page))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    @property
    def is_alive(self) -> bool:
        return self._socket.fileno() >= 0

    def maker(self, item: int, cgroup: Cgroup | None, otherwise: Maker) -> Maker:
        """For the process of an item, by its place among the session's; ``otherwise``: if this has ended."""
        return _Ordered(self, item, cgroup.paths if cgroup is not None else (), otherwise)

    def order(
        self, item: int, cgroup_paths: tuple[str, ...], birth: Birth, born: Callable[[int], None]
    ) -> EntryReport:
        """See :meth:`Maker.make`."""
        slot = self._count = (self._count + 1) % SLOTS
        report = EntryReport(self._page, slot)
        files = entry_files(birth.entry)
        has_directory = birth.entry is not None and birth.entry.directory is not None
        numbers = ORDER.pack(item, slot, 0 if has_directory else len(files), has_directory, 0.0)
        text = os.fsencode("\n".join(cgroup_paths))
        if len(text) >= lib.TEMPLATE_MAX_TEXT:
            raise OSError(errno.ENAMETOOLONG, "the paths of the cgroup are too long for a template")
        fds = [birth.channel.fileno(), birth.trace.fd, *birth.namespaces.in_order(), *files]
        try:
            socket.send_fds(self._socket, [numbers, text, b"\0"], fds)
        finally:
            for fd in files:
                os.close(fd)
        self._waiting.append(born)
        return report

    def _receive(self) -> None:
        answer = self._next_answer()
        if answer is None:
            self.close()  # somebody has killed it
        else:
            self._waiting.popleft()(answer)

    def forget(self) -> None:
        """In a forked child: neither orders nor results are its business."""
        self._socket.close()
        self._page.close()

    def close(self) -> None:
        """Make what was ordered, then end it, and wait until it is gone: it holds what pytest has open."""
        if not self.is_alive:
            return
        self._loop.unwatch(self._socket)
        self._socket.settimeout(PATIENCE_S)
        while self._waiting and (answer := self._next_answer()) is not None:
            self._waiting.popleft()(answer)
        kill(self._pid)
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, or somebody else waited for it
            os.waitpid(self._pid, 0)
        while self._waiting:
            self._waiting.popleft()(-errno.ECHILD)

    def _next_answer(self) -> int | None:
        """None if it has died, or does not answer."""
        try:
            answer = self._socket.recv(ANSWER.size)
        except OSError:
            return None
        return int(ANSWER.unpack(answer)[0]) if len(answer) == ANSWER.size else None


@dataclass(frozen=True, slots=True)
class _Ordered:
    template: Template
    item: int
    cgroup_paths: tuple[str, ...]
    otherwise: Maker

    def make(self, birth: Birth, born: Callable[[int], None]) -> EntryReport:
        if not self.template.is_alive:
            return self.otherwise.make(birth, born)
        return self.template.order(self.item, self.cgroup_paths, birth, born)
