"""What an option can hold, in text or in Python, as a value of a Spec; ``ValueError`` says what is allowed.

Nothing here knows where a value was written. ``spec.py`` is imported late, as its dataclasses cost
milliseconds that a session without an isolated test must not pay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from pytest_isolate.units import parse_count, quoted

if TYPE_CHECKING:
    from pytest_isolate.spec import (
        Bind,
        Environment,
        EnvMode,
        Fixtures,
        Rootfs,
        Scope,
        Seccomp,
        Start,
        User,
        Watch,
    )
    from pytest_isolate.violation import Kind

__all__ = [
    "AUTO",
    "Keep",
    "Missing",
    "Pull",
    "capped",
    "member",
    "parse_allow",
    "parse_artifacts",
    "parse_binds",
    "parse_bool",
    "parse_env",
    "parse_fixtures",
    "parse_hostname",
    "parse_jobs",
    "parse_optional_path",
    "parse_path",
    "parse_patterns",
    "parse_rootfs",
    "parse_runtime",
    "parse_scope",
    "parse_seccomp",
    "parse_start",
    "parse_user",
    "parse_watch",
    "parse_workdir",
    "parse_writes",
]

_Number = TypeVar("_Number", int, float)
_Member = TypeVar("_Member", bound=Enum)


class Missing(Enum):
    """What becomes of a test that needs a feature this machine lacks."""

    FAIL = "fail"
    SKIP = "skip"
    DEGRADE = "degrade"


class Keep(Enum):
    """Of which tests the writable layers are copied out."""

    NEVER = "never"
    FAILED = "failed"
    ALWAYS = "always"


class Pull(Enum):
    """When the registry of an image is asked."""

    MISSING = "missing"  #: for what the store lacks
    ALWAYS = "always"  #: in each session anew, as a tag may mean another image by now
    NEVER = "never"


def capped(
    parse: Callable[[object], _Number], least: _Number, show: Callable[[_Number], str], most: int = 0
) -> Callable[[object], _Number | None]:
    """A parser of a limit: ``None`` (in text: ``none``) takes away a cap that a wider place set."""

    def parse_cap(value: object) -> _Number | None:
        if value is None or value == "none":
            return None
        number = parse(value)
        if number < least:
            raise ValueError(f"{quoted(value)} is below the least allowed, {show(least)}")
        if most and number > most:
            raise ValueError(f"{quoted(value)} is above the most allowed, {most}")
        return number

    return parse_cap


def member(kind: type[_Member], value: object) -> _Member:
    for known in kind:
        if value == known.value or value is known:
            return known
    *most, last = (repr(known.value) for known in kind)
    raise ValueError(f"{quoted(value)} is not {', '.join(most)} or {last}")


def parse_watch(value: object) -> Watch:
    from pytest_isolate.spec import Watch

    return member(Watch, value)


def parse_allow(value: object) -> tuple[Kind, ...]:
    from pytest_isolate.violation import Kind

    return tuple(dict.fromkeys(member(Kind, kind) for kind in _lines(value, "a kind, as in threads")))


def parse_user(value: object) -> User:
    from pytest_isolate.spec import User

    return member(User, value)


def parse_scope(value: object) -> Scope:
    from pytest_isolate.spec import Scope

    return member(Scope, value)


def parse_seccomp(value: object) -> Seccomp:
    from pytest_isolate.spec import Seccomp

    return member(Seccomp, value)


def parse_fixtures(value: object) -> Fixtures:
    from pytest_isolate.spec import Fixtures

    return member(Fixtures, value)


def parse_start(value: object) -> Start:
    from pytest_isolate.spec import Start

    return member(Start, value)


def parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{quoted(value)} is not True or False")


#: A number of jobs: as many as there are processors.
AUTO = 0


def parse_jobs(value: object) -> int:
    if value == "auto":
        return AUTO
    try:
        count = parse_count(value)
    except ValueError:
        count = 0
    if count == 0:
        raise ValueError(f"{quoted(value)} is no number of jobs; allowed: auto or a number from 1")
    return count


def parse_path(value: object) -> str:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{quoted(value)} is not a path")
    return path


def parse_optional_path(value: object) -> str | None:
    return None if value is None else parse_path(value)


def parse_workdir(value: object) -> str | None:
    """None: the image's, else pytest's own."""
    try:
        return None if value == "image" else parse_path(value)
    except ValueError:
        raise ValueError(f"{quoted(value)} is not 'image' or a directory") from None


def parse_rootfs(value: object) -> Rootfs:
    """A text that names a registry may still be a path, or one that names a path an image of the project's
    table: ``project.py`` looks."""
    from pytest_isolate.spec import HostRootfs, PathRootfs

    if value == "host":
        return HostRootfs()
    try:
        return PathRootfs(parse_path(value))
    except ValueError:
        raise ValueError(f"{quoted(value)} is not 'host', a path or the name of an image") from None


def parse_runtime(value: object) -> str:
    """A name to be found on PATH, or a path."""
    try:
        return parse_path(value)
    except ValueError:
        raise ValueError(f"{quoted(value)} is not 'native', 'runc', 'crun' or a path") from None


def parse_patterns(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_lines(value, "NAME or a pattern, as in *_loop")))


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LONGEST_HOSTNAME = 64  # __NEW_UTS_LEN of linux/utsname.h


def parse_hostname(value: object) -> str:
    if (
        isinstance(value, str)
        and len(value) <= _LONGEST_HOSTNAME
        and re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", value)
    ):
        return value
    raise ValueError(
        f"{quoted(value)} is not a host name: at most {_LONGEST_HOSTNAME} of letters, digits, '-' and '.'"
    )


_BIND_FORMS = "{'SOURCE': '/TARGET[:ro|:rw]'} or SOURCE:/TARGET[:ro|:rw]"


def parse_binds(value: object) -> tuple[Bind, ...]:
    binds: dict[str, Bind] = {}
    for shown, source, target in _bind_pairs(value):
        bind = _bind(shown, source, target)
        if bind.target in binds:
            raise ValueError(f"two binds have the target {quoted(bind.target)}")
        binds[bind.target] = bind
    return tuple(binds.values())


def _bind_pairs(value: object) -> Iterator[tuple[str, object, str]]:
    if isinstance(value, Mapping):
        for source, target in value.items():
            yield quoted({source: target}), source, str(target)
        return
    for line in _lines(value, _BIND_FORMS):
        path, colon, mode = line.rpartition(":")
        if mode not in ("ro", "rw"):
            path, colon, mode = line, "", ""
        source, _, target = path.rpartition(":")
        yield quoted(line), source, target + colon + mode


def _bind(shown: str, source: object, target: str) -> Bind:
    from pytest_isolate.spec import Bind

    path, colon, mode = target.partition(":")
    if colon and mode not in ("ro", "rw"):
        raise ValueError(f"bind {shown} is not {_BIND_FORMS}")
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"bind {shown} needs an absolute target without '..'; it is {_BIND_FORMS}")
    path = "/" + os.path.normpath(path).lstrip("/")
    if path == "/":
        raise ValueError(f"bind {shown} would hide the whole root; name another root with rootfs")
    try:
        return Bind(source=parse_path(source), target=path, readonly=mode == "ro")
    except ValueError:
        raise ValueError(f"bind {shown} has no source path; it is {_BIND_FORMS}") from None


def parse_artifacts(value: object) -> tuple[str, ...]:
    return _globs(value, "artifact", "out/**/*.png")


def parse_writes(value: object) -> tuple[str, ...]:
    return _globs(value, "writes", "~/.cache/mytool/**")


def _globs(value: object, name: str, example: str) -> tuple[str, ...]:
    globs = _lines(value, "a glob or a list of them")
    for glob in globs:
        if "\0" in glob or ".." in glob.split("/") or not glob.strip("/ "):
            raise ValueError(f"{name} {quoted(glob)} is not a glob without '..', as in '{example}'")
    return tuple(globs)


_ENV_FORMS = "inherit, clean, NAME=VALUE, -NAME or a mapping of names to a text or None"


def parse_env(value: object) -> Environment:
    from pytest_isolate.spec import Environment, EnvMode

    modes: list[EnvMode] = []
    changes: dict[str, str | None] = {}
    if isinstance(value, Mapping):
        changes.update(value)
    else:
        for line in _lines(value, _ENV_FORMS):
            name, equals, text = line.partition("=")
            if line.startswith("-"):
                changes[line[1:]] = None
            elif equals:
                changes[name] = text
            else:
                modes.append(_env_mode(line))
    if len(set(modes)) > 1:
        raise ValueError("env is inherit or clean, not both")
    for name, change in changes.items():
        _check_variable(name, change)
    return Environment(mode=modes[0] if modes else EnvMode.INHERIT, changes=tuple(changes.items()))


def _env_mode(line: str) -> EnvMode:
    from pytest_isolate.spec import EnvMode

    try:
        return member(EnvMode, line)
    except ValueError:
        raise ValueError(f"env {quoted(line)} is not {_ENV_FORMS}") from None


def _check_variable(name: object, change: object) -> None:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise ValueError(f"env has a name that no variable can have, {quoted(name)}; it is {_ENV_FORMS}")
    if change is not None and (not isinstance(change, str) or "\0" in change):
        raise ValueError(f"env {name} is {quoted(change)}, which is not a text or None")


def _lines(value: object, forms: str) -> Sequence[str]:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, (list, tuple)) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{quoted(value)} is not {forms}")
    return lines
