"""How an interpreter is started where its libraries are elsewhere: the loader really starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_isolate.kernel.loader import find_loader, requested_loader


def test_loader_starts_this_interpreter() -> None:
    loader = find_loader(sys.executable)
    if loader is None:
        pytest.skip("this interpreter is linked statically")
    libraries = ":".join(loader.directories)
    code = "import sys; print(sys.version, sys.executable, sys.prefix, sep='\\n')"
    command = [loader.path, "--library-path", libraries, sys.executable, "-I", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == f"{sys.version}\n{sys.executable}\n{sys.prefix}\n"
    assert os.path.dirname(loader.path) == loader.directories[-1]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01" + b"\0" * 60], ids=str)
def test_what_asks_for_no_loader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    assert requested_loader(str(path)) is None
    assert find_loader(str(path)) is None
