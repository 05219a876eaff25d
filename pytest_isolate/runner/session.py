"""One pytest session's isolation: what is made on the first isolated test and closed at the end."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_isolate.baseline import Baseline
from pytest_isolate.errors import IsolateError, SpecError, UnsupportedError
from pytest_isolate.kernel.features import explain_failure
from pytest_isolate.kernel.host import Host
from pytest_isolate.kernel.loader import find_loader
from pytest_isolate.kernel.namespaces import Namespace
from pytest_isolate.kernel.readback import namespace_inodes
from pytest_isolate.runner import carry, pytest_private
from pytest_isolate.runner.capacity import ONE_BY_ONE, Capacity
from pytest_isolate.runner.fixtures import Ownership, sandbox_node
from pytest_isolate.runner.observe import Observers
from pytest_isolate.sandbox import confinement
from pytest_isolate.sandbox.launch import Launcher
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.sandbox.plan import Plan, make_plan, seen_as
from pytest_isolate.sandbox.private import address_of
from pytest_isolate.spec import NATIVE, HostRootfs, Network, PrivateNetwork, Spec, Start
from pytest_isolate.values import Keep, Missing, Pull

if TYPE_CHECKING:
    from pytest_isolate.sandbox.images.progress import Progress
    from pytest_isolate.sandbox.images.resolve import Images
    from pytest_isolate.sandbox.images.store import Image

__all__ = ["IsolateSession", "workspace_of"]


#: Sandboxes that wait for tests, of one kind.
MOST_MADE_AHEAD = 4


class IsolateSession:
    """Plans and starts the sandboxes of one session."""

    def __init__(
        self,
        config: pytest.Config,
        *,
        spec_of: Callable[[pytest.Item], object] = lambda item: None,
        fresh_fixtures: tuple[str, ...] = (),
        keep: Keep = Keep.NEVER,
        missing: Missing = Missing.FAIL,
        capacity: Capacity = ONE_BY_ONE,
        profile: bool = False,
        store: Path | None = None,
        pull: Pull = Pull.MISSING,
    ) -> None:
        self.config = config
        self.spec_of = spec_of
        self.keep = keep
        self.missing = missing
        self.capacity = capacity
        self.profile = profile
        self.strict = False
        self.baseline = Baseline()
        self._store = store
        self._pull = pull
        self._closing = contextlib.ExitStack()
        #: Those around all tests: this is made when none runs.
        self.warning_filters: list[Any] = [*warnings.filters]
        self._seed: int | None = None
        Observers.of(config)  # while there is nobody yet who would have to copy it
        self._fresh_fixtures = fresh_fixtures
        self._ownerships: dict[Spec, Ownership] = {}
        self._places: dict[pytest.Item, int] = {}
        self._peers: dict[PrivateNetwork, dict[str, str]] = {}
        self.host = Host()
        self.launcher = Launcher(self.host)
        self.inodes = namespace_inodes()
        self._plans: dict[tuple[Spec, str], Plan] = {}
        self._degraded: dict[int, Plan] = {}
        self._confined_tmp: set[str] = set()
        # A collection while a child lives would touch, and so have the kernel copy, every object there is:
        # 17 ms at 43 MB, 790 ms at 1 GB. What exists before the first fork is exempted until the tests are
        # over; not in the children, whose tests may look at it.
        gc.freeze()

    def plan_for(self, spec: Spec) -> Plan:
        """Made once per Spec and working directory. SpecError for what no option of a user comes to."""
        if spec.runtime != NATIVE and spec.start is not Start.SPAWN:
            raise SpecError(f"runtime={spec.runtime!r} needs start=Start.SPAWN", origin="Spec")
        key = (spec, os.getcwd())
        if key not in self._plans:
            workspace = workspace_of(self.config, spec)
            self._plans[key] = make_plan(spec, self.host, workspace, self.image_for(spec))
        return self._plans[key]

    def image_for(self, spec: Spec) -> Image | None:
        """None if the root is the host's or a plain directory. Raises ImageError."""
        image = None if isinstance(spec.rootfs, HostRootfs) else self._images.get(spec.rootfs)
        if image is None or image.ids is None:
            return image
        return self._images.seen_as(image, seen_as(spec, self.host, image))

    def get_images(self, specs: Iterable[Spec]) -> None:
        """Have images ready before a test's time counts; what goes wrong is told by those who use them."""
        for spec in {(spec.rootfs, spec.user): spec for spec in specs}.values():
            with contextlib.suppress(IsolateError):
                self.image_for(spec)

    @cached_property
    def _images(self) -> Images:
        # Only for those who use images: tarfile and its kind take 15 ms.
        from pytest_isolate.sandbox.images.holds import Holds
        from pytest_isolate.sandbox.images.resolve import Images
        from pytest_isolate.sandbox.images.store import Store

        holds = Holds()
        self._closing.callback(holds.close)
        return Images(Store(self._store, holds), self._pull, self._progress)

    def _progress(self, name: str) -> contextlib.AbstractContextManager[Progress | None]:
        from pytest_isolate.sandbox.images.progress import ProgressLine

        file = pytest_private.terminal_file(self.config)
        return contextlib.nullcontext() if file is None else ProgressLine(file, name)

    @cached_property
    def basetemp(self) -> str:
        """Where what tests leave is kept: as long as pytest keeps what they leave in ``tmp_path``."""
        directory = pytest_private.ensure_basetemp(self.config)
        return os.fspath(directory) if directory is not None else tempfile.mkdtemp(prefix="pytest-isolate-")

    def place(self, item: pytest.Item) -> int:
        """Among the session's items; of one that is none, past the last."""
        items = item.session.items
        place = self._places.get(item, len(items))
        if items[place : place + 1] != [item]:  # plugins may change the list as the session goes on
            self._places = {each: place for place, each in enumerate(items)}
            place = self._places.get(item, len(items))
        return place

    def ownership_for(self, spec: Spec) -> Ownership:
        """Made once per Spec."""
        if spec not in self._ownerships:
            self._ownerships[spec] = Ownership(spec, self._fresh_fixtures)
        return self._ownerships[spec]

    def peers(self, item: pytest.Item, network: Network | PrivateNetwork) -> dict[str, str]:
        """Addresses of the tests of a private network, by node id."""
        if not isinstance(network, PrivateNetwork):
            return {}
        if network not in self._peers:
            found: dict[str, str] = {}
            first: dict[Any, int] = {}  # of the tests that share a sandbox
            for place, each in enumerate(item.session.items):
                spec = self.spec_of(each)
                if isinstance(spec, Spec) and spec.network == network:
                    node = sandbox_node(each, spec.scope)
                    found[each.nodeid] = address_of(first.setdefault(node, place))
            self._peers[network] = found
        return self._peers[network]

    def random_state(self, item: pytest.Item) -> Any:
        """The state of ``random`` for a test: pytest's own.

        Tests that run side by side get one each, which depends on pytest's and not on their timing.
        """
        if self.capacity.jobs == 1:
            return random.getstate()
        if self._seed is None:
            copy = random.Random()
            copy.setstate(random.getstate())
            self._seed = copy.getrandbits(64)
        return random.Random(f"{self._seed} {item.nodeid}").getstate()

    def make_ahead(self, item: pytest.Item) -> None:
        """Have the sandbox for ``item`` made while another test runs.

        Not if it is the first of its Spec, which may have fixtures that make what it binds.
        """
        spec = self.spec_of(item)
        plan = self._plans.get((spec, os.getcwd())) if isinstance(spec, Spec) else None
        if plan is not None:
            count = min(self.capacity.jobs, MOST_MADE_AHEAD)
            self.launcher.prepare(self._degraded.get(id(plan), plan), count)

    def unsupported(self, plan: Plan) -> list[UnsupportedError]:
        """Everything that this machine lacks for a plan, found out by trying."""
        runtime = self.launcher.missing_runtime(plan)
        missing = [*filter(None, (runtime, *self.launcher.missing_limits(plan).values()))]
        failure = self.launcher.trial(plan) if plan.steps and runtime is None else None
        if failure is not None:
            missing.append(explain_failure(failure.step, failure.errno, self.host))
        return missing

    def degrade(self, plan: Plan) -> Plan:
        """The plan without what this machine lacks, which it then names."""
        if id(plan) not in self._degraded:
            self._degraded[id(plan)] = self._without_missing(plan)
        return self._degraded[id(plan)]

    def _without_missing(self, plan: Plan) -> Plan:
        limits: dict[str, UnsupportedError] = self.launcher.missing_limits(plan)
        if not self.unsupported(plan):
            return plan
        names = tuple(str(error) for error in self.unsupported(plan))
        if self.launcher.missing_runtime(plan) is not None:
            native = self._without_missing(self.plan_for(replace(plan.spec, runtime=NATIVE)))
            return replace(native, missing=tuple(dict.fromkeys((*names, *native.missing))))
        kept = replace(plan.limits, **dict.fromkeys(limits), **_swap_too(limits))
        degraded = replace(plan, spec=replace(plan.spec, limits=kept), missing=names)
        failure = self.launcher.trial(plan)
        if failure is None:
            return degraded
        why = explain_failure(failure.step, failure.errno, self.host)
        if plan.spec != Spec() and self.launcher.trial(self.plan_for(Spec())) is None:
            raise why  # others get their namespaces here: it is about what this test asks for
        return self._confined(degraded, why)

    def _confined(self, plan: Plan, why: UnsupportedError) -> Plan:
        """With what there is in the place of namespaces, which this machine lacks for the reason ``why``.

        Raises UnsupportedError if that would not do.
        """
        spec = plan.spec
        if (error := confinement.refusal(spec, self.host, why)) is not None:
            raise error
        confined = confinement.best(spec, self.basetemp)
        self._confined_tmp.add(confined.tmp)
        os.makedirs(confined.tmp, mode=0o700, exist_ok=True)
        return replace(
            plan,
            namespaces=frozenset[Namespace](),
            user_first=False,
            steps=(),
            capabilities=confinement.kept_capabilities(spec, self.host),
            cwd=spec.workdir or os.getcwd(),
            environ=(),
            libraries=(),
            confinement=confined,
            missing=(*plan.missing, *map(str, confinement.lacks(spec, confined))),
        )

    def sweep(self) -> None:
        """Temporary files of tests without namespaces that are over."""
        confinement.sweep(self._confined_tmp)

    def why_skipped(self, spec: Spec) -> str:
        """What this machine lacks for a test, if such tests are skipped. What is wrong with what it asks for,
        as with an image, is its error when it runs."""
        if self.missing is not Missing.SKIP:
            return ""
        try:
            return "; ".join(map(str, self.unsupported(self.plan_for(spec))))
        except UnsupportedError as error:
            return str(error)
        except (IsolateError, OSError):
            return ""

    def end_forking(self) -> None:
        """The last test is over: whoever looks at objects now (``gc.get_referrers``) is to see all again."""
        gc.unfreeze()

    def close(self) -> None:
        self.launcher.close()
        self._closing.close()
        self.sweep()
        for directory in self._confined_tmp:
            with contextlib.suppress(OSError):  # not empty: this is a test's process, or one is still there
                os.rmdir(directory)


