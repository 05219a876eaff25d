"""``pytest-isolate explain NODEID``: what is done for one test, and what is missing here."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from pytest_isolate import lifecycle, units
from pytest_isolate.errors import ImageError, IsolateError, SpecError
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.marker import isolated_marks, spec_for, why_unprotected
from pytest_isolate.options import MARKER, OPT_OUT_MARKER, OPTIONS, Option
from pytest_isolate.runner.session import IsolateSession
from pytest_isolate.sandbox.confinement import describe as confinement_parts
from pytest_isolate.sandbox.plan import DEFAULT_TMP_SIZE_BYTES, Plan
from pytest_isolate.sandbox.steps import MountBind, describe
from pytest_isolate.settings import session_options
from pytest_isolate.spec import (
    NATIVE,
    Bind,
    Environment,
    EnvMode,
    HostRootfs,
    ImageRootfs,
    Limits,
    PathRootfs,
    PrivateNetwork,
    Spec,
    Start,
)
from pytest_isolate.strict import UMASK
from pytest_isolate.values import Missing

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.store import Image

__all__ = ["explain"]

#: The plugin is imported before pytest is: a warning that filterwarnings=error would make an end of.
NO_REWRITE_WARNING = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"


def explain(nodeid: str, pytest_args: Sequence[str], out: TextIO) -> int:
    """Collect one test and print what is done for it; pytest's exit status if that fails."""
    explainer = _Explainer()
    arguments = [nodeid, "--collect-only", "-qq", "-W", NO_REWRITE_WARNING, *pytest_args]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = int(pytest.main(arguments, plugins=[explainer]))
    if status != 0 or not explainer.lines:
        out.write(printed.getvalue())
        return status
    out.writelines(f"{line}\n" for line in explainer.lines)
    return 0


