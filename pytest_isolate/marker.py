"""From a test's marks to its Spec. No hooks here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_isolate.errors import SpecError
from pytest_isolate.options import MARKER, OPT_OUT_MARKER
from pytest_isolate.settings import build_spec, session_options
from pytest_isolate.units import quoted

if TYPE_CHECKING:
    from pytest_isolate.spec import Spec

__all__ = ["OPTED_OUT", "SWITCHED_OFF", "isolated_marks", "opted_out", "spec_for", "why_unprotected"]

#: Properties of the reports of tests that run outside of a sandbox, though a mark or an option asks for one.
OPTED_OUT = "isolate.opted_out"
SWITCHED_OFF = "isolate.off"

_ORIGIN = f"@pytest.mark.{MARKER}"
_OPT_OUT_ORIGIN = f"@pytest.mark.{OPT_OUT_MARKER}"


def spec_for(item: pytest.Item) -> Spec | None:
    """What the test asked for, or ``None`` if it is not to be isolated. Raises SpecError."""
    session = session_options(item.config)
    if session.off:
        return None
    isolated, opt_out = _marks_in_force(item)
    for mark in isolated:
        if mark.args:
            example = f'{_ORIGIN}(memory="64M")'
            raise SpecError(
                f"takes keywords only, as in {example}, not {quoted(mark.args[0])}", origin=_ORIGIN
            )
    if isolated or (session.isolate_all and opt_out is None):
        return build_spec(item.config, [(mark.kwargs, _ORIGIN) for mark in isolated])
    if opt_out is not None:
        _reason(opt_out)
    return None


def isolated_marks(item: pytest.Item) -> list[pytest.Mark]:
    """The ``isolated`` marks that count, closest first."""
    return _marks_in_force(item)[0]


def opted_out(item: pytest.Item) -> str | None:
    """Why the test is kept out of its sandbox by a ``not_isolated`` mark; the summary counts these.

    ``None`` if there is no such mark, if it changes nothing (no ``--isolate-all`` and no outer ``isolated``
    mark, or ``--isolate-off``), or if it is wrong and the test fails for that. Never raises.
    """
    session = session_options(item.config)
    isolated, opt_out = _marks_in_force(item)
    if session.off or isolated or opt_out is None:
        return None
    if not session.isolate_all and not any(item.iter_markers(MARKER)):
        return None
    try:
        return _reason(opt_out)
    except SpecError:
        return None


def why_unprotected(item: pytest.Item) -> tuple[str, str] | None:
    """The property for the reports of an item without a Spec that has one but for ``not_isolated`` or
    ``--isolate-off``."""
    session = session_options(item.config)
    if session.off:
        isolated, opt_out = _marks_in_force(item)
        asked = bool(isolated) or (session.isolate_all and opt_out is None)
        return (SWITCHED_OFF, "--isolate-off") if asked else None
    reason = opted_out(item)
    return (OPTED_OUT, reason) if reason is not None else None


def _marks_in_force(item: pytest.Item) -> tuple[list[pytest.Mark], pytest.Mark | None]:
    """The ``isolated`` marks up to the first ``not_isolated`` one, which ends them, and that one."""
    isolated: list[pytest.Mark] = []
    for mark in _closest_first(item):
        if mark.name == OPT_OUT_MARKER:
            return isolated, mark
        if mark.name == MARKER:
            isolated.append(mark)
    return isolated, None


def _closest_first(item: pytest.Item) -> Iterator[pytest.Mark]:
    # pytest puts the marks of a parametrised case (pytest.param(…, marks=…)) behind those of its function,
    # though they say more about it.
    case: list[pytest.Mark] = list(getattr(getattr(item, "callspec", None), "marks", ()))
    yield from case
    for mark in item.iter_markers():
        if not any(mark is other for other in case):
            yield mark


def _reason(mark: pytest.Mark) -> str:
    reason = mark.kwargs.get("reason")
    if mark.args or set(mark.kwargs) - {"reason"} or not isinstance(reason, str) or not reason.strip():
        example = f'{_OPT_OUT_ORIGIN}(reason="…")'
        raise SpecError(f"needs a reason and nothing else, as in {example}", origin=_OPT_OUT_ORIGIN)
    return reason
