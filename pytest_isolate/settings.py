"""What a user has written for the options of ``options.py``, read from marks, command line and ini.

Values stay as the user wrote them until a test needs them: a wrong one fails the tests that would use
it, with its place, and never ends the session. ``spec.py`` is imported late, as its dataclasses cost
milliseconds that a session without an isolated test must not pay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_isolate.errors import SpecError
from pytest_isolate.options import OPTIONS, SESSION, Option
from pytest_isolate.units import quoted
from pytest_isolate.values import Keep, Missing, Pull

if TYPE_CHECKING:
    from pytest_isolate.spec import Spec

__all__ = ["SessionOptions", "build_spec", "session_options", "wrong_settings"]

MarkerKwargs = Sequence[tuple[Mapping[str, object], str]]


class SessionOptions(NamedTuple):
    """What holds for the whole session and no marker can change."""

    isolate_all: bool
    off: bool
    missing: Missing
    keep: Keep
    json_path: Path | None
    top: int
    fresh_fixtures: tuple[str, ...]
    jobs: int
    jobs_memory_bytes: int | None
    profile: bool
    store: Path | None
    pull: Pull
    strict: bool
    escapes_max: int | None
    baseline: Path | None


class _Setting(NamedTuple):
    """An option as the session gives it: parsed, or with the problem that its users will meet."""

    value: Any
    origin: str = ""  #: empty: it is the default
    problem: str = ""


_SETTINGS = pytest.StashKey[dict[str, _Setting]]()
_SESSION_OPTIONS = pytest.StashKey[SessionOptions]()


def session_options(config: pytest.Config) -> SessionOptions:
    """The session's options. Never raises: a wrong value fails tests (:func:`build_spec`), no session."""
    if _SESSION_OPTIONS not in config.stash:
        found = {option.name: _setting(config, option) for option in OPTIONS if option.where == SESSION}
        path, store, baseline = (found[name].value for name in ("json", "store", "baseline"))
        strict = bool(found["strict"].problem) or found["strict"].value
        base = config.invocation_params.dir if found["json"].origin.startswith("--") else config.rootpath
        config.stash[_SESSION_OPTIONS] = SessionOptions(
            # Fail closed: with a wrong value every test counts as isolated, and fails with the reason.
            isolate_all=bool(found["all"].problem) or found["all"].value or strict,
            off=found["off"].value,
            missing=found["missing"].value,
            keep=found["keep"].value,
            json_path=None if path is None else base / path,
            top=found["top"].value,
            fresh_fixtures=found["fresh_fixtures"].value,
            jobs=found["jobs"].value,
            jobs_memory_bytes=found["jobs_memory"].value,
            profile=found["profile"].value,
            store=None if store is None else config.rootpath / os.path.expanduser(store),
            pull=found["pull"].value,
            strict=strict,
            escapes_max=found["escapes_max"].value,
            baseline=None if baseline is None else config.rootpath / os.path.expanduser(baseline),
        )
    return config.stash[_SESSION_OPTIONS]


