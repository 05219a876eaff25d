"""Every error that pytest-isolate raises, and nothing else.

Texts are one lower-case line: what failed, on what, why, and (after a semicolon) what cures it.
"""

from __future__ import annotations

__all__ = [
    "ChannelError",
    "ImageError",
    "IsolateError",
    "SetupError",
    "SpecError",
    "SupervisorError",
    "UnsupportedError",
]


class IsolateError(Exception):
    """Base of all errors raised on purpose by pytest-isolate."""


class SpecError(IsolateError, ValueError):
    """The user asked for something that is not allowed; fails that one test.

    ``origin`` says where the value came from: ``"@pytest.mark.isolated"``, ``"--isolate-memory"``
    or ``"ini isolate_memory"``.
    """

    def __init__(self, message: str, *, origin: str) -> None:
        super().__init__(f"{origin}: {message}")
        self.origin = origin


class UnsupportedError(IsolateError):
    """A feature that a Spec needs and this machine lacks: what, why, and a command that cures it."""

    def __init__(self, feature: str, reason: str, cure: str = "") -> None:
        super().__init__(f"{feature} is not available: {reason}" + (f"; {cure}" if cure else ""))
        self.feature = feature
        self.reason = reason
        self.cure = cure


class SetupError(IsolateError):
    """A step of building a sandbox failed in the kernel.

    ``step`` is the step as ``pytest-isolate explain`` prints it, ``errno`` the kernel's answer.
    """

    def __init__(self, step: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class ChannelError(IsolateError):
    """What arrived on a channel is not what the other end may send: torn, oversized or malformed."""


class ImageError(IsolateError):
    """An image cannot be found, fetched, unpacked or trusted."""


class SupervisorError(IsolateError):
    """The supervisor process could not be started, or ended while it was needed."""
