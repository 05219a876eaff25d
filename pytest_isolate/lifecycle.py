"""What the hooks do over a session: from the options to the end of the last sandbox."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_isolate import options
from pytest_isolate.errors import SpecError
from pytest_isolate.marker import spec_for, why_unprotected
from pytest_isolate.runner import FRESH_PLUGIN, JOB_VARIABLE
from pytest_isolate.settings import session_options

if TYPE_CHECKING:
    from pytest_isolate.runner.session import IsolateSession
    from pytest_isolate.spec import Spec

__all__ = [
    "begin_fresh",
    "configure",
    "configure_node",
    "finish",
    "header",
    "plan_items",
    "planned",
    "refuse_rivals",
    "run_item",
    "start",
    "warm_up",
]

_SPEC: pytest.StashKey[Spec | SpecError] = pytest.StashKey()
_SESSION = pytest.StashKey["IsolateSession"]()

#: Plugins that claim the same names, by the name they register with, and what to uninstall.
RIVALS = {"isolated": "pytest-isolated", "pytest_isolate": "pytest-isolate"}


def refuse_rivals(pluginmanager: pytest.PytestPluginManager) -> None:
    """Two plugins would act on one marker, or argparse would refuse one option twice."""
    for name, distribution in RIVALS.items():
        if pluginmanager.hasplugin(name):
            raise pytest.UsageError(
                f"pytest-isolate-ns and {distribution} claim the same marker or options; "
                f"run: pip uninstall {distribution}"
            )


def begin_fresh(pluginmanager: pytest.PytestPluginManager) -> None:
    """In the fresh interpreter of a test with ``start="spawn"``; elsewhere nothing."""
    if JOB_VARIABLE in os.environ:
        from pytest_isolate.runner import fresh

        fresh.begin(pluginmanager, planned)


def configure(config: pytest.Config) -> None:
    refuse_rivals(config.pluginmanager)
    if config.getoption("forked", default=False):
        raise pytest.UsageError(
            "--forked and pytest-isolate-ns would fork each test twice; run: pip uninstall pytest-forked, "
            "or leave --forked away"
        )
    options.add_markers(config)


def start(config: pytest.Config) -> None:
    """Start the reporters that cannot wait for an isolated item."""
    if session_options(config).json_path is not None:
        _report(config)  # that a file cannot be written is to be known before tests run
    if config.pluginmanager.hasplugin("dsession"):
        _start_controller(config)


def _start_controller(config: pytest.Config) -> None:
    """xdist's controller, before its workers exist: it knows no items yet."""
    from pytest_isolate import reporters
    from pytest_isolate.kernel.cgroups import prepare_leaf

    reporters.register_late(config)
    if not session_options(config).off:
        # On cgroup v2 limits need a cgroup without processes: workers are to be born in the leaf.
        config.add_cleanup(prepare_leaf())


def configure_node(node: Any) -> None:
    """In xdist's controller, for each of its workers."""
    from pytest_isolate.runner import spawn

    spawn.pass_on_arguments(node.config, node.workerinput)


def plan_items(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Find out which items are isolated, and how; what is wrong fails that item when it runs."""
    to_report = False
    for item in items:
        try:
            spec = spec_for(item)
        except SpecError as error:
            item.stash[_SPEC] = error
            continue
        if spec is not None:
            changed = item.ihook.pytest_isolate_modify_spec(item=item, spec=spec)
            item.stash[_SPEC] = changed if changed is not None else spec
            to_report = True
        elif (unprotected := why_unprotected(item)) is not None:
            item.user_properties.append(unprotected)
            to_report = True
    if to_report:
        _report(config)


def planned(item: pytest.Item) -> Spec | SpecError | None:
    """What collection found out: how the item is isolated, what is wrong with that, or None."""
    return item.stash.get(_SPEC, None)


def _report(config: pytest.Config) -> None:
    # An xdist worker's reports are collected by its controller; without tests there is nothing to overwrite
    # an earlier run's file with.
    # A fresh interpreter reports to the session that started it.
    is_part = hasattr(config, "workerinput") or config.pluginmanager.hasplugin(FRESH_PLUGIN)
    if not is_part and not config.getoption("collectonly"):
        from pytest_isolate import reporters

        reporters.register(config)


def warm_up(session: pytest.Session) -> None:
    """What the first isolated test would wait for, while a timeout of another plugin counts already."""
    config = session.config
    if config.getoption("collectonly") or config.pluginmanager.hasplugin(FRESH_PLUGIN):
        return
    if any(not isinstance(planned(item), SpecError | None) for item in session.items):
        from pytest_isolate.runner import relay  # noqa: F401

        _session(config)


def run_item(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """True if the item was run here, None if it is pytest's."""
    spec = item.stash.get(_SPEC, None)
    if spec is None:
        return None
    from pytest_isolate.runner import relay, worker

    if worker.in_child():
        return None
    if isinstance(spec, SpecError):
        relay.refuse(item, nextitem, str(spec))
    else:
        missing = session_options(item.config).missing
        relay.run_and_log(_session(item.config), item, nextitem, spec, missing)
    return True


def _session(config: pytest.Config) -> IsolateSession:
    session = config.stash.get(_SESSION, None)
    if session is None:
        from pytest_isolate.runner.session import IsolateSession

        options = session_options(config)
        session = config.stash[_SESSION] = IsolateSession(
            config, spec_of=planned, fresh_fixtures=options.fresh_fixtures, keep=options.keep
        )
        config.add_cleanup(session.close)
    return session


def finish(config: pytest.Config) -> None:
    """The tests are over; a sandbox may still hold fixtures of the last ones."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        from pytest_isolate.runner import relay

        relay.finish(session)


def header(config: pytest.Config) -> str | None:
    """One line at the top when something is switched for the whole session."""
    session = session_options(config)
    if session.off:
        return "isolate: off, nothing is isolated (--isolate-off)"
    if session.isolate_all:
        return "isolate: all tests, each in a sandbox of its own (--isolate-all)"
    return None
