"""``pytest-isolate verify``: whether the records of a run prove that it was strict, whole and green."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from pytest_isolate.account import Account, AccountError, read
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.process import ROOT_CAPABILITIES, mask
from pytest_isolate.runner.record import NEVER_RAN

__all__ = ["add_arguments", "verify"]

_FILTER = 2  # SECCOMP_MODE_FILTER of linux/seccomp.h
_KERNEL = "kernel"
_MOST_PROBLEMS = 20
Record = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="what --isolate-json wrote")
    parser.add_argument("--max-escapes", metavar="N", type=int, help="fail if there are more escapes")
    parser.add_argument(
        "--min-tests", metavar="N", type=int, default=1, help="fail if there were fewer tests"
    )
    parser.add_argument(
        "--allow-degraded", action="store_true", help="let tests pass that ran without what the machine lacks"
    )
    parser.add_argument(
        "--allow-failed", action="store_true", help="check what was enforced, whatever the tests said"
    )
    parser.add_argument(
        "--fixed-hash-seed", action="store_true", help="fail if pytest was started without PYTHONHASHSEED"
    )


def verify(arguments: argparse.Namespace, out: TextIO) -> int:
    """Print what was done, and a line for each problem; 1 if there is one."""
    try:
        account = read(arguments.file)
    except AccountError as error:
        out.write(f"{error}\nnot verified\n")
        return 1
    try:
        out.writelines(f"{line}\n" for line in _table(account))
        problems = [*_of_session(account, arguments), *_of_tests(account, arguments)]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        out.write(f"{arguments.file} holds what no run writes: {error!r}\nnot verified\n")
        return 1
    out.writelines(f"{problem}\n" for problem in problems[:_MOST_PROBLEMS])
    if len(problems) > _MOST_PROBLEMS:
        out.write(f"and {len(problems) - _MOST_PROBLEMS} more\n")
    out.write("not verified\n" if problems else "verified\n")
    return 1 if problems else 0


def _table(account: Account) -> Iterator[str]:
    summary = account.summary
    violations = summary["violations"]
    rows = {
        "tests": summary["tests"],
        "isolated": summary["isolated"],
        "escapes": len(summary["escapes"]),
        "degraded": summary["degraded"],
        "violations": f"{violations['new']} new, {violations['known']} known",
        "hash seed": summary["hash_seed"],
        "exit status": summary["exitstatus"],
    }
    yield from (f"{name:12} {value}" for name, value in rows.items())
    for group in summary["enforced"]:
        facts = (
            " ".join(group["namespaces"]) or "no namespaces",
            f"root {group['root']}",
            f"cgroup {group['cgroup']}",
            f"capabilities {group['capabilities']}",
            f"no_new_privs {group['no_new_privs']}",
            f"seccomp {group['seccomp']}",
        )
        yield f"{'enforced on':12} {group['tests']}: {', '.join(facts)}"
    yield ""


def _of_session(account: Account, arguments: argparse.Namespace) -> Iterator[str]:
    summary = account.summary
    if summary["strict"] is not True:
        yield "the session was not strict"
    if summary["exitstatus"] != 0 and not arguments.allow_failed:
        yield f"the session ended with exit status {summary['exitstatus']}"
    if summary["unfinished"] or summary["tests"] < summary["selected"]:
        yield f"{summary['unfinished']} of {summary['selected']} tests did not run to their end"
    if summary["tests"] < arguments.min_tests:
        yield f"{summary['tests']} tests are fewer than {arguments.min_tests}"
    if arguments.fixed_hash_seed and summary["hash_seed"] == "random":
        yield "the hash seed was random: start pytest with PYTHONHASHSEED=0"
    escapes = summary["escapes"]
    most = arguments.max_escapes if arguments.max_escapes is not None else summary["escapes_max"]
    if most is not None and len(escapes) > most:
        yield f"{len(escapes)} escapes are more than {most}"
    # The lines and the sum, by different ways, have to say the same.
    # A test may have run more than once, and is one.
    told = {(record["nodeid"], what) for record in account.records for what in record["escapes"] or ()}
    counted = {(escape["nodeid"], escape["what"]) for escape in escapes}
    inside = {record["nodeid"] for record in account.records}
    if told != {escape for escape in counted if escape[0] in inside}:
        yield "the escapes of the records are not those of the summary"
    outside = {nodeid for nodeid, _ in counted} - inside
    if len(inside) + len(outside) != summary["tests"]:
        missing = summary["tests"] - len(inside) - len(outside)
        yield f"{missing} of {summary['tests']} tests have neither a record nor an escape"


def _of_tests(account: Account, arguments: argparse.Namespace) -> Iterator[str]:
    for record in account.records:
        nodeid = record["nodeid"]
        yield from (f"{nodeid}: {problem}" for problem in _of_record(record, arguments))


def _of_record(record: Record, arguments: argparse.Namespace) -> Iterator[str]:
    escapes = record["escapes"]
    enforced = record["enforced"]
    if record["reason"] in NEVER_RAN or enforced is None:
        yield f"it was not run in a sandbox ({record['outcome']})"
        return
    if escapes is None:
        yield "it was not run strictly"
        return
    if enforced["missing"] and not arguments.allow_degraded:
        yield f"degraded: {'; '.join(enforced['missing'])}"
    if not (enforced["missing"] and arguments.allow_degraded):
        yield from _of_evidence(record, enforced, escapes)
    if record["violations"] is None:
        yield "nobody watched for violations"
    for violation in record["violations"] or ():
        if not violation["known"] and not arguments.allow_failed:
            yield f"violation: {violation['kind']}: {violation['what']}"


def _of_evidence(record: Record, enforced: Mapping[str, Any], escapes: list[str]) -> Iterator[str]:
    """What the kernel has said from inside the sandbox."""
    wanted = {namespace.value for namespace in Namespace}
    wanted -= {"net"} if 'network="host"' in escapes else set()
    wanted -= {"user"} if 'user="host-root"' in escapes else set()
    if shared := sorted(wanted - set(enforced["namespaces"])):
        yield f"it shared the host's namespaces: {' '.join(shared)}"
    if enforced["no_new_privs"] is not True:
        yield "no_new_privs was not set"
    if 'user="host-root"' not in escapes:
        capabilities = enforced["capabilities"]
        beyond = None if capabilities is None else int(capabilities, 16) & ~mask(ROOT_CAPABILITIES)
        if beyond is None:
            yield "its capabilities are not known"
        elif beyond:
            yield f"it had capabilities that no test needs: {beyond:016x}"
    if 'seccomp="off"' not in escapes and enforced["seccomp"] != _FILTER:
        yield f"no seccomp filter was in force (mode {enforced['seccomp']})"
    yield from _of_watch(enforced, escapes)
    limit = record["memory_limit_bytes"]
    if limit is not None and enforced["cgroup"] is None:
        yield "its memory was to be limited, and it had no cgroup"
    elif limit is not None and str(limit) not in enforced["limits"].values():
        yield f"its memory was to be limited to {limit} bytes, and no file of its cgroup says so"


def _of_watch(enforced: Mapping[str, Any], escapes: list[str]) -> Iterator[str]:
    """Who looked at what a test tried: Python sees nothing of subprocesses and of C."""
    if any(escape.startswith(("watch=", "runtime=", "strict=")) for escape in escapes):
        return
    network, secrets = enforced["network_watch"], enforced["secrets_watch"]
    if network != _KERNEL and 'network="host"' not in escapes:
        yield f"its use of the network was not watched by the kernel ({network or 'nobody'})"
    if secrets != _KERNEL:
        yield f"its reads of secrets were not watched by the kernel ({secrets or 'nobody'})"
