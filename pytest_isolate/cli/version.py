"""Which release is installed."""

from __future__ import annotations

import argparse
import sys

__all__ = ["ShowVersion", "installed_version"]


def installed_version() -> str:
    import importlib.metadata  # it takes longer than most commands

    return importlib.metadata.version("pytest-isolate-ns")


class ShowVersion(argparse.Action):
    """As ``action="version"``, which wants to know it before anybody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        sys.stdout.write(f"{parser.prog} {installed_version()}\n")
        parser.exit()
