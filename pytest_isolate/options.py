"""One table of options; command line, ini keys, marker signature, error texts and docs come from it.

What a user has written is read in ``settings.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pytest

from pytest_isolate.declared import parse_hosts, parse_network, parse_ports
from pytest_isolate.units import (
    format_cpus,
    format_duration,
    format_size,
    parse_count,
    parse_cpus,
    parse_duration,
    parse_size,
)
from pytest_isolate.values import (
    Keep,
    Missing,
    Pull,
    capped,
    member,
    parse_allow,
    parse_artifacts,
    parse_binds,
    parse_bool,
    parse_env,
    parse_fixtures,
    parse_hostname,
    parse_jobs,
    parse_optional_path,
    parse_patterns,
    parse_rootfs,
    parse_runtime,
    parse_scope,
    parse_seccomp,
    parse_start,
    parse_user,
    parse_watch,
    parse_workdir,
    parse_writes,
)

__all__ = [
    "MARKER",
    "OPTIONS",
    "OPT_OUT_MARKER",
    "SESSION",
    "Option",
    "add_markers",
    "add_options",
    "docs_table",
]

MARKER = "isolated"
OPT_OUT_MARKER = "not_isolated"

Place = Literal["cli", "ini", "marker"]
EVERYWHERE: frozenset[Place] = frozenset(("cli", "ini", "marker"))
SESSION: frozenset[Place] = frozenset(("cli", "ini"))


def _parse_missing(value: object) -> Missing:
    return member(Missing, value)


def _parse_keep(value: object) -> Keep:
    return member(Keep, value)


def _parse_pull(value: object) -> Pull:
    return member(Pull, value)


def _parse_optional_count(value: object) -> int | None:
    return None if value is None else parse_count(value)


# Named tuples cost a session that isolates nothing a quarter of a dataclass's import time.
class Option(NamedTuple):
    """One row: where a user can write it, how it is read, and which field it becomes.

    ``field`` is a field of Spec, of its Limits (``limits.memory_bytes``) or of SessionOptions
    (``session.top``); ``default`` is written as a user would write it.
    """

    name: str
    parse: Callable[[Any], object]
    help: str
    field: str
    metavar: str = ""
    default: object = None
    default_text: str = ""
    where: frozenset[Place] = EVERYWHERE
    form: Literal["value", "flag", "lines"] = "value"

    @property
    def flag(self) -> str:
        return "--isolate-" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The ini key, and the ``dest`` on the command line."""
        return f"isolate_{self.name}"


def _limit(
    name: str,
    field: str,
    metavar: str,
    parse: Callable[[Any], object],
    meaning: str,
    default_text: str = "no cap",
) -> Option:
    return Option(
        name=name,
        field=f"limits.{field}",
        metavar=metavar,
        parse=parse,
        help=meaning if default_text != "no cap" else f"{meaning}; none: no cap",
        default_text=default_text,
    )


_SMALLEST_MEMORY = 2**20  # below that not even the sandbox's own first process fits
_SMALLEST_TMP = 2**12  # a page; 0 would mean "no limit" to tmpfs
_MOST_PIDS = 2**22  # PID_MAX_LIMIT; the kernel refuses more
_MOST_FILES = 2**30  # what the kernel lets fs.nr_open be
_FEWEST_FILES = 16  # fewer leave none to pytest's own capture
_LEAST_CPUS = 0.01  # cpu.max takes no quota below 1 ms in a period of 100 ms

