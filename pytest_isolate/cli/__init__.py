"""The command ``pytest-isolate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_isolate.cli.version import ShowVersion

__all__ = ["main"]

NODEID = "a test as pytest prints it, as in test_a.py::test_b"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    arguments = _parser().parse_args(argv)
    # Each subcommand imports what only it needs.
    if arguments.command == "doctor":
        from pytest_isolate.cli.doctor import doctor

        return doctor(sys.stdout, as_json=arguments.json)
    if arguments.command == "image":
        from pytest_isolate.cli.image import image

        return image(arguments, sys.stdout, sys.stderr)
    if arguments.command == "bundle":
        from pytest_isolate.cli.bundle import bundle

        return bundle(arguments.nodeid, arguments.directory, arguments.pytest_args, sys.stdout)
    if arguments.command == "verify":
        from pytest_isolate.cli.verify import verify

        return verify(arguments, sys.stdout)
    if arguments.command == "baseline":
        from pytest_isolate.cli.baseline import baseline

        return baseline(arguments, sys.stdout, sys.stderr)
    from pytest_isolate.cli.explain import explain

    return explain(arguments.nodeid, arguments.pytest_args, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytest-isolate", description="Find out what sandboxes for tests need and do, on this machine."
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="show program's version number and exit"
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
    _add_strict(commands)
    _add_image(commands.add_parser("image", help="images that tests have as their root", description=IMAGE))
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


def _add_strict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from pytest_isolate.cli import baseline, verify

    verify.add_arguments(
        commands.add_parser(
            "verify",
            help="check the records of a run with --isolate-strict",
            description="Check that the records of a run with --isolate-strict are complete and unchanged, "
            "that the run was green, and that every test was isolated as it says.",
        )
    )
    baseline.add_arguments(
        commands.add_parser(
            "baseline",
            help="write down known violations, from the records of a run with --isolate-strict",
            description="Write down the violations of a run with --isolate-strict, for isolate_baseline.",
        )
    )


IMAGE = "Get, make and look at images that tests have as their root, and get rid of them."


def _add_image(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--store",
        metavar="DIR",
        help="where images are kept (default: pytest-isolate/images below $XDG_CACHE_HOME or ~/.cache)",
    )

    def add(name: str, help: str) -> argparse.ArgumentParser:  # noqa: A002
        text = f"{help[0].upper()}{help[1:]}."
        return actions.add_parser(name, help=help, description=text, parents=[store])

    pull = add("pull", "get an image from a registry")
    pull.add_argument("reference", metavar="REF", help="HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]")
    pull.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="default: this machine's")
    bring = add("import", "take an image, or the archive of a root, from a file or an OCI layout")
    bring.add_argument("path", metavar="PATH", help="a tar archive or the directory of an OCI layout")
    bring.add_argument("--name", help="name of the image in the store (default: PATH)")
    bring.add_argument("--ref", default="", metavar="NAME", help="the one of several images in PATH")
    build = add("build", "make an image from a recipe")
    build.add_argument("recipe", metavar="RECIPE", help="a recipe's file, or its name in ./rootfs-images")
    build.add_argument("--name", help="name of the image in the store (default: the recipe's)")
    build.add_argument(
        "--missing", action="store_true", help="only if the store lacks it as the recipe is now"
    )
    build.add_argument("--output", metavar="FILE", help="write an OCI archive, too")
    listing = add("ls", "list the images of the store")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    inspect = add("inspect", "show what is known of an image")
    inspect.add_argument("name", metavar="NAME", help="as in pytest-isolate image ls")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    remove = add("rm", "forget images; prune then frees what only they needed")
    remove.add_argument("names", metavar="NAME", nargs="+", help="as in pytest-isolate image ls")
    prune = add("prune", "remove what no image of the store needs")
    prune.add_argument("--all", action="store_true", help="also what was used within the last hour")
    export = add("export", "write an image to a file")
    export.add_argument("name", metavar="NAME", help="as in pytest-isolate image ls")
    export.add_argument("file", metavar="FILE")
    export.add_argument(
        "--format",
        choices=("oci", "docker", "rootfs"),
        default="oci",
        help="an OCI archive with the same digests, an archive for docker load, or all layers as one root "
        "(default: oci)",
    )
