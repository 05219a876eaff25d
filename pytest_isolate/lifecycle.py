"""What the hooks do over a session: from the options to the end of the last sandbox."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_isolate import options
from pytest_isolate.errors import SpecError
from pytest_isolate.marker import spec_for, why_unprotected
from pytest_isolate.runner import FRESH_PLUGIN, JOB_VARIABLE
from pytest_isolate.settings import session_options, wrong_settings

if TYPE_CHECKING:
    from pytest_isolate.runner.capacity import Capacity
    from pytest_isolate.runner.fleet import Fleet
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
_FLEET = pytest.StashKey["Fleet"]()

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
    options = session_options(config)
    try:
        _check(config)
    except pytest.UsageError:
        _empty_records(config)
        raise
    # That a file cannot be written is to be known before tests run; and who asks is answered, whatever runs.
    if options.json_path is not None or options.strict or options.profile:
        _report(config)
    if config.pluginmanager.hasplugin("dsession"):
        _start_controller(config)


def _check(config: pytest.Config) -> None:
    """What would leave a strict session less than that without a word. Raises UsageError."""
    if config.pluginmanager.hasplugin(FRESH_PLUGIN):
        return
    if wrong := wrong_settings(config, ("strict", "escapes_max", "baseline")):
        raise pytest.UsageError("; ".join(wrong))
    options = session_options(config)
    if options.strict and options.off:
        raise pytest.UsageError(
            "--isolate-off and --isolate-strict contradict each other; leave one away, as in "
            "-o isolate_strict=false"
        )
    if config.getoption("isolate_escapes_max") is not None and not options.strict:
        raise pytest.UsageError("--isolate-escapes-max counts escapes from strict; say --isolate-strict too")
    if options.baseline is not None:
        from pytest_isolate.baseline import Baseline, BaselineError

        try:
            Baseline.read(options.baseline)
        except BaselineError as error:
            raise pytest.UsageError(str(error)) from None


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
    if _has_records(config):
        from pytest_isolate import reporters

        reporters.register(config)


def _has_records(config: pytest.Config) -> bool:
    # An xdist worker's reports are collected by its controller; without tests there is nothing to overwrite
    # an earlier run's file with.
    # A fresh interpreter reports to the session that started it.
    is_part = hasattr(config, "workerinput") or config.pluginmanager.hasplugin(FRESH_PLUGIN)
    return not is_part and not config.getoption("collectonly")


def _empty_records(config: pytest.Config) -> None:
    """Of a session that does not come to its tests: an earlier one's would be taken for its own."""
    path = session_options(config).json_path
    if path is not None and _has_records(config):
        from pytest_isolate.reporters.jsonlines import JsonLines

        JsonLines(path)


def warm_up(session: pytest.Session) -> None:
    """What the first isolated test would wait for, while a timeout of another plugin counts already."""
    config = session.config
    if config.getoption("collectonly") or config.pluginmanager.hasplugin(FRESH_PLUGIN):
        return
    plans = [planned(item) for item in session.items]
    specs = [plan for plan in plans if not isinstance(plan, SpecError | None)]
    if specs:
        from pytest_isolate.runner import relay  # noqa: F401

        _fleet(config).session.get_images(specs)


def run_item(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """True if the item was run here, None if it is pytest's."""
    spec = item.stash.get(_SPEC, None)
    if spec is None:
        return None
    from pytest_isolate.runner import relay, worker

    if worker.in_child():
        return None
    fleet = _fleet(item.config)
    fleet.turn_to(item)
    if isinstance(spec, SpecError):
        relay.refuse(item, nextitem, str(spec))
    else:
        relay.run_and_log(fleet, item, nextitem, spec)
    return True


def _fleet(config: pytest.Config) -> Fleet:
    fleet = config.stash.get(_FLEET, None)
    if fleet is None:
        from pytest_isolate.baseline import Baseline
        from pytest_isolate.runner.fleet import Fleet
        from pytest_isolate.runner.session import IsolateSession

        options = session_options(config)
        session = IsolateSession(
            config,
            spec_of=planned,
            fresh_fixtures=options.fresh_fixtures,
            keep=options.keep,
            missing=options.missing,
            capacity=_capacity(config),
            profile=options.profile,
            store=options.store,
            pull=options.pull,
        )
        session.strict = options.strict
        if options.baseline is not None:
            session.baseline = Baseline.read(options.baseline)
        config.add_cleanup(session.close)
        fleet = config.stash[_FLEET] = Fleet(session)
    return fleet


def _capacity(config: pytest.Config) -> Capacity:
    from pytest_isolate.runner.capacity import ONE_BY_ONE, Capacity

    options = session_options(config)
    if options.jobs == 1 or _one_by_one(config):
        return ONE_BY_ONE
    worker = getattr(config, "workerinput", {})
    name = worker.get("workerid", "").removeprefix("gw")
    number = int(name) if name.isdecimal() else 0  # --tx can name a worker
    return Capacity.find(
        options.jobs, options.jobs_memory_bytes, worker=number, workers=worker.get("workercount", 1)
    )


def finish(config: pytest.Config) -> None:
    """The tests are over; a sandbox may still hold fixtures of the last ones."""
    fleet = config.stash.get(_FLEET, None)
    if fleet is not None:
        from pytest_isolate.runner import relay

        relay.finish(fleet)


def header(config: pytest.Config) -> list[str]:
    """Lines at the top when something is switched for the whole session, or wrong."""
    session = session_options(config)
    if session.off:
        return ["isolate: off, nothing is isolated (--isolate-off)"]
    parts = []
    if session.strict:
        parts.append("all tests, as tightly as it goes (--isolate-strict)")
    elif session.isolate_all:
        parts.append("all tests, each in a sandbox of its own (--isolate-all)")
    if session.jobs != 1 and not config.pluginmanager.hasplugin("dsession"):
        why = _one_by_one(config)
        jobs = f"one at a time, for {why}" if why else f"up to {_capacity(config).jobs} at a time"
        parts.append(f"{jobs} (--isolate-jobs)")
    switched = [f"isolate: {', '.join(parts)}"] if parts else []
    return [
        *switched,
        *(f"isolate: {wrong}; isolated tests will be errors" for wrong in wrong_settings(config)),
    ]


def _one_by_one(config: pytest.Config) -> str | None:
    """The option of pytest that is no use where several tests run at a time, if one is on."""
    wanted = {"--pdb": "usepdb", "--trace": "trace", "--setup-show": "setupshow", "--setup-only": "setuponly"}
    return next((flag for flag, name in wanted.items() if config.getoption(name, default=False)), None)
