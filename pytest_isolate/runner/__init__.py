"""Running a pytest item in a sandbox: the child's side, the parent's side, and what both need of pytest."""

__all__ = ["FRESH_PLUGIN", "JOB_VARIABLE"]

#: Names a memfd with what a fresh interpreter (``start="spawn"``) is to do.
JOB_VARIABLE = "PYTEST_ISOLATE_JOB"
#: What does it there.
FRESH_PLUGIN = "isolate-fresh"
