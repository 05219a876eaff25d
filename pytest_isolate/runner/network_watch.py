"""The attempts of a test to leave its sandbox, and in strict mode to read secrets: what the kernel tells, and
the places that Python knows.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_isolate.errors import UnsupportedError
from pytest_isolate.evidence import Evidence
from pytest_isolate.kernel.attempts import Act, Attempt
from pytest_isolate.runner import secret_words
from pytest_isolate.runner.network_words import UNIX, describe, is_attempt, is_unknown, socket_of
from pytest_isolate.sandbox.lending import is_below
from pytest_isolate.sandbox.network_log import Attempts, NetworkLog
from pytest_isolate.sandbox.plan import Plan
from pytest_isolate.spec import Network, Spec, UnixPort, Watch
from pytest_isolate.syscalls._native import lib
from pytest_isolate.violation import Kind, Violation

__all__ = ["KERNEL", "PYTHON", "violations", "watched_by"]

KERNEL, PYTHON = "kernel", "python"
NAME_SERVER_PORT = 53
COMMAND_CHARS = 120
LOOKED_UP = "looked up "
_UNREADABLE = (
    "pytest may not read the memory of its tests",
    "let the container's seccomp filter allow process_vm_readv, and set kernel.yama.ptrace_scope below 3",
)
#: Why the kernel does not tell, and the cure; 0: it has told for a while.
_WHY = {
    0: ("it broke off", "run the test again"),
    errno.EBUSY: ("what pytest runs in has system calls told to itself", "run pytest outside of it"),
    errno.EPERM: _UNREADABLE,
    errno.EACCES: _UNREADABLE,
}


def watched_by(evidence: Evidence, plan: Plan, network: NetworkLog | None) -> Evidence:
    """With who tells: when the process has entered, and when it has ended, as by then the kernel may not."""
    if plan.spec.watch is Watch.OFF:
        return evidence
    told = plan.watched if network is not None and network.is_watched else 0
    of_network = KERNEL if told & lib.WATCH_NETWORK else PYTHON
    missing = evidence.missing
    if plan.spec.strict and plan.watched and not told:  # what a subprocess does would be no violation
        lack = str(_lack(network.error if network is not None else 0))
        missing = tuple(dict.fromkeys((*missing, lack)))
    return replace(
        evidence,
        missing=missing,
        network_watch=of_network if plan.spec.network is not Network.HOST else None,
        secrets_watch=KERNEL if told & lib.WATCH_FILES else PYTHON,
    )


def _lack(error: int) -> UnsupportedError:
    refused = f"the kernel tells of no system calls ({os.strerror(error)})"
    cure = "use Linux 5.6 or newer, and a container whose seccomp filter allows listeners"
    return UnsupportedError("watch by the kernel", *_WHY.get(error, (refused, cure)))


def violations(
    attempts: Attempts | None,
    told: Sequence[Violation],
    evidence: Evidence,
    spec: Spec,
    homes: Sequence[str] = (),
) -> tuple[list[Violation], int | None]:
    """What a test is to hear of, with what ``told`` has beside it; and how many attempts there were to reach
    the network. ``homes``: where secrets would be."""
    of_python = [violation for violation in told if is_attempt(violation)]
    others = [violation for violation in told if not is_attempt(violation)]
    found: list[Violation] = []
    if attempts is not None and attempts.counted:  # as of few tests
        others += _secrets(attempts, others, homes)
        found += _merge(_seen(attempts, spec), of_python)
    if evidence.network_watch != KERNEL:  # or no longer: what Python alone knows of counts too
        known = {violation.what for violation in found}
        unknown = [violation for violation in of_python if violation.what not in known]
        found += [each for each in unknown if not _is_given(socket_of(each), spec)]
    if evidence.network_watch is None:
        return [*found, *others], None
    count = sum(violation.count for violation in found if violation.kind is Kind.NETWORK)
    return [*found, *others], count + (attempts.more if attempts is not None else 0)


@dataclass(frozen=True, slots=True)
class _Seen:
    violation: Violation
    is_python: bool  #: by the test's own process, or a fork of it, which Python may know a line for
    sent: str  #: of a query: what Python says, which knows it from no other message


def _secrets(attempts: Attempts, told: Sequence[Violation], homes: Sequence[str]) -> Iterator[Violation]:
    """The supervisor tells of those below ``homes`` (native/secrets.c)."""
    of_python = {violation.what for violation in told if violation.kind is Kind.SECRETS}
    for attempt, count in attempts.counted:
        if attempt.act is Act.READ:
            where = _where(attempt, attempts)
            found = secret_words.describe(attempt.host, homes, where, count, is_there=False)
            if attempt.pid != attempts.own_pid or found.what not in of_python:
                yield found


def _seen(attempts: Attempts, spec: Spec) -> Iterator[_Seen]:
    own = {attempt.command for attempt, _ in attempts.counted if attempt.pid == attempts.own_pid}
    own.add(Path("/proc/self/cmdline").read_bytes()[: lib.ATTEMPT_MAX_COMMAND - 1])  # as far as it is told
    leaving = [(attempt, count) for attempt, count in attempts.counted if attempt.act is not Act.READ]
    of_process: dict[int, list[Attempt]] = defaultdict(list)
    for attempt, _ in leaving:
        of_process[attempt.pid].append(attempt)
    for attempt, count in _one_per_name(leaving):
        if not _is_by_the_way(attempt, of_process[attempt.pid]) and not _is_declared(attempt, spec):
            where = _where(attempt, attempts)
            violation = _told(attempt, attempt.act, where, count)
            sent = _told(attempt, Act.SEND, where, count).what if attempt.act is Act.QUERY else ""
            yield _Seen(violation, attempt.pid == attempts.own_pid or attempt.command in own, sent)


def _told(attempt: Attempt, act: Act, where: str, count: int) -> Violation:
    host = (attempt.name or "") if act is Act.QUERY else attempt.host
    return describe(act, attempt.protocol, host, attempt.port, where, count)


def _one_per_name(counted: Iterable[tuple[Attempt, int]]) -> Iterator[tuple[Attempt, int]]:
    """Who looks up a name asks for each kind of address."""
    queries: dict[tuple[int, str | None], tuple[Attempt, int]] = {}
    for attempt, count in counted:
        if attempt.act is Act.QUERY:
            first, most = queries.get((attempt.pid, attempt.name), (attempt, 0))
            queries[attempt.pid, attempt.name] = first, max(most, count)
        else:
            yield attempt, count
    yield from queries.values()


def _is_by_the_way(attempt: Attempt, all_of_it: Iterable[Attempt]) -> bool:
    """Connecting UDP sends nothing. Resolvers do so before they ask, and getaddrinfo(3) to sort addresses."""
    if attempt.act is not Act.CONNECT or attempt.protocol != "udp" or not attempt.host:
        return False
    if attempt.port == NAME_SERVER_PORT and any(other.act is Act.QUERY for other in all_of_it):
        return True
    return any(other.host == attempt.host and other.protocol == "tcp" for other in all_of_it)


def _is_declared(attempt: Attempt, spec: Spec) -> bool:
    """A name that the test was given, as its own is, or a socket; and ``localhost`` is the sandbox, also for
    those who ask a name server. Who finds a name in /etc/hosts may still ask for its address of the other
    family."""
    if attempt.act is Act.QUERY:
        asked = f"{attempt.name}."
        names = (spec.hostname.lower(), *(name for name, _ in spec.hosts))
        return asked == "localhost." or any(asked.startswith(f"{name}.") for name in names)
    return attempt.protocol == UNIX and _is_given(attempt.host, spec)


def _is_given(path: str, spec: Spec) -> bool:
    """``path``: of a socket, by any of its names, or ""."""
    given = [bind.target for bind in spec.binds]
    given += [port.path for port in spec.ports if isinstance(port, UnixPort)]
    places = {name for each in given for name in (each.rstrip("/"), os.path.realpath(each))}
    return path != "" and (is_below(path, places) or is_below(os.path.realpath(path), places))


def _where(attempt: Attempt, attempts: Attempts) -> str:
    if attempt.pid == attempts.own_pid:
        return "the test's own process"
    command = " ".join(attempt.command.decode("utf-8", "replace").replace("\0", " ").split())
    command = "".join(char if char.isprintable() else "?" for char in command)
    if len(command) > COMMAND_CHARS:
        command = f"{command[:COMMAND_CHARS]}…"
    return f"pid {attempt.inner_pid}: {command}"


_Named = tuple[Kind, str]


def _merge(seen: Iterable[_Seen], of_python: Sequence[Violation]) -> Iterator[Violation]:
    """Python's places in the stead of a process, where it knows some: they add words to what the kernel has
    seen, and take nothing away from it."""
    places: dict[_Named, list[Violation]] = defaultdict(list)
    for violation in of_python:
        places[violation.kind, violation.what].append(violation)
    whole: dict[_Named, tuple[Violation, int]] = {}
    unknown: list[Violation] = []
    for each in seen:
        violation = each.violation
        named = _as_asked((violation.kind, violation.what), places)
        if each.is_python and is_unknown(violation):
            unknown.append(violation)
        elif each.is_python and named in places:
            whole[named] = (violation, whole.get(named, (violation, 0))[1] + violation.count)
        elif each.is_python and (senders := places.get((violation.kind, each.sent))):
            yield replace(violation, where=senders[0].where)
        else:
            yield violation
    for named, (violation, count) in whole.items():
        yield from places[named]
        rest = count - sum(each.count for each in places[named])
        if rest > 0 and not named[1].startswith(LOOKED_UP):  # which takes as many queries as a resolver makes
            yield replace(violation, count=rest)
    if unknown:
        yield from _name(unknown, [each for each in of_python if (each.kind, each.what) not in whole])


def _name(unknown: Iterable[Violation], of_python: Sequence[Violation]) -> Iterator[Violation]:
    """What the kernel has counted and could not read, in Python's words as far as that has some."""
    yield from of_python
    named = sum(violation.count for violation in of_python if violation.kind is Kind.NETWORK)
    for violation in unknown:
        if violation.count > named:
            yield replace(violation, count=violation.count - named)
        named = max(0, named - violation.count)


def _as_asked(named: _Named, places: Iterable[_Named]) -> _Named:
    """Resolvers append the machine's search domains (resolv.conf(5)) to what a program asks for."""
    kind, what = named
    if named in places or not what.startswith(LOOKED_UP):
        return named
    return next(
        ((kind, asked) for of_kind, asked in places if of_kind is kind and what.startswith(f"{asked}.")),
        named,
    )
