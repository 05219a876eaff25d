"""What ``--isolate-strict`` makes of a test's Spec, and what in a Spec is an escape from it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from pytest_isolate.spec import (
    NATIVE,
    Bind,
    Environment,
    EnvMode,
    Fixtures,
    HostRootfs,
    Network,
    PrivateNetwork,
    Seccomp,
    Spec,
    User,
    Watch,
)

__all__ = ["ALLOWED", "FIXED", "HASH_SEED", "UMASK", "escapes", "tighten"]

UMASK = 0o022
HASH_SEED = "PYTHONHASHSEED"
#: Variables that a test has with the caller's value; and those that begin with PYTEST_, COV_CORE_, COVERAGE_.
ALLOWED = ("HOME", "LOGNAME", "PATH", "PYTHONPATH", "TERM", "USER", "VIRTUAL_ENV")
#: Variables that every test has with the same value.
FIXED = {"LANG": "C.UTF-8", "TZ": "UTC", HASH_SEED: "0"}
#: ``env="clean"`` takes these over, and they say something of the machine.
_REMOVED = ("SHELL", "TMPDIR")
#: Where agents, docker and D-Bus have theirs.
_SOCKETS = "/run"


def tighten(fields: dict[str, Any]) -> None:
    """Change what a user has written, by field of the Spec. A looser value that is an escape stays, and is
    counted; of all others the strict one counts."""
    fields["strict"] = True
    fields["watch"] = Watch.FAIL
    fields.setdefault("fixtures", Fixtures.FRESH)
    env: Environment | None = fields.get("env")
    if env is None or env.changes or env.mode is EnvMode.CLEAN:
        changes = dict.fromkeys(_REMOVED) | FIXED | dict(env.changes if env is not None else ())
        fields["env"] = Environment(mode=EnvMode.CLEAN, changes=tuple(changes.items()))


def escapes(spec: Spec, secrets: Iterable[str] = ()) -> tuple[str, ...]:
    """What of a test's Spec is looser than strict, as the user would write it. ``secrets``: paths of the host
    that no bind is to show."""
    return tuple(_escapes(spec, secrets))


def _escapes(spec: Spec, secrets: Iterable[str]) -> Iterator[str]:
    if not spec.strict:
        yield "strict=False of a hook"
    if spec.watch is not Watch.FAIL:
        yield f'watch="{spec.watch.value}"'
    if spec.network is Network.HOST:
        yield 'network="host"'
    elif isinstance(spec.network, PrivateNetwork):  # where tests meet each other, also without a group
        yield f'network="{spec.network.value}"'
    if spec.user is User.HOST_ROOT:
        yield 'user="host-root"'
    if spec.fixtures is Fixtures.SHARED:
        yield 'fixtures="shared"'
    yield from _of_binds(spec.binds, tuple(secrets))
    yield from _of_environment(spec.env, spec)
    yield from (f'allow="{kind.value}"' for kind in spec.allow)
    yield from (f'ports="{port}"' for port in spec.ports)
    yield from (f'hosts="{name}"' for name, _ in spec.hosts)
    yield from (f'writes="{place}"' for place in spec.writes)
    if spec.seccomp is Seccomp.OFF:
        yield 'seccomp="off"'
    if spec.runtime != NATIVE:  # the kernel tells nobody what happens in its sandbox
        yield f'runtime="{spec.runtime}"'


def _of_environment(env: Environment, spec: Spec) -> Iterator[str]:
    if env.mode is not EnvMode.CLEAN:
        yield 'env="inherit"'
    for name, value in env.changes:
        is_fixed = FIXED.get(name) == value
        if value is not None and not is_fixed and (name in FIXED or name not in ALLOWED):
            yield f'env="{name}"'
        elif name == "HOME" and value is not None and isinstance(spec.rootfs, HostRootfs):
            yield 'env="HOME"'


def _of_binds(binds: Iterable[Bind], secrets: Iterable[str]) -> Iterator[str]:
    for bind in binds:
        if not bind.readonly:
            yield f'binds="{bind.source}:{bind.target}:rw"'
        elif why := _why_not_only_files(bind.source, secrets):
            yield f'binds="{bind.source}:{bind.target}:ro": {why}'


def _why_not_only_files(source: str, secrets: Iterable[str]) -> str:
    """What strict mode hides and a read-only bind gives back, or ""."""
    real = os.path.realpath(source)
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.stat(real).st_mode):
            return "a socket leads to whoever listens there"
    if any(_overlap(path, secret) for secret in secrets for path in (source, real)):
        return "it shows secrets"
    if os.path.isdir(real) and _overlap(real, _SOCKETS):
        return "it shows sockets of the host"
    return ""


def _overlap(one: str, other: str) -> bool:
    one, other = (path.rstrip("/") + "/" for path in (one, other))
    return one.startswith(other) or other.startswith(one)
