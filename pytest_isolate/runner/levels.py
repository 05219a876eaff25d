"""What a test that failed is to be told of what it ran without.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from pytest_isolate.evidence import Evidence

__all__ = ["hint"]

#: What the kernel refuses at a lower level and not in a sandbox with namespaces, and what allows it.
REFUSED = {
    "files": "a write outside of tmp_path, TMPDIR and writable binds (binds=…)",
    "network": "a socket that is not Unix's, also for the loopback (network='host')",
    "signals": "a signal to a process outside",
}


def hint(evidence: Evidence) -> str:
    """Nothing for one that had namespaces, or did not run."""
    if evidence.level in (None, "namespaces"):
        return ""
    refused = [text for kind, text in REFUSED.items() if kind in evidence.confined]
    answers = ": EACCES or EPERM may be the answer to " + "; to ".join(refused) if refused else ""
    why = "".join(f"\n{text}" for text in evidence.missing)
    return f"it ran at level {evidence.level}, without namespaces{answers}{why}"
