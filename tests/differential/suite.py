"""A suite, and running it: always a fresh copy at the same path, so that no run sees what another left."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.differential.explained import Explanation
from tests.differential.recording import Facts, Recording, load

__all__ = ["OUTPUT", "Expected", "Suite", "run"]

PLUGIN = Path(__file__).with_name("plugin")
#: In Suite.files: what pytest printed.
OUTPUT = "output"
IGNORED = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".git", ".venv")
#: For the stacks of one that did not end.
ABORT_S = 2.0
TAIL_LINES = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Of a test that cannot run plain: its outcomes, as ``phase: outcome``, and a word of its failure."""

    outcome: tuple[str, ...]
    says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    name: str
    source: Path
    python: str = sys.executable
    runs: tuple[tuple[str, ...], ...] = ((),)  #: pytest's arguments, of each of the runs in a row
    files: tuple[str, ...] = ()  #: that a run leaves and that are compared too, from its directory, or OUTPUT
    lines: str = ""  #: a regular expression: only what it matches of OUTPUT is compared
    env: Mapping[str, str] = field(default_factory=dict)
    explained: tuple[Explanation, ...] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)  #: by nodeid
    modes: tuple[str, ...] = ()  #: none: all
    timeout_s: float = 1800.0


def run(suite: Suite, arguments: tuple[str, ...], work: Path, label: str, *, ordered: bool) -> Recording:
    """Run it with ``arguments`` in addition. What pytest printed is in ``work/NAME/LABEL-N.log``. One that does not end
    in time is killed, and has told what it has told."""
    place = work / suite.name
    tree = place / "tree"
    # Apart from other runs' tmp_path, which pytest tidies up at its end; short, for UNIX sockets; and not by
    # shutil, which a suite with very deep directories is too much for.
    temporary = Path(f"/tmp/differential-{os.getpid()}-{suite.name}")
    subprocess.run(["rm", "-rf", tree, temporary], check=True)
    shutil.copytree(suite.source, tree, symlinks=True, ignore=IGNORED)
    # A copy of this too, as the checkout may change while a long suite runs.
    shutil.copytree(PLUGIN, place / "plugin", dirs_exist_ok=True, ignore=IGNORED)
    recordings = []
    for number, own in enumerate(suite.runs, start=1):
        record, log = place / f"{label}-{number}.jsonl", place / f"{label}-{number}.log"
        record.unlink(missing_ok=True)
        command = [suite.python, "-m", "pytest", "-p", "isolate_recorder", f"--record-to={record}"]
        started = time.monotonic()
        temporary.mkdir(exist_ok=True)
        exit_code = _run([*command, *own, *arguments], tree, temporary, suite, log)
        wall_s = time.monotonic() - started
        files = {name: _read(name, suite, tree, log) for name in suite.files if ordered or name != OUTPUT}
        if not ordered:
            files = {
                name: "\n".join(sorted(line.rstrip(",") for line in text.splitlines()))
                for name, text in files.items()
            }
        recordings.append(load(record, exit_code, wall_s, files, tree=tree, ordered=ordered))
    subprocess.run(["rm", "-rf", temporary], check=True)
    return _joined(recordings)


def _run(command: list[str], tree: Path, temporary: Path, suite: Suite, log: Path) -> int:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = inherited | {
        "PATH": f"{Path(suite.python).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(log.with_name("plugin")),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",  # else stdout falls behind stderr, until a fork
        "COLUMNS": "120",
        "PYTEST_DEBUG_TEMPROOT": str(temporary),
        **suite.env,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            return process.wait(suite.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # pytest's faulthandler prints where it hangs
            time.sleep(ABORT_S)
            _print_end(command, suite, log)
            return _kill(process)
        except BaseException:
            _kill(process)
            raise


def _kill(process: subprocess.Popen[bytes]) -> int:
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _print_end(command: list[str], suite: Suite, log: Path) -> None:
    lines = log.read_text(errors="backslashreplace").splitlines()
    heading = f"--- {shlex.join(command)} did not end in {suite.timeout_s:.0f} s; the end of its output:"
    print(heading, *lines[-TAIL_LINES:], "---", sep="\n", flush=True)


def _read(name: str, suite: Suite, tree: Path, log: Path) -> str:
    path = log if name == OUTPUT else tree / name
    if not path.exists():
        return "(none)"
    text = path.read_text(errors="backslashreplace")
    if name != OUTPUT:
        return _without_our_properties(text)
    text = _without_ours(text)
    return "\n".join(re.findall(suite.lines, text, re.MULTILINE)) if suite.lines else text


def _without_ours(text: str) -> str:
    """pytest's output without colours and the lines of pytest-isolate, and with rules as short as each other."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"(?m)^(plugins: .*?)(, )?isolate-ns-[\w.]+", r"\1", text)
    kept, skipping = [], False
    for line in text.splitlines():
        rule = re.match(r"([=!-])\1+ (.+) \1+$", line)
        if rule is not None:
            skipping = rule[2] == "isolate"
        if not skipping and not line.startswith("isolate: "):
            kept.append(re.sub(r"([=_!-])\1{3,}", r"\1\1\1\1", line).rstrip())
    return "\n".join(kept)


def _without_our_properties(text: str) -> str:
    text = re.sub(r'<property name="isolate\.[^>]*/>', "", text)
    text = re.sub(r"<properties ?/>|<properties></properties>", "", text)
    return re.sub(r"(<testcase [^>]*)></testcase>", r"\1 />", text).replace("><", ">\n<")


def _joined(recordings: list[Recording]) -> Recording:
    if len(recordings) == 1:
        return recordings[0]
    facts: dict[str, Facts] = {}
    for number, recording in enumerate(recordings, start=1):
        for nodeid, of_test in recording.facts.items():
            facts.setdefault(nodeid, {}).update({f"run {number}: {what}": v for what, v in of_test.items()})
    return Recording(recordings[-1].exit_code, sum(r.wall_s for r in recordings), facts)
