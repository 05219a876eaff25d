"""``python -m tests.differential COMMAND``: run suites plain and isolated, and print what differs."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
        verdicts = []
        for verdict in _examine(suites, options, work):
            print(*verdict.lines(), sep="\n", flush=True)
            verdicts.append(verdict)
            if options.record:
                third_party.record(verdict)
        bad = [verdict for verdict in verdicts if not verdict.good]
        print(f"{len(verdicts)} comparisons, {len(bad)} with unexplained differences")
        if len(verdicts) > 1:  # those that count may be far above
            for verdict in bad:
                print(*verdict.lines(), sep="\n")
        return 1 if bad else 0


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
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="suites at a time; 1, to measure times"
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


def _examine(suites: Iterable[Suite], options: argparse.Namespace, work: Path) -> Iterator[Verdict]:
    """In the order of the suites, each with all its modes; ``--jobs`` of them at a time."""
    modes = {name: _with_options(MODES[name], options.option) for name in options.mode or ["isolated"]}

    def examine(suite: Suite) -> list[Verdict]:
        examiner = Examiner(work)
        chosen = [name for name in modes if not suite.modes or name in suite.modes]
        return [examiner.examine(suite, name, modes[name]) for name in chosen]

    if options.jobs == 1:  # a suite is fetched when its turn has come
        yield from itertools.chain.from_iterable(map(examine, suites))
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        yield from itertools.chain.from_iterable(pool.map(examine, suites))


def _with_options(mode: Mode, options: Iterable[str]) -> Mode:
    return replace(mode, isolated=(*mode.isolated, *(f"--isolate-{option}" for option in options)))


if __name__ == "__main__":
    sys.exit(main())
