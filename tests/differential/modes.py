"""The ways to run a suite isolated, each with the plain run that it must equal."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MODES", "Mode"]


@dataclass(frozen=True, slots=True)
class Mode:
    plain: tuple[str, ...]
    isolated: tuple[str, ...]
    ordered: bool = True  #: False where tests run side by side, so that their order means nothing


XDIST = ("-n", "2", "--dist", "loadfile")

MODES: dict[str, Mode] = {
    "loaded": Mode(("-p", "no:isolate"), ()),
    "isolated": Mode((), ("--isolate-all",)),
    "spawn": Mode((), ("--isolate-all", "--isolate-start=spawn")),
    "jobs": Mode((), ("--isolate-all", "--isolate-jobs=3")),
    # loadfile: or it would be chance which test of a module sets up what they share.
    "xdist": Mode(XDIST, (*XDIST, "--isolate-all"), ordered=False),
}
