"""What to write to allow a violation: keywords of a mark, each as the option's own parser takes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from pytest_isolate.declared import parse_hosts, parse_ports
from pytest_isolate.values import parse_artifacts, parse_binds, parse_writes
from pytest_isolate.violation import Kind

__all__ = ["allow", "artifacts", "binds", "hosts", "ports", "writes"]

#: A longer one is no help.
LONGEST = 400


def allow(kind: Kind) -> str:
    return f'allow=["{kind.value}"]'


def artifacts(globs: Sequence[str]) -> str:
    """ "" if no glob says it, as of the others."""
    return _option("artifacts", parse_artifacts, [*globs])


def binds(path: str) -> str:
    """What a test is to find at the same place, and not to change."""
    return _option("binds", parse_binds, {path: f"{path}:ro"})


def hosts(name: str) -> str:
    return _option("hosts", parse_hosts, {name: "127.0.0.1"})


def ports(ports: Sequence[int | str]) -> str:
    """Of the host: numbers, and Unix sockets at the same paths."""
    return _option("ports", parse_ports, [*ports]) if ports else ""


def writes(globs: Sequence[str]) -> str:
    return _option("writes", parse_writes, [*globs])


def _option(name: str, parse: Callable[[object], object], value: Mapping[str, str] | list[int | str]) -> str:
    try:
        parse(value)
    except ValueError:
        return ""
    if isinstance(value, list):
        text = f"{name}=[{', '.join(map(_literal, value))}]"
    else:
        text = f"{name}={{{', '.join(f'{_literal(key)}: {_literal(to)}' for key, to in value.items())}}}"
    return text if len(text) <= LONGEST else ""


def _literal(text: int | str) -> str:
    """As ruff would write it."""
    if isinstance(text, int):
        return str(text)
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)
