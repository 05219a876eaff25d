"""``python -m pytest_isolate.cli``, where the command is not on PATH."""

from __future__ import annotations

import sys

from pytest_isolate.cli import main

if __name__ == "__main__":
    sys.exit(main())
