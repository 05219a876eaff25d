"""Networks that sandboxes of one session share: pytest's end of the wiring, started for the first of them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_isolate.errors import SetupError, UnsupportedError
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.sandbox import wiring
from pytest_isolate.sandbox.aside import Aside
from pytest_isolate.sandbox.loop import Loop
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.spec import PrivateNetwork

__all__ = ["PrivateNetworks", "address_of"]

Joined = Callable[[SetupError | None], None]


def address_of(place: int) -> str:
    """Of the sandbox of the item at ``place`` among the session's."""
    number = (place + 1) % 2**16
    return f"10.78.{number >> 8}.{number & 255}"


class PrivateNetworks:
    """``loop``: tells when a sandbox has joined, as pytest does not wait for it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._wirings: dict[str, Aside] = {}
        self._waiting: dict[Aside, deque[Joined]] = {}
        self._members: dict[int, Aside] = {}

    def user_namespace_of(self, plan: Plan) -> int:
        """The pid of a process in whose user namespace the sandbox is to be made, or 0.

        Without privileges two sandboxes are strangers to each other; who made a user namespace has all rights
        in those that are made in it. Raises UnsupportedError.
        """
        is_nested = isinstance(plan.spec.network, PrivateNetwork) and plan.user_first
        return self._wiring(plan).pid if is_nested else 0

    def join(self, sandbox_id: int, plan: Plan, place: int, net_fd: int, joined: Joined) -> None:
        """Give the sandbox an interface; ``joined`` is called when it is there, or with what went wrong."""
        assert isinstance(plan.spec.network, PrivateNetwork)
        group, address = plan.spec.network.group, address_of(place)
        message = {"do": "join", "name": str(sandbox_id), "group": group, "address": address}
        try:
            aside = self._wiring(plan)
            try:
                aside.tell(message, [net_fd])
            except ConnectionError as error:  # somebody has killed it: tests to come have a new one
                self._lose(aside, error)
                aside = self._wiring(plan)
                aside.tell(message, [net_fd])
        except (OSError, UnsupportedError) as error:
            joined(SetupError("join the private network", getattr(error, "errno", 0) or 0, str(error)))
            return
        self._members[sandbox_id] = aside
        self._waiting[aside].append(joined)

    def leave(self, sandbox_id: int) -> None:
        """The sandbox is gone; does nothing if it was in no private network."""
        aside = self._members.pop(sandbox_id, None)
        if aside is not None and aside.is_alive:
            try:
                aside.tell({"do": "forget", "name": str(sandbox_id)})
            except OSError:
                return  # it has died, and its networks with it
            self._waiting[aside].append(lambda error: None)

    def _wiring(self, plan: Plan) -> Aside:
        kind = "hub" if plan.user_first and Namespace.USER in plan.namespaces else "plain"
        if kind not in self._wirings:
            path = json.dumps([place for place in map(os.path.abspath, sys.path) if os.path.exists(place)])
            aside = Aside(str(Path(wiring.__file__)), kind, path)
            try:
                aside.tell({"do": "begin"})
                answer, _ = aside.hear()
                if "error" in answer:
                    raise SetupError("make a private network", answer["errno"], answer["error"])
            except (OSError, SetupError) as error:
                aside.close()
                cure = "see pytest-isolate doctor"
                raise UnsupportedError("a private network", str(error), cure) from error
            self._wirings[kind] = aside
            self._waiting[aside] = deque()
            self._loop.watch(aside, lambda: self._hear(aside))
        return self._wirings[kind]

    def _hear(self, aside: Aside) -> None:
        answer: dict[str, Any]
        try:
            answer, _ = aside.hear()
        except (OSError, SetupError) as error:
            self._lose(aside, error)
            return
        failure = None
        if "error" in answer:
            failure = SetupError("join the private network", answer["errno"], answer["error"])
        self._waiting[aside].popleft()(failure)

    def _lose(self, aside: Aside, error: Exception) -> None:
        self._loop.unwatch(aside)
        self._wirings = {kind: each for kind, each in self._wirings.items() if each is not aside}
        aside.close()
        for joined in self._waiting.pop(aside):
            joined(SetupError("join the private network", 0, str(error)))

    def forget(self) -> None:
        """In a forked child."""
        for aside in self._wirings.values():
            aside.forget()

    def close(self) -> None:
        for aside in self._wirings.values():
            self._loop.unwatch(aside)
            aside.close()