OPTIONS: tuple[Option, ...] = (
    _limit(
        "memory", "memory_bytes", "SIZE", capped(parse_size, _SMALLEST_MEMORY, format_size),
        "memory of all processes of the test together, files in its throw-away layers included, as in 64M",
    ),
    _limit(
        "swap", "swap_bytes", "SIZE", capped(parse_size, 0, format_size),
        "swap space in addition to memory", default_text="0 if memory is capped, else no cap",
    ),
    _limit(
        "cpus", "cpus", "CPUS", capped(parse_cpus, _LEAST_CPUS, format_cpus),
        "processors in use at any time, as in 0.5 or 50%",
    ),
    _limit(
        "cpu_time", "cpu_time_s", "TIME", capped(parse_duration, 0.001, format_duration),
        "processor time of all processes of the test together, as in 10s",
    ),
    _limit(
        "pids", "pids", "N", capped(parse_count, 1, str, _MOST_PIDS),
        "processes and threads at any time",
    ),
    _limit(
        "files", "files", "N", capped(parse_count, _FEWEST_FILES, str, _MOST_FILES),
        f"open file descriptors of each process, at least {_FEWEST_FILES}",
    ),
    _limit(
        "tmp_size", "tmp_size_bytes", "SIZE", capped(parse_size, _SMALLEST_TMP, format_size),
        "bytes written outside tmp_path and writable binds, as in 100M", default_text="1G",
    ),
    _limit(
        "timeout", "timeout_s", "TIME", capped(parse_duration, 0.001, format_duration),
        "wall-clock time of setup, call and teardown together, as in 500ms, 10s or 2m",
    ),
    Option(
        name="network", field="network", metavar="none|host|private[:GROUP]", parse=parse_network,
        default="none",
        help="none: a loopback interface of its own and nothing else; host: the host's network; private: "
        "a loopback interface, and one to the tests of the same group that run at the same time",
    ),
    Option(
        name="ports", field="ports", form="lines", metavar="PORT|HOST:INSIDE|/SOCKET", parse=parse_ports,
        default=(), default_text="none",
        help="ports of the host's loopback that the test finds on its own, with the same number or with "
        "INSIDE, and Unix sockets of the host, at the same path; repeat the flag, one per line in ini, "
        "a list in the marker",
    ),
    Option(
        name="hosts", field="hosts", form="lines", metavar="NAME=ADDRESS", parse=parse_hosts,
        default=(), default_text="none",
        help="names of hosts, and their addresses, for the test's /etc/hosts, as in db=127.0.0.1; repeat the "
        "flag, one per line in ini, a mapping {NAME: ADDRESS} in the marker",
    ),
    Option(
        name="rootfs", field="rootfs", metavar="host|PATH|IMAGE", parse=parse_rootfs, default="host",
        help="what the test sees as /: the host's files, a directory, a tar archive of a root or an image, "
        "an OCI layout (paths relative to rootdir; PATH#NAME is one of several images), a name from "
        "[tool.pytest-isolate.images], or an image of a registry, as in HOST/NAME:TAG; "
        "what it writes there is thrown away",
    ),
    Option(
        name="readonly", field="readonly", form="flag", parse=parse_bool, default=False,
        help="refuse writes to the root (EROFS) in place of throwing them away",
    ),
    Option(
        name="binds", field="binds", form="lines", metavar="SRC:DST[:ro|:rw]", parse=parse_binds,
        default=(), default_text="none",
        help="host paths (relative to rootdir) that the test sees at an absolute path, writable unless :ro; "
        "repeat the flag, one per line in ini, a mapping {SRC: DST[:ro|:rw]} in the marker",
    ),
    Option(
        name="artifacts", field="artifacts", form="lines", metavar="GLOB", parse=parse_artifacts,
        default=(), default_text="none",
        help="files made by the test (relative to rootdir; ** is any number of directories) that are copied "
        "to the same place on the host when it has ended, as in out/**/*.png; repeat the flag, one per line "
        "in ini, a list in the marker",
    ),
    Option(
        name="writes", field="writes", form="lines", metavar="GLOB", parse=parse_writes,
        default=(), default_text="none",
        help="files that the test may make, change or delete outside of tmp_path (relative to rootdir, or to "
        "the home directory with ~; ** is any number of directories), and which are thrown away, as in "
        "~/.cache/mytool/**; repeat the flag, one per line in ini, a list in the marker",
    ),
    Option(
        name="env", field="env", form="lines", metavar="inherit|clean|NAME=VALUE|-NAME", parse=parse_env,
        default="inherit",
        help="environment variables to start from (inherit or clean), to set (NAME=VALUE) and to remove "
        "(-NAME, on the command line with '='); repeat the flag, one per line in ini, inherit, clean, a list "
        "of these or a mapping {NAME: VALUE or None} on top of inherit in the marker",
    ),
    Option(
        name="hostname", field="hostname", metavar="NAME", parse=parse_hostname, default="isolated",
        help="host name that the test sees",
    ),
    Option(
        name="user", field="user", metavar="image|caller|root|host-root", parse=parse_user, default="image",
        help="image: your uid and gid look like those that the image's configuration names, if it does; "
        "caller: they stay your own; root: they look like 0; host-root: no user namespace, which needs "
        "pytest to run as root",
    ),
    Option(
        name="workdir", field="workdir", metavar="image|DIR", parse=parse_workdir, default="image",
        help="where the test starts: in the directory that the image's configuration names, else in pytest's "
        "own; or in DIR (relative to rootdir), which is made if it is not there",
    ),
    Option(
        name="start", field="start", metavar="fork|spawn", parse=parse_start, default="fork",
        help="fork: the test starts as a copy of pytest; spawn: in a fresh interpreter, which inherits "
        "nothing, and collects and runs this test alone",
    ),
    Option(
        name="runtime", field="runtime", metavar="native|runc|crun|PATH", parse=parse_runtime,
        default="native",
        help="who makes the sandbox: native: this plugin; else the command of an OCI runtime, "
        "which implies start=spawn",
    ),
    Option(
        name="seccomp", field="seccomp", metavar="default|off", parse=parse_seccomp, default="default",
        help="default: refuse system calls that reach past namespaces: keys, kernel modules, bpf, io_uring, "
        "the clock and others; off: refuse none",
    ),
    Option(
        name="scope", field="scope", metavar="function|class|module", parse=parse_scope, default="function",
        help="function: a sandbox for each test; class, module: one for the consecutive tests of a class or "
        "module, whose fixtures of that scope are set up in it",
    ),
    Option(
        name="fixtures", field="fixtures", metavar="shared|fresh", parse=parse_fixtures, default="shared",
        help="shared: fixtures of a wider scope than the sandbox's are set up once, outside, and inherited; "
        "fresh: all fixtures are set up in each sandbox",
    ),
    Option(
        name="exclusive", field="exclusive", form="flag", parse=parse_bool, default=False,
        help="run no other test of this pytest at the same time; see jobs",
    ),
    Option(
        name="watch", field="watch", metavar="off|report|fail", parse=parse_watch, default="report",
        help="report: say what a test did that a hermetic one must not, its violations; fail: fail it for "
        "that; off: do not look",
    ),
    Option(
        name="allow", field="allow", form="lines", metavar="KIND", parse=parse_allow, default=(),
        default_text="none",
        help="kinds of violations not to hold against the test: network, files, secrets, processes, threads, "
        "descriptors, ipc, environment; repeat the flag, one per line in ini, a list in the marker",
    ),
    Option(
        name="fresh_fixtures", field="session.fresh_fixtures", form="lines", metavar="PATTERN",
        parse=parse_patterns, default=(), default_text="none", where=SESSION,
        help="names of fixtures, as in *_loop, that every sandbox sets up for itself, and what depends on "
        "them; async fixtures and the event loops of pytest-asyncio are so without being named; "
        "repeat the flag, one per line in ini",
    ),
    Option(
        name="all", field="session.isolate_all", form="flag", parse=parse_bool, default=False, where=SESSION,
        help=f"isolate every test that is not marked {OPT_OUT_MARKER}",
    ),
    Option(
        name="strict", field="session.strict", form="flag", parse=parse_bool, default=False, where=SESSION,
        help="isolate every test as tightly as it goes: fixtures=fresh, no network, an empty home, a clean "
        "environment, a read-only project; violations fail the test, and what loosens this is counted",
    ),
    Option(
        name="escapes_max", field="session.escapes_max", metavar="N", where=SESSION,
        parse=_parse_optional_count, default_text="any number",
        help="escapes from strict that are allowed, not_isolated tests among them; the session fails if "
        "there are more",
    ),
    Option(
        name="baseline", field="session.baseline", metavar="FILE", parse=parse_optional_path, where=SESSION,
        default_text="none",
        help="violations that are known (relative to rootdir), and fail no test; pytest-isolate baseline "
        "writes it",
    ),
    Option(
        name="off", field="session.off", form="flag", parse=parse_bool, default=False, where=SESSION,
        help="isolate nothing, whatever markers and --isolate-all say",
    ),
    Option(
        name="jobs", field="session.jobs", metavar="N|auto", parse=parse_jobs, default=1, where=SESSION,
        help="isolated tests that run at the same time, results in the order of the tests; auto: one for "
        "each processor; with pytest-xdist all workers share them",
    ),
    Option(
        name="jobs_memory", field="session.jobs_memory_bytes", metavar="SIZE",
        parse=capped(parse_size, _SMALLEST_MEMORY, format_size), where=SESSION,
        default_text="what is available",
        help="memory that tests which run at the same time may declare together, as in 2G; others wait",
    ),
    Option(
        name="missing", field="session.missing", metavar="fail|skip|degrade", parse=_parse_missing,
        default="fail", where=SESSION,
        help="what to do with a test that needs a feature this machine lacks: fail it, skip it, "
        "or run it with what there is and say so",
    ),
    Option(
        name="pull", field="session.pull", metavar="missing|always|never", parse=_parse_pull,
        default="missing", where=SESSION,
        help="when to ask the registry of an image: if the store lacks it, once in each session, or never",
    ),
    Option(
        name="store", field="session.store", metavar="DIR", parse=parse_optional_path, where=SESSION,
        default_text="pytest-isolate/images below $XDG_CACHE_HOME or ~/.cache",
        help="where images and their unpacked layers are kept (relative to rootdir)",
    ),
    Option(
        name="keep", field="session.keep", metavar="never|failed|always", parse=_parse_keep,
        default="never", where=SESSION,
        help="keep what a test wrote outside tmp_path, in a directory that its report names",
    ),
    Option(
        name="json", field="session.json_path", metavar="PATH", parse=parse_optional_path, where=SESSION,
        default_text="not written", help="write one JSON object per isolated test and line to PATH",
    ),
    Option(
        name="top", field="session.top", metavar="N", parse=parse_count, default=5, where=SESSION,
        help="rows of the terminal tables of the costliest tests; 0: only the one-line summary",
    ),
    Option(
        name="profile", field="session.profile", form="flag", parse=parse_bool, default=False, where=SESSION,
        help="print where the time of an isolated test goes, from fork to report",
    ),
)  # fmt: skip