class _Explainer:
    """A plugin, because a plan is made with the live configuration of a pytest session."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.testsfailed or not session.items:
            return
        item, *others = session.items
        self.lines = [*_explanation(item)]
        if others:
            self.lines += ["", f"{len(others)} more match; name one to see it, as in {others[0].nodeid}"]


def _explanation(item: pytest.Item) -> Iterator[str]:
    if not item.config.pluginmanager.hasplugin("isolate"):
        yield f"{item.nodeid} is not isolated: the plugin is off; leave -p no:isolate away"
        return
    spec = lifecycle.planned(item)
    if spec is None:
        yield from _not_isolated(item)
    elif isinstance(spec, SpecError):
        yield f"{item.nodeid} fails without being run: {spec}"
    else:
        yield from _isolated(item, spec)


def _not_isolated(item: pytest.Item) -> Iterator[str]:
    unprotected = why_unprotected(item)
    if unprotected is None:
        yield f"{item.nodeid} is not isolated: it runs in pytest's own process"
        yield f"mark it with @pytest.mark.{MARKER}, or run pytest with --isolate-all, to isolate it"
        return
    _, reason = unprotected
    if session_options(item.config).off:
        yield f"{item.nodeid} is not isolated: --isolate-off is in force; leave it away to isolate the test"
    else:
        mark = f"@pytest.mark.{OPT_OUT_MARKER}"
        yield f"{item.nodeid} is not isolated: {mark} says {reason!r}; remove the mark to isolate the test"


def _isolated(item: pytest.Item, spec: Spec) -> Iterator[str]:
    yield f"{item.nodeid} runs in a sandbox of its own"
    yield ""
    yield "Options"
    yield from _options(item, spec)
    options = session_options(item.config)
    session = IsolateSession(
        item.config, fresh_fixtures=options.fresh_fixtures, store=options.store, pull=options.pull
    )
    try:
        yield ""
        yield "Fixtures"
        of_pytest, of_sandbox = session.ownership_for(spec).names(item)
        yield f"  set up by pytest, once  {' '.join(of_pytest) or 'none'}"
        yield f"  set up in the sandbox   {' '.join(of_sandbox) or 'none'}"
        try:
            plan, image = session.plan_for(spec), session.image_for(spec)
        except ImageError as error:
            yield ""
            yield f"the root is missing: {error}"
            return
        yield from _root(plan, image)
        number = itertools.count(1)
        yield ""
        if plan.contained:
            yield f"What {spec.runtime} is told, in config.json (pytest-isolate bundle writes it):"
        else:
            yield "The init of the sandbox, its PID 1:"
        yield from (f"{next(number):4}. {text}" for text in _init_steps(plan))
        yield ""
        yield f"The test's process, {'of the container' if plan.contained else 'a fork of pytest'}:"
        child_steps = _child_steps(plan, session.launcher.cgroup_version)
        yield from (f"{next(number):4}. {text}" for text in child_steps)
        yield ""
        yield from _missing(item, session, plan)
    finally:
        session.close()


def _missing(item: pytest.Item, session: IsolateSession, plan: Plan) -> Iterator[str]:
    missing: Sequence[IsolateError]
    try:
        missing = session.unsupported(plan)
    except IsolateError as error:
        missing = [error]
    if not missing:
        yield "nothing that it needs is missing here"
        return
    mode = session_options(item.config).missing.value
    yield f"Missing here, with --isolate-missing={mode}:"
    yield from dict.fromkeys(f"  - {error}" for error in missing)
    if mode == Missing.DEGRADE.value:
        yield ""
        yield from _degraded(session, plan)


def _degraded(session: IsolateSession, plan: Plan) -> Iterator[str]:
    try:
        degraded = session.degrade(plan)
    except IsolateError as error:
        yield f"it fails: {error}"
        return
    confinement = degraded.confinement
    if confinement is None:
        yield "it runs in its namespaces all the same (level namespaces)"
        return
    yield f"it runs at level {confinement.level}; a fork of pytest, in place of the steps above:"
    texts = [*_child_steps(degraded, session.launcher.cgroup_version)]
    yield from (f"{number:4}. {text}" for number, text in enumerate(texts, 1))
    known = set(map(str, session.unsupported(plan)))
    if more := [text for text in degraded.missing if text not in known]:
        yield "and without this, too:"
        yield from (f"  - {text}" for text in more)


# -- options and where they come from -------------------------------------------------------------------


def _options(item: pytest.Item, spec: Spec) -> Iterator[str]:
    shown = [option for option in OPTIONS if "marker" in option.where]
    asked = spec_for(item) or spec
    names = max(len(option.name) for option in shown)
    values = {option.name: _show(option, spec) for option in shown}
    width = max(map(len, values.values()))
    for option in shown:
        origin = _origin(option, item)
        if _value(option, spec) != _value(option, asked):
            origin = "hook pytest_isolate_modify_spec"
        elif spec.strict and (option.name == "watch" or (option.name in ("fixtures", "env") and not origin)):
            origin = "because of --isolate-strict"
        elif option.name == "swap" and not origin and spec.limits.memory_bytes is not None:
            origin = "because memory is capped"
        elif option.name == "start" and not origin and spec.runtime != NATIVE:
            origin = "because a runtime is named"
        yield f"  {option.name:{names}}  {values[option.name]:{width}}  {origin or 'default'}"


def _origin(option: Option, item: pytest.Item) -> str:
    if any(option.name in mark.kwargs for mark in isolated_marks(item)):
        return f"@pytest.mark.{MARKER}({option.name}=…)"
    if item.config.getoption(option.key, None) is not None:
        return option.flag
    return f"ini {option.key}" if item.config.getini(option.key) is not None else ""


def _value(option: Option, spec: Spec) -> Any:
    owner, _, name = option.field.rpartition(".")
    return getattr(spec.limits if owner else spec, name)


def _show(option: Option, spec: Spec) -> str:
    value = _value(option, spec)
    _, _, field = option.field.rpartition(".")
    match value:
        case None if field == "tmp_size_bytes":
            return units.format_size(DEFAULT_TMP_SIZE_BYTES)
        case None if field == "workdir":
            return "image"
        case None:
            return "no cap"
        case bool():
            return "yes" if value else "no"
        case Enum() | PrivateNetwork():
            return str(value.value)
        case HostRootfs():
            return "host"
        case PathRootfs(path, name):
            return name or path
        case ImageRootfs(name):
            return name
        case Environment():
            return _environment(value)
        case tuple():
            return " ".join(map(_entry, value)) or "none"
        case _:
            return _quantity(field, value)


def _quantity(field: str, value: Any) -> str:
    if field.endswith("_bytes"):
        return units.format_size(value)
    if field.endswith("_s"):
        return units.format_duration(value)
    return units.format_cpus(value) if field == "cpus" else str(value)


def _entry(entry: object) -> str:
    match entry:
        case Bind():
            return _bind(entry)
        case Enum():
            return str(entry.value)
        case (name, address):
            return f"{name}={address}"
        case _:
            return str(entry)


def _bind(bind: Bind) -> str:
    return f"{bind.source}:{bind.target}:{'ro' if bind.readonly else 'rw'}"


def _environment(env: Environment) -> str:
    changes = (f"-{name}" if value is None else f"{name}={value}" for name, value in env.changes)
    return " ".join([env.mode.value, *changes])


# -- the root -------------------------------------------------------------------------------------------


def _root(plan: Plan, image: Image | None) -> Iterator[str]:
    """Of a root that is not the host's: what it is made of, and what of it the host's files hide."""
    if isinstance(plan.spec.rootfs, HostRootfs):
        return
    yield ""
    yield "Root"
    if image is not None:
        count = len(image.layers)
        yield f"  image {image.name} ({image.digest}, {count} layer{'s' * (count != 1)})"
        if image.skipped:
            yield f"  left away when it was unpacked: {', '.join(image.skipped)}"
    yield "  lent by the host:"
    lent = [step for step in plan.steps if isinstance(step, MountBind)]
    width = max((len(_lending(step)) for step in lent), default=0)
    for step in lent:
        hides = "hides what the root has there" if plan.tree.find(step.target) else ""
        yield f"    {_lending(step):{width}}  {hides}".rstrip()


def _lending(step: MountBind) -> str:
    source = step.source if step.source == step.target else f"{step.source} at {step.target}"
    return f"{source}{'' if step.readonly else ', writable'}"


# -- steps ----------------------------------------------------------------------------------------------


def _init_steps(plan: Plan) -> Iterator[str]:
    late = {Namespace.CGROUP} if plan.user_first else {Namespace.CGROUP, Namespace.USER}
    yield f"create the namespaces: {_names(plan.namespaces - late)}"
    for step in plan.steps:
        yield describe(step)


def _child_steps(plan: Plan, cgroup_version: str | None) -> Iterator[str]:
    """As native/enter.c and sandbox/enter.py do it."""
    limits = plan.limits
    caps = _cgroup_limits(limits)
    if cgroup_version is not None:
        yield f"join a cgroup ({cgroup_version}) of its own: {', '.join(caps) or 'no limits, only measured'}"
    elif caps:
        yield f"join a cgroup of its own: {', '.join(caps)}"
    if plan.namespaces:
        yield f"enter the namespaces: {_names(plan.namespaces - {Namespace.CGROUP})}"
    if Namespace.CGROUP in plan.namespaces:
        yield "enter a cgroup namespace whose root is that cgroup"
    if plan.capabilities is None:
        yield "keep all capabilities"
    elif not plan.capabilities:
        yield "drop all capabilities"
    else:
        kept = " ".join(capability.name.lower() for capability in sorted(plan.capabilities))
        yield f"drop all capabilities but {kept}"
    yield "set no_new_privs"
    if plan.confinement is not None:
        yield from confinement_parts(plan.confinement)
    if plan.filtered:
        yield "install the filter of system calls (seccomp)"
    if limits.files is not None:
        yield f"limit each process to {limits.files} open files"
    if limits.cpu_time_s is not None:
        yield f"limit processor time to {units.format_duration(limits.cpu_time_s)}"
    yield f"change to the directory {plan.cwd}"
    if plan.spec.strict:
        yield f"set the umask to {UMASK:03o}"
    yield from _environment_steps(plan)
    deadline = (
        f", for {units.format_duration(limits.timeout_s)} at most" if limits.timeout_s is not None else ""
    )
    if plan.spec.start is Start.SPAWN:
        yield f"become a fresh interpreter: {' '.join([*plan.loader, sys.executable, '-m', 'pytest'])} …"
        yield "collect the file of the test"
    yield f"run setup, call and teardown of the test{deadline}"


def _environment_steps(plan: Plan) -> Iterator[str]:
    env = plan.spec.env
    if env.mode is EnvMode.CLEAN:
        yield "remove all environment variables but the few that pytest needs; set LANG and TZ"
    changes = dict((*plan.environ, *env.changes))
    removed = [name for name, value in changes.items() if value is None]
    if removed:
        yield f"remove the environment variable{'s' * (len(removed) > 1)} {' '.join(removed)}"
    yield from (f"set {name}={value}" for name, value in changes.items() if value is not None)


def _cgroup_limits(limits: Limits) -> list[str]:
    wanted = {
        "memory": limits.memory_bytes and units.format_size(limits.memory_bytes),
        "swap": None if limits.swap_bytes is None else units.format_size(limits.swap_bytes),
        "processors": limits.cpus and units.format_cpus(limits.cpus),
        "processes": limits.pids,
    }
    return [f"{name} {value}" for name, value in wanted.items() if value is not None]


def _names(namespaces: frozenset[Namespace]) -> str:
    return " ".join(n.value for n in Namespace if n in namespaces)
