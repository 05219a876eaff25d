"""What a test that failed is to be told of its sandbox, as sections of its report.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_isolate.evidence import Evidence
from pytest_isolate.runner import cures
from pytest_isolate.spec import NATIVE, Network, Spec

__all__ = ["level", "refused", "sections"]

#: What the kernel refuses at a lower level and not in a sandbox with namespaces, and what allows it.
CONFINED = {
    "files": "a write outside of tmp_path, TMPDIR and writable binds (binds=…)",
    "network": "a socket that is not Unix's, also for the loopback (network='host')",
    "signals": "a signal to a process outside",
}
#: Of each text of a report, the end.
LONGEST = 1 << 16
#: Of an error's words, by Python, the C library or a client that says it in its own way, as Node.js does.
REFUSED = re.compile(r"connection refused|ECONNREFUSED", re.IGNORECASE)
#: As in "127.0.0.1:5432", ('localhost', 6379), host='localhost', port=80 and "(127.0.0.1), port 5432".
LOOPBACK = re.compile(r"""(?:localhost|127(?:\.\d+){3}|::1)["')\],:\s]{1,6}(?:port[=\s]+)?(\d{1,5})(?!\d)""")
SOCKET = re.compile(r"""socket[:=\s]+["'](/[^\s"']+)""")
MOST = 3


def sections(report: pytest.TestReport, spec: Spec, evidence: Evidence) -> Iterator[tuple[str, str]]:
    if text := level(evidence):
        yield "isolate: level", text
    texts = (report.longreprtext, report.capstdout, report.capstderr)
    if evidence.level == "namespaces" and (
        text := refused("\n".join(text[-LONGEST:] for text in texts), spec)
    ):
        yield "isolate: network", text


def level(evidence: Evidence) -> str:
    """Nothing for one that had namespaces, or did not run."""
    if evidence.level in (None, "namespaces"):
        return ""
    refused = [text for kind, text in CONFINED.items() if kind in evidence.confined]
    answers = ": EACCES or EPERM may be the answer to " + "; to ".join(refused) if refused else ""
    why = "".join(f"\n{text}" for text in evidence.missing)
    return f"it ran at level {evidence.level}, without namespaces{answers}{why}"


def refused(text: str, spec: Spec) -> str:
    """``text``: what a test has printed. A server of the host does not listen on the sandbox's loopback."""
    if spec.network is Network.HOST or not REFUSED.search(text):
        return ""
    found = dict.fromkeys([*map(int, LOOPBACK.findall(text)), *SOCKET.findall(text)])
    cure = cures.ports([*found][:MOST]) or "ports=[PORT]"
    if spec.runtime != NATIVE:
        cure = 'network="host"'
    return (
        "a connection was refused: no server of the host listens on the sandbox's own loopback; "
        f"if the test needs one, declare it with {cure}"
    )