def add_options(parser: pytest.Parser) -> None:
    """Every command-line flag and ini key."""
    group = parser.getgroup("pytest-isolate-ns", "tests in a sandbox of their own (pytest-isolate-ns)")
    for option in OPTIONS:
        sentence = _sentence(option)
        kind: dict[str, Any] = {
            "flag": {"action": "store_true"},
            "lines": {"action": "append", "metavar": option.metavar},
            "value": {"metavar": option.metavar},
        }[option.form]
        # No argparse type or choices: they end the session where DESIGN wants one failing test.
        group.addoption(option.flag, dest=option.key, default=None, help=sentence.replace("%", "%%"), **kind)
        parser.addini(option.key, sentence, type=_ini_type(option), default=None)


def add_markers(config: pytest.Config) -> None:
    """The lines of ``pytest --markers``."""
    # pytest cuts these lines at the first colon.
    config.addinivalue_line("markers", f"{_signature()}: run the test in a sandbox of its own.")
    opt_out = f"keep the test out of --isolate-all and of outer {MARKER} marks."
    config.addinivalue_line("markers", f"{OPT_OUT_MARKER}(*, reason): {opt_out}")


def docs_table() -> str:
    """All options as a MyST markdown table."""
    rows = [("Option", "Command line", "ini key", "Marker keyword", "Default", "Meaning"), ("---",) * 6]
    for option in OPTIONS:
        rows.append(
            (
                f"`{option.name}`",
                f"`{option.flag} {option.metavar}`".replace(" `", "`"),
                f"`{option.key}`",
                f"`{option.name}=`" if "marker" in option.where else "",
                option.default_text or f"`{option.default}`",
                option.help,
            )
        )
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def _signature() -> str:
    keywords = (f"{option.name}={option.default!r}" for option in OPTIONS if "marker" in option.where)
    return f"{MARKER}(*, {', '.join(keywords)})"


def _sentence(option: Option) -> str:
    return f"{option.help} (default: {option.default_text or option.default})"


def _ini_type(option: Option) -> Any:
    if option.form == "flag":
        return "bool"
    if option.form == "lines":
        return "linelist"
    # Lets native TOML hold isolate_pids = 10; the union exists since pytest 9.2.
    return str | int | float if pytest.version_tuple >= (9, 2) else "string"
