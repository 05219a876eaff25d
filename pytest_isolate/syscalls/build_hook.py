"""The package's own build: C programs with the machine's compiler, as a hook of hatchling.

``_native.abi3.so`` is a cffi extension for the limited API of CPython 3.10, so that one file serves
every later CPython; ``isolate-supervisor`` is a plain program; ``isolate-init`` and ``isolate-interpreter``
need no libraries, as they run in other roots. setuptools is not asked: it would name the extension after
one version of CPython.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
NATIVE = HERE / "native"
EXTENSION = HERE / "_native.abi3.so"
SUPERVISOR = HERE / "isolate-supervisor"
INIT = HERE / "isolate-init"
INTERPRETER = HERE / "isolate-interpreter"
LIMITED_API = 0x030A0000
#: Of the extension, below native/.
SOURCES = (
    "clock",
    "confine",
    "enter",
    "in_root",
    "libc_state",
    "look",
    "readback",
    "seccomp",
    "secret_names",
    "template",
    "watch",
)
CURE = "install a C compiler and Python's headers: apt-get install gcc libc6-dev python3-dev"


class BuildError(Exception):
    """The compiler is missing or refused; the text is what the user needs to read."""


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"cannot build pytest-isolate-ns: no C compiler {command[0]!r}; {CURE}") from error
    if done.returncode != 0:
        raise BuildError(
            f"cannot build pytest-isolate-ns: {shlex.join(command)} failed with status {done.returncode}; "
            f"{CURE}\n{done.stdout}{done.stderr}"
        )


def declarations() -> ModuleType:
    """``_cdef`` without importing the package, whose dependencies a build environment lacks."""
    spec = importlib.util.spec_from_file_location("_cdef", HERE / "_cdef.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_extension() -> None:
    import cffi

    cdef = declarations()
    ffi = cffi.FFI()
    ffi.cdef(cdef.CDEF)
    ffi.set_source("_native", cdef.SOURCE)
    with tempfile.TemporaryDirectory() as scratch:
        generated = Path(scratch, "_native.c")
        ffi.emit_c_code(str(generated))
        run(
            [
                *compiler(),
                *["-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall"],
                f"-DPy_LIMITED_API={LIMITED_API:#x}",
                f"-I{sysconfig.get_path('include')}",
                f"-I{NATIVE}",
                str(generated),
                *(str(NATIVE / f"{name}.c") for name in SOURCES),
                "-ldl",
                "-o",
                str(EXTENSION),
            ]
        )


def build_programs() -> None:
    flags = ["-O2", "-g", "-Wall", "-Wextra", f"-I{NATIVE}"]
    sources = [
        str(NATIVE / f"{name}.c")
        for name in ("supervisor", "notify", "addresses", "caller", "secret_names", "secrets", "sockets")
    ]
    run([*compiler(), *flags, *sources, "-o", str(SUPERVISOR)])
    run([*compiler(), *flags, "-static", "-s", str(NATIVE / "init.c"), "-o", str(INIT)])


def build_interpreter() -> None:
    flags = ["-O2", "-g", "-Wall", "-Wextra", "-std=gnu11", "-ffreestanding", "-fno-stack-protector"]
    # Not -static-pie: without a C library nobody would relocate it.
    flags += ["-fno-pie", "-nostdlib", "-static", "-no-pie"]
    run([*compiler(), *flags, str(NATIVE / "interpreter.c"), "-o", str(INTERPRETER)])


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds them, and tags the wheel ``cp310-abi3-<platform>``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if sys.platform != "linux":
            raise BuildError("cannot build pytest-isolate-ns: it needs Linux, whose namespaces it is made of")
        build_extension()
        build_programs()
        build_interpreter()
        build_data["pure_python"] = False
        build_data["tag"] = f"cp310-abi3-linux_{platform.machine()}"
        build_data["artifacts"] += [
            f"/{path.relative_to(self.root)}" for path in (EXTENSION, SUPERVISOR, INIT, INTERPRETER)
        ]


def get_build_hook() -> type[NativeBuildHook]:
    return NativeBuildHook
