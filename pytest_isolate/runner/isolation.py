"""What the fixture ``isolation`` gives to a test.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_isolate.sandbox.channel import ChildEnd
from pytest_isolate.sandbox.messages import UsageAnswer, UsageQuestion
from pytest_isolate.spec import Limits, PrivateNetwork, Spec
from pytest_isolate.usage import CgroupUsage

__all__ = ["Isolation", "current_isolation", "enter_isolation"]


SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Facts about the sandbox that a test runs in; false, and empty, when it runs in none."""

    active: bool = False
    spec: Spec = field(default_factory=Spec)
    cgroup_version: str | None = None  #: "v1", "v2" or "hybrid"
    cgroup_paths: tuple[str, ...] = ()  #: on the host, one per hierarchy
    missing: tuple[str, ...] = ()  #: what ``--isolate-missing=degrade`` did without
    #: With a private network: addresses of all tests of the group, by node id, whether they run now or not.
    peers: Mapping[str, str] = field(default_factory=dict)
    _channel: ChildEnd | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.active

    def __repr__(self) -> str:
        return f"<Isolation active={self.active}>"  # short: it stands in every failure of a test that uses it

    @property
    def limits(self) -> Limits:
        return self.spec.limits

    @property
    def address(self) -> str | None:
        """Its own in the private network (IPv4); None without one."""
        if not isinstance(self.spec.network, PrivateNetwork):
            return None
        request = struct.pack("=16s240x", b"eth0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            # netdevice(7): a struct ifreq with a struct sockaddr_in
            return socket.inet_ntoa(fcntl.ioctl(control, SIOCGIFADDR, request)[20:24])

    def usage(self) -> CgroupUsage:
        """What the test used so far, as its cgroup counts; asks pytest, and waits for the answer.

        Only from the test's own process, not from what it forked. All None without a cgroup.
        """
        if self._channel is None or not self._channel.is_mine():
            return CgroupUsage()
        self._channel.send(UsageQuestion())
        answer = self._channel.receive()
        assert isinstance(answer, UsageAnswer)
        return CgroupUsage(**answer.fields)


_current = Isolation()


def current_isolation() -> Isolation:
    return _current


def enter_isolation(isolation: Isolation) -> None:
    """In the child, once."""
    global _current  # noqa: PLW0603  one process, one sandbox
    _current = isolation
