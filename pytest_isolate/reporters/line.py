"""A line of the terminal, and how it looks."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Line"]


class Line(NamedTuple):
    text: str
    style: str = ""  #: keyword of pytest's terminal writer
