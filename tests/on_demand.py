"""Plugins that the extra ``test`` installs for inner runs, and that change or slow each of them."""

from __future__ import annotations

__all__ = ["ALL_OFF"]

NAMES = (
    "anyio",
    "asyncio",
    "benchmark",
    "django",
    "html",
    "html_fixtures",
    "metadata",
    "pytest_jsonreport",
    "pytest-subprocess",
    "randomly",
    "syrupy",
    "trio",
)
#: pytest's arguments: none of them, until another ``-p NAME`` asks for one.
ALL_OFF = tuple(argument for name in NAMES for argument in ("-p", f"no:{name}"))
