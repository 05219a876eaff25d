"""Values of ``record_property`` through JSON: a report says of them what it says without isolation."""

from __future__ import annotations

from typing import Any

__all__ = ["Told", "pack", "unpack"]

_PLAIN = (str, int, float, bool, type(None))  # not their subclasses: an IntEnum is not told as a number


class Told:
    """Stands for a value that cannot travel: it reads the same."""

    def __init__(self, text: str, representation: str) -> None:
        self._text = text
        self._representation = representation

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._representation


def pack(value: object) -> Any:
    """What JSON knows, in which a list of a kind and its content stands for what JSON does not."""
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple):
        kind = "list" if type(value) is list else "tuple"
        return [kind, [pack(entry) for entry in value]]  # type: ignore[attr-defined]
    if type(value) is dict:
        return ["dict", [[pack(key), pack(entry)] for key, entry in value.items()]]
    return ["told", [_said(str, value), _said(repr, value)]]


def unpack(data: Any) -> Any:
    """Raises whatever comes to mind of Python for data that :func:`pack` does not make."""
    if not isinstance(data, list):
        return data
    kind, content = data
    match kind:
        case "list":
            return [unpack(entry) for entry in content]
        case "tuple":
            return tuple(unpack(entry) for entry in content)
        case "dict":
            return {unpack(key): unpack(entry) for key, entry in content}
        case "told":
            text, representation = content
            return Told(str(text), str(representation))
    raise ValueError(f"not a value of a property: {kind!r}")


def _said(how: Any, value: object) -> str:
    try:
        return str(how(value))
    except Exception:  # of its own __str__ or __repr__
        return object.__repr__(value)
