"""The command ``pytest-isolate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    arguments = _parser().parse_args(argv)
    # Each subcommand imports what only it needs.
    if arguments.command == "doctor":
        from pytest_isolate.cli.doctor import doctor

        return doctor(sys.stdout, as_json=arguments.json)
    from pytest_isolate.cli.explain import explain

    return explain(arguments.nodeid, arguments.pytest_args, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytest-isolate", description="Find out what sandboxes for tests need and do, on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="try each kernel feature that sandboxes use, and say how to get those that are missing",
        description="Try each kernel feature that sandboxes use. Fails if the default sandbox cannot run.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    explain = commands.add_parser(
        "explain",
        help="print step by step what is done for one test",
        description="Collect one test, and print step by step what is done for it and what is missing here.",
    )
    explain.add_argument(
        "nodeid", metavar="NODEID", help="a test as pytest prints it, as in test_a.py::test_b"
    )
    explain.add_argument(
        "pytest_args", nargs=argparse.REMAINDER, metavar="...", help="pytest's arguments, as in --isolate-all"
    )
    return parser
