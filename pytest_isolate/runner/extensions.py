"""Extension modules in a root that is not the host's.

They are the host's, so the libraries that they need must be the host's too, and not what the root has under
the same name. The dynamic loader, set up when pytest started, would look in the root; but it takes a library
that is loaded already (by its SONAME, ld.so(8)). So each is loaded, by its path, before the module is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType

from pytest_isolate.kernel.loader import needed_libraries
from pytest_isolate.syscalls._native import ffi, lib

__all__ = ["use_libraries"]


def use_libraries(directories: Sequence[str]) -> None:
    """From here on, in this process: look there first for what extension modules need."""
    if not directories:
        return
    lender = _Lender(directories)
    create_module = ExtensionFileLoader.create_module

    def create_with_libraries(self: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType:
        lender.provide_for(self.path)
        return create_module(self, spec)

    ExtensionFileLoader.create_module = create_with_libraries  # type: ignore[method-assign]


class _Lender:
    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._seen: set[str] = set()

    def provide_for(self, path: str) -> None:
        """Load what a file needs, and first what that needs."""
        try:
            names = needed_libraries(path)
        except OSError:
            return  # importing it says what is wrong
        for name in names:
            if name in self._seen:
                continue
            self._seen.add(name)  # libraries may need each other
            found = self._find(name)
            if found is not None and not _load(name, os.RTLD_NOW | os.RTLD_NOLOAD):
                self.provide_for(found)
                _load(found, os.RTLD_NOW)

    def _find(self, name: str) -> str | None:
        paths = (os.path.join(directory, name) for directory in self._directories)
        return next((path for path in paths if os.path.exists(path)), None)


def _load(name: str, flags: int) -> bool:
    """If it fails, importing the module says what is wrong. Not ``ffi.dlopen``, which crashes where dlopen(3)
    gives nothing and no error: for RTLD_NOLOAD and a library that is there and not loaded."""
    return bool(lib.dlopen(os.fsencode(name), flags) != ffi.NULL)