def wrong_settings(config: pytest.Config, names: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the options of the command line and the ini file, or with those of these names."""
    settings = [_setting(config, option) for option in OPTIONS if names is None or option.name in names]
    return [f"{setting.origin}: {setting.problem}" for setting in settings if setting.problem]


def build_spec(config: pytest.Config, marker_kwargs: MarkerKwargs) -> Spec:
    """The Spec of one test: marker keywords (closest marker first, each with its origin), then the session's.

    Raises SpecError for an unknown keyword, a wrong value that counts here, or a wrong session option.
    """
    from pytest_isolate.spec import Limits, Spec

    origins: dict[str, str] = {}
    for keywords, origin in marker_kwargs:
        _refuse_unknown(keywords, origin)
    fields: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for option in OPTIONS:
        setting = _from_markers(option, marker_kwargs) or _setting(config, option)
        if setting.problem:
            raise SpecError(setting.problem, origin=setting.origin)
        if not setting.origin or option.where == SESSION:
            continue
        origins[option.name] = setting.origin
        owner, _, name = option.field.rpartition(".")
        (limits if owner else fields)[name] = _anchored(option.name, setting, config)
    if limits.get("memory_bytes") is not None:
        limits.setdefault("swap_bytes", 0)
    _imply_spawn(fields, origins)
    _refuse_ports_of_ones_own(fields, origins)
    if session_options(config).strict:
        from pytest_isolate.strict import tighten

        tighten(fields)
    return Spec(limits=Limits(**limits), **fields)


def _imply_spawn(fields: dict[str, Any], origins: Mapping[str, str]) -> None:
    from pytest_isolate.spec import NATIVE, Start

    runtime = fields.get("runtime", NATIVE)
    if runtime != NATIVE and fields.setdefault("start", Start.SPAWN) is not Start.SPAWN:
        why = f"{runtime} cannot start a copy of pytest, which {origins['start']} asks for"
        raise SpecError(f"{why}; say start=spawn there, or nothing", origin=origins["runtime"])


def _refuse_ports_of_ones_own(fields: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    from pytest_isolate.spec import Network

    if fields.get("ports") and fields.get("network") is Network.HOST:
        why = f"{origins['network']} gives the test all ports of the host"
        raise SpecError(f"{why}; leave ports away, or say network=none", origin=origins["ports"])


def _setting(config: pytest.Config, option: Option) -> _Setting:
    settings = config.stash.setdefault(_SETTINGS, {})
    if option.name not in settings:
        settings[option.name] = _read_setting(config, option)
    return settings[option.name]


def _read_setting(config: pytest.Config, option: Option) -> _Setting:
    raw: object = config.getoption(option.key, None)
    origin = option.flag
    try:
        if raw is None:
            origin = f"ini {option.key}"
            raw = config.getini(option.key)
        if raw is not None:
            return _Setting(option.parse(raw), origin)
        # The Spec has its own defaults; its module stays out of sessions that build none.
        return _Setting(option.parse(option.default) if option.where == SESSION else option.default)
    except (ValueError, TypeError, pytest.UsageError) as error:
        # getini raises these, by pytest's version, for a value of a wrong type.
        fallback = option.parse(option.default) if option.where == SESSION else None
        return _Setting(fallback, origin, str(error))


def _from_markers(option: Option, marker_kwargs: MarkerKwargs) -> _Setting | None:
    for keywords, origin in marker_kwargs:
        if option.name in keywords:
            place = f"{origin}({option.name}=…)"
            try:
                return _Setting(option.parse(keywords[option.name]), place)
            except ValueError as error:
                return _Setting(None, place, str(error))
    return None


def _refuse_unknown(keywords: Mapping[str, object], origin: str) -> None:
    known = {option.name: option for option in OPTIONS}
    allowed = [option.name for option in OPTIONS if "marker" in option.where]
    for name in keywords:
        if name in allowed:
            continue
        if name in known:
            cure = f"it is for the whole session: {known[name].flag} or ini {known[name].key}"
            raise SpecError(f"{name} is not an option of a marker; {cure}", origin=origin)
        import difflib  # only for someone who mistyped

        near = difflib.get_close_matches(name, allowed)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise SpecError(f"unknown option {quoted(name)}; {hint}allowed: {', '.join(allowed)}", origin=origin)


def _anchored(name: str, setting: _Setting, config: pytest.Config) -> Any:
    """Relative paths of a Spec value made absolute, against the rootdir."""
    from pytest_isolate.spec import Bind, PathRootfs

    value = setting.value

    def absolute(path: str) -> str:
        return os.path.normpath(config.rootpath / path)

    if name == "binds":
        return tuple(
            Bind(source=absolute(bind.source), target=bind.target, readonly=bind.readonly) for bind in value
        )
    if name == "workdir":
        return None if value is None else absolute(value)
    if name == "runtime":
        return absolute(value) if "/" in value else value
    if name in ("artifacts", "writes"):
        return tuple(absolute(os.path.expanduser(glob)) for glob in value)
    if isinstance(value, PathRootfs):
        from pytest_isolate.project import find_rootfs

        return find_rootfs(value.path, config, origin=setting.origin)
    return value
