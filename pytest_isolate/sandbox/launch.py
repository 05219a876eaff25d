"""One pytest session's sandboxes.

   pytest ---------- socket ---------- supervisor (C, one per session, outlives pytest to clean up)
     |                                     |
     | fork                                | clone3 into fresh namespaces
     v                                     v
   child -- setns, then the hop --> test   init (C, PID 1 of the sandbox, reaps)

1. pytest makes the cgroup, and asks the supervisor for a sandbox by a program of system calls.
2. The supervisor clones an init; the init runs the program, gives up all rights and answers READY with
   descriptors of its namespaces.
3. pytest forks; the child joins cgroup and namespaces, and hops into the pid namespace (native/enter.c).
4. The child runs the test and reports over its channel. pytest never enters anything.
5. At the end pytest has the init killed, which kills all in its pid namespace; the supervisor says GONE
   when the last is reaped, and pytest removes the cgroup.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
import uuid
from functools import partial
from typing import TYPE_CHECKING

from pytest_isolate.errors import IsolateError, SetupError, SupervisorError, UnsupportedError
from pytest_isolate.kernel.attempts import Attempt, Counts
from pytest_isolate.kernel.cgroups.base import Cgroup, Cgroups, discard
from pytest_isolate.kernel.cgroups.detect import open_cgroups
from pytest_isolate.kernel.cgroups.lent import LentCgroup
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.namespaces import Namespace, clone_flags
from pytest_isolate.kernel.supervisor import ANSWER_S, DESTROY_S, Failed, Gone, Ready, Reply, Supervisor
from pytest_isolate.sandbox.birth import Forked
from pytest_isolate.sandbox.connections import Connections
from pytest_isolate.sandbox.enter import NamespaceFds
from pytest_isolate.sandbox.flight import Flight
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.network_log import NetworkLog
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.pool import Berth, Pool
from pytest_isolate.sandbox.roles import Body, Listener
from pytest_isolate.sandbox.steps import apply
from pytest_isolate.sandbox.template import Template, TemplateBody
from pytest_isolate.syscalls.program import Program

if TYPE_CHECKING:
    from pytest_isolate.sandbox.oci.containers import Containers

__all__ = ["Launcher"]

GONE_PATIENCE_S = 10.0


class Launcher:
    """Starts flights and clears up after them. Made on the first isolated test of a session."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.loop = Loop()
        self.run_id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._owner_pid = os.getpid()
        self._supervisor: Supervisor | None = None
        self._cgroups: Cgroups | None = None
        self._no_cgroups: UnsupportedError | None = None
        self._programs: dict[int, tuple[Plan, Program]] = {}  # by id of the plan, which is kept alive
        self._flights: dict[int, Flight] = {}  # built or being built, by sandbox id
        self._started: list[Flight] = []  # also those whose sandbox is gone before their test is reaped
        self._taken: dict[int, tuple[int, ...]] = {}  # descriptors on their way to a flight, by sandbox id
        self._pool = Pool()
        self._connections = Connections(self.loop)
        self._template: Template | None = None
        self._count = 0
        self._trials: dict[int, SetupError | None] = {}
        self._containers: Containers | None = None  # for those who have a runtime
        try:
            self._cgroups = open_cgroups(run_id=self.run_id)
        except UnsupportedError as error:
            self._no_cgroups = error

    @property
    def cgroup_version(self) -> str | None:
        return self._cgroups.version if self._cgroups is not None else None

    # ---- what this machine cannot do ------------------------------------------------------------

    def missing_limits(self, plan: Plan) -> dict[str, UnsupportedError]:
        """The limits of a plan (fields of Limits) that no cgroup here enforces."""
        limits = plan.limits
        asked = {
            "memory_bytes": ("memory", limits.memory_bytes is not None or limits.swap_bytes is not None),
            "cpus": ("cpu", limits.cpus is not None),
            "pids": ("pids", limits.pids is not None),
        }
        missing = {}
        for field, (controller, is_asked) in asked.items():
            if is_asked and (error := self._missing_controller(controller)) is not None:
                missing[field] = UnsupportedError(f"the {controller} limit", error.reason, error.cure)
        return missing

    def missing_runtime(self, plan: Plan) -> UnsupportedError | None:
        return self._get_containers().missing(plan) if plan.contained else None

    def _missing_controller(self, controller: str) -> UnsupportedError | None:
        if self._cgroups is None:
            return self._no_cgroups
        return None if controller in self._cgroups.controllers else self._cgroups.missing(controller)

    def trial(self, plan: Plan) -> SetupError | None:
        """Build the sandbox of a plan once without a test in it, and say what fails."""
        if id(plan) not in self._trials:
            self._trials[id(plan)] = self._try(plan)
        return self._trials[id(plan)]

    def _try(self, plan: Plan) -> SetupError | None:
        sandbox_id = self._create(plan)
        supervisor = self._get_supervisor()
        reply = supervisor.receive_about(sandbox_id, self._dispatch)
        failure = None
        if isinstance(reply, Ready):
            for fd in reply.fds:
                os.close(fd)
            supervisor.destroy(sandbox_id)
        elif isinstance(reply, Failed):
            step = self._program(plan).label_of(reply.op_index)
            failure = SetupError(step, reply.errno, f"{step}: {os.strerror(reply.errno)}")
            if not reply.born:
                return failure
        supervisor.receive_about(sandbox_id, self._dispatch)
        return failure

    # ---- flights --------------------------------------------------------------------------------

    def start(
        self,
        plan: Plan,
        *,
        body: Body,
        listener: Listener,
        held: bool = False,
        template: Template | None = None,
        item: int = 0,
    ) -> Flight:
        """Send a child on its way. If it is ``held`` its test waits for :meth:`Flight.begin`.

        With a ``template``, that makes it, and is told the place of the ``item``.

        Raises :class:`UnsupportedError` if a limit cannot be enforced.
        """
        for error in (self.missing_runtime(plan), *self.missing_limits(plan).values()):
            if error is not None:
                raise error
        self.loop.run_once(wait=False)  # a berth, or the supervisor itself, may have been killed
        berth = self._pool.take(plan) or self._make_berth(plan)
        kill_sandbox = partial(self._destroy, berth.sandbox_id)
        container, handover = (
            self._get_containers().make(plan, berth.cgroup, self.loop, kill_sandbox)
            if plan.contained
            else (None, None)
        )
        forked = Forked(
            plan,
            forget=lambda: self._forget_in_child(flight),
            body=body,
            hull=self._hull(plan),
            handover=handover,
        )
        flight = Flight(
            plan,
            name=berth.name,
            loop=self.loop,
            cgroup=berth.cgroup,
            kill_sandbox=container.kill if container is not None else kill_sandbox,
            maker=forked if template is None else template.maker(item, berth.cgroup, forked),
            listener=listener,
            held=held,
            container=container,
        )
        self._started = [*(other for other in self._started if not other.is_closed), flight]
        if berth.sandbox_id is not None:
            self._flights[berth.sandbox_id] = flight
            self._connections.expect(berth.sandbox_id, item)
            if plan.watched:
                flight.network = self._network_log(berth.sandbox_id)
        if (fds := berth.fds) is not None:
            assert berth.sandbox_id is not None
            self._taken[berth.sandbox_id] = fds
            self.loop.call_later(0, lambda: self._built(flight, fds, berth.sandbox_id))
        elif berth.sandbox_id is None:
            self.loop.call_later(0, flight.fork)
        else:
            self.loop.call_later(ANSWER_S, partial(self._get_supervisor().expect, berth.sandbox_id))
            self.loop.call_later(ANSWER_S, self._receive_unread)
        return flight

    def make_template(self, plan: Plan, body: TemplateBody) -> Template:
        """A copy of pytest as it is now. Only one at a time; the caller closes it. Raises OSError."""
        self._template = Template(plan, self.loop, forget=self._forget_in_child, body=body)
        return self._template

    def prepare(self, plan: Plan, count: int = 1) -> None:
        """Have sandboxes made for as many tests of this plan, which will start soon."""
        if not plan.steps or self.missing_limits(plan):
            return
        try:
            while self._pool.count(plan) < count:
                self._pool.add(self._make_berth(plan))
            if (surplus := self._pool.surplus()) is not None:
                surplus.given_up = True
                self._destroy(surplus.sandbox_id)
        except (IsolateError, OSError):
            return  # the test that needs one meets it again, and reports it

    def _make_berth(self, plan: Plan) -> Berth:
        self._count += 1
        name = f"t{self._count}"
        cgroup = self._make_cgroup(name, plan) if self._cgroups is not None else None
        try:
            return Berth(name, plan, cgroup, self._create(plan) if plan.steps else None)
        except BaseException:
            if cgroup is not None:
                cgroup.remove()
            raise

    def _make_cgroup(self, name: str, plan: Plan) -> Cgroup:
        assert self._cgroups is not None
        if not plan.contained:
            return self._cgroups.create(name, plan.limits)
        return LentCgroup(self._cgroups, name, plan.limits)

    def _hull(self, plan: Plan) -> Plan:
        """What the supervisor builds: the plan's sandbox, or what its runtime runs in."""
        if not plan.contained:
            return plan
        supervisor = self._get_supervisor()
        return self._get_containers().hull(plan, self._cgroups, supervisor)

    def _get_containers(self) -> Containers:
        if self._containers is None:
            from pytest_isolate.sandbox.oci.containers import Containers

            self._containers = Containers(self.host)
        return self._containers

    def _create(self, plan: Plan) -> int:
        flags, program = clone_flags(self._hull(plan).born_with), self._program(plan)
        inside, watch = self._connections.user_namespace_of(plan), bool(plan.watched)
        try:
            return self._get_supervisor().create(flags, program, inside=inside, watch=watch)
        except SupervisorError:
            self._lose_supervisor()  # somebody killed it: nobody but its own sandboxes is hurt
            return self._get_supervisor().create(flags, program, inside=inside, watch=watch)

    def _program(self, plan: Plan) -> Program:
        if id(plan) not in self._programs:
            program = Program()
            for step in self._hull(plan).steps:
                apply(step, program)
            self._programs[id(plan)] = (plan, program)
        return self._programs[id(plan)][1]

    def _destroy(self, sandbox_id: int | None) -> None:
        if sandbox_id is None or self._supervisor is None:
            return
        if sandbox_id in self._flights or sandbox_id in self._pool:
            try:
                self._supervisor.destroy(sandbox_id)
                self.loop.call_later(DESTROY_S, partial(self._supervisor.insist, sandbox_id))
            except SupervisorError:
                self._lose_supervisor()

    def _get_supervisor(self) -> Supervisor:
        if self._supervisor is None:
            self._supervisor = Supervisor()
            self.loop.watch(self._supervisor, self._receive)
            for path in self._cgroups.session_paths if self._cgroups is not None else ():
                self._supervisor.remember_cgroup(path)
            if self._containers is not None and self._containers.stage is not None:
                self._supervisor.remember_tree(self._containers.stage)
        return self._supervisor

    def _receive(self) -> None:
        assert self._supervisor is not None
        try:
            reply = self._supervisor.receive()
        except SupervisorError:
            self._lose_supervisor()
        else:
            self._dispatch(reply)

    def _receive_unread(self) -> None:
        while self._supervisor is not None and self._supervisor.has_unread:
            self._receive()

    def _network_log(self, sandbox_id: int) -> NetworkLog:
        own = self._supervisor  # another takes its place if it dies, and begins the ids anew
        return NetworkLog(
            sandbox_id,
            lambda: own if own is self._supervisor else None,
            lambda: self.loop.call_later(0, self._receive_unread),
        )

    def _lose_supervisor(self) -> None:
        """Its sandboxes die with it (PR_SET_PDEATHSIG); nobody will say when they are gone."""
        assert self._supervisor is not None
        self.loop.unwatch(self._supervisor)
        self._supervisor.close()
        self._supervisor = None
        for sandbox_id, flight in [*self._flights.items()]:
            flight.lost()
            self._forget(sandbox_id)
        for berth in self._pool:
            self._pool.drop(berth.sandbox_id)

    def _dispatch(self, reply: Reply) -> None:
        if reply.sandbox_id in self._pool:
            self._dispatch_to_berth(reply)
            return
        if isinstance(reply, Attempt | Counts):
            known = self._flights.get(reply.sandbox_id)
            if known is not None and known.network is not None:  # else it is over, and was told
                known.network.add(reply)
            return
        flight = self._flights[reply.sandbox_id]
        match reply:
            case Ready(fds=fds):
                self._built(flight, fds, reply.sandbox_id)
            case Failed(op_index=op_index, errno=errno, born=born):
                flight.not_built(self._program(flight.plan).label_of(op_index), errno)
                if not born:
                    self._forget(reply.sandbox_id)
            case Gone():
                flight.gone()
                self._forget(reply.sandbox_id)

    def _built(self, flight: Flight, fds: tuple[int, ...], sandbox_id: int | None) -> None:
        self._taken = {number: taken for number, taken in self._taken.items() if taken is not fds}
        scratch_fd, *rest = fds
        watch_fd = rest.pop() if flight.plan.watched else None
        own = self._hull(flight.plan).namespaces
        handed = [n for n in Namespace if n in own and n is not Namespace.CGROUP]

        def connected(namespaces: list[int], failure: SetupError | None) -> None:
            if failure is None and sandbox_id in self._flights:
                flight.built(scratch_fd, NamespaceFds(dict(zip(handed, namespaces, strict=True)), watch_fd))
                return
            for fd in (scratch_fd, *namespaces, *([watch_fd] if watch_fd is not None else [])):
                os.close(fd)
            if failure is not None and sandbox_id in self._flights:
                flight.not_built(failure.step, failure.errno)

        self._connections.connect(sandbox_id, flight.plan, rest, handed, connected)

    def _dispatch_to_berth(self, reply: Reply) -> None:
        match reply:
            case Ready(fds=fds):
                self._pool[reply.sandbox_id].fds = fds
            case Failed(born=True):
                self._pool[reply.sandbox_id].given_up = True
            case Failed() | Gone():
                self._pool.drop(reply.sandbox_id)

    def _forget(self, sandbox_id: int) -> None:
        flight = self._flights.pop(sandbox_id)
        self._connections.end(sandbox_id)
        discard(flight.cgroup)

    def _forget_in_child(self, own: Flight | None = None) -> None:
        """In a forked test: nothing of the session is its business."""
        if self._template is not None:
            self._template.forget()
        self._connections.forget()
        if self._supervisor is not None:
            self._supervisor.forget()
        for fd in self._cgroups.lock_fds if self._cgroups is not None else ():
            os.close(fd)
        for fd in (fd for fds in self._taken.values() for fd in fds):
            os.close(fd)
        for flight in self._started:
            if flight.is_closed:
                continue
            if flight.container is not None:
                flight.container.close_descriptors()
            if flight is own:
                flight.drop_ours()
            else:
                flight.forget()
        for berth in self._pool:
            berth.close()

    # ---- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave nothing behind. Does nothing in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        try:
            if self._template is not None:
                self._template.close()
            self._wait_until_gone()
        finally:
            if self._supervisor is not None:
                self.loop.unwatch(self._supervisor)
                self._supervisor.close()
            self._connections.close()
            if self._cgroups is not None:
                self._cgroups.close()

    def _wait_until_gone(self) -> None:
        for flight in [*self._flights.values()]:
            flight.interrupt()
        for berth in self._pool:
            self._destroy(berth.sandbox_id)
        self.loop.run_until(lambda: not (self._flights or self._pool), GONE_PATIENCE_S)
