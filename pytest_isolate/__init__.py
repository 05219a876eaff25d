"""Run pytest tests in throw-away Linux sandboxes.

The names here are public: what hooks and the fixture ``isolation`` give and take. They are imported when
first used, because merely loading the plugin must cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_isolate.errors import IsolateError, SpecError, UnsupportedError
    from pytest_isolate.outcome import Outcome
    from pytest_isolate.runner.isolation import Isolation
    from pytest_isolate.runner.topology import IsolatedNetwork, Link, Node
    from pytest_isolate.runner.voyage import Sandbox
    from pytest_isolate.spec import (
        Fixtures,
        Limits,
        Network,
        PrivateNetwork,
        Scope,
        Spec,
        Start,
        TcpPort,
        UnixPort,
        User,
    )
    from pytest_isolate.usage import CgroupUsage, Usage

__all__ = [
    "CgroupUsage",
    "Fixtures",
    "IsolateError",
    "IsolatedNetwork",
    "Isolation",
    "Limits",
    "Link",
    "Network",
    "Node",
    "Outcome",
    "PrivateNetwork",
    "Sandbox",
    "Scope",
    "Spec",
    "SpecError",
    "Start",
    "TcpPort",
    "UnixPort",
    "UnsupportedError",
    "Usage",
    "User",
]

_HOMES = {
    "CgroupUsage": "usage",
    "Fixtures": "spec",
    "IsolateError": "errors",
    "IsolatedNetwork": "runner.topology",
    "Isolation": "runner.isolation",
    "Limits": "spec",
    "Link": "runner.topology",
    "Network": "spec",
    "Node": "runner.topology",
    "Outcome": "outcome",
    "PrivateNetwork": "spec",
    "Sandbox": "runner.voyage",
    "Scope": "spec",
    "Spec": "spec",
    "SpecError": "errors",
    "Start": "spec",
    "TcpPort": "spec",
    "UnixPort": "spec",
    "UnsupportedError": "errors",
    "Usage": "usage",
    "User": "spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
