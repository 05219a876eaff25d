"""Kernel features, one module each, over the system calls of ``pytest_isolate.syscalls``."""
