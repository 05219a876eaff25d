"""``python -m tests.differential COMMAND``: run suites plain and isolated, and print what differs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.differential import corpus_suites, third_party
from tests.differential.examine import Examiner, Verdict
from tests.differential.explained import explanations, load_toml
from tests.differential.modes import MODES, Mode
from tests.differential.suite import Suite

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """0: no difference is without explanation; 1: some are."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="isolate-differential-", dir="/var/tmp") as scratch:
        work = Path(options.work or scratch).absolute()
        work.mkdir(parents=True, exist_ok=True)
        match options.command:
            case "compare":
                suites: Iterable[Suite] = [_suite_of(options)]
            case "corpus":
                suites = corpus_suites.suites(options.names)
            case "pytest":
                suites = third_party.suites_of_pytest(work, options.names)
            case "suites":
                suites = third_party.suites(work, options.names)
        verdicts = _examine(suites, options.mode or ["isolated"], options.option, work)
        good = []
        for verdict in verdicts:
            print(*verdict.lines(), sep="\n", flush=True)
            good.append(verdict.good)
            if options.record:
                third_party.record(verdict)
        print(f"{len(good)} comparisons, {good.count(False)} with unexplained differences")
        return 0 if all(good) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--work", metavar="DIR", help="keep logs and recordings in DIR")
    parser.add_argument(
        "--mode", action="append", choices=[*MODES], help="as often as wished; isolated if not"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="for the isolated run, as in start=spawn",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="a directory with tests")
    compare.add_argument("directory", type=Path)
    compare.add_argument("--python", default=sys.executable, help="the interpreter that the suite needs")
    compare.add_argument("--explained", type=Path, metavar="TOML", help="a file with [[explained]] tables")
    compare.add_argument("arguments", nargs="*", help="of pytest; after --")
    for name, text in (
        ("corpus", "the suites of tests/differential/corpus"),
        ("pytest", "pytest's own tests; NAME: a part of pytest.toml"),
        ("suites", "the third-party suites of suites.toml"),
    ):
        commands.add_parser(name, help=text).add_argument("names", nargs="*", metavar="NAME")
    for name in ("pytest", "suites"):
        commands.choices[name].add_argument(
            "--record", action="store_true", help="into docs/explanation/third-party-suites.md"
        )
    parser.set_defaults(record=False)
    return parser


def _suite_of(options: argparse.Namespace) -> Suite:
    known = load_toml(options.explained)["explained"] if options.explained else []
    return Suite(
        name=options.directory.resolve().name,
        source=options.directory.resolve(),
        python=options.python,
        runs=(tuple(options.arguments),),
        explained=tuple(explanations(known)),
    )


def _examine(suites: Iterable[Suite], modes: list[str], extra: list[str], work: Path) -> Iterator[Verdict]:
    examiner = Examiner(work)
    for suite in suites:
        for name in modes:
            if suite.modes and name not in suite.modes:
                continue
            mode = MODES[name]
            flags = tuple(f"--isolate-{option}" for option in extra)
            mode = Mode(mode.plain, mode.isolated + flags, mode.ordered)
            yield examiner.examine(suite, name, mode)


if __name__ == "__main__":
    sys.exit(main())