def _swap_too(limits: dict[str, UnsupportedError]) -> dict[str, None]:
    return {"swap_bytes": None} if "memory_bytes" in limits else {}


def workspace_of(config: pytest.Config, spec: Spec) -> Workspace:
    """The host paths that this run of pytest lives in, as a test of this Spec needs them."""
    basetemp = pytest_private.ensure_basetemp(config)
    project = {str(config.rootpath), str(config.invocation_params.dir)}
    for argument in config.args:
        path = os.path.abspath(config.invocation_params.dir / argument.split("::")[0])
        if os.path.exists(path):
            project.add(path if os.path.isdir(path) else os.path.dirname(path))
    return Workspace(
        cwd=os.getcwd(),
        project=tuple(sorted(project)),
        interpreter=_interpreter(),
        writable=(str(basetemp),) if basetemp is not None else (),
        tools=tuple(carry.storage()) if spec.strict else (),
        commands=os.path.dirname(os.path.abspath(sys.executable)),
        loader=None if isinstance(spec.rootfs, HostRootfs) else find_loader(sys.executable),
    )


def _interpreter() -> tuple[str, ...]:
    """What Python is made of, without whole trees like /usr that hold much else."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {sys.prefix, sys.base_prefix, *_links(sys.executable)}
    paths |= {os.path.abspath(entry) for entry in sys.path if entry}
    return tuple(sorted(path for path in paths if path not in ("/", "/usr") and os.path.exists(path)))


def _links(path: str) -> Iterator[str]:
    """``path``, and what it links to, up to the file."""
    yield path
    while os.path.islink(path):
        path = os.path.join(os.path.dirname(path), os.readlink(path))
        yield path
    yield os.path.realpath(path)
