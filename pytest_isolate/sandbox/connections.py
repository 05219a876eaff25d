"""What joins sandboxes to more than themselves: ports of the host, and private networks.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_isolate.errors import SetupError
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.sandbox.ports import Ports
from pytest_isolate.sandbox.private import PrivateNetworks
from pytest_isolate.spec import PrivateNetwork

__all__ = ["Connections"]

#: Descriptors of namespaces, in the order of Namespace; and what went wrong.
Connected = Callable[[list[int], SetupError | None], None]


class Connections:
    def __init__(self, loop: Loop) -> None:
        self._ports = Ports()
        self._private = PrivateNetworks(loop)
        self._places: dict[int, int] = {}

    def user_namespace_of(self, plan: Plan) -> int:
        """See :meth:`PrivateNetworks.user_namespace_of`."""
        return self._private.user_namespace_of(plan)

    def expect(self, sandbox_id: int, place: int) -> None:
        """A sandbox is for the item at ``place`` among the session's."""
        self._places[sandbox_id] = place

    def connect(
        self,
        sandbox_id: int | None,
        plan: Plan,
        fds: list[int],
        own: Sequence[Namespace],
        connected: Connected,
    ) -> None:
        """``fds``: what the init of the sandbox handed out for ports, and then of its namespaces ``own``."""
        count = sum(sockets for _, sockets in plan.forwarded)
        listeners, namespaces = fds[:count], fds[count:]
        try:
            if listeners and sandbox_id is not None:
                self._ports.serve(sandbox_id, plan.forwarded, listeners)
        except OSError as error:
            failure = SetupError("forward ports of the host", error.errno or 0, str(error))
            connected(namespaces, failure)
            return
        if not isinstance(plan.spec.network, PrivateNetwork) or sandbox_id is None:
            connected(namespaces, None)
            return
        net_fd = namespaces[own.index(Namespace.NET)]
        place = self._places[sandbox_id]
        self._private.join(sandbox_id, plan, place, net_fd, lambda failure: connected(namespaces, failure))

    def end(self, sandbox_id: int) -> None:
        """The sandbox is gone."""
        self._places.pop(sandbox_id, None)
        self._ports.end(sandbox_id)
        self._private.leave(sandbox_id)

    def forget(self) -> None:
        """In a forked child."""
        self._ports.forget()
        self._private.forget()

    def close(self) -> None:
        self._ports.close()
        self._private.close()
