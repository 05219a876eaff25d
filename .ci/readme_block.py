"""Print a code block of a Markdown file: ``readme_block.py README.md NAME``.

>>> text = '''Text.
... <!-- ci: tests -->
... ```sh
... make test
... make more
... ```
... <!-- ci: empty -->
... ```sh
... ```
... <!-- ci: unmarked -->
... Text.
... ```sh
... rm -rf /
... ```
... '''
>>> print(block(text, "tests"), end="")
make test
make more
>>> block(text, "unmarked")
Traceback (most recent call last):
SystemExit: no ```sh block right after <!-- ci: unmarked -->
>>> block(text, "empty")
Traceback (most recent call last):
SystemExit: no ```sh block right after <!-- ci: empty -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def block(text: str, name: str) -> str:
    """Return what is inside the ``sh`` fence that follows the mark of that name."""
    mark = f"<!-- ci: {name} -->"
    found = re.search(rf"^{re.escape(mark)}\n+```sh\n(.+?\n)```$", text, re.MULTILINE | re.DOTALL)
    if not found or "```" in found[1]:
        raise SystemExit(f"no ```sh block right after {mark}")
    return found[1]


if __name__ == "__main__":
    sys.stdout.write(block(Path(sys.argv[1]).read_text(), sys.argv[2]))
