"""The command ``pytest-isolate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]

NODEID = "a test as pytest prints it, as in test_a.py::test_b"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    arguments = _parser().parse_args(argv)
    # Each subcommand imports what only it needs.
    if arguments.command == "doctor":
        from pytest_isolate.cli.doctor import doctor

        return doctor(sys.stdout, as_json=arguments.json)
    if arguments.command == "bundle":
        from pytest_isolate.cli.bundle import bundle

        return bundle(arguments.nodeid, arguments.directory, arguments.pytest_args, sys.stdout)
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
    explain.add_argument("nodeid", metavar="NODEID", help=NODEID)
    explain.add_argument(
        "pytest_args", nargs=argparse.REMAINDER, metavar="...", help="pytest's arguments, as in --isolate-all"
    )
    bundle = commands.add_parser(
        "bundle",
        help="write the sandbox of one test as a bundle, to be run by hand with runc or crun",
        description="Collect one test, and write its sandbox as a bundle of the OCI runtime specification.",
    )
    bundle.add_argument("nodeid", metavar="NODEID", help=NODEID)
    bundle.add_argument("directory", metavar="DIR", help="an empty directory, or one to be made")
    bundle.add_argument(
        "pytest_args", nargs=argparse.REMAINDER, metavar="...", help="pytest's arguments, as in -vv"
    )
    return parser
